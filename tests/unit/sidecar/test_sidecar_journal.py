from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sidecar_tools import until

from otel_triage.sidecar import journal as journal_module
from otel_triage.sidecar.journal import Journal, JournalFull
from otel_triage.sidecar.metrics import Metrics
from otel_triage.sidecar.signals import Signal
from otel_triage.sidecar.store import Burial, JournalError, Record, Store

MIB = 1 << 20


@asynccontextmanager
async def opened(path: Path, *, max_bytes: int = MIB, keep_dead_s: float = 3600.0) -> AsyncIterator[Journal]:
    made = Journal(path / "journal.db", max_bytes=max_bytes, keep_dead_s=keep_dead_s, metrics=Metrics())
    made.start()
    try:
        yield made
    finally:
        await made.close()


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    db = sqlite3.connect(path / "journal.db")
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()


async def test_append_read_back_settle_across_restarts(tmp_path: Path) -> None:
    before = time.time()
    async with opened(tmp_path) as journal:
        first = await journal.append(Signal.TRACES, b"one")
        second = await journal.append(Signal.LOGS, b"two")
        third = await journal.append(Signal.METRICS, b"three")
        assert first < second < third
        journal.settle([(second, 3)])
        await until(lambda: journal.records == 2)
        assert journal.bytes == 8
        assert await journal.read(second) is None
    async with opened(tmp_path) as journal:
        assert (journal.records, journal.bytes, journal.last_seq) == (2, 8, third)
        pending = await journal.pending(0)
        assert [(r.seq, r.signal, r.body) for r in pending] == [
            (first, Signal.TRACES, b"one"),
            (third, Signal.METRICS, b"three"),
        ]
        assert all(before <= r.received <= time.time() for r in pending)
        assert await journal.pending(first, limit=1) == [pending[1]]
        assert await journal.pending(0, max_bytes=1) == [pending[0]]
        journal.settle([(first, 3), (third, 5)])
    async with opened(tmp_path) as journal:
        assert journal.records == 0
        assert await journal.append(Signal.TRACES, b"") > third, "a number is never used twice"


