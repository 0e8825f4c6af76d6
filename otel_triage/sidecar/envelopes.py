r"""Sentry's envelope format: read strictly and lazily, written back byte for byte.

`Envelope = Headers { "\n" Item } [ "\n" ]`, `Item = Headers "\n" Payload`; headers are one line of JSON,
`length` is optional (the payload then ends with its line), only `\n` ends a line, and items of unknown
type are kept. Source: https://develop.sentry.dev/sdk/data-model/envelopes/.

Headers are read, payloads are not: an item keeps where it stands in the body.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from otel_triage.sidecar.refusals import Refused, Why

MAX_HEADER: Final = 64 << 10
"""Bytes of one line of headers: SDKs write some hundred, most of it baggage."""
MAX_ITEMS: Final = 1000
"""Items of one envelope, so that a body of tiny items stays small in memory. SDKs batch up to 100."""

EVENT: Final = "event"

CATEGORIES: Final = {
    EVENT: "error",
    "transaction": "transaction",
    "span": "span",
    "session": "session",
    "sessions": "session",
    "attachment": "attachment",
    "user_report": "feedback",
    "feedback": "feedback",
    "profile": "profile",
    "profile_chunk": "profile_chunk",
    "replay_event": "replay",
    "replay_recording": "replay",
    "replay_video": "replay",
    "check_in": "monitor",
    "log": "log_item",
    "otel_log": "log_item",
    "trace_metric": "trace_metric",
    "statsd": "metric_bucket",
    "metric_buckets": "metric_bucket",
    "client_report": "internal",
    "security": "security",
    "raw_security": "security",
}
"""Type of an item -> the category that rate limits name it by; others are `default`.

Source: https://develop.sentry.dev/sdk/expected-features/rate-limiting/ and sentry_sdk.envelope."""


@dataclass(frozen=True, slots=True)
class Item:
    """One item of an envelope: its headers, and where it and its payload stand in the body."""

    headers: Mapping[str, Any]
    begin: int
    payload: int
    end: int

    @property
    def type(self) -> str:
        """The item's type."""
        return str(self.headers["type"])

    @property
    def category(self) -> str:
        """What rate limits call it."""
        return CATEGORIES.get(self.type, "default")


@dataclass(frozen=True, slots=True)
class Envelope:
    """An envelope that was read: `body` from `first` on is its items, as they came."""

    body: bytes
    headers: Mapping[str, Any]
    items: tuple[Item, ...]
    first: int

    def payload(self, item: Item) -> bytes:
        """The bytes of an item's payload."""
        return self.body[item.payload : item.end]

    def replaced(self, payloads: Mapping[int, bytes]) -> bytes:
        """The body with other payloads for the items of these indices, their `length` put right."""
        parts: list[bytes] = []
        at = 0
        for index, item in enumerate(self.items):
            if index in payloads:
                payload = payloads[index]
                headers = dump({**item.headers, "length": len(payload)})
                parts += [self.body[at : item.begin], headers, b"\n", payload]
                at = item.end
        return b"".join([*parts, self.body[at:]])


def dump(value: Any) -> bytes:
    """JSON as SDKs write it: no blanks, no escapes but those that are needed."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # half a surrogate pair, which only an escape can carry
        return json.dumps(value, separators=(",", ":")).encode()


def read_envelope(body: bytes) -> Envelope:
    """Read the headers of an envelope and of its items.

    Raises:
        Refused: If it is not a whole envelope; the text says where and why.
    """
    headers, at = _headers(body, 0, "the envelope's headers")
    first = at
    items: list[Item] = []
    while at < len(body):
        if body[at] == 0x0A:
            if body[at:].strip(b"\n"):
                raise _malformed(f"an empty line where the headers of item {len(items) + 1} are due")
            break
        if len(items) == MAX_ITEMS:
            raise Refused(Why.TOO_LARGE, f"more than {MAX_ITEMS} items in one envelope; send several")
        item = _item(body, at, len(items) + 1)
        items.append(item)
        at = item.end + 1
    return Envelope(body, headers, tuple(items), first)


def _item(body: bytes, begin: int, number: int) -> Item:
    headers, payload = _headers(body, begin, f"the headers of item {number}")
    payload = min(payload, len(body))  # nothing behind the headers: an empty payload
    if not isinstance(headers.get("type"), str):
        raise _malformed(f"item {number} has no `type`")
    length = headers.get("length")
    if length is None:
        end = body.find(b"\n", payload)
        return Item(headers, begin, payload, len(body) if end < 0 else end)
    if isinstance(length, bool) or not isinstance(length, int) or length < 0:
        raise _malformed(f"`length` of item {number} is no number of bytes")
    end = payload + length
    if end > len(body):
        raise _malformed(f"item {number} says {length} bytes, and {len(body) - payload} are left")
    if end < len(body) and body[end] != 0x0A:
        raise _malformed(f"item {number} goes on behind its `length` of {length} bytes")
    return Item(headers, begin, payload, end)


def _headers(body: bytes, begin: int, what: str) -> tuple[Mapping[str, Any], int]:
    """One line of JSON, and where the next line begins."""
    end = body.find(b"\n", begin, begin + MAX_HEADER + 1)
    if end < 0:
        end = len(body)
    if end - begin > MAX_HEADER:
        raise Refused(Why.TOO_LARGE, f"{what} are longer than {MAX_HEADER >> 10} KiB")
    try:
        headers = json.loads(body[begin:end])
    except RecursionError:
        raise _malformed(f"{what} are nested too deeply") from None
    except ValueError as error:
        raise _malformed(f"{what} are not JSON: {error}") from None
    if not isinstance(headers, dict):
        raise _malformed(f"{what} are not a JSON object")
    return headers, end + 1


def _malformed(text: str) -> Refused:
    return Refused(Why.INVALID, f"not a Sentry envelope: {text}")
