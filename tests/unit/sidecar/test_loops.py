"""A sidecar that is its own downstream, in a ring of two; and what is no loop."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from sidecar_tools import logs, metric, names, running, traces, until

from otel_triage.demo.sink import Sink
from otel_triage.sidecar.loops import TURNS, Loops
from otel_triage.sidecar.process import Sidecar
from otel_triage.sidecar.refusals import Refused
from otel_triage.sidecar.signals import WIRE, Signal

LETTER = {
    "grpc": {"signal": "traces", "reason": "FAILED_PRECONDITION"},
    "http/protobuf": {"signal": "traces", "reason": "400"},
}
RESENDS = 6  # the Python SDK's most


async def send(sidecar: Sidecar, body: bytes, signal: Signal = Signal.TRACES) -> None:
    async with grpc.aio.insecure_channel(str(sidecar.grpc_listen)) as channel:
        await channel.unary_unary(WIRE[signal].method)(body, timeout=10, wait_for_ready=True)


@asynccontextmanager
async def ring(folder: Path, protocol: str) -> AsyncIterator[tuple[Sidecar, Sidecar]]:
    """Two sidecars, each the other's downstream."""
    kind = "grpc_listen" if protocol == "grpc" else "http_listen"
    with socket.create_server(("127.0.0.1", 0)) as free:
        listener = f"127.0.0.1:{free.getsockname()[1]}"
    protocols = {"otlp_protocol": protocol}
    async with running(folder / "b", otlp_endpoint=f"http://{listener}", **protocols) as b:
        back = f"http://{getattr(b, kind)}"
        async with running(folder / "a", otlp_endpoint=back, **protocols, **{kind: listener}) as a:
            yield a, b


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
async def test_a_ring_of_two_ends_at_the_first_turn(tmp_path: Path, protocol: str) -> None:
    async with ring(tmp_path, protocol) as (a, b):
        await send(a, traces("one"))
        await until(lambda: metric(b, "dead_lettered_requests_total", **LETTER[protocol]))
        assert metric(a, "requests_refused_total", signal="traces", reason="loop") == 1
        assert metric(a, "requests_received_total", signal="traces") == 2
        assert metric(b, "requests_received_total", signal="traces") == 1

        await send(b, traces("two"))  # now b knows that a sends to it, and says so
        await until(lambda: metric(b, "dead_lettered_requests_total", **LETTER[protocol]) == 2)
        assert metric(a, "requests_refused_total", signal="traces", reason="loop") == 2
        assert metric(b, "requests_received_total", signal="traces") == 2


async def test_a_sidecar_behind_a_sidecar_is_no_ring(tmp_path: Path, sink: Sink) -> None:
    async with (
        running(tmp_path / "gateway", otlp_endpoint=sink.grpc_endpoint) as gateway,
        running(tmp_path / "one", otlp_endpoint=f"http://{gateway.grpc_listen}") as one,
        running(tmp_path / "two", otlp_endpoint=f"http://{gateway.grpc_listen}") as two,
    ):
        for turn in range(3):
            await send(one, traces(f"one {turn}"))
            await send(two, traces(f"two {turn}"))
        await until(lambda: len(names(sink)) == 6)
        (last,) = {export.headers["x-otel-triage-hops"] for export in sink.exports()[-1:]}
    assert set(last.split(",")) == {sidecar._loops.name for sidecar in (gateway, one, two)}


async def test_an_envelope_in_a_ring_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as sidecar, httpx.AsyncClient() as client:
        answer = await client.post(
            f"http://{sidecar.http_listen}/api/1/envelope/?sentry_key=" + "a" * 32,
            headers={"x-otel-triage-hops": f"0badcafe,{sidecar._loops.name}"},
            content=b'{}\n{"type":"event"}\n{}',
        )
        assert answer.status_code == 400
        assert metric(sidecar, "requests_refused_total", signal="envelope", reason="loop") == 1


async def test_a_resend_is_no_loop(tmp_path: Path, sink: Sink) -> None:
    async with running(tmp_path, otlp_endpoint=sink.grpc_endpoint) as sidecar:
        for _ in range(1 + RESENDS):
            await send(sidecar, traces("one"))
        await until(lambda: names(sink)["one"] == 1 + RESENDS)
        assert metric(sidecar, "requests_refused_total", signal="traces", reason="loop") == 0


async def test_what_was_not_acknowledged_may_come_for_ever(tmp_path: Path) -> None:
    """A client that is told to come back does so until it is taken."""
    async with running(tmp_path) as sidecar:
        sidecar.pipeline.memory.take(sidecar.pipeline.memory._limit)
        for _ in range(3 * TURNS):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await send(sidecar, traces("one"))
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        sidecar.pipeline.memory.give(sidecar.pipeline.memory._limit)
        await send(sidecar, traces("one"))


async def test_what_comes_again_and_again_is_refused_for_good(tmp_path: Path) -> None:
    async with running(tmp_path) as sidecar:
        for _ in range(TURNS):
            await send(sidecar, traces("one", "two"))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await send(sidecar, traces("one", "three"))  # joined with others it is the same still
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "a loop" in (refused.value.details() or "")
        await send(sidecar, traces("two"))
        assert metric(sidecar, "requests_refused_total", signal="traces", reason="loop") == 1


def metrics(value: int, pod: str, at: int) -> Any:
    request = ExportMetricsServiceRequest()
    group = request.resource_metrics.add()
    group.resource.attributes.add(key="k8s.pod.name").value.string_value = pod
    point = group.scope_metrics.add().metrics.add(name="requests").gauge.data_points.add(as_int=value)
    point.time_unix_nano = at
    return request


def test_equal_is_not_the_same() -> None:
    """Log lines of whole seconds; the same value of many pods at one time."""
    loops = Loops()
    line = WIRE[Signal.LOGS].request.FromString(logs("connection refused"))
    for pod in range(2 * TURNS):
        loops.took(loops.check_turns(Signal.LOGS, line))
        loops.took(loops.check_turns(Signal.METRICS, metrics(0, f"pod {pod}", 1_700_000_000_000_000_000)))
        loops.took(loops.check_turns(Signal.METRICS, metrics(0, "one pod", 1_700_000_000_000_000_000 + pod)))
    same = metrics(7, "one pod", 1_700_000_000_000_000_000)
    for _ in range(TURNS):
        loops.took(loops.check_turns(Signal.METRICS, same))
    with pytest.raises(Refused, match="a loop"):
        loops.check_turns(Signal.METRICS, same)


def test_memory_is_bounded() -> None:
    loops = Loops()
    for number in range(50_000):
        loops.took(number)
        loops.check_hops(f"{number:08x}")
    assert len(loops._taken) + len(loops._taken_before) < 33_000
    assert len(loops.hops()) == 65 * 9 - 1
    assert loops.hops().split(",")[:2] == [loops.name, f"{49_999:08x}"]
