"""The two texts of a verdict, and the wait that a provider states.

The texts are templates in `advice/*.toml`, one a reason and language. They are filled with names
and numbers only: from the facts, and numbers and a parameter's name that `facts.amounts` finds in the
message. Nothing else of what a user or a provider wrote can reach a page or a chat channel through them.
"""

from __future__ import annotations

import math
import re
from functools import cache, lru_cache
from typing import Any, Final

from otel_triage.facts.amounts import rate_amounts, size_limits, token_limits, value_amounts
from otel_triage.facts.providers import canonical
from otel_triage.facts.waits import wait_in
from otel_triage.model import LLMError, Retryable
from otel_triage.verdict import data
from otel_triage.verdict.names import short

LIMIT: Final = 200
"""Characters of a text at most."""

LONG_WAIT_S: Final = 300.0
"""A stated wait above this many seconds turns `yes` into `later`."""

_OPTIONAL: Final = re.compile(r"\[([^\[\]]*)\]")
_PLACE: Final = re.compile(r"\{(\w+)\}")
# Names come from outside: what could be markup, a link or a mention is treated as unknown. "@" stands
# before the digits of a version only (claude-3-5-sonnet@20240620).
_NAME: Final = re.compile(r"[A-Za-z0-9](?:[\w.:+-]|/(?!/)|@(?=\d)){0,59}", re.ASCII)
_WORD: Final = re.compile(r"[A-Za-z][\w.-]{0,39}", re.ASCII)
_CLASS: Final = re.compile(r"[A-Za-z]\w{2,59}", re.ASCII)
_PARAMETER: Final = re.compile(r"[A-Za-z](?:[\w.-]|\[\d{1,4}\]){0,59}", re.ASCII)
_HOST: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,79}")
# Between two Chinese or Japanese characters a space is left over from a name that is not known.
_LEFT_OVER: Final = re.compile(r"(?<=[\u3000-\u9fff\uff00-\uffef]) (?=[\u3000-\u9fff\uff00-\uffef])")
_LIMITS: Final = {"rate_limit/requests": "requests", "rate_limit/tokens": "tokens"}


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


@cache
def _texts() -> dict[str, Any]:
    found: dict[str, Any] = data.load()["advice"]
    return found


def languages() -> tuple[str, ...]:
    """The languages that there are texts in."""
    return tuple(name for name in _texts() if name != "names")


def for_people(seconds: float, language: str = "en") -> str:
    """A wait as a person would say it: `19 s`, `6 min`, `24 h`, `12 days`."""
    units = _texts()[language]["units"]
    if seconds < 100:
        return str(units["s"].format(max(1, round(seconds))))
    for unit, length, largest in (("min", 60, 6000), ("h", 3600, 48 * 3600)):
        if seconds < largest:
            return str(units[unit].format(round(seconds / length)))
    return str(units["d"].format(round(seconds / 86400)))


def _bytes(size: int) -> str:
    """A size in bytes as providers say it: 4194304 is `4 MB`."""
    number, unit = (size / 2**20, "MB") if size >= 2**20 else (size / 2**10, "KB")
    return f"{number:,.1f}".removesuffix(".0") + f" {unit}"


def _safe(name: str | None, pattern: re.Pattern[str]) -> str | None:
    return name if name and pattern.fullmatch(name) else None


def _model(model: str | None) -> str | None:
    """A model's name; of one that is too long, as an ARN or a resource's path, the last part."""
    last = model.rpartition("/")[2] if model and "//" not in model else None
    return _safe(model, _NAME) or _safe(last, _NAME)


def _provider(provider: str | None) -> str | None:
    known: str | None = _texts()["names"].get(canonical(provider))
    return known or (provider if _safe((provider or "").replace(" ", "-"), _NAME) else None)


