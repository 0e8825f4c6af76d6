"""The sink meets the real OpenTelemetry SDK and exporters, and does what it is told to do wrong."""

from __future__ import annotations

import base64
import gzip
import json
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from http.client import HTTPException

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogs
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetrics
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcTraces
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogs
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetrics
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpTraces
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode

from otel_triage.demo.sink import Answer, Sink

RESOURCE = Resource({"service.name": "shop"})
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
TIMEOUT_S = 10


@pytest.fixture
def sink():
    with Sink() as running:
        yield running


def one_span(name="chat gpt-4o", **attributes):
    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add(name=name, trace_id=b"\1" * 16)
    for key, value in attributes.items():
        span.attributes.add(key=key).value.string_value = value
    return request.SerializeToString()


def post(sink, body, path="/v1/traces", **headers):
    headers = {"content-type": "application/x-protobuf"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    request = urllib.request.Request(sink.http_endpoint + path, body, headers)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()


@contextmanager
def grpc_call(sink):
    with grpc.insecure_channel(sink.grpc_endpoint.removeprefix("http://")) as channel:
        yield channel.unary_unary(EXPORT)


# --------------------------------------------------------------- what the real SDK sends

EXPORTERS = {
    "grpc": lambda kind, sink: {"traces": GrpcTraces, "logs": GrpcLogs, "metrics": GrpcMetrics}[kind](
        endpoint=sink.grpc_endpoint
    ),
    "http": lambda kind, sink: {"traces": HttpTraces, "logs": HttpLogs, "metrics": HttpMetrics}[kind](
        endpoint=f"{sink.http_endpoint}/v1/{kind}"
    ),
    "http-gzip": lambda kind, sink: {"traces": HttpTraces, "logs": HttpLogs, "metrics": HttpMetrics}[kind](
        endpoint=f"{sink.http_endpoint}/v1/{kind}", compression=Compression.Gzip
    ),
}


@pytest.mark.parametrize("protocol", EXPORTERS)
def test_spans(sink, protocol):
    provider = TracerProvider(resource=RESOURCE)
    provider.add_span_processor(SimpleSpanProcessor(EXPORTERS[protocol]("traces", sink)))
    tracer = provider.get_tracer("scope-a", "1.0")
    with tracer.start_as_current_span("parent") as parent:
        span = tracer.start_span(
            "chat gpt-4o",
            kind=SpanKind.CLIENT,
            start_time=1_000,
            attributes={"a": 1, "b": ("x", "y"), "c": True},
        )
        span.add_event("exception", {"exception.type": "E"}, timestamp=1_500)
        span.set_status(StatusCode.ERROR, "broke")
        span.end(2_000)
    provider.shutdown()
    child, _ = sink.wait_for(lambda: len(sink.spans()) == 2 and sink.spans())
    ids = parent.get_span_context()
    assert {key: value for key, value in child.items() if key != "resource"} == {
        "kind": "span",
        "name": "chat gpt-4o",
        "trace_id": f"{ids.trace_id:032x}",
        "span_id": f"{span.get_span_context().span_id:016x}",
        "parent_span_id": f"{ids.span_id:016x}",
        "span_kind": "CLIENT",
        "status": {"code": "ERROR", "message": "broke"},
        "start": 1_000,
        "end": 2_000,
        "attributes": {"a": 1, "b": ["x", "y"], "c": True},
        "events": [{"name": "exception", "time": 1_500, "attributes": {"exception.type": "E"}}],
        "scope": "scope-a",
    }
    assert child["resource"]["service.name"] == "shop"
    assert sink.spans()[1]["parent_span_id"] is None
    assert {export.protocol for export in sink.exports()} == {protocol.removesuffix("-gzip")}


@pytest.mark.parametrize("protocol", EXPORTERS)
def test_logs(sink, protocol):
    provider = LoggerProvider(resource=RESOURCE)
    provider.add_log_record_processor(SimpleLogRecordProcessor(EXPORTERS[protocol]("logs", sink)))
    provider.get_logger("scope-b").emit(
        timestamp=3_000,
        observed_timestamp=3_001,
        severity_text="ERROR",
        body="it broke",
        attributes={"triage.attempts": 2},
        event_name="gen_ai.client.operation.exception",
    )
    provider.shutdown()
    (record,) = sink.wait_for(sink.logs)
    assert {key: value for key, value in record.items() if key != "resource"} == {
        "kind": "log",
        "event_name": "gen_ai.client.operation.exception",
        "severity": "ERROR",
        "severity_number": None,
        "body": "it broke",
        "trace_id": None,
        "span_id": None,
        "time": 3_000,
        "observed_time": 3_001,
        "attributes": {"triage.attempts": 2},
        "scope": "scope-b",
    }


@pytest.mark.parametrize("protocol", EXPORTERS)
def test_points(sink, protocol):
    reader = PeriodicExportingMetricReader(
        EXPORTERS[protocol]("metrics", sink), export_interval_millis=600_000
    )
    provider = MeterProvider([reader], resource=RESOURCE)
    meter = provider.get_meter("scope-c")
    meter.create_counter("triage.llm.calls").add(3, {"triage.outcome": "ok"})
    meter.create_histogram("duration", "s", explicit_bucket_boundaries_advisory=[1.0]).record(0.5)
    provider.shutdown()
    points = {point["name"]: point for point in sink.wait_for(sink.points)}
    ours = ("unit", "type", "temporality", "monotonic", "value", "attributes", "scope")
    assert {name: {key: point[key] for key in ours} for name, point in points.items()} == {
        "triage.llm.calls": {
            "unit": "",
            "type": "sum",
            "temporality": "cumulative",
            "monotonic": True,
            "value": 3,
            "attributes": {"triage.outcome": "ok"},
            "scope": "scope-c",
        },
        "duration": {
            "unit": "s",
            "type": "histogram",
            "temporality": "cumulative",
            "monotonic": None,
            "value": {"count": 1, "sum": 0.5, "bounds": [1.0], "buckets": [1, 0]},
            "attributes": {},
            "scope": "scope-c",
        },
    }


def test_values_of_every_kind(sink):
    request = ExportLogsServiceRequest()
    record = request.resource_logs.add().scope_logs.add().log_records.add()
    record.body.kvlist_value.values.add(key="a").value.double_value = 0.5
    record.body.kvlist_value.values.add(key="b").value.bytes_value = b"\0\1"
    record.body.kvlist_value.values.add(key="c")
    record.body.kvlist_value.values.add(key="d").value.array_value.values.add().int_value = 7
    assert post(sink, request.SerializeToString(), "/v1/logs")[0] == 200
    expected = {"a": 0.5, "b": base64.b64encode(b"\0\1").decode(), "c": None, "d": [7]}
    assert sink.logs()[0]["body"] == expected


def test_gauges_and_summaries(sink):
    request = ExportMetricsServiceRequest()
    metrics = request.resource_metrics.add().scope_metrics.add().metrics
    metrics.add(name="g").gauge.data_points.add(as_double=1.5)
    metrics.add(name="s").summary.data_points.add(count=2, sum=3.0)
    metrics.add(name="e").exponential_histogram.data_points.add(count=4, sum=5.0)
    metrics.add(name="empty")
    assert post(sink, request.SerializeToString(), "/v1/metrics")[0] == 200
    assert [(point["name"], point["type"], point["value"]) for point in sink.points()] == [
        ("g", "gauge", 1.5),
        ("s", "summary", {"count": 2, "sum": 3.0}),
        ("e", "exponential_histogram", {"count": 4, "sum": 5.0}),
    ]


def test_bodies_are_kept_as_they_came(sink):
    unknown_field = one_span("a") + b"\xfa\x07\x03new"  # field 127: a newer protocol
    bodies = [unknown_field, one_span("b"), one_span("c")]
    post(sink, bodies[0])
    post(sink, gzip.compress(bodies[1]), content_encoding="gzip")
    with grpc_call(sink) as call:
        call(bodies[2], timeout=TIMEOUT_S, compression=grpc.Compression.Gzip, metadata=[("x-hop", "1")])
    assert sink.raw("traces") == bodies
    assert sink.raw("logs") == []
    assert sink.exports()[2].headers["x-hop"] == "1"


# --------------------------------------------------------------- bad requests


@pytest.mark.parametrize(
    ("body", "path", "headers", "status", "words"),
    [
        (b"\xff\xff", "/v1/traces", {}, 400, "not a message of traces"),
        (b"no gzip", "/v1/traces", {"content_encoding": "gzip"}, 400, "not a message of traces"),
        (b"{}", "/v1/traces", {"content_type": "application/json"}, 415, "application/x-protobuf"),
        (b"", "/v1/profiles", {}, 404, "there are /v1/traces, /v1/logs, /v1/metrics"),
    ],
)
def test_bad_http_requests(sink, body, path, headers, status, words):
    found, _, answer = post(sink, body, path, **headers)
    assert found == status
    assert words in Status.FromString(answer).message
    assert sink.exports() == []


def test_bad_grpc_message(sink):
    with grpc_call(sink) as call, pytest.raises(grpc.RpcError) as caught:
        call(b"\xff\xff", timeout=TIMEOUT_S)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details().startswith("not a message of traces")


# --------------------------------------------------------------- misbehaviour


def test_refused_then_good_over_http(sink):
    sink.answer_with(Answer(status=grpc.StatusCode.UNAVAILABLE, times=2, retry_after_s=1.5, message="busy"))
    status, headers, body = post(sink, one_span())
    assert (status, headers["Retry-After"], Status.FromString(body).message) == (503, "2", "busy")
    assert sink.spans() == []
    assert [post(sink, one_span())[0] for _ in range(2)] == [503, 200]
    assert [export.status.name for export in sink.exports()] == ["UNAVAILABLE", "UNAVAILABLE", "OK"]
    assert len(sink.spans()) == 1


def test_refused_with_retry_info_over_grpc(sink):
    sink.answer_with(Answer(status=grpc.StatusCode.UNAVAILABLE, retry_after_s=1.5, message="busy"))
    with grpc_call(sink) as call:
        with pytest.raises(grpc.RpcError) as caught:
            call(one_span(), timeout=TIMEOUT_S)
        trailers = dict(caught.value.trailing_metadata())
        status = Status.FromString(trailers["grpc-status-details-bin"])
        retry = RetryInfo()
        assert status.details[0].Unpack(retry)
        assert (caught.value.code().name, caught.value.details(), status.code) == ("UNAVAILABLE", "busy", 14)
        assert retry.retry_delay.ToNanoseconds() == 1_500_000_000
        assert call(one_span(), timeout=TIMEOUT_S) == b""


def test_a_real_exporter_tries_again(sink):
    sink.answer_with(Answer(status=grpc.StatusCode.UNAVAILABLE, retry_after_s=0.05))
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(EXPORTERS["grpc"]("traces", sink)))
    provider.get_tracer("t").start_span("once").end()
    provider.shutdown()
    assert [span["name"] for span in sink.wait_for(sink.spans)] == ["once"]
    assert [export.status.name for export in sink.exports()] == ["UNAVAILABLE", "OK"]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_poison_is_refused_for_good_and_the_rest_passes(sink, protocol):
    sink.answer_with(Answer(status=grpc.StatusCode.INVALID_ARGUMENT, span_name="poison", times=None))

    def send(name):
        if protocol == "http":
            return post(sink, one_span(name))[0]
        with grpc_call(sink) as call:
            try:
                call(one_span(name), timeout=TIMEOUT_S)
            except grpc.RpcError as error:
                return error.code()
            return 200

    bad = {"http": 400, "grpc": grpc.StatusCode.INVALID_ARGUMENT}[protocol]
    assert [send(name) for name in ("poison", "good", "poison")] == [bad, 200, bad]
    assert [span["name"] for span in sink.spans()] == ["good"]


