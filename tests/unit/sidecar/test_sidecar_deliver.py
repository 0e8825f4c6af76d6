from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import grpc
import httpx
import pytest
from sidecar_tools import in_thread, logs, names, traces, until

from otel_triage.demo.sink import Answer, Sink
from otel_triage.sidecar import deliver
from otel_triage.sidecar.deliver import Delivery, Item
from otel_triage.sidecar.export_grpc import RETRYABLE_CODES, GrpcExporter
from otel_triage.sidecar.export_http import HttpExporter, retry_after
from otel_triage.sidecar.exporters import Accepted, Exporter, Outcome, Rejected, Retry
from otel_triage.sidecar.loops import Loops
from otel_triage.sidecar.metrics import Metrics
from otel_triage.sidecar.signals import Signal
from otel_triage.sidecar.store import Burial

PROTOCOLS = pytest.mark.parametrize("protocol", ["grpc", "http"])


def exporter(sink: Sink, protocol: str, **headers: str) -> Exporter:
    if protocol == "grpc":
        return GrpcExporter(sink.grpc_endpoint, headers, None, Loops().hops)
    return HttpExporter(sink.http_endpoint, headers, None, Loops().hops)


class Path:
    """What stands around delivery in the pipeline: items in, and how each of them ended."""

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self.ended: dict[int, Burial | None] = {}
        self._seq = 0

    def put(self, body: bytes, signal: Signal = Signal.TRACES, age_s: float = 0) -> int:
        self._seq += 1
        self.delivery.put(
            Item(
                seq=self._seq,
                signal=signal,
                received=time.time() - age_s,
                size=len(body),
                body=body,
                done=self._done,
            )
        )
        return self._seq

    def _done(self, item: Item, burial: Burial | None) -> None:
        assert item.seq not in self.ended
        self.ended[item.seq] = burial

    async def all_ended(self) -> None:
        await until(lambda: len(self.ended) == self._seq)

    def sample(self, name: str, **labels: str) -> float:
        registry = self.delivery.metrics.registry
        return registry.get_sample_value(f"otel_triage_{name}", labels) or 0


@asynccontextmanager
async def path_to(
    target: Exporter, *, max_age_s: float = 3600, memory_bytes: int = 1 << 26
) -> AsyncIterator[Path]:
    delivery = Delivery(
        target, memory_bytes=memory_bytes, max_age_s=max_age_s, metrics=Metrics(), backoff_s=0.01
    )
    try:
        yield Path(delivery)
    finally:
        await delivery.close()


@PROTOCOLS
async def test_headers_and_bytes_arrive(sink: Sink, protocol: str) -> None:
    async with path_to(exporter(sink, protocol, authorization="Bearer a,b")) as path:
        path.put(traces("one"))
        path.put(logs("two"), Signal.LOGS)
        await path.all_ended()
        assert path.ended == {1: None, 2: None}
        assert (sink.raw("traces"), sink.raw("logs")) == ([traces("one")], [logs("two")])
        assert {export.headers["authorization"] for export in sink.exports()} == {"Bearer a,b"}
        assert path.sample("delivered_requests_total", signal="traces") == 1


@PROTOCOLS
async def test_what_waits_is_joined_by_signal_up_to_the_limit(sink: Sink, protocol: str) -> None:
    big = traces("x" * 600_000)
    async with path_to(exporter(sink, protocol)) as path:
        path.put(traces("first"))
        await path.all_ended()
        for name in "abc":
            path.put(traces(name))
            path.put(logs(name), Signal.LOGS)
        await path.all_ended()
        assert sink.raw("traces") == [traces("first"), traces("a") + traces("b") + traces("c")]
        assert sink.raw("logs") == [logs("a") + logs("b") + logs("c")]
        path.put(big)
        path.put(big)
        path.put(traces("y" * 3_000_000))
        await path.all_ended()
        assert sorted(map(len, sink.raw("traces")[2:])) == [len(big), len(big), len(traces("y" * 3_000_000))]


async def test_an_idle_lane_sends_at_once_and_a_busy_one_lingers(
    sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliver, "LINGER_S", 0.5)
    async with path_to(exporter(sink, "grpc")) as path:
        began = time.monotonic()
        path.put(traces("idle"))
        await path.all_ended()
        assert time.monotonic() - began < 0.5
        path.put(traces("busy"))
        await path.all_ended()
        assert time.monotonic() - began > 0.5


@PROTOCOLS
async def test_what_may_succeed_later_is_sent_until_it_does(sink: Sink, protocol: str) -> None:
    sink.answer_with(Answer(status=grpc.StatusCode.UNAVAILABLE, times=5, message="restarting"))
    async with path_to(exporter(sink, protocol)) as path:
        path.put(traces("one"))
        await until(lambda: path.delivery.degraded())
        assert path.delivery.degraded()[0].startswith("downstream: traces: ")
        assert "restarting" in path.delivery.degraded()[0]
        await path.all_ended()
        assert path.ended == {1: None}
        assert len(sink.exports()) == 6
        assert path.delivery.degraded() == []
        reason = "UNAVAILABLE" if protocol == "grpc" else "503"
        assert path.sample("export_retries_total", signal="traces", reason=reason) == 5


