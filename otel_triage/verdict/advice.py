"""The two texts of a verdict, and the wait that a provider states.

The texts are templates in `advice.toml`, one a reason and language. They are filled from
facts only, never from the error's message, so that nothing a user wrote can reach a page or
a chat channel through them.
"""

from __future__ import annotations

import math
import re
from functools import cache, lru_cache
from typing import Any, Final

from otel_triage.model import LLMError, Retryable
from otel_triage.verdict import data
from otel_triage.verdict.names import plain

LIMIT: Final = 200
"""Characters of a text at most."""

LONG_WAIT_S: Final = 300.0
"""A stated wait above this many seconds turns `yes` into `later`."""

_OPTIONAL: Final = re.compile(r"\[([^\[\]]*)\]")
_PLACE: Final = re.compile(r"\{(\w+)\}")
# Names come from outside: what could be markup or a link is treated as unknown.
_NAME: Final = re.compile(r"[A-Za-z0-9](?:[\w.:+@-]|/(?!/)){0,59}", re.ASCII)

_UNIT_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SPAN: Final = re.compile(
    r"(\d+(?:\.\d+)?)\s?(ms|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?)(?![a-z])"
)
_STATED: Final = re.compile(
    r"(?:(?:try(?:ing)? again|retry(?:ing)?|resets?|wait) ?(?:in|after|for)?|retry-?delay\W{1,5})"
    r" ?((?:\d{1,7}(?:\.\d{1,6})?\s?[a-z]{1,12}\s?){1,4})"
)
_LIMITS: Final = {"rate_limit/requests": "requests", "rate_limit/tokens": "tokens"}


def _seconds(text: str) -> float | None:
    """`6m0s`, `18.642s` or `5 minutes` in seconds."""
    found = [float(number) * _unit_s(unit) for number, unit in _SPAN.findall(text)]
    return sum(found) if found else None


def _unit_s(unit: str) -> float:
    return _UNIT_S["ms" if unit.startswith(("ms", "milli")) else unit[0]]


def wait_in(message: str | None) -> float | None:
    """The wait that a message states ("try again in 6m0s"), in seconds; None if it states none."""
    text = plain(message or "")
    if "again" not in text and "retry" not in text and "reset" not in text and "wait" not in text:
        return None
    stated = _STATED.search(text)
    return _seconds(stated[1]) if stated else None


def stated_wait_s(error: LLMError, key: str) -> float | None:
    """How long the provider says to wait before the next try, in seconds.

    The `retry-after` header first, then the reset time of the limit that `key`
    (`category/reason`) names or that has nothing left, then the message.
    """
    if error.retry_after_s is not None and 0 <= error.retry_after_s < math.inf:
        return error.retry_after_s
    if key.startswith("rate_limit/"):
        for kind in ("requests", "tokens"):
            reset = getattr(error, f"{kind}_reset_s")
            spent = getattr(error, f"{kind}_remaining") == 0
            if reset is not None and 0 <= reset < math.inf and (spent or _LIMITS.get(key) == kind):
                return float(reset)
    return wait_in(error.message)


def for_people(seconds: float) -> str:
    """A wait as a person would say it: `19 s`, `6 min`, `24 h`."""
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    if seconds < 6000:
        return f"{round(seconds / 60)} min"
    return f"{round(seconds / 3600)} h"


def cut(text: str) -> str:
    """At most `LIMIT` characters, cut between words."""
    if len(text) <= LIMIT:
        return text
    return text[: LIMIT - 1].rpartition(" ")[0].rstrip(" ,;:(") + "\u2026"


@cache
def _texts() -> dict[str, Any]:
    found: dict[str, Any] = data.load()["advice"]
    return found


@cache
def _words() -> frozenset[str]:
    """The words of all languages that stand in for a name that is not known."""
    return frozenset(word for table in _texts().values() for word in table.get("words", {}).values())


def _facts(error: LLMError, wait_s: float | None, words: dict[str, str]) -> dict[str, str]:
    """The facts that templates may use, as text; those that are not known are not there."""
    facts = dict(words)
    provider = (error.provider or "").lower()
    names = {
        "provider": _texts()["names"].get(provider, error.provider),
        "model": error.model,
        "code": error.code,
    }
    for name, value in names.items():
        if value and _NAME.fullmatch(value.replace(" ", "-")):
            facts[name] = value
    for name in ("context_limit", "requested_tokens", "max_tokens", "requests_limit", "tokens_limit"):
        number = getattr(error, name)
        if number is not None:
            facts[name] = f"{number:,}"
    if error.status is not None and error.status >= 400:
        facts["status"] = str(error.status)
    if wait_s is not None:
        facts["wait"] = for_people(wait_s)
    return facts


@lru_cache(maxsize=1024)
def _fill(template: str, known: tuple[tuple[str, str], ...]) -> str:
    facts = dict(known)

    def optional(part: re.Match[str]) -> str:
        return part[1] if all(name in facts for name in _PLACE.findall(part[1])) else ""

    text = _PLACE.sub(lambda place: facts[place[1]], _OPTIONAL.sub(optional, template))
    first = _PLACE.match(template)
    # A name is written as its owner writes it, also at the beginning of a sentence.
    if first is None or facts[first[1]] in _words():
        text = text[:1].upper() + text[1:]
    return cut(text)


def languages() -> tuple[str, ...]:
    """The languages that there are texts in."""
    return tuple(name for name in _texts() if name != "names")


def texts(
    error: LLMError, key: str, retryable: Retryable, wait_s: float | None = None, *, language: str = "en"
) -> tuple[str, str]:
    """Cause and action for a verdict, each at most 200 characters.

    Args:
        error: the facts that the texts may name.
        key: `category/reason` of the verdict.
        retryable: of this verdict; where it is not the reason's default there may be other words.
        wait_s: the stated wait, in seconds.
        language: a language that lacks the reason, or that is not known, gives English.
    """
    for table in (_texts().get(language, {}), _texts()["en"]):
        template = table.get(f"{key}:{retryable}") or table.get(key)
        if template:
            words = {**_texts()["en"]["words"], **table.get("words", {})}
            facts = tuple(_facts(error, wait_s, words).items())
            return _fill(template["cause"], facts), _fill(template["action"], facts)
    raise KeyError(f"advice.toml has no text for {key}")
