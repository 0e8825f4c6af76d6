"""The journal: append, settle, read back. What it has acknowledged survives SIGKILL and a power cut.

One writer thread owns the file. Appends that wait at the same time share a transaction, so
that the cost of an fsync is shared too: a commit starts at once if the last one is older
than the window, else when it is (an idle sidecar answers after one fsync, a busy one commits
some 200 times a second whatever comes). Settlements ride along with the next append.

When the disk refuses, the journal fails what waits, refuses new appends at once, and tries
the disk again every half second.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from otel_triage.sidecar.metrics import Metrics
from otel_triage.sidecar.signals import Signal
from otel_triage.sidecar.store import Burial, JournalError, Letter, Reader, Record, Store

WINDOW_S: Final = 0.005
"""Least time between the starts of two commits (measured: the best of 0, 2, 5 and 20 ms)."""
SETTLE_IDLE_S: Final = 0.05
"""How long settlements wait for an append to share its transaction with."""
PROBE_S: Final = 0.5
"""How often a disk that refused is tried again."""
STALL_S: Final = 5.0
"""A commit that takes longer counts as a disk that refuses."""
_NEARLY_FULL: Final = 0.9
"""A journal that was full is ready again below this share of its size."""

log = logging.getLogger(__name__)

OnCommit = Callable[[Record], object]


class JournalFull(JournalError):
    """The journal holds as much as it may; come back later."""


@dataclass(slots=True, eq=False)
class _Append:
    signal: Signal
    body: bytes
    received: float
    future: asyncio.Future[int]
    on_commit: OnCommit | None
    letter: Letter | None
    record: Record | None = None


@dataclass(slots=True)
class _Group:
    """What waits for the writer thread."""

    appends: list[_Append] = field(default_factory=list)
    settled: list[tuple[int, int]] = field(default_factory=list)
    buried: list[Burial] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.appends or self.settled or self.buried)


class Journal:
    """Requests that were acknowledged and are not delivered yet. All methods belong to the event loop."""

    def __init__(self, path: Path, *, max_bytes: int, keep_dead_s: float, metrics: Metrics) -> None:
        """Open the file; `start` begins the work.

        Args:
            path: The SQLite file; its directory exists.
            max_bytes: Most bytes of bodies kept, dead letters included; those give way first.
            keep_dead_s: Seconds after which a dead letter is deleted.
            metrics: Where commits, records, bytes and drops are counted.

        Raises:
            JournalError: If the file cannot be used.
        """
        self._store = Store(path)
        self._reader = Reader(path)
        self._max_bytes = max_bytes
        self._keep_dead_s = keep_dead_s
        self._metrics = metrics
        self.records, self.bytes, self._dead_bytes, self._seq = self._store.counts()
        self._waiting = _Group()
        self._wake = threading.Condition()
        self._busy: list[_Append] = []
        self._commit_began: float | None = None
        self._failure: str | None = None
        self._was_full = False
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        metrics.journal_records.set_function(lambda: self.records)
        metrics.journal_bytes.set_function(lambda: self.bytes)
        if self._store.salvaged is not None:
            metrics.journal_damaged.inc()

    def start(self) -> None:
        """Start the writer thread, for the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    @property
    def last_seq(self) -> int:
        """The highest number given so far. A record read back from before a restart is not above it."""
        return self._seq

    def trouble(self) -> str | None:
        """Why an append would be refused now; None if it would not."""
        if (broken := self._broken()) is not None:
            return broken
        if self._was_full and self.bytes > self._max_bytes * _NEARLY_FULL:
            return "the journal is full"
        self._was_full = False
        return None

    def _broken(self) -> str | None:
        if self._closing or not self._thread.is_alive():
            return "the journal is closed" if self._closing else "the journal's writer thread is dead"
        began = self._commit_began
        if began is not None and time.monotonic() - began > STALL_S:
            return f"the disk has not finished a commit for {STALL_S:.0f} s"
        return self._failure

    def append(
        self,
        signal: Signal,
        body: bytes,
        on_commit: OnCommit | None = None,
        *,
        letter: Letter | None = None,
    ) -> asyncio.Future[int]:
        """Write one request; the future gives its number once it is durable.

        Args:
            signal: What `body` is.
            body: An encoded export request.
            on_commit: Called on the loop, in the order of numbers, after the futures of its group
                are resolved, also if the future was cancelled meanwhile.
            letter: The dead letter that this was, deleted in the same transaction.

        Raises:
            JournalFull: At once, if it holds too much.
            JournalError: At once, or by the future, if the disk refuses.
        """
        if (broken := self._broken()) is not None:
            raise JournalError(broken)
        if self.bytes + len(body) > self._max_bytes:
            self._was_full = True
            raise JournalFull("the journal is full")
        entry = _Append(signal, body, time.time(), self._loop.create_future(), on_commit, letter)
        with self._wake:
            if self._failure is not None:  # since just now: nobody would come for it
                raise JournalError(self._failure)
            self._waiting.appends.append(entry)
            self._wake.notify()
        self.bytes += len(body)
        self.records += 1
        return entry.future

    def settle(self, records: Iterable[tuple[int, int]]) -> None:
        """Forget records that need no delivery any more: pairs of number and size in the journal.

        Durable with the next commit; until then a crash brings them back.
        """
        with self._wake:
            self._waiting.settled.extend(records)
            self._wake.notify()

    def bury(self, burial: Burial) -> None:
        """Move a record to the dead-letter table, where it does not count as pending."""
        with self._wake:
            self._waiting.buried.append(burial)
            self._wake.notify()

    async def letters(self) -> list[Letter]:
        """All dead letters, the oldest first.

        Raises:
            sqlite3.Error: If the disk refuses.
        """
        return await asyncio.to_thread(self._reader.letters)

    async def letter(self, seq: int) -> Record | None:
        """One dead letter as the record that it was; None if there is none."""
        return await asyncio.to_thread(self._reader.letter, seq)

    async def pending(
        self,
        after: int,
        signals: Sequence[Signal] = tuple(Signal),
        limit: int = 256,
        max_bytes: int = 1 << 20,
    ) -> list[Record]:
        """The oldest records of these signals above number `after` that are not settled.

        Raises:
            sqlite3.Error: If the disk refuses.
        """
        return await asyncio.to_thread(self._reader.pending, after, signals, limit, max_bytes)

    async def read(self, seq: int) -> Record | None:
        """One pending record; None if it is settled or never was."""
        return await asyncio.to_thread(self._reader.read, seq)

    def tick(self) -> None:
        """Fail what waits on a disk that hangs; to be called about once a second."""
        began = self._commit_began
        if began is not None and time.monotonic() - began > STALL_S:
            self._fail([*self._busy, *self._waiting.appends], self.trouble() or "")

    async def close(self) -> None:
        """Write what waits, then close the file."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, STALL_S)
        self._reader.close()

    # --- the writer thread ---

    def _run(self) -> None:
        last_start = 0.0
        next_cleaning = 0.0
        try:
            while (group := self._take(last_start)) is not None:
                last_start = time.monotonic()
                self._write(group)
                if last_start > next_cleaning:
                    next_cleaning = last_start + 60
                    self._clean()
        finally:
            self._store.close()
            self._give_up("the journal's writer thread is dead")

    def _take(self, last_start: float) -> _Group | None:
        """Wait for work and for the window; None when closing and nothing is left."""
        with self._wake:
            self._wake.wait_for(lambda: self._waiting or self._closing, timeout=60)
            if not self._waiting.appends:
                self._wake.wait_for(lambda: self._waiting.appends or self._closing, timeout=SETTLE_IDLE_S)
            if not self._waiting and self._closing:
                return None
        pause = last_start + WINDOW_S - time.monotonic()
        if pause > 0 and not self._closing:
            time.sleep(pause)
        with self._wake:
            group, self._waiting = self._waiting, _Group()
        return group

    def _write(self, group: _Group) -> None:
        if not group:
            return
        self._busy = group.appends
        began = self._commit_began = time.monotonic()
        try:
            records = []
            for seq, entry in enumerate(group.appends, self._seq + 1):
                entry.record = Record(seq, entry.signal, entry.received, entry.body)
                records.append(entry.record)
            self._make_room()
            letters = [entry.letter for entry in group.appends if entry.letter is not None]
            self._store.commit(
                records,
                [seq for seq, _ in group.settled],
                group.buried,
                [letter.seq for letter in letters],
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, the thread must live and nobody may hang
            self._give_up(f"cannot write the journal: {error}")
            self._wait_for_the_disk(group)
        else:
            self._idle()
            self._seq += len(records)
            self._metrics.commit_seconds.observe(time.monotonic() - began)
            self._dead_bytes += sum(burial.size for burial in group.buried)
            self._dead_bytes -= sum(letter.size for letter in letters)
            gone = len(group.settled) + len(group.buried)
            size = sum(size for _, size in group.settled) + sum(burial.size for burial in group.buried)
            self._loop.call_soon_threadsafe(self._committed, group.appends, gone, size)

    def _idle(self) -> None:
        self._commit_began = None
        self._busy = []

    def _give_up(self, why: str) -> None:
        """Refuse whatever waits, and from now on."""
        with self._wake:
            self._failure = why
            left = [*self._busy, *self._waiting.appends]
            self._waiting.appends = []
        self._idle()
        self._loop.call_soon_threadsafe(self._refuse, left, why)

    def _wait_for_the_disk(self, group: _Group) -> None:
        """Refuse until a small write succeeds, then let the settlements of `group` come again."""
        log.error("%s; refusing requests until it can be written again", self._failure)
        while not self._closing:
            with self._wake:
                self._wake.wait_for(lambda: self._closing, timeout=PROBE_S)
            try:
                self._store.probe()
            except Exception as still:  # noqa: BLE001
                self._failure = f"cannot write the journal: {still}"
            else:
                log.warning("the journal can be written again")
                break
        with self._wake:
            self._waiting.settled.extend(group.settled)
            self._waiting.buried.extend(group.buried)
            self._failure = None

    def _make_room(self) -> None:
        """Let the oldest dead letters give way when they and the pending records are too much together."""
        excess = self.bytes + self._dead_bytes - self._max_bytes
        if excess > 0 and self._dead_bytes > 0:
            self._dropped("deadletter_full", *self._store.make_room(excess))

    def _clean(self) -> None:
        try:
            self._dropped("deadletter_expired", *self._store.forget_before(time.time() - self._keep_dead_s))
        except Exception as error:  # noqa: BLE001
            log.warning("cannot delete old dead letters: %s", error)

    def _dropped(self, reason: str, letters: int, size: int) -> None:
        self._dead_bytes -= size
        if letters:
            self._metrics.dropped.labels(reason).inc(letters)

    # --- back on the loop: once a commit ---

    def _committed(self, appends: list[_Append], gone: int, size: int) -> None:
        self.records -= gone
        self.bytes -= size
        for entry in appends:
            if not entry.future.done():
                assert entry.record is not None
                entry.future.set_result(entry.record.seq)
        for entry in appends:
            if entry.on_commit is not None and entry.record is not None:
                self._loop.call_soon(entry.on_commit, entry.record)

    def _refuse(self, appends: list[_Append], why: str) -> None:
        self.records -= len(appends)
        self.bytes -= sum(len(entry.body) for entry in appends)
        self._fail(appends, why)

    def _fail(self, appends: list[_Append], why: str) -> None:
        for entry in appends:
            if not entry.future.done():
                entry.future.set_exception(JournalError(why))
                entry.future.exception()  # a caller that has gone is no reason for a warning