@PROTOCOLS
@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED])
async def test_the_backends_wait_is_kept(sink: Sink, protocol: str, code: grpc.StatusCode) -> None:
    sink.answer_with(Answer(status=code, retry_after_s=1))
    async with path_to(exporter(sink, protocol)) as path:
        began = time.monotonic()
        path.put(traces("one"))
        await path.all_ended()
        assert 1 <= time.monotonic() - began < 2
        assert (path.ended, len(sink.exports())) == ({1: None}, 2)


def test_retry_after_is_seconds_or_a_date() -> None:
    assert retry_after("2") == 2
    assert retry_after("-2") == 0
    assert 8 < (retry_after(formatdate(time.time() + 10, usegmt=True)) or 0) <= 10
    assert retry_after("Fri, 31 Dec 1999 23:59:59 GMT") == 0
    assert retry_after("soon") is None
    assert retry_after(None) is None


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
async def test_the_table_of_grpc_codes(sink: Sink, code: grpc.StatusCode) -> None:
    """OTLP 1.11: RESOURCE_EXHAUSTED only with RetryInfo, and these seven, of which it is one.

    The two more that refuse us, not the request, are our own: a token that expired loses nothing.
    """
    retryable = {"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"}
    retryable |= {"UNAUTHENTICATED", "PERMISSION_DENIED"}
    assert {code.name for code in RETRYABLE_CODES} == retryable
    sink.answer_with(Answer(status=code, message="why"))
    target = exporter(sink, "grpc")
    outcome = await target.export(Signal.TRACES, traces("x"))
    await target.close()
    assert outcome == (Retry(code.name, "why") if code.name in retryable else Rejected(code.name, "why"))


