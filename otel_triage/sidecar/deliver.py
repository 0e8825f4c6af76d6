"""Delivery to one downstream: join, send, retry, split, give up.

Records of one signal wait at most 50 ms for company and are joined by concatenation:
concatenated export requests are one valid request. What the backend may take later is sent
again until it is too old. What it refuses for good is split, and each record sent alone, so
that one poisonous record cannot take healthy ones to the dead-letter table.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from otel_triage.sidecar import faults
from otel_triage.sidecar.exporters import Accepted, Exporter, Outcome, Rejected, Retry
from otel_triage.sidecar.metrics import Metrics
from otel_triage.sidecar.signals import OTLP, Signal
from otel_triage.sidecar.store import Burial

LINGER_S: Final = 0.05
"""How long a record waits for others to share its export, if something was sent just before."""
JOIN_BYTES: Final = 1 << 20
"""Most bytes of a joined export: receivers' default limit is 4 MiB. A larger single request goes alone."""
IN_FLIGHT: Final = 4
"""Exports at once, for each signal, so that one signal's trouble is not the others'."""
MAX_BACKOFF_S: Final = 30.0
MAX_HINT_S: Final = 300.0
"""A backend that asks for a longer wait is asked again after this."""
MAX_LIMITED_S: Final = 60.0
"""How long a lane that is limited sleeps before it looks for records that are too old."""
ITEM_OVERHEAD: Final = 512
"""Bytes of memory that a waiting record takes beside its payload, roughly."""

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Item:
    """A triaged record on its way downstream.

    `size` is that of the record in the journal, `body` what goes out. Where `parked`, the body waits
    in the journal only, and `reload` gets it from there. `done` is called once, with a burial if the
    record was given up. `open` counts what its settlement waits for.
    """

    seq: int
    signal: Signal
    received: float
    size: int
    body: bytes
    done: Callable[[Item, Burial | None], None]
    reload: Callable[[], Awaitable[bytes]] | None = None
    parked: bool = False
    open: int = 1
    burial: Burial | None = None


class NoDownstream:
    """Nothing is configured: every record is done at once, and counted."""

    keeps: Final = False

    def __init__(self, metrics: Metrics) -> None:
        """Count in `metrics`."""
        self._metrics = metrics

    def put(self, item: Item) -> None:
        """Take one record."""
        self._metrics.no_downstream.labels(item.signal).inc()
        item.done(item, None)

    def has_room(self) -> bool:
        """Nothing is held, so always."""
        return True

    async def wait_for_room(self) -> None:
        """Return at once."""

    async def drain(self) -> None:
        """Return at once."""


class Outbox:
    """Everything on its way to one downstream: lanes, and the memory that they share."""

    keeps: Final = True

    def __init__(
        self, *, memory_bytes: int, max_age_s: float, metrics: Metrics, backoff_s: float = 1.0
    ) -> None:
        """Begin empty.

        Args:
            memory_bytes: Payloads held in memory; a record or two may come on top.
            max_age_s: Seconds since its arrival after which a record goes to the dead-letter table.
            metrics: Where everything is counted.
            backoff_s: The first wait before a retry; it doubles up to 30 s.
        """
        self.max_age_s = max_age_s
        self.metrics = metrics
        self.backoff_s = backoff_s
        self.flushing = False
        self._memory_bytes = memory_bytes
        self._held = 0
        self._room = asyncio.Event()
        self._room.set()
        self._lanes: dict[object, Lane] = {}
        metrics.hold_for_delivery(lambda: self._held)

    def finish(self, item: Item, burial: Burial | None = None) -> None:
        """Give a record back, delivered or given up."""
        self._hold(-len(item.body) - ITEM_OVERHEAD)
        item.done(item, burial)

    async def fetch(self, item: Item) -> None:
        """Get the body of a parked record back from the journal."""
        assert item.reload is not None
        item.body = await item.reload()
        item.parked = False
        self._hold(len(item.body))

    def has_room(self) -> bool:
        """Whether there is memory for one more payload."""
        return self._held < self._memory_bytes

    async def wait_for_room(self) -> None:
        """Return when `has_room`."""
        await self._room.wait()

    def degraded(self) -> list[str]:
        """What the downstream does not take now."""
        troubles = (f"{lane.name}: {lane.trouble}" for lane in self._lanes.values() if lane.trouble)
        return list(dict.fromkeys(troubles))

    async def drain(self) -> None:
        """Send without lingering; return when nothing is left."""
        self.flushing = True
        while any(lane.busy for lane in self._lanes.values()):
            for lane in list(self._lanes.values()):
                lane.pump()
            await asyncio.sleep(0.01)

    async def close(self) -> None:
        """Stop sending; what was not delivered stays in the journal."""
        for lane in list(self._lanes.values()):
            await lane.close()

    def _put(self, lane: Lane, item: Item) -> None:
        self._hold(len(item.body) + ITEM_OVERHEAD)
        lane.put(item)

    def _hold(self, size: int) -> None:
        self._held += size
        if self.has_room():
            self._room.set()
        else:
            self._room.clear()