def test_answers_for_one_signal_only(sink):
    sink.answer_with(Answer(status=grpc.StatusCode.RESOURCE_EXHAUSTED, signal="logs", times=None))
    assert post(sink, b"", "/v1/logs")[0] == 429
    assert post(sink, one_span())[0] == 200


@pytest.mark.parametrize(
    ("path", "response", "field"),
    [
        ("traces", ExportTraceServiceResponse, "rejected_spans"),
        ("logs", ExportLogsServiceResponse, "rejected_log_records"),
        ("metrics", ExportMetricsServiceResponse, "rejected_data_points"),
    ],
)
def test_partial_success(sink, path, response, field):
    sink.answer_with(Answer(rejected=1, message="one is too old"))
    partial = response.FromString(post(sink, b"", f"/v1/{path}")[2]).partial_success
    assert (getattr(partial, field), partial.error_message) == (1, "one is too old")
    assert post(sink, b"", f"/v1/{path}")[2] == b""


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_held_export_is_kept_and_answered_when_released(sink, protocol):
    release, answered = threading.Event(), threading.Event()
    sink.answer_with(Answer(hold=release))

    def send():
        if protocol == "http":
            post(sink, one_span())
        else:
            with grpc_call(sink) as call:
                call(one_span(), timeout=TIMEOUT_S)
        answered.set()

    sender = threading.Thread(target=send)
    sender.start()
    sink.wait_for(sink.spans)
    assert not answered.wait(0.2)
    release.set()
    assert answered.wait(TIMEOUT_S)
    sender.join(TIMEOUT_S)


