"""What the journal keeps of a Sentry request: one line about who sent it, then the body as it was.

Where it goes is not kept: that is a setting, and nothing that came from outside may choose it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_triage.sidecar.envelopes import Envelope, dump, read_envelope
from otel_triage.sidecar.refusals import Refused, Why
from otel_triage.sidecar.signals import Signal

Content: TypeAlias = Envelope | ExportTraceServiceRequest

_SENT_AT: Final = "sent_at"
_DSN: Final = "dsn"


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sent a request, and what of it goes on beside the body.

    Attributes:
        project: The project's id.
        key: The public key of the DSN.
        client: Name and version of the SDK, or "".
        received: When it came, in Unix seconds; a resend of a dead letter keeps it.
        headers: HTTP headers from which Sentry infers the user's address and browser.
    """

    project: str
    key: str
    client: str = ""
    received: float = 0.0
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def auth(self) -> str:
        """The header `X-Sentry-Auth` of this sender."""
        client = f", sentry_client={self.client}" if self.client else ""
        return f"Sentry sentry_version=7{client}, sentry_key={self.key}"


@dataclass(frozen=True, slots=True)
class SentryRecord:
    """A record of the journal, read."""

    sender: Sender
    content: Content

    @property
    def body(self) -> bytes:
        """The request's own bytes."""
        content = self.content
        return content.body if isinstance(content, Envelope) else content.SerializeToString()


def pack(sender: Sender, body: bytes) -> bytes:
    """A record for the journal."""
    return dump(asdict(sender)) + b"\n" + body


def split(record: bytes) -> tuple[Sender, bytes]:
    """Sender and body of a record.

    Raises:
        Refused: If it is not one; the journal was written by something else.
    """
    line, _, body = record.partition(b"\n")
    try:
        return Sender(**json.loads(line)), body
    except (ValueError, TypeError) as error:
        raise Refused(Why.INVALID, f"not a record of a Sentry request: {error}") from None


def with_body(record: bytes, body: bytes) -> bytes:
    """The record with another body."""
    return record[: record.index(b"\n") + 1] + body


def unpack(signal: Signal, record: bytes) -> SentryRecord:
    """Read a record of the journal.

    Raises:
        Refused: If it is not one.
    """
    sender, body = split(record)
    if signal is Signal.ENVELOPE:
        return SentryRecord(sender, read_envelope(body))
    try:
        return SentryRecord(sender, ExportTraceServiceRequest.FromString(body))
    except DecodeError as error:
        raise Refused(Why.INVALID, f"not an export request in protobuf: {error}") from None


def dsn_of(upstream: str, sender: Sender) -> str:
    """The DSN of a sender's project at the upstream."""
    url = urlsplit(upstream)
    return f"{url.scheme}://{sender.key}@{url.netloc}{url.path}/{sender.project}"


def outgoing(envelope: Envelope, sender: Sender, upstream: str, now: float) -> bytes:
    """The envelope as it leaves: its `dsn` names the upstream, its `sent_at` is later by the time it waited.

    Sentry moves all times of an event by the difference between `sent_at` and its own clock, which
    is there for wrong clocks, not for waiting (https://develop.sentry.dev/sdk/data-model/envelopes/).
    """
    headers = dict(envelope.headers)
    if _DSN in headers:
        headers[_DSN] = dsn_of(upstream, sender)
    if (moved := _moved(headers.get(_SENT_AT), max(0.0, now - sender.received))) is not None:
        headers[_SENT_AT] = moved
    rest = envelope.body[envelope.first :]
    ended = envelope.body[envelope.first - 1 : envelope.first] == b"\n"
    return dump(headers) + (b"\n" if ended else b"") + rest


def _moved(sent_at: Any, seconds: float) -> str | None:
    if not isinstance(sent_at, str):
        return None
    try:
        moment = datetime.fromisoformat(sent_at) + timedelta(seconds=seconds)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
