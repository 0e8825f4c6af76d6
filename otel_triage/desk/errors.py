"""The failures that were decided, in `state.db`: one row each, with what joins later sightings to it.

SQLite in WAL mode with `synchronous=FULL`, written by one thread, a transaction a batch. A row
and its join keys commit together, so a replay of the journal counts nothing twice.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from otel_triage.desk.joins import Failure, Joins, Link, Sighting
from otel_triage.desk.rows import (
    SCHEMA,
    SCHEMA_VERSION,
    SELECT,
    SELECT_JOIN,
    UPSERT,
    UPSERT_JOIN,
    Snapshot,
    StoredError,
    join_row,
    restored,
    row,
    snapshot,
    stored,
)  # fmt: skip

FILE: Final = "state.db"
DEGRADED: Final = "state"
"""What `/readyz` names while failures cannot be written down."""

_PENDING_LIMIT: Final = 10_000
_RETRY_S: Final = 1.0
_TIDY_S: Final = 60.0
_TIDY_ROWS: Final = 5_000
_RECALLED: Final = 64
_DAY_S: Final = 86_400.0

log = logging.getLogger(__name__)


class StateError(Exception):
    """A failure could not be written to `state.db`; it was decided, and will be tried again."""


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


class Errors:
    """The table of failures, and the joins in front of it.

    Where the disk refuses, failures are still decided and joined, `degraded` says so, `note` fails,
    and up to 10,000 of them wait in memory for the disk to come back.

    Args:
        directory: Where `state.db` is, or is made.
        clock: Unix time in seconds.
        keep_days: `KEEP_ERRORS_DAYS`.
        row_limit: Rows kept at most, so that the file is bounded; the oldest go first.
    """

    def __init__(
        self,
        directory: Path,
        *,
        clock: Callable[[], float] = time.time,
        keep_days: float = 14,
        row_limit: int = 200_000,
    ) -> None:
        self._path = directory / FILE
        self._clock = clock
        self._keep_s = keep_days * _DAY_S
        self._row_limit = row_limit
        self._db: sqlite3.Connection | None = None
        self._recall: sqlite3.Connection | None = None
        self._pending: dict[str, Snapshot] = {}
        self._promise: asyncio.Future[None] | None = None
        self._ready = threading.Condition()
        self._closing = False
        self._problem: str | None = None
        self._thread = threading.Thread(target=self._write_on, name="otel-triage-state", daemon=True)
        self.joins = Joins(clock)
        self.lost = 0
        """Failures that could not be written down and were dropped, because too many waited."""

    def start(self) -> None:
        """Opens the file, takes over the join keys of before, starts the writer. Blocks; never raises."""
        try:
            self._db = self._open()
            self._load()
        except (sqlite3.Error, OSError) as error:
            self._failed(error)
        self._thread.start()

    def close(self) -> None:
        """Writes what waits, once more, and stops the writer. Blocks."""
        with self._ready:
            self._closing = True
            self._ready.notify()
        self._thread.join()
        if self._recall is not None:
            self._recall.close()

    @property
    def degraded(self) -> tuple[str, ...]:
        """`("state",)` while failures cannot be written down."""
        return (DEGRADED,) if self._problem is not None else ()

    def known(self, key: str) -> bool:
        """Whether a failure with this `error_id` or identity was counted lately."""
        return self.joins.known(key) is not None

    def find(self, sighting: Sighting) -> tuple[Failure, Link] | None:
        """The failure that a sighting belongs to, and how; None if it is new.

        Memory answers, as long as nothing had to leave it. Else the file is asked for what memory
        lacks: some 50 µs from the page cache, at an error rate at which that is the lesser evil.
        """
        found = self.joins.find(sighting)
        if found is not None or not self.joins.forgotten:
            return found
        query = f"{SELECT_JOIN} WHERE key IN (?, ?) OR (trace_id = ? AND trace_id != '') LIMIT ?"
        keys = (sighting.identity, sighting.error.error_id, sighting.trace_id, _RECALLED)
        try:
            if self._recall is None:
                self._recall = self._reader()
            rows = self._recall.execute(query, keys).fetchall()
        except sqlite3.Error as error:
            self._failed(error)
            return None
        for state, *values in rows:
            self.joins.restore(restored(state, tuple(values)))
        return self.joins.find(sighting) if rows else None

    def note(self, *failures: Failure) -> Awaitable[None]:
        """Queues failures to be written, with their join keys; noting one again updates its row.

        Call it on the event loop. The result is done when the rows are durable.

        Raises:
            StateError: On awaiting, if the disk refused. The failures are tried again meanwhile.
        """
        with self._ready:
            for failure in failures:
                self._pending.pop(failure.key, None)
                self._pending[failure.key] = snapshot(failure)
            while len(self._pending) > _PENDING_LIMIT:
                oldest = next(iter(self._pending))
                del self._pending[oldest]
                self.lost += 1
                self.joins.forget(oldest)
            if self._promise is None:
                self._promise = asyncio.get_running_loop().create_future()
                self._promise.add_done_callback(_retrieve)
            promise = self._promise
            self._ready.notify()
        return asyncio.shield(promise)

    async def recent(self, limit: int = 100) -> list[StoredError]:
        """The failures heard of last, newest first."""
        return await asyncio.to_thread(self._recent, limit)

    async def count(self) -> int:
        """How many failures the file holds."""
        return await asyncio.to_thread(self._count)

    # Below: in worker threads, but for `start`.

    def _recent(self, limit: int) -> list[StoredError]:
        with closing(self._reader()) as db:
            return [
                stored(row)
                for row in db.execute(f"{SELECT} ORDER BY noted DESC, rowid DESC LIMIT ?", (limit,))
            ]

    def _count(self) -> int:
        with closing(self._reader()) as db:
            found: int = db.execute("SELECT count(*) FROM errors").fetchone()[0]
            return found

    def _reader(self) -> sqlite3.Connection:
        return sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as damage:
            aside = self._path.with_name(f"{FILE}.damaged-{int(self._clock())}")
            self._path.rename(aside)
            for suffix in ("-wal", "-shm"):
                self._path.with_name(FILE + suffix).unlink(missing_ok=True)
            log.error("%s is damaged (%s): moved to %s, a new one is started", self._path, damage, aside)
            return self._connect()

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=5)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA_VERSION:
                raise sqlite3.OperationalError(
                    f"made by a newer version (schema {version}, known is {SCHEMA_VERSION}): "
                    "upgrade, or move the file away"
                )
            if version == 0:
                db.executescript(f"BEGIN; {SCHEMA} COMMIT;")
        except BaseException:
            db.close()
            raise
        return db

    def _load(self) -> None:
        assert self._db is not None
        query = f"{SELECT_JOIN} ORDER BY errors.noted DESC LIMIT ?"
        for state, *values in reversed(self._db.execute(query, (self.joins.limit + 1,)).fetchall()):
            self.joins.restore(restored(state, tuple(values)))

    def _write_on(self) -> None:
        tidy_at = 0.0
        while True:
            with self._ready:
                self._ready.wait_for(lambda: self._pending or self._closing, timeout=_TIDY_S)
                batch, self._pending = self._pending, {}
                promise, self._promise = self._promise, None
                closing_down = self._closing
            failure = self._attempt(batch)
            if failure is not None:
                self._put_back(batch)
            _settle(promise, failure)
            if closing_down:
                break
            if failure is not None:
                with self._ready:
                    self._ready.wait_for(lambda: self._closing, timeout=_RETRY_S)
            elif time.monotonic() >= tidy_at:
                tidy_at = time.monotonic() + (0 if self._tidy() else _TIDY_S)
        if self._db is not None:
            self._db.close()

    def _attempt(self, batch: dict[str, Snapshot]) -> StateError | None:
        """Writes one batch durably; the reason if the disk refuses."""
        try:
            if self._db is None:
                self._db = self._open()
            if batch:
                with _transaction(self._db):
                    self._db.executemany(UPSERT, [row(shot) for shot in batch.values()])
                    self._db.executemany(UPSERT_JOIN, [join_row(shot) for shot in batch.values()])
        except (sqlite3.Error, OSError) as error:
            self._failed(error)
            return StateError(f"cannot write {self._path}: {error}")
        for shot in batch.values():
            shot.failure.stored = True
        if self._problem is not None:
            log.warning("%s can be written again", self._path)
            self._problem = None
        return None

    def _tidy(self) -> bool:
        """Deletes what has expired, a part at a time; whether more is left."""
        now = self._clock()
        assert self._db is not None
        try:
            with _transaction(self._db):
                self._db.execute("DELETE FROM joins WHERE expires < ?", (now,))
                gone = self._db.execute(
                    "DELETE FROM errors WHERE rowid IN (SELECT rowid FROM errors WHERE noted < ? OR rowid <="
                    " (SELECT max(rowid) FROM errors) - ? LIMIT ?)",
                    (now - self._keep_s, self._row_limit, _TIDY_ROWS),
                )
        except sqlite3.Error as error:
            self._failed(error)
            return False
        return gone.rowcount >= _TIDY_ROWS

    def _put_back(self, batch: dict[str, Snapshot]) -> None:
        with self._ready:
            self._pending = {**batch, **self._pending}

    def _failed(self, error: Exception) -> None:
        if self._problem is None:
            log.error("failures cannot be written to %s (%s); they are kept in memory and tried again",
                      self._path, error)  # fmt: skip
        self._problem = str(error)


def _retrieve(promise: asyncio.Future[None]) -> None:
    """So that a failure nobody waits for is not reported by asyncio as well."""
    if not promise.cancelled():
        promise.exception()


def _settle(promise: asyncio.Future[None] | None, failure: StateError | None) -> None:
    if promise is None:
        return

    def settle() -> None:
        if promise.done():
            return
        if failure is None:
            promise.set_result(None)
        else:
            promise.set_exception(failure)

    try:
        promise.get_loop().call_soon_threadsafe(settle)
    except RuntimeError:
        log.debug("the loop that waited for a note is closed")
