"""The seam between the data path and the triage stage, so that neither knows the other's inside."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from otel_triage.sidecar.sentry_record import SentryRecord
from otel_triage.sidecar.signals import ExportRequest, Signal

Message: TypeAlias = ExportRequest | SentryRecord
"""A request, parsed."""


@dataclass(frozen=True, slots=True)
class Triaged:
    """What triage makes of one request.

    `body` is what goes on: the bytes that came where nothing failed in them. `noted` is done
    when the desk has written down durably what it learnt; None if there was nothing to learn.
    """

    body: bytes
    noted: Awaitable[None] | None = None


class Triage(Protocol):
    """The triage stage: runs on the event loop after the commit, so it must not block.

    A request may come again: from the journal after a restart, or after its first result was
    dropped because memory was short. So noting must be idempotent.
    """

    def __call__(self, signal: Signal, body: bytes, message: Message) -> Triaged:
        """Find and annotate the failed calls of one request; `message` is `body`, parsed."""
        ...


@dataclass(frozen=True, slots=True)
class Stage:
    """A triage stage and its life: what of it does not work now, and how to end it (may block)."""

    triage: Triage
    degraded: Callable[[], Sequence[str]] = tuple
    close: Callable[[], None] = lambda: None
