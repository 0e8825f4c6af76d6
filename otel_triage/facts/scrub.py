"""Takes secrets, personal data and echoes of the prompt out of what we write ourselves.

The user's own fields are never touched; this is for our attributes, events, logs and stored
examples. Scrubbing twice is scrubbing once.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

SECRET: Final = "[secret]"
EMAIL: Final = "[email]"
ECHO: Final = "[prompt]"

_LONGEST: Final = 20_000
_PASSES: Final = 8  # what one pass puts in place may complete a field for the next


@dataclass(frozen=True, slots=True)
class _Scrubber:
    """One thing to take out. A text without a hint is not searched: `in` is fast, a pattern is slow."""

    hints: tuple[str, ...]
    pattern: re.Pattern[str]
    replacement: str

    def __call__(self, text: str) -> str:
        if any(hint in text for hint in self.hints):
            return self.pattern.sub(self.replacement, text)
        return text


_SCRUBBERS: Final = (
    # Fields in which providers and libraries print the conversation back.
    _Scrubber(
        ("content", "prompt", "text", "input", "arguments", "system", "query"),
        re.compile(
            # An echo that was cut has no closing quote. Possessive and bounded, so that it stays linear.
            r"""(?P<name>["'](?:content|prompt|text|input|arguments|input_value|system|query)["']\s{0,8}:\s{0,8})"""
            r"""(?P<quote>["'])(?!\[prompt\])(?:\\.|(?!(?P=quote))[^\\])*+(?:(?P=quote)|\\?\Z)""",
            re.DOTALL,
        ),
        rf"\g<name>\g<quote>{ECHO}\g<quote>",
    ),
    _Scrubber(
        ("\\",),
        re.compile(
            r"""(?P<name>(?<!\\)\\{1,8}+["'](?:content|prompt|text|input|arguments|input_value|system|query)\\{1,8}+["']\s{0,8}:\s{0,8})"""
            r"""(?P<quote>\\{1,8}+["'])(?!\[prompt\])(?:(?!(?<!\\)(?P=quote)).)*+(?:(?P=quote)|\Z)""",
            re.DOTALL,
        ),
        rf"\g<name>\g<quote>{ECHO}\g<quote>",
    ),
    # pydantic prints the rejected value: "[type=…, input_value='…', input_type=str]"
    _Scrubber(
        ("input_value=",),
        re.compile(
            r"""input_value=(?!\[prompt\])"""
            r"""(?:'(?:\\.|[^'\\])*+'|"(?:\\.|[^"\\])*+"|.{0,2000}?)(?=, input_type=)""",
            re.DOTALL,
        ),
        f"input_value={ECHO}",
    ),
    # Keys and tokens, in the forms that their issuers document.
    _Scrubber(
        ("sk-", "sk_", "pk-", "pk_", "rk-", "rk_"),  # OpenAI, Anthropic, Stripe and many more
        re.compile(r"\b(?:sk|pk|rk)[-_](?:[A-Za-z0-9]+[-_])*[A-Za-z0-9*_\-]{8,}"),
        SECRET,
    ),
    _Scrubber(("AIza",), re.compile(r"\bAIza[0-9A-Za-z_\-]{20,}"), SECRET),  # Google
    _Scrubber(
        ("gsk", "xai", "hf", "r8", "pplx", "nvapi", "fw", "csk"),
        re.compile(r"\b(?:gsk|xai|hf|r8|pplx|nvapi|fw|csk)[-_][A-Za-z0-9_\-]{16,}"),
        SECRET,
    ),
    _Scrubber(
        ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
        re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,})"),
        SECRET,
    ),
    _Scrubber(("xox",), re.compile(r"\bxox[abeoprs]-[A-Za-z0-9\-]{10,}"), SECRET),  # Slack
    _Scrubber(("AKIA", "ASIA"), re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"), SECRET),  # AWS
    _Scrubber(  # JSON web token
        ("eyJ",), re.compile(r"\beyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]*"), SECRET
    ),
    _Scrubber(("earer ",), re.compile(r"(?<=[Bb]earer )(?!\[)[A-Za-z0-9._~+/\-]{8,}=*"), SECRET),
    _Scrubber(("Basic ",), re.compile(r"(?<=Basic )(?=\S*[A-Z0-9=])[A-Za-z0-9+/]{8,}=*"), SECRET),
    _Scrubber(("://",), re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"), SECRET),  # user:password@
    _Scrubber(
        ("=",),
        re.compile(
            r"""(?P<name>(?:key|token|sig|signature|secret|password)=)(?!\[)[^&\s"']{4,}""", re.IGNORECASE
        ),
        rf"\g<name>{SECRET}",
    ),
    # People and accounts.
    _Scrubber(
        ("@",),
        # Lengths as in RFC 5321, 4.5.3.1, and RFC 1035, 2.3.4: they keep the search linear.
        re.compile(r"[A-Za-z0-9._%+\-]{1,64}@[A-Za-z0-9\-]{1,63}(?:\.[A-Za-z0-9\-]{1,63}){1,8}"),
        EMAIL,
    ),
    _Scrubber(
        ("org", "proj", "user", "acct"),
        re.compile(r"\b(org|proj|user|acct)[-_][A-Za-z0-9]{12,}"),
        r"\1-[id]",
    ),
)

_WINDOW: Final = 8
_ECHO_LENGTH: Final = 2 * _WINDOW
_PROMPT_LIMIT: Final = 400_000


def scrub(text: str) -> str:
    """`text` without keys, tokens, addresses of people, and fields that hold conversation.

    What is longer than 20,000 characters is cut there: nothing that we write is longer, and
    foreign text must not cost more than it is worth.
    """
    text = text[:_LONGEST]
    for _ in range(_PASSES):
        before = text
        for scrubber in _SCRUBBERS:
            text = scrubber(text)
        if text == before:
            break
    return text[:_LONGEST]


# Keys whose values are the request's settings, which an error message rightly names.
_SETTINGS: Final = frozenset({"model", "role", "type", "name", "id", "tool_choice", "service_tier", "format"})


def _strings(data: Any, depth: int = 12) -> Iterator[str]:
    if isinstance(data, str):
        if len(data) >= _ECHO_LENGTH:
            yield data
    elif depth > 0 and isinstance(data, dict):
        for key, value in data.items():
            if key not in _SETTINGS:
                yield from _strings(value, depth - 1)
    elif depth > 0 and isinstance(data, list):
        for value in data:
            yield from _strings(value, depth - 1)


def prompt_text(body: object) -> str:
    """All that the application said in a decoded request body, as one text to compare with."""
    return "\n".join(_strings(body))[:_PROMPT_LIMIT]


def with_escapes(prompt: str) -> str:
    """The prompt, and how it looks inside JSON and HTML, in lower case: providers print any of these."""
    forms = (prompt, json.dumps(prompt)[1:-1], html.escape(prompt))
    return "\n".join(dict.fromkeys(forms)).lower()


def drop_echo(text: str, prompt: str) -> str:
    """`text` with each run of 16 characters or more that it shares with the prompt taken out, in any case.

    Such a run covers one whole window of eight characters, so that looking for windows and
    growing what is found sees every echo without comparing all with all.

    Args:
        text: What is to be written.
        prompt: What the application said, as `with_escapes` gives it.
    """
    low = text.lower()
    if not prompt or len(low) != len(text):  # a letter whose lower case is two
        low = text
    kept: list[str] = []
    start = at = 0
    while prompt and at + _WINDOW <= len(low):
        found = prompt.find(low[at : at + _WINDOW])
        if found < 0:
            at += _WINDOW
            continue
        first, last = _grow(low, prompt, at, found, start)
        if last - first < _ECHO_LENGTH:
            at += _WINDOW
            continue
        kept += [text[start:first], ECHO]
        start = at = last
    return "".join(kept) + text[start:]


def _grow(text: str, prompt: str, at: int, found: int, floor: int) -> tuple[int, int]:
    """The longest shared run around a shared window, over the places where the window occurs."""
    best = (at, at + _WINDOW)
    for _ in range(20):
        first, there = at, found
        while first > floor and there > 0 and text[first - 1] == prompt[there - 1]:
            first, there = first - 1, there - 1
        last, there = at + _WINDOW, found + _WINDOW
        while last < len(text) and there < len(prompt) and text[last] == prompt[there]:
            last, there = last + 1, there + 1
        if last - first > best[1] - best[0]:
            best = (first, last)
        found = prompt.find(text[at : at + _WINDOW], found + 1)
        if found < 0:
            break
    return best


def decode_body(content: bytes) -> Any:
    """A request body as data, or None where it is not JSON."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None