class Backend(BaseHTTPRequestHandler):
    """Answers with what `script` says: status, headers, body."""

    script: tuple[int, dict[str, str], bytes]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        status, headers, body = self.script
        self.send_response(status, "phrase")
        for name, value in ({"content-length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


async def answer_to(status: int, headers: dict[str, str], body: bytes) -> Outcome:
    Backend.script = (status, headers, body)
    with HTTPServer(("127.0.0.1", 0), Backend) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        target = HttpExporter(f"http://127.0.0.1:{server.server_port}", {}, None, Loops().hops)
        outcome = await target.export(Signal.TRACES, traces("x"))
        await target.close()
        thread.join(5)
    return outcome


@pytest.mark.parametrize(
    ("status", "headers", "body", "outcome"),
    [
        (200, {}, b"", Accepted()),
        (202, {}, b"", Accepted()),
        (204, {}, b"", Accepted()),
        (200, {"content-type": "text/html"}, b"<html>", Accepted()),
        (200, {"content-type": "application/x-protobuf"}, b"<html>", Accepted()),
        (200, {"content-type": "application/x-protobuf"}, b"\n\5\x08\2\x12\1x", Accepted(2, "x")),
        (429, {}, b"", Retry("429", "phrase")),
        (429, {"retry-after": "7"}, b"", Retry("429", "phrase", 7)),
        (502, {}, b"\x12\4down", Retry("502", "down")),
        (503, {}, b"<html>", Retry("503", "phrase")),
        (504, {}, b"", Retry("504", "phrase")),
        (301, {"location": "http://example.invalid"}, b"", Rejected("301", "phrase")),
        (400, {}, b"\x08\3\x12\3bad", Rejected("400", "bad")),
        (401, {}, b"", Retry("401", "phrase")),
        (403, {}, b"", Retry("403", "phrase")),
        (408, {}, b"", Rejected("408", "phrase")),
        (413, {}, b"", Rejected("413", "phrase")),
        (500, {}, b"", Rejected("500", "phrase")),
        (503, {}, b"x" * 1_000_000, Retry("503", "phrase")),
    ],
)
async def test_the_table_of_http_answers(
    status: int, headers: dict[str, str], body: bytes, outcome: Outcome
) -> None:
    """OTLP 1.11: exactly 429, 502, 503 and 504 are sent again; and what refuses us, not the request."""
    assert await answer_to(status, headers, body) == outcome


async def test_a_success_that_breaks_off_is_sent_again() -> None:
    outcome = await answer_to(200, {"content-length": "10"}, b"x")
    assert isinstance(outcome, Retry)
    assert outcome.reason == httpx.RemoteProtocolError.__name__


@PROTOCOLS
async def test_a_poisonous_request_goes_alone_to_the_dead_letters(sink: Sink, protocol: str) -> None:
    sink.answer_with(
        Answer(status=grpc.StatusCode.INVALID_ARGUMENT, span_name="poison", times=None, message="bad span")
    )
    async with path_to(exporter(sink, protocol)) as path:
        path.put(traces("first"))
        await path.all_ended()
        for name in ("a", "poison", "b"):
            path.put(traces(name))
        await path.all_ended()
        reason = "INVALID_ARGUMENT" if protocol == "grpc" else "400"
        assert path.ended == {
            1: None,
            2: None,
            3: Burial(3, len(traces("poison")), reason, "bad span"),
            4: None,
        }
        assert names(sink) == {"first": 1, "a": 1, "b": 1}
        assert len(sink.exports()) == 5
        assert path.sample("dead_lettered_requests_total", signal="traces", reason=reason) == 1
        assert path.sample("delivered_requests_total", signal="traces") == 3


@PROTOCOLS
async def test_a_partial_success_is_counted_and_not_sent_again(
    sink: Sink, protocol: str, caplog: Any
) -> None:
    sink.answer_with(Answer(rejected=2, message="too old", times=2))
    async with path_to(exporter(sink, protocol)) as path:
        for name in ("a", "b"):
            path.put(traces(name))
            await path.all_ended()
        assert path.ended == {1: None, 2: None}
        assert len(sink.exports()) == 2
        assert path.sample("partial_successes_total", signal="traces") == 2
        assert path.sample("rejected_items_total", signal="traces") == 4
        assert sum("refused 2 items of a request: too old" in line for line in caplog.messages) == 1


@PROTOCOLS
async def test_a_backend_that_comes_back_where_it_was(protocol: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        ports = {"grpc_port": one.getsockname()[1], "http_port": two.getsockname()[1]}
    async with path_to(exporter(Sink(**ports), protocol)) as path:
        path.put(traces("one"))
        await until(lambda: path.delivery.degraded())
        with Sink(**ports) as sink:
            await path.all_ended()
            assert names(sink) == {"one": 1}


async def test_four_exports_of_a_signal_at_once_and_signals_do_not_wait_for_each_other(sink: Sink) -> None:
    hold = threading.Event()
    sink.answer_with(Answer(signal="traces", hold=hold, times=None))
    async with path_to(exporter(sink, "grpc")) as path:
        for name in range(8):
            path.put(traces(str(name) * deliver.JOIN_BYTES))
        await in_thread(sink.wait_for, lambda: len(sink.exports()) == deliver.IN_FLIGHT)
        log = path.put(logs("x"), Signal.LOGS)
        await until(lambda: log in path.ended)
        assert len([export for export in sink.exports() if export.signal == "traces"]) == deliver.IN_FLIGHT
        hold.set()
        await path.all_ended()
        assert len(sink.spans()) == 8


async def test_what_is_too_old_goes_to_the_dead_letters(sink: Sink) -> None:
    sink.answer_with(Answer(status=grpc.StatusCode.UNAVAILABLE, times=None, message="down"))
    async with path_to(exporter(sink, "grpc"), max_age_s=1) as path:
        path.put(traces("old"), age_s=2)
        path.put(traces("young"))
        await path.all_ended()
        first, second = path.ended[1], path.ended[2]
        assert first is not None
        assert second is not None
        assert (first.reason, first.detail) == ("expired", "not delivered within 0.000277778 h; last: None")
        assert second.detail == "not delivered within 0.000277778 h; last: UNAVAILABLE down"
        assert path.sample("dead_lettered_requests_total", signal="traces", reason="expired") == 2


async def test_memory_is_bounded_and_room_comes_back(sink: Sink) -> None:
    hold = threading.Event()
    sink.answer_with(Answer(hold=hold, times=None))
    async with path_to(exporter(sink, "grpc"), memory_bytes=10_000) as path:
        assert path.delivery.has_room()
        path.put(traces("x" * 10_000))
        assert not path.delivery.has_room()
        waiting = asyncio.ensure_future(path.delivery.wait_for_room())
        await in_thread(sink.wait_for, sink.exports)
        assert not waiting.done()
        hold.set()
        await asyncio.wait_for(waiting, 5)
        assert path.sample("delivering_bytes") == 0


async def test_drain_does_not_linger(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliver, "LINGER_S", 60)
    async with path_to(exporter(sink, "grpc")) as path:
        path.put(traces("first"))
        await path.all_ended()
        path.put(traces("second"))
        await asyncio.wait_for(path.delivery.drain(), 5)
        assert names(sink) == {"first": 1, "second": 1}


class Broken:
    """An exporter with a fault of its own, once."""

    def __init__(self, sound: Exporter) -> None:
        self.sound = sound
        self.failed = False

    async def export(self, signal: Signal, body: bytes) -> Outcome:
        if not self.failed:
            self.failed = True
            raise RuntimeError("a fault of ours")
        return await self.sound.export(signal, body)

    async def close(self) -> None:
        await self.sound.close()


async def test_a_fault_of_ours_is_survived(sink: Sink, caplog: Any) -> None:
    async with path_to(Broken(exporter(sink, "grpc"))) as path:
        path.put(traces("one"))
        await path.all_ended()
        assert names(sink) == {"one": 1}
        assert "a fault of ours" in caplog.text
