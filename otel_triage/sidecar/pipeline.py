"""The way through: accept -> journal -> triage -> deliver -> settle. One object ties the stages together.

A record goes to delivery from memory while there is room. Beyond that it stands in the
journal only, and is read back when delivery has room again. A restart is the same case:
everything stands in the journal. Each downstream has a route of its own, so that one that is
dead does not stop the other.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import sqlite3
from collections.abc import Awaitable, Collection, Coroutine, Mapping
from typing import Any, Final, Protocol

from google.protobuf.message import DecodeError

from otel_triage.sidecar.deliver import Item
from otel_triage.sidecar.journal import Journal, JournalFull
from otel_triage.sidecar.loops import Loops
from otel_triage.sidecar.metrics import Metrics
from otel_triage.sidecar.refusals import Refused, Why
from otel_triage.sidecar.sentry_record import unpack
from otel_triage.sidecar.signals import SENTRY, WIRE, Signal
from otel_triage.sidecar.stages import Message, Triage, Triaged
from otel_triage.sidecar.store import Burial, JournalError, Letter, Record

_TICK_S: Final = 1.0

log = logging.getLogger(__name__)


class Downstream(Protocol):
    """Where records go after triage. Calls `item.done` for each, when it is through with it."""

    @property
    def keeps(self) -> bool:
        """Whether what it took is kept there; else the desk's own table is the only place."""
        ...

    def put(self, item: Item) -> None:
        """Take one record."""

    def has_room(self) -> bool:
        """Whether there is memory for one more payload."""

    async def wait_for_room(self) -> None:
        """Return when `has_room`."""

    async def drain(self) -> None:
        """Send without lingering; return when nothing is left."""


class Memory:
    """Bytes of requests that are being received; bounded, so that a flood is throttled."""

    def __init__(self, limit: int) -> None:
        """Allow `limit` bytes at once."""
        self.held = 0
        self._limit = limit

    def take(self, size: int) -> None:
        """Reserve `size` bytes.

        Raises:
            Refused: If that would be too much.
        """
        if self.held + size > self._limit:
            raise Refused(Why.MEMORY, "too many bytes in flight; send again later")
        self.held += size

    def give(self, size: int) -> None:
        """Return what was reserved."""
        self.held -= size


class _Route:
    """The way to one downstream.

    `cursor` is the number of the last record of these signals that was handed over: all above it
    wait in the journal, none below it does.
    """

    def __init__(self, signals: tuple[Signal, ...], downstream: Downstream) -> None:
        self.signals = signals
        self.downstream = downstream
        self.cursor = 0
        self.committed_seq = 0
        self.behind = asyncio.Event()
        self.level = asyncio.Event()


def parse(signal: Signal, body: bytes) -> Message:
    """Read a request in full, so that nothing broken is acknowledged.

    Raises:
        Refused: If it is not one.
    """
    if signal in SENTRY:
        return unpack(signal, body)
    request = WIRE[signal].request
    try:
        return request.FromString(body)
    except DecodeError as error:
        raise Refused(Why.INVALID, f"not an {request.DESCRIPTOR.full_name} in protobuf: {error}") from None


