"""What is too much, who may, and how a client is told to wait."""

from __future__ import annotations

import asyncio
import gzip
import struct
import time
import tracemalloc
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpans
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpans
from opentelemetry.sdk.trace.export import SpanExportResult
from sidecar_clients import (
    JSON,
    MIB,
    PROTOBUF,
    SPAN,
    call,
    grpc_url,
    http_url,
    json_request,
    post,
    refused,
    span,
    status,
)
from sidecar_tools import in_thread, logs, metric, names, running, traces

from otel_triage.demo.sink import Sink
from otel_triage.sidecar import refusals
from otel_triage.sidecar.http_body import gunzip
from otel_triage.sidecar.refusals import Refused
from otel_triage.sidecar.signals import WIRE, Signal


async def test_size_limits_hold_before_and_after_decompression(tmp_path: Path) -> None:
    text = "larger than 1 MiB decompressed (MAX_REQUEST_MIB); send smaller batches"
    big, bomb = traces("x" * MIB), gzip.compress(bytes(64 * MIB))
    assert len(bomb) < 70_000
    async with running(tmp_path, max_request_mib=1) as sidecar:
        assert status(await post(sidecar, big, PROTOBUF)) == (413, 8, text)
        assert status(await post(sidecar, bomb, PROTOBUF | {"content-encoding": "gzip"})) == (413, 8, text)

        async def chunks() -> Any:
            for _ in range(20):
                yield bytes(MIB // 10)

        async with httpx.AsyncClient() as client:  # no content-length to see it by
            chunked = await client.post(http_url(sidecar), content=chunks(), headers=PROTOBUF)
        assert status(chunked) == (413, 8, text)

        fits = traces("x" * (MIB - 200))
        assert (await post(sidecar, fits, PROTOBUF)).status_code == 200
        await in_thread(call, sidecar, fits)
        assert (await refused(sidecar, big)).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        packed = await refused(sidecar, traces("x" * (64 * MIB)), compression=grpc.Compression.Gzip)
        assert packed.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert metric(sidecar, "receiving_bytes") == 0


async def test_gzip_bytes_of_a_bomb_over_grpc(tmp_path: Path) -> None:
    """The bomb of a client that does not play by grpcio's rules: HTTP/2 frames written by hand."""
    bomb = gzip.compress(bytes(60 * MIB), 9)
    assert len(bomb) < 65_000, "must fit HTTP/2's first window"
    message = b"\1" + struct.pack(">I", len(bomb)) + bomb
    async with running(tmp_path, max_request_mib=1) as sidecar:
        before = rss_mib()
        reader, writer = await asyncio.open_connection(sidecar.grpc_listen.host, sidecar.grpc_listen.port)
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b""))
        writer.write(frame(1, 4, 1, headers_of_an_export("gzip")))
        for at in range(0, len(message), 16_000):
            part = message[at : at + 16_000]
            writer.write(frame(0, int(at + 16_000 >= len(message)), 1, part))
        await writer.drain()
        answer = b""
        async with asyncio.timeout(10):
            while b"grpc-message" not in answer and (part := await reader.read(65536)):
                answer += part
        writer.close()
        assert b"\x018" in answer  # grpc-status: 8, RESOURCE_EXHAUSTED
        assert rss_mib() - before < 40


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def headers_of_an_export(encoding: str) -> bytes:
    """HPACK, each header a literal without indexing."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": WIRE[Signal.TRACES].method,
        ":authority": "x",
        "te": "trailers",
        "content-type": "application/grpc",
        "grpc-encoding": encoding,
    }
    return b"".join(
        b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in fields.items()
    )


def rss_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / MIB


async def test_a_client_whose_headers_never_end_is_cut_off(tmp_path: Path) -> None:
    async with running(tmp_path) as sidecar:
        _, writer = await asyncio.open_connection(sidecar.http_listen.host, sidecar.http_listen.port)
        writer.write(b"POST /v1/traces HTTP/1.1\r\n")
        sent = 0
        try:
            while sent < 8 * MIB:
                writer.write(b"x-a: " + b"a" * 60_000 + b"\r\n")
                sent += 60_000
                await asyncio.wait_for(writer.drain(), 5)
                await asyncio.sleep(0)
        except ConnectionError:
            pass
        assert sent < 6 * MIB  # what the sockets' buffers take on top of half a MiB


# --- who may ---


async def test_the_ingest_token_is_asked_for(tmp_path: Path) -> None:
    text = "`{} TOKEN` is missing or wrong"
    async with running(tmp_path, ingest_token="secret") as sidecar:
        for shown in ({}, {"authorization": "Bearer wrong"}, {"authorization": "secret"}):
            answer = await post(sidecar, traces("x"), PROTOBUF | shown)
            assert status(answer) == (401, 16, f"the header {text.format('Authorization: Bearer')}")
            assert answer.headers["www-authenticate"] == "Bearer"
            error = await refused(sidecar, traces("x"), metadata=tuple(shown.items()))
            assert error.code() is grpc.StatusCode.UNAUTHENTICATED
            assert error.details() == f"metadata {text.format('authorization: Bearer')}"
        good = {"authorization": "Bearer secret"}
        assert (await post(sidecar, traces("x"), PROTOBUF | good)).status_code == 200
        assert await in_thread(call, sidecar, traces("x"), metadata=tuple(good.items())) == b""
        async with httpx.AsyncClient() as client:
            assert (await client.get(http_url(sidecar, "/readyz"))).status_code == 200
        assert metric(sidecar, "requests_refused_total", signal="traces", reason="unauthenticated") == 6


async def test_the_admin_token_guards_metrics_and_not_health(tmp_path: Path) -> None:
    async with running(tmp_path, admin_token="secret", health_listen="127.0.0.1:0") as sidecar:
        admin, probes = f"http://{sidecar.admin_listen}", f"http://{sidecar.health_listen}"
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"{admin}/metrics")).status_code == 401
            good = await client.get(f"{admin}/metrics", headers={"authorization": "Bearer secret"})
            assert "otel_triage_journal_records 0.0" in good.text
            assert (await client.get(f"{probes}/metrics")).status_code == 200
            for base in (admin, probes, f"http://{sidecar.http_listen}"):
                assert (await client.get(f"{base}/healthz")).text == "ok\n"
                ready = await client.get(f"{base}/readyz")
                assert (ready.status_code, ready.json()) == (200, {"degraded": []})


# --- throttling ---


async def test_a_throttled_request_is_told_in_every_clients_way(tmp_path: Path) -> None:
    async with running(tmp_path, max_request_mib=1, memory_mib=4) as sidecar:
        sidecar.pipeline.memory.take(MIB - 10)
        error = await refused(sidecar, traces("x"))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        trailers = dict(error.trailing_metadata() or ())
        python = RetryInfo.FromString(trailers["google.rpc.retryinfo-bin"])
        details = Status.FromString(trailers["grpc-status-details-bin"])
        assert (details.code, details.message) == (14, "too many bytes in flight; send again later")
        go = RetryInfo()
        assert details.details[0].Unpack(go)
        assert python == go
        assert 1 <= python.retry_delay.seconds <= 3

        answer = await post(sidecar, traces("x"), PROTOBUF)
        assert status(answer) == (503, 14, "too many bytes in flight; send again later")
        assert answer.headers["retry-after"] in {"1", "2", "3"}
        as_json = await post(sidecar, json_request(SPAN), JSON)
        assert as_json.json()["details"][0]["retryDelay"] == f"{as_json.headers['retry-after']}s"
        sidecar.pipeline.memory.give(MIB - 10)
        assert (await post(sidecar, traces("x"), PROTOBUF)).status_code == 200
        assert metric(sidecar, "requests_refused_total", signal="traces", reason="memory") == 3


@pytest.mark.parametrize("protocol", ["grpc", "http"])
async def test_the_real_exporter_hears_the_wait(
    tmp_path: Path, sink: Sink, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    """Left alone, its first back-off is 1 s, give or take a fifth."""
    monkeypatch.setattr(refusals, "RETRY_AFTER_S", (2, 2))
    async with running(tmp_path, otlp_endpoint=sink.grpc_endpoint) as sidecar:
        exporter = (
            GrpcSpans(endpoint=grpc_url(sidecar), insecure=True)
            if protocol == "grpc"
            else HttpSpans(endpoint=http_url(sidecar))
        )
        sidecar.pipeline.draining = True
        began = time.monotonic()
        sent = asyncio.ensure_future(in_thread(exporter.export, [span("throttled")]))
        refusals_of = {"signal": "traces", "reason": "draining"}
        while metric(sidecar, "requests_refused_total", **refusals_of) == 0:
            await asyncio.sleep(0.01)
        sidecar.pipeline.draining = False
        assert await sent is SpanExportResult.SUCCESS
        assert 1.9 < time.monotonic() - began < 4
        assert metric(sidecar, "requests_refused_total", **refusals_of) == 1
        await in_thread(exporter.shutdown)
        await in_thread(sink.wait_for, sink.spans)
        assert names(sink) == {"throttled": 1}


async def test_logs_and_metrics_have_their_own_paths(tmp_path: Path, sink: Sink) -> None:
    async with running(tmp_path, otlp_endpoint=sink.grpc_endpoint) as sidecar:
        assert (await post(sidecar, logs("hello"), PROTOBUF, "/v1/logs")).status_code == 200
        wrong = await post(sidecar, traces("x"), PROTOBUF, "/v1/metrics")
        # A trace request may parse as metrics: protobuf has no type in it. What does not is refused.
        assert wrong.status_code in (200, 400)
        await in_thread(sink.wait_for, sink.logs)
        assert [record["body"] for record in sink.logs()] == ["hello"]


def test_a_gzip_bomb_is_not_unpacked_beyond_the_limit() -> None:
    bomb = gzip.compress(bytes(64 * MIB))
    tracemalloc.start()
    try:
        with pytest.raises(Refused, match="larger than 1 MiB"):
            gunzip(bomb, MIB)
        assert tracemalloc.get_traced_memory()[1] < 4 * MIB
    finally:
        tracemalloc.stop()
