"""The whole way within one process: real receivers, a real journal, a real backend."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from sidecar_tools import (
    SidecarProcess,
    build,
    grpc_client,
    in_thread,
    metric,
    names,
    names_of,
    running,
    traces,
    until,
)

from otel_triage.demo.sink import Answer, Sink
from otel_triage.sidecar import process
from otel_triage.sidecar.journal import Journal
from otel_triage.sidecar.process import Sidecar
from otel_triage.sidecar.refusals import Refused
from otel_triage.sidecar.signals import ExportRequest, Signal
from otel_triage.sidecar.stages import Stage, Triaged
from otel_triage.sidecar.store import Burial, Record, Store

DOWN = Answer(status=grpc.StatusCode.UNAVAILABLE, times=None, message="down")


class Recorder:
    """A stage that writes down what it was given, and notes when it is told to."""

    def __init__(self, *, suffix: bytes = b"") -> None:
        self.calls: Counter[str] = Counter()
        self.suffix = suffix
        self.noted: asyncio.Future[None] | None = None

    def __call__(self, signal: Signal, body: bytes, message: ExportRequest) -> Triaged:
        assert message == type(message).FromString(body)
        self.calls.update(names_of(body))
        return Triaged(body + self.suffix, asyncio.shield(self.noted) if self.noted else None)


async def send(sidecar: Sidecar, *requests: bytes) -> None:
    for body in requests:
        await sidecar.pipeline.accept(Signal.TRACES, body)


async def readiness(sidecar: Sidecar) -> tuple[int, list[str]]:
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"http://{sidecar.admin_listen}/readyz")
    return answer.status_code, answer.json()["degraded"]


def dead_letters(data_dir: Path) -> list[tuple[Any, ...]]:
    db = sqlite3.connect(data_dir / "journal.db")
    try:
        return db.execute("SELECT body, reason FROM deadletter ORDER BY seq").fetchall()
    finally:
        db.close()


async def test_triage_sees_each_request_once_and_its_body_goes_on(tmp_path: Path, sink: Sink) -> None:
    stage = Recorder(suffix=traces("added"))
    async with running(
        tmp_path, Stage(stage), otlp_endpoint=sink.http_endpoint, otlp_protocol="http/protobuf"
    ) as sidecar:
        await send(sidecar, traces("one"))
        await in_thread(sink.wait_for, sink.spans)
        assert sink.raw("traces") == [traces("one") + traces("added")]
        assert stage.calls == {"one": 1}
        await until(lambda: metric(sidecar, "journal_records") == 0)


async def test_the_answer_does_not_wait_for_triage_or_the_backend(tmp_path: Path, sink: Sink) -> None:
    sink.answer_with(Answer(hold=threading.Event(), times=None))
    order: list[str] = []

    def stage(signal: Signal, body: bytes, message: ExportRequest) -> Triaged:
        order.append("triage")
        return Triaged(body)

    async with running(tmp_path, Stage(stage), otlp_endpoint=sink.grpc_endpoint) as sidecar:
        await sidecar.pipeline.accept(Signal.TRACES, traces("one"))
        order.append("acknowledgement")
        await in_thread(sink.wait_for, sink.exports)
        assert order == ["acknowledgement", "triage"]
        assert metric(sidecar, "journal_records") == 1


async def test_nothing_downstream_is_counted_and_settled(tmp_path: Path) -> None:
    stage = Recorder()
    async with running(tmp_path, Stage(stage)) as sidecar:
        await send(sidecar, traces("one"), traces("two"))
        await until(lambda: metric(sidecar, "no_downstream_requests_total", signal="traces") == 2)
        await until(lambda: metric(sidecar, "journal_records") == 0)
        assert stage.calls == {"one": 1, "two": 1}
        assert await readiness(sidecar) == (200, [])


async def test_a_record_stays_until_the_desk_has_written_too(tmp_path: Path, sink: Sink) -> None:
    stage = Recorder()
    async with running(tmp_path, Stage(stage), otlp_endpoint=sink.grpc_endpoint) as sidecar:
        stage.noted = asyncio.get_running_loop().create_future()
        await send(sidecar, traces("noted"))
        await in_thread(sink.wait_for, sink.spans)
        await until(lambda: metric(sidecar, "delivered_requests_total", signal="traces") == 1)
        await asyncio.sleep(0.1)  # twice the time after which an idle journal writes settlements
        assert metric(sidecar, "journal_records") == 1
        stage.noted.set_result(None)
        await until(lambda: metric(sidecar, "journal_records") == 0)


async def test_a_crash_before_the_desk_has_written_triages_again(tmp_path: Path, sink: Sink) -> None:
    stage = Recorder()
    async with running(tmp_path, Stage(stage), otlp_endpoint=sink.grpc_endpoint) as sidecar:
        stage.noted = asyncio.get_running_loop().create_future()
        await send(sidecar, traces("noted"))
        await in_thread(sink.wait_for, sink.spans)
    again = Recorder()
    async with running(tmp_path, Stage(again), otlp_endpoint=sink.grpc_endpoint) as sidecar:
        await until(lambda: metric(sidecar, "journal_records") == 0)
    assert again.calls == {"noted": 1}


async def test_a_fault_of_triage_costs_no_request(tmp_path: Path, sink: Sink, caplog: Any) -> None:
    def broken(signal: Signal, body: bytes, message: ExportRequest) -> Triaged:
        raise RuntimeError("a fault of ours")

    async with running(tmp_path, Stage(broken), otlp_endpoint=sink.grpc_endpoint) as sidecar:
        await send(sidecar, traces("one"), traces("two"))
        await in_thread(sink.wait_for, lambda: len(sink.spans()) == 2)
        assert metric(sidecar, "triage_failures_total", stage="triage") == 2
        await until(lambda: metric(sidecar, "journal_records") == 0)
    assert caplog.text.count("RuntimeError: a fault of ours") == 1


async def test_a_desk_that_cannot_write_costs_no_request(tmp_path: Path, sink: Sink, caplog: Any) -> None:
    stage = Recorder()
    async with running(tmp_path, Stage(stage), otlp_endpoint=sink.grpc_endpoint) as sidecar:
        stage.noted = asyncio.get_running_loop().create_future()
        stage.noted.set_exception(OSError("disk full"))
        await send(sidecar, traces("one"), traces("two"))
        await until(lambda: metric(sidecar, "triage_failures_total", stage="note") == 2)
        await until(lambda: metric(sidecar, "journal_records") == 0)
    assert caplog.text.count("OSError: disk full") == 1


async def test_without_a_backend_a_desk_that_cannot_write_leaves_the_record_in_the_journal(
    tmp_path: Path,
) -> None:
    """Verdicts are kept in one place only then: what it did not take is noted at the next start."""
    stage = Recorder()
    async with running(tmp_path, Stage(stage)) as sidecar:
        stage.noted = asyncio.get_running_loop().create_future()
        stage.noted.set_exception(OSError("disk full"))
        await send(sidecar, traces("unwritten"))
        await until(lambda: metric(sidecar, "triage_failures_total", stage="note") == 1)
        assert metric(sidecar, "journal_records") == 1
    again = Recorder()
    async with running(tmp_path, Stage(again)) as sidecar:
        await until(lambda: metric(sidecar, "journal_records") == 0)
    assert again.calls == {"unwritten": 1}


async def test_the_stages_troubles_are_shown(tmp_path: Path) -> None:
    closed: list[bool] = []
    stage = Stage(Recorder(), lambda: ("state",), lambda: closed.append(True))
    async with running(tmp_path, stage) as sidecar:
        assert await readiness(sidecar) == (200, ["state"])
    assert closed == [True]


async def test_a_dead_backend_delays_nothing_else_and_memory_stays_bounded(
    tmp_path: Path, sink: Sink
) -> None:
    """5 MiB come in while 1 MiB may wait in memory; the rest is read back from the journal later."""
    sink.answer_with(DOWN)
    stage = Recorder()
    sent = [traces(f"{n}", "x" * 100_000) for n in range(50)]
    async with running(
        tmp_path, Stage(stage), otlp_endpoint=sink.grpc_endpoint, memory_mib=4, max_request_mib=1
    ) as sidecar:
        await send(sidecar, *sent)
        await until(lambda: len(stage.calls) == 51)
        assert all(stage.calls[f"{n}"] == 1 for n in range(50)), "triaged at once, all of them"
        assert metric(sidecar, "delivering_bytes") < 1.2 * 2**20
        assert metric(sidecar, "journal_records") == 50
        await until(lambda: sidecar.degraded())
        assert await readiness(sidecar) == (200, ["downstream: traces: UNAVAILABLE down"])
        sink.answer_with()
        await in_thread(sink.wait_for, lambda: len(sink.spans()) == 100, 20)
        await until(lambda: metric(sidecar, "journal_records") == 0)
        await send(sidecar, traces("after"))
        await in_thread(sink.wait_for, lambda: names(sink)["after"])
        assert stage.calls["after"] == 1, "and the short way is taken again"
    arrived = names(sink)
    assert [arrived[f"{n}"] for n in range(50)] == [1] * 50


async def test_a_restart_delivers_what_was_left_and_takes_requests_meanwhile(
    tmp_path: Path, sink: Sink
) -> None:
    sink.answer_with(DOWN)
    async with running(tmp_path, otlp_endpoint=sink.grpc_endpoint) as sidecar:
        await send(sidecar, *(traces(f"before {n}") for n in range(300)))
    assert names(sink) == {}
    stage = Recorder()
    async with running(tmp_path, Stage(stage), otlp_endpoint=sink.grpc_endpoint) as sidecar:
        assert await readiness(sidecar) in [(200, []), (200, ["downstream: traces: UNAVAILABLE down"])]
        await send(sidecar, *(traces(f"after {n}") for n in range(20)))
        sink.answer_with()
        await in_thread(sink.wait_for, lambda: len(sink.spans()) == 320, 20)
        await until(lambda: metric(sidecar, "journal_records") == 0)
    assert set(names(sink).values()) == {1}


async def test_a_refused_request_is_kept_as_it_came(tmp_path: Path, sink: Sink) -> None:
    sink.answer_with(Answer(status=grpc.StatusCode.INVALID_ARGUMENT, times=None))
    async with running(
        tmp_path, Stage(Recorder(suffix=traces("added"))), otlp_endpoint=sink.grpc_endpoint
    ) as sidecar:
        await send(sidecar, traces("poison"))
        await until(lambda: metric(sidecar, "journal_records") == 0)
    assert dead_letters(tmp_path) == [(traces("poison"), "INVALID_ARGUMENT")]


async def test_a_full_journal_throttles_and_takes_again(tmp_path: Path, sink: Sink) -> None:
    sink.answer_with(DOWN)
    async with running(
        tmp_path, otlp_endpoint=sink.grpc_endpoint, journal_mib=1, max_request_mib=1
    ) as sidecar:
        await send(sidecar, traces("x" * 990_000))
        async with httpx.AsyncClient() as client:

            async def post() -> httpx.Response:
                return await client.post(
                    f"http://{sidecar.http_listen}/v1/traces",
                    content=traces("y" * 300_000),
                    headers={"content-type": "application/x-protobuf"},
                )

            answer = await post()
            assert answer.status_code == 503
            assert b"the journal is full; send again later" in answer.content
            assert answer.headers["retry-after"] in {"1", "2", "3"}
            assert metric(sidecar, "requests_refused_total", signal="traces", reason="journal_full") == 1
            assert await readiness(sidecar) == (
                503,
                ["the journal is full", "downstream: traces: UNAVAILABLE down"],
            )
            sink.answer_with()
            await until(lambda: metric(sidecar, "journal_records") == 0)
            assert (await post()).status_code == 200
            assert await readiness(sidecar) == (200, [])


async def test_a_record_that_cannot_be_read_back_is_reported(
    tmp_path: Path, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink.answer_with(DOWN)
    async with running(tmp_path, otlp_endpoint=sink.grpc_endpoint) as sidecar:
        await send(sidecar, traces("left"))
    sink.answer_with()

    async def fail(*_: object) -> list[Record]:
        raise sqlite3.DatabaseError("malformed")

    with monkeypatch.context() as broken:
        broken.setattr(Journal, "pending", fail)
        async with running(tmp_path, otlp_endpoint=sink.grpc_endpoint) as sidecar:
            await until(lambda: sidecar.degraded())
            assert await readiness(sidecar) == (200, ["journal: cannot read back: malformed"])
            await send(sidecar, traces("new"))
            broken.undo()
            await in_thread(sink.wait_for, lambda: len(sink.spans()) == 2)
            assert sidecar.degraded() == []
    assert names(sink) == {"left": 1, "new": 1}


def test_a_burial_does_not_lose_the_body(tmp_path: Path) -> None:
    store = Store(tmp_path / "journal.db")
    store.commit([Record(5, Signal.LOGS, 1.0, b"body")], [], [])
    store.commit([], [], [Burial(5, 4, "r", "d")])
    store.commit([], [], [Burial(5, 4, "r", "d")])
    store.close()
    assert dead_letters(tmp_path) == [(b"body", "r")]


# --- the end ---


def test_sigterm_delivers_what_was_acknowledged_and_ends_with_0(tmp_path: Path, sink: Sink) -> None:
    with SidecarProcess(tmp_path, otlp_endpoint=sink.grpc_endpoint) as sidecar:
        sidecar.ready()
        with grpc_client(sidecar.grpc) as export:
            for number in range(50):
                export(traces(f"{number}"), timeout=10)
        assert sidecar.terminate() == 0
    assert names(sink) == {f"{number}": 1 for number in range(50)}
    assert not any("stay in the journal" in line for line in sidecar.lines)


async def test_what_cannot_be_delivered_in_time_stays_for_the_next_start(
    tmp_path: Path, sink: Sink, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(process, "DRAIN_S", 1.0)
    sink.answer_with(DOWN)
    sidecar = build(tmp_path, otlp_endpoint=sink.grpc_endpoint)
    await sidecar.start()
    await send(sidecar, traces("left"))
    stopping = asyncio.ensure_future(sidecar.stop())
    await until(lambda: sidecar.pipeline.draining)
    assert (await readiness(sidecar))[0] == 503
    with pytest.raises(Refused, match="shutting down"):
        await send(sidecar, traces("too late"))
    await asyncio.wait_for(stopping, 5)
    assert "1 records stay in the journal for the next start" in caplog.text
    sink.answer_with()
    async with running(tmp_path, otlp_endpoint=sink.grpc_endpoint):
        await in_thread(sink.wait_for, sink.spans)
    assert names(sink) == {"left": 1}