def test_delay_beyond_the_clients_patience(sink):
    sink.answer_with(Answer(delay_s=5.0))
    with grpc_call(sink) as call, pytest.raises(grpc.RpcError) as caught:
        call(one_span(), timeout=0.2)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert len(sink.spans()) == 1


def test_closing_releases_what_is_held():
    def send():
        with suppress(OSError, HTTPException):  # an answer or a closed connection: either ends the wait
            post(sink, one_span())

    with Sink() as sink:
        sink.answer_with(Answer(hold=threading.Event()))
        sender = threading.Thread(target=send)
        sender.start()
        sink.wait_for(sink.exports)
    sender.join(TIMEOUT_S)
    assert not sender.is_alive()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("sink-")]


def test_a_backend_that_goes_and_comes_back():
    with Sink() as first:
        ports = {
            "grpc_port": int(first.grpc_endpoint.rpartition(":")[2]),
            "http_port": int(first.http_endpoint.rpartition(":")[2]),
        }
        exporter = EXPORTERS["http"]("traces", first)
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        provider.get_tracer("t").start_span("before").end()
        assert [span["name"] for span in first.spans()] == ["before"]
    with pytest.raises(OSError, match=r"refused"):
        post(first, one_span())
    with Sink(**ports) as second:
        provider.get_tracer("t").start_span("after").end()
        assert [span["name"] for span in second.wait_for(second.spans)] == ["after"]
        assert [span["name"] for span in first.spans()] == ["before"]
        with grpc_call(second) as call:
            assert call(one_span(), timeout=TIMEOUT_S) == b""


