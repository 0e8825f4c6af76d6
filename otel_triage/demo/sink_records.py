"""OTLP messages as flat records: one dict a span, log record or metric data point.

Ids are hex, times are nanoseconds since 1970, attributes are plain dicts; bytes are base64.
What a message leaves empty is None.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.proto.trace.v1.trace_pb2 import Status as SpanStatus

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Signal:
    """One of OTLP's signals: how its messages are read and answered.

    Attributes:
        name: last part of the HTTP path.
        service: gRPC service.
        records: records of a request message. Raises DecodeError where the bytes are none.
        response: response message, with a partial success if items are rejected or words are given.
    """

    name: str
    service: str
    records: Callable[[bytes], list[Record]]
    response: Callable[[int, str], bytes]


def _trace_records(body: bytes) -> list[Record]:
    request = traces.ExportTraceServiceRequest.FromString(body)
    return [
        _span(span) | _origin(group.resource, scoped.scope)
        for group in request.resource_spans
        for scoped in group.scope_spans
        for span in scoped.spans
    ]


def _log_records(body: bytes) -> list[Record]:
    request = logs.ExportLogsServiceRequest.FromString(body)
    return [
        _log(record) | _origin(group.resource, scoped.scope)
        for group in request.resource_logs
        for scoped in group.scope_logs
        for record in scoped.log_records
    ]


def _metric_records(body: bytes) -> list[Record]:
    request = metrics.ExportMetricsServiceRequest.FromString(body)
    return [
        point | _origin(group.resource, scoped.scope)
        for group in request.resource_metrics
        for scoped in group.scope_metrics
        for metric in scoped.metrics
        for point in _points(metric)
    ]


def _trace_response(rejected: int, message: str) -> bytes:
    response = traces.ExportTraceServiceResponse()
    if rejected or message:
        response.partial_success.rejected_spans, response.partial_success.error_message = rejected, message
    return response.SerializeToString()


def _log_response(rejected: int, message: str) -> bytes:
    response = logs.ExportLogsServiceResponse()
    if rejected or message:
        response.partial_success.rejected_log_records = rejected
        response.partial_success.error_message = message
    return response.SerializeToString()


def _metric_response(rejected: int, message: str) -> bytes:
    response = metrics.ExportMetricsServiceResponse()
    if rejected or message:
        response.partial_success.rejected_data_points = rejected
        response.partial_success.error_message = message
    return response.SerializeToString()


_COLLECTOR: Final = "opentelemetry.proto.collector"
SIGNALS: Final = {
    signal.name: signal
    for signal in (
        Signal("traces", f"{_COLLECTOR}.trace.v1.TraceService", _trace_records, _trace_response),
        Signal("logs", f"{_COLLECTOR}.logs.v1.LogsService", _log_records, _log_response),
        Signal("metrics", f"{_COLLECTOR}.metrics.v1.MetricsService", _metric_records, _metric_response),
    )
}
"""The signals by name."""


def _origin(resource: Any, scope: Any) -> Record:
    return {"resource": _attributes(resource.attributes), "scope": scope.name}


def _span(span: Span) -> Record:
    return {
        "kind": "span",
        "name": span.name,
        "trace_id": span.trace_id.hex(),
        "span_id": span.span_id.hex(),
        "parent_span_id": span.parent_span_id.hex() or None,
        "span_kind": Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        "status": {
            "code": SpanStatus.StatusCode.Name(span.status.code).removeprefix("STATUS_CODE_"),
            "message": span.status.message,
        },
        "start": span.start_time_unix_nano,
        "end": span.end_time_unix_nano,
        "attributes": _attributes(span.attributes),
        "events": [
            {"name": event.name, "time": event.time_unix_nano, "attributes": _attributes(event.attributes)}
            for event in span.events
        ],
    }


def _log(record: Any) -> Record:
    return {
        "kind": "log",
        "event_name": record.event_name or None,
        "severity": record.severity_text or None,
        "severity_number": record.severity_number or None,
        "body": _plain(record.body),
        "trace_id": record.trace_id.hex() or None,
        "span_id": record.span_id.hex() or None,
        "time": record.time_unix_nano or None,
        "observed_time": record.observed_time_unix_nano or None,
        "attributes": _attributes(record.attributes),
    }


def _points(metric: Any) -> Iterator[Record]:
    kind = metric.WhichOneof("data")
    data = getattr(metric, kind) if kind else None
    for point in data.data_points if data is not None else ():
        yield {
            "kind": "metric",
            "name": metric.name,
            "unit": metric.unit,
            "type": kind,
            "temporality": _temporality(data),
            "monotonic": getattr(data, "is_monotonic", None),
            "value": _value(point),
            "start": point.start_time_unix_nano or None,
            "time": point.time_unix_nano,
            "attributes": _attributes(point.attributes),
        }


def _temporality(data: Any) -> str | None:
    if not hasattr(data, "aggregation_temporality"):
        return None
    name: str = AggregationTemporality.Name(data.aggregation_temporality)
    return name.removeprefix("AGGREGATION_TEMPORALITY_").lower()


def _value(point: Any) -> Any:
    """A number; of histograms and summaries, count and sum (and buckets, where they are explicit)."""
    if hasattr(point, "as_int"):
        field = point.WhichOneof("value")
        return getattr(point, field) if field else None
    found = {"count": point.count, "sum": point.sum}
    if hasattr(point, "explicit_bounds"):
        found |= {"bounds": list(point.explicit_bounds), "buckets": list(point.bucket_counts)}
    return found


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: _plain(pair.value) for pair in pairs}


def _plain(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [_plain(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return _attributes(value.kvlist_value.values)
    if kind == "bytes_value":
        return base64.b64encode(value.bytes_value).decode("ascii")
    found: str | bool | int | float | Message = getattr(value, kind)
    return found