class Delivery(Outbox):
    """Everything on its way to one OTLP exporter."""

    def __init__(
        self,
        exporter: Exporter,
        *,
        memory_bytes: int,
        max_age_s: float,
        metrics: Metrics,
        backoff_s: float = 1.0,
    ) -> None:
        """Deliver to `exporter`, a lane a signal; the rest as in `Outbox`."""
        super().__init__(memory_bytes=memory_bytes, max_age_s=max_age_s, metrics=metrics, backoff_s=backoff_s)
        self.exporter = exporter
        for signal in OTLP:
            send = functools.partial(exporter.export, signal)
            self._lanes[signal] = Lane(self, signal, send, name=f"downstream: {signal}")

    def put(self, item: Item) -> None:
        """Take one record."""
        self._put(self._lanes[item.signal], item)

    async def close(self) -> None:
        """Stop sending; what was not delivered stays in the journal."""
        await super().close()
        await self.exporter.close()


class Lane:
    """Records of one signal that go one way and wait for the same things."""

    def __init__(
        self,
        delivery: Outbox,
        signal: Signal,
        send: Callable[[bytes], Awaitable[Outcome]],
        *,
        name: str,
        joins: bool = True,
        limited_s: Callable[[], float] = lambda: 0.0,
        emptied: Callable[[], object] = lambda: None,
    ) -> None:
        """Begin empty.

        Args:
            delivery: Whose lane it is.
            signal: What its records are, in metrics.
            send: Sends the bytes of one record, or of several joined ones, once.
            name: In logs and in `/readyz`.
            joins: Whether records may be joined by concatenation.
            limited_s: For how many seconds nothing may be sent.
            emptied: Called when nothing is left.
        """
        self.name = name
        self.trouble: str | None = None
        self._send_once = send
        self._joins = joins
        self._limited_s = limited_s
        self._emptied = emptied
        self._delivery = delivery
        self._metrics = delivery.metrics
        self._signal = signal
        self._queue: deque[Item] = deque()
        self._bytes = 0
        self._running: set[asyncio.Task[None]] = set()
        self._last_sent = 0.0
        self._timer: asyncio.Handle | None = None
        self._said: set[str] = set()

    @property
    def busy(self) -> bool:
        """Whether anything waits or is on its way."""
        return bool(self._queue or self._running)

    @property
    def waits(self) -> bool:
        """Whether a record would have to wait now, for nobody knows how long."""
        return self.trouble is not None or self._limited_s() > 0

    def put(self, item: Item) -> None:
        """Take one record."""
        self._queue.append(item)
        self._bytes += len(item.body)
        if self._timer is None or self._bytes >= JOIN_BYTES:
            if self._timer is not None:
                self._timer.cancel()
            # Soon: after all records of the same commit, so that they share an export.
            self._timer = asyncio.get_running_loop().call_soon(self.pump)

    def pump(self) -> None:
        """Start what can be sent now; else come back when it can."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        loop = asyncio.get_running_loop()
        while self._queue and len(self._running) < IN_FLIGHT:
            wait = self._last_sent + LINGER_S - loop.time()
            if wait > 0 and self._joins and self._bytes < JOIN_BYTES and not self._delivery.flushing:
                self._timer = loop.call_later(wait, self.pump)
                return
            self._last_sent = loop.time()
            task = loop.create_task(self._deliver(self._take()))
            self._running.add(task)
            task.add_done_callback(self._ended)

    async def close(self) -> None:
        """Stop sending."""
        if self._timer is not None:
            self._timer.cancel()
        for task in list(self._running):
            task.remove_done_callback(self._ended)
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self.pump()
        if not self.busy:
            self._emptied()

    def _take(self) -> list[Item]:
        """As many records as fit into one export, at least one."""
        batch = [self._queue.popleft()]
        size = len(batch[0].body)
        while self._joins and self._queue and size + len(self._queue[0].body) <= JOIN_BYTES:
            batch.append(self._queue.popleft())
            size += len(batch[-1].body)
        self._bytes -= size
        return batch

    async def _deliver(self, batch: list[Item]) -> None:
        attempt = 0
        while batch := self._not_too_old(batch):
            if (limited_s := self._limited_s()) > 0:
                await asyncio.sleep(min(limited_s, MAX_LIMITED_S))
                continue
            faults.reach("before_send")
            outcome = await self._send(batch)
            match outcome:
                case Accepted():
                    faults.reach("after_send")
                    self._accepted(batch, outcome)
                    return
                case Rejected() if len(batch) > 1:
                    self._say(
                        f"split {outcome.reason}",
                        f"a joined export was refused: {outcome.reason} {outcome.text}; sending each alone",
                    )
                    for item in batch:
                        await self._deliver([item])
                    return
                case Rejected():
                    self._give_up(batch[0], outcome.reason, outcome.text)
                    return
                case Retry():
                    self._metrics.retried.labels(self._signal, outcome.reason).inc()
                    self._in_trouble(f"{outcome.reason} {outcome.text}".strip())
                    await asyncio.sleep(self._pause(attempt, outcome.after_s))
                    attempt += 1

    async def _send(self, batch: list[Item]) -> Outcome:
        began = time.monotonic()
        try:
            for item in batch:
                if item.parked:
                    await self._delivery.fetch(item)
            body = batch[0].body if len(batch) == 1 else b"".join(item.body for item in batch)
            return await self._send_once(body)
        except Exception as error:  # noqa: BLE001 - a fault of ours must not stop the lane
            self._say(type(error).__name__, f"cannot export: {error!r}", traceback=True)
            return Retry(type(error).__name__, str(error))
        finally:
            self._metrics.export_seconds.labels(self._signal).observe(time.monotonic() - began)

    def _pause(self, attempt: int, hint_s: float | None) -> float:
        backoff = min(MAX_BACKOFF_S, self._delivery.backoff_s * 2.0 ** min(attempt, 16))
        backoff *= random.uniform(0.5, 1)  # noqa: S311 - jitter
        return max(backoff, min(hint_s or 0.0, MAX_HINT_S))

    def _accepted(self, batch: list[Item], outcome: Accepted) -> None:
        if self.trouble is not None:
            log.info("%s: taken again", self.name)
            self.trouble = None
        if outcome.rejected or outcome.text:
            self._metrics.partial.labels(self._signal).inc()
            self._metrics.rejected_items.labels(self._signal).inc(outcome.rejected)
            self._say("partial", f"downstream refused {outcome.rejected} items of a request: {outcome.text}")
        self._metrics.delivered.labels(self._signal).inc(len(batch))
        for item in batch:
            self._delivery.finish(item)

    def _not_too_old(self, batch: list[Item]) -> list[Item]:
        oldest = time.time() - self._delivery.max_age_s
        for item in batch:
            if item.received < oldest:
                why = f"not delivered within {self._delivery.max_age_s / 3600:g} h; last: {self.trouble}"
                self._give_up(item, "expired", why)
        return [item for item in batch if item.received >= oldest]

    def _give_up(self, item: Item, reason: str, detail: str) -> None:
        self._metrics.dead_lettered.labels(self._signal, reason).inc()
        self._say(f"dead {reason}", f"a request went to the dead-letter table: {reason} {detail}")
        self._delivery.finish(item, Burial(item.seq, item.size, reason, detail[:1000]))

    def _in_trouble(self, text: str) -> None:
        if self.trouble is None:
            log.warning("%s: not taken: %s; trying again", self.name, text)
        self.trouble = text

    def _say(self, key: str, text: str, *, traceback: bool = False) -> None:
        if key not in self._said:
            self._said.add(key)
            log.warning("%s: %s (counted from now on, not logged again)", self.name, text, exc_info=traceback)
