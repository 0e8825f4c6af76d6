"""The journal's file: SQLite in WAL mode. Plain blocking calls, for one writer and one reader."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from otel_triage.sidecar import faults
from otel_triage.sidecar.signals import Signal

SCHEMA_VERSION: Final = 1
"""`PRAGMA user_version` of the file."""

_SCHEMA: Final = (
    # AUTOINCREMENT: the number of a settled record is never used again. A record's number is its
    # identity across restarts, for whoever counts it elsewhere.
    """CREATE TABLE journal (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        signal TEXT NOT NULL, received REAL NOT NULL, body BLOB NOT NULL
    )""",
    """CREATE TABLE deadletter (
        seq INTEGER PRIMARY KEY, signal TEXT NOT NULL, received REAL NOT NULL, body BLOB NOT NULL,
        buried REAL NOT NULL, reason TEXT NOT NULL, detail TEXT NOT NULL
    )""",
    "CREATE TABLE probe (at REAL NOT NULL)",
    "INSERT INTO probe VALUES (0)",
)
_PAGE_BYTES: Final = 16 << 10  # a third less CPU than 4 KiB at 300 kB a request, a little more below 1 kB
_WAL_BYTES: Final = 16 << 20  # then it is copied into the file; a page rewritten meanwhile is copied once

log = logging.getLogger(__name__)


class JournalError(Exception):
    """The journal cannot be used; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Record:
    """One request as it stands in the journal. `received` is in seconds since the epoch."""

    seq: int
    signal: Signal
    received: float
    body: bytes