async def test_appends_that_wait_together_share_a_commit(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        seen: list[int] = []
        futures = [
            journal.append(Signal.TRACES, b"x", lambda record: seen.append(record.seq)) for _ in range(500)
        ]
        seqs = await asyncio.gather(*futures)
        await asyncio.sleep(0)
        assert seqs == sorted(set(seqs))
        assert seen == seqs
        commits = journal._metrics.commit_seconds.collect()[0].samples
        count = next(sample.value for sample in commits if sample.name.endswith("_count"))
        assert count <= 10


async def test_a_caller_that_goes_away_does_not_take_the_record_with_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        committed: asyncio.Future[Record] = asyncio.get_running_loop().create_future()
        journal.append(Signal.TRACES, b"kept", committed.set_result).cancel()
        assert (await asyncio.wait_for(committed, 5)).body == b"kept"


async def test_full_refuses_and_takes_again(tmp_path: Path) -> None:
    async with opened(tmp_path, max_bytes=100) as journal:
        seq = await journal.append(Signal.TRACES, b"x" * 95)
        with pytest.raises(JournalFull):
            journal.append(Signal.TRACES, b"x" * 10)
        assert journal.trouble() == "the journal is full"
        await journal.append(Signal.TRACES, b"x" * 5)  # what fits is taken
        journal.settle([(seq, 95)])
        await until(lambda: journal.trouble() is None)
        await journal.append(Signal.TRACES, b"x" * 10)


async def test_dead_letters_leave_the_pending_and_keep_the_body(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        seq = await journal.append(Signal.LOGS, b"poison")
        journal.bury(Burial(seq, 6, "INVALID_ARGUMENT", "bad span"))
        await until(lambda: journal.records == 0)
        assert journal.bytes == 0
    assert rows(tmp_path, "SELECT seq, signal, body, reason, detail FROM deadletter") == [
        (seq, "logs", b"poison", "INVALID_ARGUMENT", "bad span")
    ]


async def test_dead_letters_give_way_to_the_living_oldest_first(tmp_path: Path) -> None:
    async with opened(tmp_path, max_bytes=100) as journal:
        for letter in (b"a", b"b", b"c"):
            seq = await journal.append(Signal.LOGS, letter * 30)
            journal.bury(Burial(seq, 30, "x", ""))
            await until(lambda: journal.records == 0)
        await journal.append(Signal.TRACES, b"x" * 50)
        assert rows(tmp_path, "SELECT substr(body, 1, 1) FROM deadletter") == [(b"c",)]
        assert journal._metrics.dropped.labels("deadletter_full")._value.get() == 2


async def test_dead_letters_are_deleted_after_their_time(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        seq = await journal.append(Signal.LOGS, b"old")
        journal.bury(Burial(seq, 3, "x", ""))
    async with opened(tmp_path, keep_dead_s=-1) as journal:
        await journal.append(Signal.TRACES, b"new")  # the first commit of a run cleans up
        dropped = journal._metrics.dropped.labels("deadletter_expired")
        await until(lambda: dropped._value.get() == 1)
    assert rows(tmp_path, "SELECT count(*) FROM deadletter") == [(0,)]


async def test_a_disk_that_refuses_fails_all_at_once_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "PROBE_S", 0.02)
    async with opened(tmp_path) as journal:
        kept = await journal.append(Signal.TRACES, b"kept")

        def refuse(*_: object) -> None:
            raise sqlite3.OperationalError("disk I/O error")

        with monkeypatch.context() as broken:
            broken.setattr(Store, "commit", refuse)
            broken.setattr(Store, "probe", refuse)
            with pytest.raises(JournalError, match="cannot write the journal: disk I/O error"):
                await asyncio.wait_for(journal.append(Signal.TRACES, b"lost"), 5)
            await until(lambda: journal.trouble() is not None)
            began = time.monotonic()
            with pytest.raises(JournalError, match="cannot write the journal: disk I/O error"):
                journal.append(Signal.TRACES, b"refused")
            assert time.monotonic() - began < 0.1
            journal.settle([(kept, 4)])
        await until(lambda: journal.trouble() is None)
        await journal.append(Signal.TRACES, b"again")
        await until(lambda: journal.records == 1)
        assert journal.bytes == 5
        assert [r.body for r in await journal.pending(0)] == [b"again"]


async def test_what_waits_behind_a_failing_commit_fails_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a full journal does not hide a broken disk."""
    async with opened(tmp_path, max_bytes=100) as journal:
        began, go_on = threading.Event(), threading.Event()

        def refuse(*_: object) -> None:
            began.set()
            go_on.wait(10)
            raise sqlite3.OperationalError("disk I/O error")

        monkeypatch.setattr(Store, "commit", refuse)
        monkeypatch.setattr(Store, "probe", refuse)
        first = journal.append(Signal.TRACES, b"x" * 40)
        await asyncio.to_thread(began.wait, 10)
        second = journal.append(Signal.TRACES, b"x" * 40)
        with pytest.raises(JournalFull):
            journal.append(Signal.TRACES, b"x" * 40)
        go_on.set()
        for waiting in (first, second):
            with pytest.raises(JournalError, match="disk I/O error"):
                await asyncio.wait_for(waiting, 5)
        with pytest.raises(JournalError, match="disk I/O error"):
            journal.append(Signal.TRACES, b"x")
        assert (journal.bytes, journal.records) == (0, 0)


async def test_any_other_fault_of_the_writer_is_survived_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "PROBE_S", 0.02)
    async with opened(tmp_path) as journal:
        with monkeypatch.context() as broken:
            broken.setattr(Store, "commit", lambda *_: 1 / 0)
            with pytest.raises(JournalError, match="division by zero"):
                await asyncio.wait_for(journal.append(Signal.TRACES, b"x"), 5)
        await until(lambda: journal.trouble() is None)
        await journal.append(Signal.TRACES, b"x")


async def test_a_dead_writer_thread_refuses_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path) as journal:
        with monkeypatch.context() as broken:
            broken.setattr(threading, "excepthook", lambda args: None)

            def end(*_: object) -> None:
                raise SystemExit

            broken.setattr(Store, "commit", end)
            (writer,) = (thread for thread in threading.enumerate() if thread.name == "journal")
            with pytest.raises(JournalError, match="writer thread is dead"):
                await asyncio.wait_for(journal.append(Signal.TRACES, b"x"), 5)
            await asyncio.to_thread(writer.join, 5)  # its last word is to the hook above
        assert journal.trouble() == "the journal's writer thread is dead"
        with pytest.raises(JournalError, match="writer thread is dead"):
            journal.append(Signal.TRACES, b"x")


async def test_a_disk_that_hangs_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "STALL_S", 0.1)
    async with opened(tmp_path) as journal:
        go_on = threading.Event()
        real = Store.commit
        monkeypatch.setattr(Store, "commit", lambda *args: (go_on.wait(10), real(*args))[1])
        committed: list[Record] = []
        waiting = journal.append(Signal.TRACES, b"late", committed.append)
        await until(lambda: journal.trouble() is not None)
        assert journal.trouble() == "the disk has not finished a commit for 0 s"
        journal.tick()
        with pytest.raises(JournalError, match="has not finished a commit"):
            await waiting
        with pytest.raises(JournalError, match="has not finished a commit"):
            journal.append(Signal.TRACES, b"x")
        go_on.set()
        await until(lambda: committed)  # it was written after all: delivered, if perhaps twice
        assert journal.trouble() is None


async def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path):
        pass
    db = sqlite3.connect(tmp_path / "journal.db")
    db.execute("PRAGMA user_version = 7")
    db.close()
    with pytest.raises(JournalError) as caught:
        Store(tmp_path / "journal.db")
    assert str(caught.value) == (
        f"the journal {tmp_path / 'journal.db'} has schema 7, made by a newer otel-triage;"
        " this one knows up to 1."
        " Use the newer version, or another OTEL_TRIAGE_DATA_DIR"
    )


async def test_an_unreadable_place_is_said(tmp_path: Path) -> None:
    (tmp_path / "journal.db").mkdir()
    with pytest.raises(
        JournalError, match=r"cannot open the journal .*journal\.db: unable to open database file"
    ):
        Store(tmp_path / "journal.db")


async def test_a_file_that_is_no_database_is_moved_aside(tmp_path: Path) -> None:
    (tmp_path / "journal.db").write_bytes(b"garbage" * 1000)
    async with opened(tmp_path) as journal:
        await journal.append(Signal.TRACES, b"x")
        assert journal._metrics.journal_damaged._value.get() == 1
    (aside,) = tmp_path.glob("journal.db.damaged-*")  # noqa: ASYNC240
    assert aside.read_bytes() == b"garbage" * 1000


async def test_what_a_damaged_file_still_gives_is_taken_over(tmp_path: Path) -> None:
    async with opened(tmp_path, max_bytes=4 * MIB) as journal:
        seqs = await asyncio.gather(*(journal.append(Signal.TRACES, bytes([n]) * 40_000) for n in range(40)))
    raw = bytearray((tmp_path / "journal.db").read_bytes())
    page = 16384
    start = raw.index(bytes([20]) * 16000) // page * page
    raw[start : start + page] = b"\xff" * page
    (tmp_path / "journal.db").write_bytes(raw)
    async with opened(tmp_path, max_bytes=4 * MIB) as journal:
        found = {r.seq: r.body for r in await journal.pending(0, max_bytes=4 * MIB)}
        for n, seq in enumerate(seqs):
            assert n == 20 or found[seq] == bytes([n]) * 40_000
        assert await journal.append(Signal.TRACES, b"x") > seqs[-1]
