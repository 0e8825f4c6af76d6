"""The table of failures: durable, bounded, and a broken disk degrades nothing else."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from verdicts import verdict

from otel_triage.desk import errors as desk_errors
from otel_triage.desk.errors import Errors, StateError
from otel_triage.desk.joins import Failure, Link, Origin, Sighting
from otel_triage.desk.rows import StoredError
from otel_triage.model import Candidate, Cause, LLMError

T0 = 1_750_000_000.0
DAY = 86_400

VERDICT = verdict(
    retry_after_s=2.0, alternative=Candidate(category="rate_limit", reason="requests", confidence=0.3)
)
ERROR = LLMError(
    error_id="e1",
    provider="openai",
    model="gpt-4o",
    status=429,
    attempt_statuses=(429, 429),
    message="Incorrect key sk-abcdefghijklmnopqrstuvwx of jane@example.com",
    causes=(Cause("openai.RateLimitError", "x"),),
)


class Clock:
    def __init__(self) -> None:
        self.now = T0

    def __call__(self) -> float:
        return self.now


def _sighting(error_id: str | None = "e1", **more: Any) -> Sighting:
    fields: dict[str, Any] = {
        "origin": Origin.EVENT,
        "identity": f"log:{error_id}",
        "reporter": "log:tap",
        "error": LLMError(error_id=error_id),
        "trace_id": "aa",
        "span_id": "01",
        "parent_id": "",
        "fingerprint": "f:1",
        "began": T0,
        "at": T0,
    }
    return Sighting(**fields | more)


def _failure(errors: Errors, key: str = "e1", *, noted: float = T0, error: LLMError = ERROR) -> Failure:
    failure = Failure(
        key=key,
        origin=Origin.EVENT,
        error=error,
        verdict=VERDICT,
        service="shop",
        environment="prod",
        trace_id="aa",
        span_id="01",
        began=T0 - 1,
        at=T0,
        noted=noted,
    )
    errors.joins.add(failure, _sighting(key))
    return failure


def _open(directory: Path, clock: Clock, **more: Any) -> Errors:
    made = Errors(directory, clock=clock, **more)
    made.start()
    return made


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest_asyncio.fixture
async def errors(tmp_path: Path, clock: Clock) -> AsyncIterator[Errors]:
    made = _open(tmp_path, clock)
    yield made
    made.close()


async def test_a_row_is_whole_scrubbed_and_durable_when_noted(errors: Errors, tmp_path: Path) -> None:
    await errors.note(_failure(errors))
    scrubbed = "Incorrect key [secret] of [email]"
    assert await errors.recent() == [
        StoredError(
            key="e1",
            at=T0,
            noted=T0,
            service="shop",
            environment="prod",
            trace_id="aa",
            span_id="01",
            error=LLMError(
                error_id="e1",
                provider="openai",
                model="gpt-4o",
                status=429,
                attempt_statuses=(429, 429),
                message=scrubbed,
                causes=(Cause("openai.RateLimitError", "x"),),
            ),
            verdict=VERDICT,
        )
    ]
    # By another connection, so that it is in the file: the columns that queries are made of.
    with sqlite3.connect(tmp_path / "state.db") as db:
        row = db.execute(
            "SELECT provider, model, category, reason, severity, retryable, owner, confidence FROM errors"
        )
        assert row.fetchall() == [("openai", "gpt-4o", "rate_limit", "tokens", "low", "yes", "account", 0.9)]
    errors.close()
    assert b"sk-abc" not in (tmp_path / "state.db").read_bytes()


async def test_the_writer_syncs_in_full(errors: Errors) -> None:
    assert errors._db is not None
    assert errors._db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert errors._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


async def test_noting_again_updates_the_one_row(errors: Errors) -> None:
    failure = _failure(errors)
    await errors.note(failure)
    failure.error = LLMError(error_id="e1", code="insufficient_quota")
    await asyncio.gather(errors.note(failure), errors.note(failure))
    assert await errors.count() == 1
    [row] = await errors.recent()
    assert row.error == LLMError(error_id="e1", code="insufficient_quota")


async def test_many_at_once_and_newest_first(errors: Errors) -> None:
    notes = [errors.note(_failure(errors, f"e{number}", noted=T0 + number)) for number in range(300)]
    await asyncio.gather(*notes)
    assert await errors.count() == 300
    assert [row.key for row in await errors.recent(3)] == ["e299", "e298", "e297"]


async def test_joins_survive_a_restart_and_rows_commit_with_them(
    errors: Errors, tmp_path: Path, clock: Clock
) -> None:
    await errors.note(_failure(errors))
    errors.close()
    clock.now += 600
    again = _open(tmp_path, clock)
    assert again.known("e1")
    found = again.find(_sighting(identity="other"))
    assert found is not None
    assert (found[0].key, found[1], found[0].error.status, found[0].verdict) == (
        "e1",
        Link.SAME,
        429,
        VERDICT,
    )
    again.close()


async def test_what_memory_forgot_is_found_in_the_file(errors: Errors) -> None:
    errors.joins.limit = 2
    await asyncio.gather(*(errors.note(_failure(errors, f"e{number}")) for number in range(5)))
    assert len(errors.joins) == 2
    assert errors.joins.forgotten == 3
    assert not errors.known("e0")
    found = errors.find(_sighting("e0", trace_id="bb"))
    assert found is not None
    assert found[0].key == "e0"


async def test_old_rows_and_rows_above_the_limit_go(tmp_path: Path, clock: Clock) -> None:
    first = _open(tmp_path, clock)
    await first.note(*(_failure(first, f"e{number}", noted=T0 + number) for number in range(10)))
    first.close()
    clock.now = T0 + 14 * DAY + 3
    kept = _open(tmp_path, clock, row_limit=5)
    await kept.note(_failure(kept, "new", noted=clock.now))
    kept.close()
    # 3 are older than 14 days; of what is left the newest 5 row numbers stay.
    assert [row.key for row in await kept.recent()] == ["new", "e9", "e8", "e7", "e6"]


async def test_a_disk_that_refuses_degrades_and_what_waited_is_written_when_it_is_back(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(desk_errors, "_RETRY_S", 0.01)
    errors = _open(tmp_path, clock)
    blocker = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
    assert errors._db is not None
    errors._db.execute("PRAGMA max_page_count = 1")  # SQLITE_FULL, as a full disk gives
    errors._db.execute("PRAGMA busy_timeout = 1")
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(StateError, match=r"state\.db"):
        await errors.note(_failure(errors, "e1"))
    with pytest.raises(StateError, match=r"state\.db"):
        await errors.note(_failure(errors, "e2"))
    assert errors.degraded == ("state",)
    assert errors.known("e1")
    assert sum(record.levelname == "ERROR" for record in caplog.records) == 1
    blocker.execute("ROLLBACK")
    blocker.close()
    for _ in range(100):
        try:
            await errors.note(_failure(errors, "e3"))
            break
        except StateError:
            errors._db.execute("PRAGMA max_page_count = 1000000")
    assert errors.degraded == ()
    assert {row.key for row in await errors.recent()} == {"e1", "e2", "e3"}
    errors.close()


async def test_a_directory_that_cannot_be_written_degrades_and_recovers(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk_errors, "_RETRY_S", 0.01)
    directory = tmp_path / "later"
    errors = _open(directory, clock)
    assert errors.degraded == ("state",)
    with pytest.raises(StateError):
        await errors.note(_failure(errors, "e1"))
    directory.mkdir()
    async with asyncio.timeout(10):
        while errors.degraded:
            await asyncio.gather(errors.note(_failure(errors, "e2")), return_exceptions=True)
    assert await errors.count() == 2
    errors.close()


async def test_memory_is_bounded_while_the_disk_is_gone(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk_errors, "_PENDING_LIMIT", 3)
    errors = Errors(tmp_path / "never", clock=clock)  # the writer is not even running
    notes = [errors.note(_failure(errors, f"e{number}")) for number in range(5)]
    assert errors.lost == 2
    # What was lost is new again when it comes again.
    assert [errors.known(f"e{number}") for number in range(5)] == [False, False, True, True, True]
    for note in notes:
        asyncio.ensure_future(note).cancel()


async def test_a_damaged_file_is_moved_aside(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "state.db").write_bytes(b"this is no database, " * 100)
    errors = _open(tmp_path, clock)
    await errors.note(_failure(errors))
    assert errors.degraded == ()
    assert await errors.count() == 1
    assert (tmp_path / f"state.db.damaged-{int(T0)}").exists()
    errors.close()


async def test_a_newer_file_is_left_alone(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with sqlite3.connect(tmp_path / "state.db") as db:
        db.execute("PRAGMA user_version = 99")
    errors = _open(tmp_path, clock)
    assert errors.degraded == ("state",)
    assert "newer version" in caplog.text
    errors.close()


async def test_close_writes_what_waits(tmp_path: Path, clock: Clock) -> None:
    errors = _open(tmp_path, clock)
    note = asyncio.ensure_future(errors.note(_failure(errors)))
    await asyncio.to_thread(errors.close)
    await note
    assert await errors.count() == 1
