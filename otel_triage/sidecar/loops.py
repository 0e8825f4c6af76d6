"""Loops end: what comes back to the sidecar that sent it on is refused for good, and counted.

Between sidecars a header does it. Each export names its sender, and the sidecars that lately sent to that
one; a sidecar that reads its own name there is its own downstream. A Collector drops the header. So the
first item of each request is remembered too: what was acknowledged again and again, and comes once more,
goes in a circle. A client sends again only what was not acknowledged. Requests that join on their way make
no difference: a circle holds no more first items than it began with.
"""

from __future__ import annotations

import logging
import secrets
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final

from otel_triage.sidecar.refusals import Refused, Why
from otel_triage.sidecar.signals import Signal
from otel_triage.sidecar.stages import Message

HOPS: Final = "x-otel-triage-hops"
"""The header, or the key of the metadata."""
TURNS: Final = 16
"""So often the same item is acknowledged."""

_SENDERS: Final = 64  # of a fleet behind one gateway only so many are named: more are no use in a header
_NAME: Final = 8
_REMEMBERED: Final = 16_384
_WAYS: Final = {
    Signal.TRACES: ("resource_spans", "scope_spans", "spans"),
    Signal.LOGS: ("resource_logs", "scope_logs", "log_records"),
    Signal.METRICS: ("resource_metrics", "scope_metrics", "metrics"),
}
_SECOND: Final = 1_000_000_000

log = logging.getLogger(__name__)


class Loops:
    """What one sidecar knows of its senders and of what it took lately. Bounded in memory."""

    def __init__(self) -> None:
        """Take a name; it holds until the process ends."""
        self.name: Final = secrets.token_hex(_NAME // 2)
        self._senders: OrderedDict[str, None] = OrderedDict()
        self._taken: dict[int, int] = {}
        self._taken_before: dict[int, int] = {}
        self._said = False

    def hops(self) -> str:
        """The header of an export: this sidecar, then the senders before it."""
        return ",".join((self.name, *reversed(self._senders)))

    def check_hops(self, header: str | None) -> None:
        """Read the header of a request.

        Raises:
            Refused: If it has been here.
        """
        if not header:
            return
        names = header.split(",")[: _SENDERS + 1]
        if self.name in names:
            raise self._refused("this request comes from this very sidecar, by another one")
        for name in reversed(names):
            if len(name) == _NAME:
                self._senders[name] = None
                self._senders.move_to_end(name)
        while len(self._senders) > _SENDERS:
            self._senders.popitem(last=False)

    def check_turns(self, signal: Signal, message: Message) -> int | None:
        """Look up the first item of a request.

        Returns:
            Its key, for `took`; None if it has nothing that tells it from others.

        Raises:
            Refused: If it was taken too often.
        """
        key = _key(message, _WAYS[signal]) if signal in _WAYS else None
        if key is not None and self._count(key) >= TURNS:
            raise self._refused(f"this request was acknowledged {TURNS} times, and comes again")
        return key

    def took(self, key: int | None) -> None:
        """Remember that a request was acknowledged."""
        if key is None:
            return
        self._taken[key] = self._count(key) + 1
        if len(self._taken) >= _REMEMBERED:
            self._taken, self._taken_before = {}, self._taken

    def _count(self, key: int) -> int:
        return self._taken.get(key) or self._taken_before.get(key, 0)

    def _refused(self, why: str) -> Refused:
        text = f"a loop: {why}. Let the sidecar send to the backend, not to where its own requests come from"
        if not self._said:
            self._said = True
            log.error("%s (counted from now on, not logged again)", text)
        return Refused(Why.LOOP, text)


def _key(message: Any, way: Sequence[str]) -> int | None:
    """A hash of the first item and of its resource."""
    groups, scopes, items = way
    for group in getattr(message, groups):
        for scope in getattr(group, scopes):
            for item in getattr(scope, items):
                # Log lines of whole seconds, or without a time, may be equal and not the same.
                if items == "log_records" and not (
                    item.time_unix_nano % _SECOND or item.observed_time_unix_nano % _SECOND
                ):
                    return None
                return hash((group.resource.SerializeToString(), item.SerializeToString()))
    return None
