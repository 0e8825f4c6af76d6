"""Error bodies of providers and error texts of clients -> what a provider said.

The doors to `walk` (decoded data) and `text` (texts), which hold the forms and their sources.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from otel_triage.facts.text import finish, read_text
from otel_triage.facts.values import MESSAGE_LIMIT
from otel_triage.facts.walk import ErrorBody, Walk

__all__ = ["ErrorBody", "read_error_body", "read_error_text", "token_limits"]


def read_error_body(data: object, *, now: float | None = None) -> ErrorBody:
    """Reads a decoded error body (or exception body) of any of the known forms.

    Args:
        data: JSON-like data, of any shape and depth; an empty record where it says nothing.
        now: Unix time in seconds, for waits that are told as a point in time.
    """
    return finish(Walk(now).read(data), now)


def read_error_text(text: str, *, now: float | None = None) -> ErrorBody:
    """Reads an error's text: what a client printed around a body, or a body that is not JSON.

    Where only prefixes stand in it ("Error code: 502"), the text itself is the message.

    Args:
        text: The text; of a long one the first 20,000 characters count.
        now: Unix time in seconds, for waits that are told as a point in time.
    """
    body = read_text(text, now).body
    return body if body.message is not None else replace(body, message=text.strip()[:MESSAGE_LIMIT] or None)


_LIMITS: Final = (
    # OpenAI: "maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens"
    # "… you requested 9000 tokens (…)": https://platform.openai.com/docs/guides/error-codes
    re.compile(
        r"maximum context length (?:is|of) (?P<limit>[\d,]{1,15}).{0,80}?(?P<asked>[\d,]{1,15}+) tokens", re.S
    ),
    re.compile(r"maximum context length (?:is|of) (?P<limit>[\d,]{1,15})"),
    # Anthropic: "prompt is too long: 210000 tokens > 200000 maximum"
    re.compile(r"(?P<asked>[\d,]{1,15}+) tokens > (?P<limit>[\d,]{1,15}) maximum"),
)


def token_limits(message: str) -> tuple[int | None, int | None]:
    """The model's context limit and the tokens asked for, where the provider names them."""
    for pattern in _LIMITS:
        if found := pattern.search(message):
            groups = found.groupdict()
            asked = groups.get("asked")
            return _count(groups["limit"]), _count(asked) if asked else None
    return None, None


def _count(digits: str) -> int:
    return int(digits.replace(",", "") or 0)