@dataclass(frozen=True, slots=True)
class Burial:
    """A record on its way to the dead-letter table: why, in one word and in full."""

    seq: int
    size: int
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter. Times are in seconds since the epoch, `size` in bytes."""

    seq: int
    signal: str
    received: float
    buried: float
    reason: str
    detail: str
    size: int


class Store:
    """Tables, transactions and queries of one journal file."""

    def __init__(self, path: Path) -> None:
        """Open `path`, or start a new file there.

        A damaged file is moved aside, and what can still be read of it is taken over.

        Raises:
            JournalError: If the file was made by a newer version, or cannot be opened or made.
        """
        self.path = path
        self.salvaged: int | None = None
        """Records taken over from a damaged file; None if the file was sound."""
        try:
            self._open_sound()
        except sqlite3.OperationalError as error:
            raise JournalError(f"cannot open the journal {path}: {error}") from error

    def _open_sound(self) -> None:
        try:
            self._db = _connect(self.path)
            _prepare(self._db, self.path)
            if (verdict := self._db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                raise sqlite3.DatabaseError(verdict)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as damage:
            self._db.close()
            aside = _move_aside(self.path)
            self._db = _connect(self.path)
            _prepare(self._db, self.path)
            self.salvaged = self._take_over(aside)
            log.error(
                "journal %s is damaged (%s): moved to %s, a new one started, %d pending records taken over",
                self.path, damage, aside, self.salvaged,
            )  # fmt: skip

    def _take_over(self, aside: Path) -> int:
        with self._transaction():
            self._db.executemany("INSERT OR IGNORE INTO journal VALUES (?, ?, ?, ?)", _readable(aside))
        return self.counts()[0]

    def close(self) -> None:
        """Close the file; the WAL is merged into it."""
        self._db.close()

    def counts(self) -> tuple[int, int, int, int]:
        """Pending records, their bytes, dead letters' bytes, and the last number given."""
        records, size = self._db.execute(
            "SELECT count(*), coalesce(sum(length(body)), 0) FROM journal"
        ).fetchone()
        (dead,) = self._db.execute("SELECT coalesce(sum(length(body)), 0) FROM deadletter").fetchone()
        (last,) = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'journal'").fetchone()
        return records, size, dead, last

    def commit(
        self,
        new: Sequence[Record],
        settled: Iterable[int],
        buried: Iterable[Burial],
        forgotten: Iterable[int] = (),
    ) -> None:
        """Write one group durably: all of it or, on an exception, nothing.

        Raises:
            sqlite3.Error: If the disk refuses.
        """
        if faults.active("no_journal"):
            return
        with self._transaction():
            self._db.executemany(
                "INSERT INTO journal VALUES (?, ?, ?, ?)",
                [(r.seq, r.signal, r.received, r.body) for r in new],
            )
            self._db.executemany("DELETE FROM journal WHERE seq = ?", [(seq,) for seq in settled])
            now = time.time()
            for burial in buried:
                self._db.execute(
                    "INSERT OR IGNORE INTO deadletter"
                    " SELECT seq, signal, received, body, ?, ?, ? FROM journal WHERE seq = ?",
                    (now, burial.reason, burial.detail, burial.seq),
                )
                self._db.execute("DELETE FROM journal WHERE seq = ?", (burial.seq,))
            self._db.executemany("DELETE FROM deadletter WHERE seq = ?", [(seq,) for seq in forgotten])
            if new:
                faults.reach("after_write")
        if new:
            faults.reach("after_fsync")

    def probe(self) -> None:
        """Write something small durably.

        Raises:
            sqlite3.Error: If the disk still refuses.
        """
        with self._transaction():
            self._db.execute("UPDATE probe SET at = ?", (time.time(),))

    def make_room(self, size: int) -> tuple[int, int]:
        """Delete the oldest dead letters until `size` bytes are freed; returns (letters, bytes) deleted."""
        doomed, freed = [], 0
        for seq, length in self._db.execute("SELECT seq, length(body) FROM deadletter ORDER BY buried, seq"):
            if freed >= size:
                break
            doomed.append((seq,))
            freed += length
        with self._transaction():
            self._db.executemany("DELETE FROM deadletter WHERE seq = ?", doomed)
        return len(doomed), freed

    def revive(self, seqs: Iterable[int]) -> int:
        """Make pending records of these dead letters again, all or none; returns how many there were."""
        revived = 0
        with self._transaction():
            for seq in seqs:
                revived += self._db.execute(
                    "INSERT INTO journal (signal, received, body)"
                    " SELECT signal, ?, body FROM deadletter WHERE seq = ?",
                    (time.time(), seq),
                ).rowcount
                self._db.execute("DELETE FROM deadletter WHERE seq = ?", (seq,))
        return revived

    def forget_before(self, moment: float) -> tuple[int, int]:
        """Delete the dead letters buried before `moment`; returns (letters, bytes) deleted."""
        rows = self._db.execute(
            "SELECT seq, length(body) FROM deadletter WHERE buried < ?", (moment,)
        ).fetchall()
        if rows:
            with self._transaction():
                self._db.executemany("DELETE FROM deadletter WHERE seq = ?", [(seq,) for seq, _ in rows])
        return len(rows), sum(size for _, size in rows)

    def _transaction(self) -> _Transaction:
        return _Transaction(self._db)