def test_waiting_in_vain_says_what_there_is(sink):
    post(sink, one_span())
    with pytest.raises(TimeoutError, match=r"not true in 0\.05 s: 1 exports, kept 1 spans, 0 logs, 0 points"):
        sink.wait_for(lambda: len(sink.spans()) == 2, 0.05)


# --------------------------------------------------------------- as a process


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_as_a_process(tmp_path, ending):
    path = tmp_path / "records.jsonl"
    path.write_text('{"kind": "earlier"}\n')
    command = [sys.executable, "-m", "otel_triage.demo.sink", "--file", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            found = re.fullmatch(r"listening grpc=(127\.0\.0\.1:\d+) http=(127\.0\.0\.1:\d+)\n", line)
            with grpc.insecure_channel(found[1]) as channel:
                channel.unary_unary(EXPORT)(one_span("over grpc", a="ü"), timeout=TIMEOUT_S)
            headers = {"content-type": "application/x-protobuf"}
            request = urllib.request.Request(f"http://{found[2]}/v1/traces", one_span("over http"), headers)
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                assert answer.status == 200
            records = [json.loads(line) for line in path.read_text().splitlines()]
            assert [record.get("name") for record in records] == [None, "over grpc", "over http"]
            assert records[1]["attributes"] == {"a": "ü"}
            process.send_signal(ending)
            assert process.wait(timeout=TIMEOUT_S) == 0
        finally:
            process.kill()
