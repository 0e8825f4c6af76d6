"""Error bodies of providers and error texts of clients -> what a provider said.

The doors to `walk` (decoded data) and `text` (texts), which hold the forms and their sources.
"""

from __future__ import annotations

from dataclasses import replace

from otel_triage.facts.amounts import token_limits
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
