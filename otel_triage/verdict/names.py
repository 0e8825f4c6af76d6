"""The names and words of an error in the one form that rules know."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import Final

from otel_triage.verdict import data

NO_STATUS: Final = 0
"""How a rule's `status = ["none"]` and an error without a status are kept."""

LOCAL: Final = 1
"""The same for `"local"`: no status, no code, and an exception class of the language itself."""

_HEAD: Final = 4000
_TAIL: Final = 1000
# Classes that a text begins with ("litellm.RateLimitError: OpenAIException - …") or that tenacity's
# RetryError names ("RetryError[<Future at 0x1 state=finished raised APITimeoutError>]"); Python's repr too.
_NAMED: Final = re.compile(
    r"(?:^|: |state=finished raised )(?:[A-Za-z_]\w{0,30}(?:\.|::|\\)){0,6}"
    r"([A-Z]\w{2,60}(?:Error|Exception|Timeout))(?=:| - |>|\]|$|\(['\"])"
)
_PREFIXES: Final = 300
SPOKEN_CODE: Final = re.compile(
    r"(?<![a-z0-9])(?:[a-z0-9]{1,40}(?:[._-][a-z0-9]{1,40}){1,8}|[a-z]{12,60}|[a-z]{2,20}\d{1,8}[a-z0-9]{0,20})"
)
"""A code that no other trade has: several words in one, or one long one ("throttlingexception").

It decides whoever the provider is, and also inside a text.
"""


def plain(text: str) -> str:
    """The form of a text that keywords and patterns see: lower case, single spaces, no escapes.

    Of a long text the first 4000 and the last 1000 characters count.
    """
    if len(text) > _HEAD + _TAIL:
        text = f"{text[:_HEAD]} {text[-_TAIL:]}"
    if "\\" in text:
        text = text.replace("\\n", " ").replace("\\", "")
    return " ".join(text.replace("\u2019", "'").lower().split())


_PARAM: Final = re.compile(r"[a-z_]\w*")


def param_names(param: str) -> frozenset[str]:
    """A parameter's path and the name that it begins with, in lower case.

    `messages[0].content` is `messages` as well, and so is FastAPI's `body.messages.0.content`.
    """
    path = param.strip().lower().removeprefix("body.")
    begins = _PARAM.match(path)
    return frozenset((path, begins[0])) if begins else frozenset((path,))


_PATH: Final = re.compile(r"[.:$\\\\]+")


@lru_cache(maxsize=1024)
def short(name: str) -> str:
    """The last part of a class's path: `a.B`, Ruby's `A::B`, PHP's with backslashes, Java's inner `A$B`."""
    return _PATH.split(name)[-1]


_SUFFIX: Final = re.compile(r"(?:Error|Exception|Failure|Warning)$")
_CAPITALS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z][a-z0-9]+")


@lru_cache(maxsize=1024)
def families(name: str) -> tuple[str, ...]:
    """What a class calls itself at its end, in one, two and three words.

    `*Exceeded`, `*LimitExceeded` and `*RateLimitExceeded` of `RateLimitExceededError`; nothing for a
    name of another kind.
    """
    stem = _SUFFIX.sub("", short(name))
    if stem == short(name) and not stem.endswith("Exceeded"):
        return ()
    words = _CAPITALS.findall(stem)[-3:]
    return tuple("*" + "".join(words[at:]) for at in range(len(words)))


@cache
def statuses() -> dict[str, int]:
    """The status that an exception class stands for; `LOCAL` for those of the language itself."""
    found: dict[str, int | str] = data.load()["statuses"]
    return {name: LOCAL if status == "local" else int(status) for name, status in found.items()}


_CLASS: Final = re.compile(r"(?:\w{1,40}(?:\.|::)){0,8}([A-Z]\w{2,60}(?:Error|Exception))")


def class_in(word: str) -> str:
    """The exception class, without its module, that a code or type of a body is; else empty."""
    found = _CLASS.fullmatch(word)
    return found[1] if found else ""


def named_classes(text: str) -> list[str]:
    """The exception classes that a text begins with, without their modules."""
    return _NAMED.findall(text[:_PREFIXES])
