"""Single values of error bodies -> statuses, codes, texts and seconds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final

from otel_triage.facts.headers import duration_s

MESSAGE_LIMIT: Final = 4000

ENVELOPES: Final = frozenset({"error", "response.failed", "response.done", "about:blank", "failed"})
"""Types that name the envelope of an error, and not the error."""
_PHRASES: Final = {
    **{status.phrase.lower(): int(status) for status in HTTPStatus if status >= 400},
    "payload too large": 413,
    "unprocessable content": 422,
    "gateway time-out": 504,
}


def status_of(value: object) -> int | None:
    """An HTTP status of a failure, also where it stands in a text."""
    if isinstance(value, str):
        value = int(value) if len(value) == 3 and value.isdecimal() and value.isascii() else None
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return int(value) if 400 <= value <= 599 else None


def status_of_phrase(text: str) -> int | None:
    """The status whose reason phrase (RFC 9110) a text is, and nothing more: "Payment Required" is 402."""
    return _PHRASES.get(text.strip(" .!").lower()) if len(text) < 40 else None


def text_of_value(value: object) -> str | None:
    """A text that says something, shortened."""
    return value.strip()[:MESSAGE_LIMIT] or None if isinstance(value, str) else None


def code_of(value: object) -> str | None:
    """A code is a word, or a number that is no HTTP status (Zhipu's 1302, MiniMax's 2013); 0 is none."""
    if isinstance(value, str):
        word = value.strip()[:200]
        return None if word in ("", "0") or word in ENVELOPES or status_of(word) else word
    if isinstance(value, bool) or not isinstance(value, int) or value == 0 or 100 <= value <= 599:
        return None
    return str(value)


def seconds_of(value: object) -> float | None:
    """A wait in seconds: a number, `36s`, or google.protobuf.Duration as an object."""
    if isinstance(value, Mapping):
        value = value.get("seconds")
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return float(value) if 0 <= value < 10**9 else None
    return duration_s(value) if isinstance(value, str) and len(value) < 40 else None


_DATE: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:(?:[T ]| at )(\d\d:\d\d(?::\d\d)?)(?:\.\d{1,9})? ?(Z|UTC|GMT|[+-]\d\d:\d\d)?)?"
)


def seconds_until(value: object, now: float | None) -> float | None:
    """Seconds until a point in time: Unix seconds or milliseconds, or a date; None without a `now`.

    A date without a zone is taken as UTC.
    """
    if now is None or isinstance(value, bool):
        return None
    if isinstance(value, str) and value.isdecimal() and len(value) < 16:
        value = int(value)
    if isinstance(value, (int, float)):
        at = value / 1000 if value > 10**11 else float(value)
        return max(0.0, round(at - now, 3)) if 10**9 < at < 10**10 else None
    found = _DATE.search(value[:80]) if isinstance(value, str) else None
    if found is None:
        return None
    day, time, zone = found.groups()
    zone = zone if zone and zone[0] in "+-" else "+00:00"
    try:
        when = datetime.fromisoformat(f"{day}T{time or '00:00'}{zone}")
    except ValueError:
        return None
    return max(0.0, round(when.astimezone(UTC).timestamp() - now, 3))
