from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from opentelemetry._logs import LogRecord
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogs
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetrics
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpans
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogs
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetrics
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpans
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
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
from sidecar_tools import in_thread, metric, running, traces

from otel_triage.demo.sink import Sink
from otel_triage.sidecar import otlp_json
from otel_triage.sidecar.http_body import gunzip
from otel_triage.sidecar.refusals import Refused, Why
from otel_triage.sidecar.signals import OTLP, WIRE, Signal

# --- the SDKs' own exporters ---


@pytest.mark.parametrize("protocol", ["grpc", "http", "http+gzip"])
async def test_the_sdks_exporters_reach_the_backend(tmp_path: Path, sink: Sink, protocol: str) -> None:
    async with running(tmp_path, otlp_endpoint=sink.grpc_endpoint) as sidecar:

        def options(path: str) -> dict[str, Any]:
            if protocol == "grpc":
                return {"endpoint": grpc_url(sidecar), "insecure": True, "timeout": 5}
            compression = Compression.Gzip if "gzip" in protocol else Compression.NoCompression
            return {"endpoint": http_url(sidecar, path), "compression": compression, "timeout": 5}

        def send() -> None:
            spans = (GrpcSpans if protocol == "grpc" else HttpSpans)(**options("/v1/traces"))
            assert spans.export([span("one")]) is SpanExportResult.SUCCESS
            spans.shutdown()
            provider = LoggerProvider()
            exporter = (GrpcLogs if protocol == "grpc" else HttpLogs)(**options("/v1/logs"))
            provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
            provider.get_logger("test").emit(LogRecord(timestamp=1, body="two"))
            provider.shutdown()
            metrics = (GrpcMetrics if protocol == "grpc" else HttpMetrics)(**options("/v1/metrics"))
            meters = MeterProvider([PeriodicExportingMetricReader(metrics, export_interval_millis=1e9)])
            meters.get_meter("test").create_counter("three").add(3)
            meters.shutdown()

        await in_thread(send)
        await in_thread(sink.wait_for, lambda: sink.spans() and sink.logs() and sink.points())
        assert [s["name"] for s in sink.spans()] == ["one"]
        assert [r["body"] for r in sink.logs()] == ["two"]
        assert [p["name"] for p in sink.points()] == ["three"]
        for signal in OTLP:
            assert metric(sidecar, "requests_received_total", signal=signal) == 1
            assert metric(sidecar, "requests_acknowledged_total", signal=signal) == 1


@pytest.mark.parametrize("protocol", ["grpc", "http"])
async def test_a_request_leaves_as_the_bytes_that_came(tmp_path: Path, sink: Sink, protocol: str) -> None:
    """A field that no version of ours knows, and fields out of order, survive."""
    body = traces("odd") + b"\xfa\x06\x03new" + traces("second")
    async with running(tmp_path, otlp_endpoint=sink.grpc_endpoint) as sidecar:
        if protocol == "grpc":
            assert await in_thread(call, sidecar, body) == b""
        else:
            response = await post(sidecar, body, PROTOBUF)
            assert (response.status_code, response.content) == (200, b"")
            assert response.headers["content-type"] == "application/x-protobuf"
        await in_thread(sink.wait_for, lambda: sink.raw("traces"))
        assert sink.raw("traces") == [body]


# --- OTLP/JSON ---


async def test_json_with_hex_ids_arrives_whole(tmp_path: Path, sink: Sink) -> None:
    async with running(tmp_path, otlp_endpoint=sink.grpc_endpoint) as sidecar:
        response = await post(
            sidecar, json_request(SPAN), {"content-type": "application/json; charset=utf-8"}
        )
        assert (response.status_code, response.json()) == (200, {})
        assert response.headers["content-type"] == "application/json"
        await in_thread(sink.wait_for, sink.spans)
    request = WIRE[Signal.TRACES].request.FromString(sink.raw("traces")[0])
    (got,) = request.resource_spans[0].scope_spans[0].spans
    expected = type(got)(
        trace_id=bytes.fromhex("5b8efff798038103d269b633813fc60c"),
        span_id=bytes.fromhex("eee19b7ec3c1b174"),
        parent_span_id=bytes.fromhex("eee19b7ec3c1b173"),
        name="chat",
        kind=3,
        start_time_unix_nano=1544712660000000000,
        end_time_unix_nano=1544712661000000000,
        status={"code": 2, "message": "böse"},
        flags=257,
    )
    for key, value in (
        ("traceId", {"string_value": "5B8EFFF798038103D269B633813FC60C"}),
        ("n", {"int_value": 12}),
        ("big", {"int_value": 9007199254740993}),
        ("half", {"double_value": 0.5}),
        ("list", {"array_value": {"values": [{"string_value": "spanId"}, {}]}}),
        ("map", {"kvlist_value": {"values": [{"key": "spanId", "value": {"string_value": "x"}}]}}),
        ("raw", {"bytes_value": b"\0\1\2"}),
    ):
        expected.attributes.add(key=key, value=value)
    assert got == expected


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "not OTLP/JSON: Expecting property name enclosed in double quotes"),
        (b"\xff", "not OTLP/JSON: 'utf-8' codec can't decode byte"),
        (b"", "not OTLP/JSON: Expecting value"),
        (b"[]", "not OTLP/JSON: a JSON object is due, this is an array"),
        (b'{"resourceSpans": {}}', "not OTLP/JSON: resourceSpans: an array is due, this is an object"),
        (b'{"resourceSpans": [null]}', "not OTLP/JSON: resourceSpans: an object is due, this is null"),
        (
            json_request({"traceId": "W47/95gDgQPSabYzgT/GDA=="}),
            "traceId: 'W47/95gDgQPSabYzgT/GDA==' is not a hex",
        ),
        (json_request({"spanId": 7}), "not OTLP/JSON: spanId: '7' is not a hex string"),
        (json_request({"name": 7}), "not OTLP/JSON: Failed to parse"),
        (json_request({"name": "\ud800"}), "not OTLP/JSON: "),
        (json_request({"startTimeUnixNano": "1e99"}), "not OTLP/JSON: Failed to parse"),
        (b'{"a":' * 100_000, "not OTLP/JSON: nested too deeply"),
    ],
    ids=range(12),
)
def test_bad_json_is_told_why(body: bytes, reason: str) -> None:
    with pytest.raises(Refused) as caught:
        otlp_json.parse(Signal.TRACES, body)
    assert caught.value.why is Why.INVALID
    assert reason in caught.value.text


