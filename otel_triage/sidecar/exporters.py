"""What an OTLP client for one downstream does: send bytes once, and say what the answer means.

Retrying is `deliver`'s business. The clients: `export_grpc`, `export_http`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from google.protobuf.message import DecodeError

from otel_triage.sidecar.signals import WIRE, Signal

TIMEOUT_S: Final = 10.0
"""Limit of one export, as the SDKs' own."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The backend has it; `rejected` items of it were refused for the reason `text`."""

    rejected: int = 0
    text: str = ""


@dataclass(frozen=True, slots=True)
class Retry:
    """The same request may succeed later, not before `after_s` seconds if that is given."""

    reason: str
    text: str
    after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """The same request will never succeed."""

    reason: str
    text: str


Outcome: TypeAlias = Accepted | Retry | Rejected


class Exporter(Protocol):
    """One downstream."""

    async def export(self, signal: Signal, body: bytes) -> Outcome:
        """Send an encoded export request once. Does not raise for anything the network does."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


def accepted(signal: Signal, answer: bytes) -> Accepted:
    """Read a success; one that cannot be read is a success still."""
    wire = WIRE[signal]
    try:
        partial = wire.response.FromString(answer).partial_success
    except DecodeError:
        return Accepted()
    return Accepted(int(getattr(partial, wire.rejected)), partial.error_message)