def _amounts(error: LLMError, key: str) -> dict[str, int | str | None]:
    """The numbers that a reason is about: of the facts, else of the message."""
    message = error.message or ""
    if key == "invalid_request/context_length":
        limit, asked = error.context_limit, error.requested_tokens
        if limit is None or asked is None:
            stated = token_limits(message)
            limit, asked = limit or stated[0], asked or stated[1]
        return {"context_limit": limit, "requested_tokens": asked, "excess": _above(asked, limit)}
    if key.startswith("rate_limit/"):
        rate = rate_amounts(message)
        limit = rate.limit
        if limit is None and key in _LIMITS:
            limit = getattr(error, f"{_LIMITS[key]}_limit")
        return {
            "limit": limit or None,
            "used": rate.used,
            "requested": rate.requested,
            "over": _above(rate.requested, limit),
        }
    if key == "invalid_request/payload_too_large":
        most, size = size_limits(message)
        return {"size_limit": most and _bytes(most), "size": size and _bytes(size)}
    if key.startswith("invalid_request/"):
        # Some services put the whole sentence where the parameter's name belongs.
        param = _safe(error.param, _PARAMETER)
        value = value_amounts(message if param or not error.param else error.param)
        return {
            "parameter": param or _safe(value.parameter, _PARAMETER),
            "given": value.given,
            "allowed": value.allowed,
        }
    return {}


def _above(asked: int | None, limit: int | None) -> int | None:
    return asked - limit if asked and limit and asked > limit else None


def _facts(error: LLMError, key: str, wait_s: float | None, language: str) -> dict[str, str]:
    """The facts that templates may use, as text; those that are not known are not there."""
    model = _model(error.model)
    innermost = error.causes[-1].type if error.causes else error.error_type
    found: dict[str, int | str | None] = {
        "provider": _provider(error.provider),
        "model": model,
        "known_model": model,
        "code": _safe(error.code, _WORD),
        "status": str(error.status) if error.status and error.status >= 400 else None,
        "wait": for_people(wait_s, language) if wait_s is not None else None,
        "max_tokens": error.max_tokens,
        "output_tokens": error.output_tokens,
        "attempts": error.attempts if error.attempts and error.attempts > 1 else None,
        "chunks": error.stream_chunks or None,
        "where": _texts()[language]["where"].get(error.broke_at),
        "host": _safe(error.server_address, _HOST),
        "exception": _safe(short(innermost or ""), _CLASS),
        "finish_reason": _safe(error.finish_reasons[0] if error.finish_reasons else None, _WORD),
        **_amounts(error, key),
    }
    return {
        name: f"{value:,}" if isinstance(value, int) else value
        for name, value in found.items()
        if value is not None
    }


def _render(template: str, words: dict[str, str], facts: dict[str, str], optional: int) -> str:
    """A template with its first `optional` optional parts whose facts are known."""

    def choose(part: re.Match[str]) -> str:
        nonlocal optional
        full, _, other = part[1].partition("|")
        if optional > 0 and all(name in facts for name in _PLACE.findall(full)):
            optional -= 1
            return full
        return other

    chosen = _OPTIONAL.sub(choose, template)
    known = words | facts
    text = _PLACE.sub(lambda place: known[place[1]], chosen)
    if not text.isascii():
        text = _LEFT_OVER.sub("", text)
    first = _PLACE.match(chosen)
    # A name is written as its owner writes it, also at the beginning of a sentence.
    return text if first and first[1] in facts else text[:1].upper() + text[1:]


@lru_cache(maxsize=1024)
def _fill(template: str, language: str, known: tuple[tuple[str, str], ...]) -> str:
    """A text that is too long loses its optional parts, the last first; without them all are short enough."""
    words = _texts()[language]["words"]
    facts = dict(known)
    text = ""
    for optional in range(template.count("["), -1, -1):
        text = _render(template, words, facts, optional)
        if len(text) <= LIMIT:
            break
    return text


def texts(
    error: LLMError, key: str, retryable: Retryable, wait_s: float | None = None, *, language: str = "en"
) -> tuple[str, str]:
    """Cause and action for a verdict, each at most 200 characters.

    Args:
        error: the facts that the texts may name.
        key: `category/reason` of the verdict.
        retryable: of this verdict; where it is not the reason's default there may be other words.
        wait_s: the stated wait, in seconds.
        language: one that is not known gives English.

    Raises:
        KeyError: there is no such reason.
    """
    language = language if language in languages() else "en"
    table = _texts()[language]
    template = table.get(f"{key}:{retryable}") or table[key]
    facts = tuple(_facts(error, key, wait_s, language).items())
    return _fill(template["cause"], language, facts), _fill(template["action"], language, facts)