async def test_bad_json_is_answered_in_json(tmp_path: Path) -> None:
    async with running(tmp_path) as sidecar:
        response = await post(sidecar, b"[]", JSON)
        assert response.status_code == 400
        assert response.headers["content-type"] == "application/json"
        text = "not OTLP/JSON: a JSON object is due, this is an array"
        assert response.json() == {"code": 3, "message": text}
        assert metric(sidecar, "requests_refused_total", signal="traces", reason="invalid") == 1
        assert metric(sidecar, "journal_records") == 0


# --- bad input ---


@pytest.mark.parametrize("body", [b"garbage", traces("x")[:-1], b"\x0a\xff\xff\xff\xff\x0f"], ids=range(3))
async def test_bad_protobuf_is_told_why(tmp_path: Path, body: bytes) -> None:
    text = "not an opentelemetry.proto.collector.trace.v1.ExportTraceServiceRequest in protobuf: "
    async with running(tmp_path) as sidecar:
        error = await refused(sidecar, body)
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert error.details().startswith(text)
        code, rpc, message = status(await post(sidecar, body, PROTOBUF))
        assert (code, rpc) == (400, 3)
        assert message.startswith(text)
        assert metric(sidecar, "requests_refused_total", signal="traces", reason="invalid") == 2
        assert metric(sidecar, "journal_records") == 0


async def test_an_empty_request_is_a_success(tmp_path: Path) -> None:
    async with running(tmp_path) as sidecar:
        assert await in_thread(call, sidecar, b"") == b""
        assert (await post(sidecar, b"", PROTOBUF)).status_code == 200
        assert (await post(sidecar, b"{}", JSON)).content == b"{}"
        assert metric(sidecar, "journal_records") == 0


async def test_wrong_method_type_and_encoding(tmp_path: Path) -> None:
    async with running(tmp_path) as sidecar, httpx.AsyncClient() as client:
        got = await client.get(http_url(sidecar))
        assert status(got) == (405, 12, "GET is not allowed; use POST")
        assert got.headers["allow"] == "POST"
        assert status(await post(sidecar, b"x", {"content-type": "text/plain"})) == (
            415,
            3,
            "content type 'text/plain' is not one of: application/x-protobuf, application/json",
        )
        assert status(await post(sidecar, b"x", {})) == (
            415,
            3,
            "content type '' is not one of: application/x-protobuf, application/json",
        )
        zstd = await post(sidecar, b"x", PROTOBUF | {"content-encoding": "zstd"})
        assert status(zstd) == (415, 3, "content encoding 'zstd' is not one of: gzip, identity")
        assert (await client.post(http_url(sidecar, "/v1/profiles"))).status_code == 404


@pytest.mark.parametrize(
    ("packed", "text"),
    [
        (b"no gzip", "the body is not gzip: "),
        (gzip.compress(traces("x"))[:-9], "the gzip body ends too early"),
        (gzip.compress(traces("x")) + b"trailing", "the body is not gzip: "),
        (gzip.compress(traces("x"))[:-8] + b"\0" * 8, "the body is not gzip: "),
        (gzip.compress(b"") * 65, "the gzip body has more than 64 members; one is enough"),
    ],
    ids=["none", "cut", "trailing", "checksum", "members"],
)
def test_bad_gzip_is_told_why(packed: bytes, text: str) -> None:
    with pytest.raises(Refused) as caught:
        gunzip(packed, MIB)
    assert caught.value.why is Why.INVALID
    assert caught.value.text.startswith(text)


async def test_bad_gzip_is_answered(tmp_path: Path) -> None:
    async with running(tmp_path) as sidecar:
        answer = await post(sidecar, gzip.compress(traces("x"))[:-9], PROTOBUF | {"content-encoding": "gzip"})
        assert status(answer) == (400, 3, "the gzip body ends too early")


async def test_gzip_of_several_members_is_one_body(tmp_path: Path, sink: Sink) -> None:
    async with running(tmp_path, otlp_endpoint=sink.grpc_endpoint) as sidecar:
        packed = gzip.compress(traces("a")) + gzip.compress(traces("b"))
        assert (await post(sidecar, packed, PROTOBUF | {"content-encoding": "gzip"})).status_code == 200
        await in_thread(sink.wait_for, lambda: len(sink.spans()) == 2)
