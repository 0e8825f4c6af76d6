"""Response headers of providers: request id, when to come back, and what is left of the limits."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

Headers = Mapping[str, str]

_REQUEST_IDS: Final = (
    "x-request-id",  # OpenAI and most compatible ones
    "request-id",  # Anthropic
    "apim-request-id",  # Azure
    "x-amzn-requestid",  # AWS
    "x-goog-request-id",
    "cf-ray",
)
_ACCOUNTS: Final = ("openai-organization", "anthropic-organization-id")
_KEYS: Final = ("authorization", "x-api-key", "api-key", "x-goog-api-key")

# Salted so that the shown value can't be looked up in a table of hashes of known keys.
_SALT: Final = b"otel-triage account"


def credentials(request: Headers) -> tuple[str, ...]:
    """The keys that a request carried, as they would stand in a text: without their scheme."""
    values = (request.get(name, "").rpartition(" ")[2] for name in _KEYS)
    return tuple(value for value in values if len(value) >= 8)


_SPAN = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>ms|s|m|h|d)")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _first(headers: Headers, names: tuple[str, ...]) -> str | None:
    return next((value for name in names if (value := headers.get(name))), None)


def request_id(headers: Headers) -> str | None:
    """The provider's id of the request, for a support case."""
    found = _first(headers, _REQUEST_IDS)
    return found[:200] if found else None


def account(request: Headers, response: Headers) -> str | None:
    """Who is charged: the organisation's id, else a salted 8-hex hash of the key, never the key."""
    if named := _first(response, _ACCOUNTS) or request.get("openai-organization"):
        return named[:100]
    if key := _first(request, _KEYS):
        return hashlib.sha256(_SALT + key.encode("utf-8", "replace")).hexdigest()[:8]
    return None


def duration_s(text: str) -> float | None:
    """Seconds in a text such as `1s`, `6m0s`, `20ms` (OpenAI's resets) or a bare number of seconds."""
    text = text.strip()
    try:
        seconds = float(text)
    except ValueError:
        parts = list(_SPAN.finditer(text))
        if not parts or "".join(part.group() for part in parts) != text:
            return None
        seconds = sum(float(part["number"]) * _UNITS[part["unit"]] for part in parts)
    return seconds if 0 <= seconds < 10**9 else None


def _until_s(text: str, now: float) -> float | None:
    """Seconds until a point in time: a duration, an RFC 3339 time or an HTTP date."""
    seconds = duration_s(text)
    if seconds is not None:
        return seconds
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            when = read(text)
            when = when if when.tzinfo else when.replace(tzinfo=UTC)
            return max(0.0, round(when.timestamp() - now, 3))
        except (ValueError, OverflowError):
            continue
    return None


def retry_after_s(headers: Headers, now: float) -> float | None:
    """Seconds to wait as the provider asks (RFC 9110, 10.2.3; `retry-after-ms` is OpenAI's and Azure's).

    Args:
        headers: Response headers; look-up must not depend on case.
        now: Unix time in seconds, for headers that name a date.
    """
    if milliseconds := headers.get("retry-after-ms"):
        seconds = duration_s(milliseconds)
        if seconds is not None:
            return seconds / 1000
    if value := headers.get("retry-after"):
        return _until_s(value, now)
    return None


def _number(text: str | None) -> int | None:
    text = (text or "").strip()
    return int(text) if text.isdecimal() and len(text) <= 15 else None


def rate_limits(headers: Headers, now: float) -> dict[str, Any]:
    """Limits as fields of `LLMError` (`requests_limit` … `tokens_reset_s`).

    OpenAI: `x-ratelimit-limit-requests` and alike; Anthropic: `anthropic-ratelimit-requests-limit`.
    """
    found: dict[str, Any] = {}
    for kind in ("requests", "tokens"):
        for part in ("limit", "remaining", "reset"):
            value = headers.get(f"x-ratelimit-{part}-{kind}") or headers.get(
                f"anthropic-ratelimit-{kind}-{part}"
            )
            if part == "reset":
                read: float | None = _until_s(value, now) if value else None
                name = f"{kind}_reset_s"
            else:
                read, name = _number(value), f"{kind}_{part}"
            if read is not None:
                found[name] = read
    return found