class Pipeline:
    """The data path. All methods belong to the event loop."""

    def __init__(
        self,
        journal: Journal,
        triage: Triage,
        routes: Mapping[tuple[Signal, ...], Downstream],
        *,
        loops: Loops,
        memory_bytes: int,
        metrics: Metrics,
    ) -> None:
        """Tie the stages together; `start` recovers what the journal holds.

        Args:
            journal: Opened, not started.
            triage: The stage that finds and annotates failed calls.
            routes: Where to deliver which signals.
            loops: Knows what goes in a circle.
            memory_bytes: Most bytes of requests between arrival and acknowledgement.
            metrics: Where everything is counted.
        """
        self.memory = Memory(memory_bytes)
        self.draining = False
        self._journal = journal
        self._triage = triage
        self._loops = loops
        self._routes = [_Route(signals, downstream) for signals, downstream in routes.items()]
        self._route_of = {signal: route for route in self._routes for signal in route.signals}
        self._metrics = metrics
        self._read_trouble: str | None = None
        self._tasks: set[asyncio.Future[None]] = set()
        self._notes: set[asyncio.Future[None]] = set()
        self._said: set[str] = set()
        metrics.receiving_bytes.set_function(lambda: self.memory.held)

    def start(self) -> None:
        """Begin: take requests at once, and recover what the last run left in the journal beside that."""
        self._journal.start()
        if self._journal.records:
            log.info("recovering %d records from the journal", self._journal.records)
        for route in self._routes:
            route.committed_seq = self._journal.last_seq
            if self._journal.records:
                route.behind.set()
            else:
                route.cursor = self._journal.last_seq
                route.level.set()
            self._keep(self._catch_up(route), self._tasks)
        self._keep(self._tick(), self._tasks)

    async def accept(self, signal: Signal, body: bytes, message: Message | None = None) -> None:
        """Take one request; returns when it is durable.

        Args:
            signal: What it is.
            body: The encoded request, as it stands in the journal.
            message: `body`, parsed, if the caller has it already.

        Raises:
            Refused: If it is broken, cannot be made durable now, or goes in a circle.
        """
        if self.draining:
            raise Refused(Why.DRAINING, "shutting down; send again later")
        if message is None:
            message = parse(signal, body)
        if not body:
            return  # a valid request with nothing in it
        key = self._loops.check_turns(signal, message)
        await self._append(signal, body, message)
        self._loops.took(key)

    async def _append(
        self, signal: Signal, body: bytes, message: Message, letter: Letter | None = None
    ) -> None:
        self.memory.take(len(body))
        on_commit = functools.partial(self._committed, message)
        try:
            await self._journal.append(signal, body, on_commit, letter=letter)
        except JournalFull as full:
            raise Refused(Why.JOURNAL_FULL, f"{full}; send again later") from None
        except JournalError as error:
            raise Refused(Why.JOURNAL, f"{error}; send again later") from None
        finally:
            self.memory.give(len(body))

    async def resend(self, seqs: Collection[int] | None = None) -> int:
        """Take dead letters up again; returns how many.

        Args:
            seqs: Numbers of letters; None for all.

        Raises:
            Refused: If the journal cannot take them now.
        """
        resent = 0
        for letter in await self._journal.letters():
            if seqs is not None and letter.seq not in seqs:
                continue
            record = await self._journal.letter(letter.seq)
            if record is None:
                continue
            try:
                message = parse(record.signal, record.body)
            except Refused:
                continue  # an older version's; it stays where it is
            await self._append(record.signal, record.body, message, letter)
            resent += 1
        return resent

    def not_ready(self) -> str | None:
        """Why no request can be taken now; None if one can."""
        return "shutting down" if self.draining else self._journal.trouble()

    def degraded(self) -> list[str]:
        """What does not work as it should, while requests are still taken."""
        return [self._read_trouble] if self._read_trouble else []

    async def drain(self) -> None:
        """Return when every acknowledged record is delivered, and what was learnt is written down."""
        await asyncio.gather(*(self._drain(route) for route in self._routes))
        await asyncio.gather(*self._notes)

    async def _drain(self, route: _Route) -> None:
        await route.level.wait()
        await route.downstream.drain()

    async def close(self) -> None:
        """Stop working. What is not settled stays in the journal."""
        tasks = self._tasks | self._notes
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._journal.close()

    def _committed(self, message: Message, record: Record) -> None:
        """Take a record from the journal's commit, in the order of numbers."""
        route = self._route_of[record.signal]
        route.committed_seq = record.seq
        if record.seq <= route.cursor:
            return  # the way back from the journal was faster
        triaged = self._triaged(record, message)
        if route.behind.is_set() or not route.downstream.has_room():
            # Triaged all the same: a dead backend must not delay the desk. The payload is dropped here,
            # and triaged again when it is read back.
            route.behind.set()
            route.level.clear()
            if triaged.noted is not None:
                self._note(triaged.noted, None, route)
        else:
            self._hand_over(record, triaged, route)

    def _triaged(self, record: Record, message: Message) -> Triaged:
        try:
            return self._triage(record.signal, record.body, message)
        except Exception:  # noqa: BLE001 - triage must never cost a request
            self._failed("triage", "triage failed; the request goes on as it came")
            return Triaged(record.body)

    def _hand_over(self, record: Record, triaged: Triaged, route: _Route) -> None:
        route.cursor = record.seq
        item = Item(
            seq=record.seq,
            signal=record.signal,
            received=record.received,
            size=len(record.body),
            body=triaged.body,
            done=self._delivered,
            open=1 if triaged.noted is None else 2,
            reload=functools.partial(self._reload, record.seq, route),
        )
        if triaged.noted is not None:
            self._note(triaged.noted, item, route)
        route.downstream.put(item)

    def _delivered(self, item: Item, burial: Burial | None) -> None:
        item.burial = burial
        self._close_one(item)

    def _note(self, noted: Awaitable[None], item: Item | None, route: _Route) -> None:
        async def wait() -> None:
            try:
                await noted
            except Exception:  # noqa: BLE001
                self._failed("note", "the desk could not write down what it learnt")
                if not route.downstream.keeps:
                    return  # the record stays in the journal, and is noted at the next start
            if item is not None:
                self._close_one(item)

        self._keep(wait(), self._notes)

    def _close_one(self, item: Item) -> None:
        """A record leaves the journal when its delivery and the desk's own write are both done."""
        item.open -= 1
        if item.open:
            return
        if item.burial is None:
            self._journal.settle([(item.seq, item.size)])
        else:
            self._journal.bury(item.burial)

    async def _catch_up(self, route: _Route) -> None:
        while True:
            await route.behind.wait()
            await route.downstream.wait_for_room()
            known = route.committed_seq
            try:
                records = await self._journal.pending(route.cursor, route.signals)
                self._read_trouble = None
            except (sqlite3.Error, OSError) as error:
                self._read_trouble = f"journal: cannot read back: {error}"
                self._say("read", f"{self._read_trouble}; trying again every second")
                await asyncio.sleep(1)
                continue
            for record in records:
                self._hand_over(record, self._reread(record), route)
                await asyncio.sleep(0)
            if not records:
                route.cursor = max(route.cursor, known)
                if route.committed_seq <= route.cursor:
                    route.behind.clear()
                    route.level.set()

    async def _reload(self, seq: int, route: _Route) -> bytes:
        """What goes out of a record that is pending, as triage sees it now."""
        record = await self._journal.read(seq)
        if record is None:
            raise JournalError(f"record {seq} is not in the journal")
        triaged = self._reread(record)
        if triaged.noted is not None:
            self._note(triaged.noted, None, route)
        return triaged.body

    def _reread(self, record: Record) -> Triaged:
        try:
            message = parse(record.signal, record.body)
        except Refused:
            self._failed("triage", "a request from the journal cannot be read; it goes on as it is")
            return Triaged(record.body)
        return self._triaged(record, message)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            self._journal.tick()

    def _failed(self, stage: str, text: str) -> None:
        self._metrics.triage_failures.labels(stage).inc()
        self._say(stage, f"{text} (counted from now on, not logged again)", traceback=True)

    def _say(self, key: str, text: str, *, traceback: bool = False) -> None:
        if key not in self._said:
            self._said.add(key)
            log.error("%s", text, exc_info=traceback)

    def _keep(self, work: Coroutine[Any, Any, None], where: set[asyncio.Future[None]]) -> None:
        task = asyncio.ensure_future(work)
        where.add(task)
        task.add_done_callback(where.discard)