class Reader:
    """A connection of its own for reading pending records back, beside the writer."""

    def __init__(self, path: Path) -> None:
        """Open `path`, which must exist."""
        self._db = sqlite3.connect(
            f"file:{path}?mode=ro", uri=True, check_same_thread=False, isolation_level=None
        )

    def pending(self, after: int, signals: Sequence[Signal], limit: int, max_bytes: int) -> list[Record]:
        """The oldest pending records of these signals above `after`: at most `limit`, about `max_bytes`.

        At least one record is returned if there is one, however large.
        """
        found: list[Record] = []
        size = 0
        marks = ", ".join("?" * len(signals))
        rows = self._db.execute(
            f"SELECT seq, signal, received, body FROM journal WHERE seq > ? AND signal IN ({marks})"  # noqa: S608
            " ORDER BY seq LIMIT ?",
            (after, *signals, limit),
        )
        for seq, signal, received, body in rows:
            found.append(Record(seq, Signal(signal), received, body))
            size += len(body)
            if size >= max_bytes:
                break
        rows.close()
        return found

    def read(self, seq: int) -> Record | None:
        """One pending record by its number."""
        found = self.pending(seq - 1, tuple(Signal), 1, 0)
        return found[0] if found and found[0].seq == seq else None

    def letters(self) -> list[Letter]:
        """All dead letters, the oldest first."""
        columns = "seq, signal, received, buried, reason, detail, length(body)"
        rows = self._db.execute(f"SELECT {columns} FROM deadletter ORDER BY buried, seq")  # noqa: S608
        return [Letter(*row) for row in rows]

    def letter(self, seq: int) -> Record | None:
        """One dead letter as the record that it was; None if there is none or its signal is unknown."""
        row = self._db.execute(
            "SELECT seq, signal, received, body FROM deadletter WHERE seq = ?", (seq,)
        ).fetchone()
        return Record(row[0], Signal(row[1]), *row[2:]) if row and row[1] in set(Signal) else None

    def close(self) -> None:
        """Close the connection."""
        self._db.close()


class _Transaction:
    """`BEGIN IMMEDIATE` … `COMMIT`, rolled back on any exception, a failing COMMIT included."""

    __slots__ = ("_db",)

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")


def _connect(path: Path) -> sqlite3.Connection:
    # The writer thread uses what the opening thread made; never both at once.
    return sqlite3.connect(path, isolation_level=None, timeout=10, check_same_thread=False)


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    """Set the file's mode and make its tables.

    Raises:
        JournalError: If a newer version made the file.
        sqlite3.DatabaseError: If it is damaged.
    """
    db.execute(f"PRAGMA page_size = {_PAGE_BYTES}")  # of a new file
    db.execute("PRAGMA journal_mode = WAL")
    db.execute(f"PRAGMA synchronous = {'OFF' if faults.active('no_fsync') else 'FULL'}")
    db.execute(f"PRAGMA wal_autocheckpoint = {_WAL_BYTES // _PAGE_BYTES}")
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        db.close()
        raise JournalError(
            f"the journal {path} has schema {version}, made by a newer otel-triage; this one knows up to"
            f" {SCHEMA_VERSION}. Use the newer version, or another OTEL_TRIAGE_DATA_DIR"
        )
    if version == 0:
        with _Transaction(db):
            for statement in _SCHEMA:
                db.execute(statement)
            # Numbers start at the clock, so that a new file never repeats those of one that was lost.
            db.execute("INSERT INTO sqlite_sequence VALUES ('journal', ?)", (time.time_ns() // 1000,))
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)  # the file's name must survive a power cut too
        finally:
            os.close(directory)


def _move_aside(path: Path) -> Path:
    aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
    for suffix in ("", "-wal", "-shm"):
        file = path.with_name(path.name + suffix)
        if file.exists():
            os.replace(file, aside.with_name(aside.name + suffix))
    return aside


def _readable(path: Path) -> Iterator[tuple[int, str, float, bytes]]:
    """Every pending row that a damaged file still gives."""
    db = sqlite3.connect(path)
    names = {signal.value for signal in Signal}
    try:
        for seq in sorted(_numbers(db)):
            try:
                row = db.execute(
                    "SELECT seq, signal, received, body FROM journal WHERE seq = ?", (seq,)
                ).fetchone()
            except (sqlite3.Error, UnicodeDecodeError):
                continue
            if row is not None and row[1] in names and isinstance(row[3], bytes):
                yield row
    finally:
        db.close()


def _numbers(db: sqlite3.Connection) -> set[int]:
    """Forwards to the damage, then backwards to it."""
    found: set[int] = set()
    for order in ("ASC", "DESC"):
        try:
            for (seq,) in db.execute(f"SELECT seq FROM journal ORDER BY seq {order}"):  # noqa: S608
                found.add(seq)
        except sqlite3.Error:
            continue
    return found
