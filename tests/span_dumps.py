"""Recorded spans for tests, and small builders of OTLP requests."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span

DUMPS = Path(__file__).parent / "data" / "spans"
_IDS = {"traceId", "spanId", "parentSpanId"}

T0 = 1_750_000_000
"""Unix seconds at which built failures happen."""


def _with_ids(data: Any) -> Any:
    if isinstance(data, dict):
        return {
            key: base64.b64encode(bytes.fromhex(value)).decode() if key in _IDS else _with_ids(value)
            for key, value in data.items()
        }
    return [_with_ids(item) for item in data] if isinstance(data, list) else data


@cache
def _file(dialect: str) -> dict[str, Any]:
    return json.loads((DUMPS / f"{dialect}.json").read_text("utf-8"))["scenarios"]


def dialects() -> list[str]:
    return sorted(path.stem for path in DUMPS.glob("*.json"))


def scenarios(dialect: str) -> list[str]:
    return list(_file(dialect))


def load(dialect: str, scenario: str) -> ExportTraceServiceRequest:
    return json_format.ParseDict(_with_ids(_file(dialect)[scenario]), ExportTraceServiceRequest())


def spans_of(request: ExportTraceServiceRequest) -> Iterator[tuple[str, Span]]:
    """Scope names and spans."""
    for group in request.resource_spans:
        for scope in group.scope_spans:
            for span in scope.spans:
                yield scope.scope.name, span


def value(data: Any) -> AnyValue:
    if isinstance(data, bool):
        return AnyValue(bool_value=data)
    if isinstance(data, int):
        return AnyValue(int_value=data)
    if isinstance(data, float):
        return AnyValue(double_value=data)
    if isinstance(data, (list, tuple)):
        return AnyValue(array_value=ArrayValue(values=[value(item) for item in data]))
    return AnyValue(string_value=data)


def pairs(attributes: Mapping[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=key, value=value(data)) for key, data in attributes.items()]


def plain(pairs: Any) -> dict[str, Any]:
    """Attributes as a dict; fails on a name that stands twice."""
    found = {}
    for pair in pairs:
        assert pair.key not in found, f"{pair.key} stands twice"
        kind = pair.value.WhichOneof("value")
        data = getattr(pair.value, kind)
        found[pair.key] = (
            [getattr(item, item.WhichOneof("value")) for item in data.values]
            if kind == "array_value"
            else data
        )
    return found


def ours(span: Any) -> dict[str, Any]:
    return {key: data for key, data in plain(span.attributes).items() if key.startswith("triage.")}


def make_span(
    attributes: Mapping[str, Any],
    *,
    name: str = "chat gpt-4o",
    kind: int = 3,
    trace: int = 1,
    span: int = 1,
    parent: int = 0,
    status: int = 2,
    description: str = "",
    exception: Mapping[str, Any] | None = None,
    at: float = T0,
    began: float | None = None,
) -> Span:
    """A span; a failed one unless said otherwise. Times are Unix seconds."""
    made = Span(
        name=name,
        kind=kind,  # type: ignore[arg-type]
        trace_id=trace.to_bytes(16),
        span_id=span.to_bytes(8),
        parent_span_id=parent.to_bytes(8) if parent else b"",
        start_time_unix_nano=int((at - 1 if began is None else began) * 1e9),
        end_time_unix_nano=int(at * 1e9),
        attributes=pairs(attributes),
    )
    if status:
        made.status.code = status  # type: ignore[assignment]
        made.status.message = description
    if exception is not None:
        event = made.events.add(name="exception", time_unix_nano=int(at * 1e9))
        event.attributes.extend(pairs(exception))
    return made


def traces(
    *spans: Span, scope: str = "app", resource: Mapping[str, Any] | None = None
) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    group.resource.attributes.extend(pairs(resource or {"service.name": "shop"}))
    scoped = group.scope_spans.add()
    scoped.scope.name = scope
    scoped.spans.extend(spans)
    return request


def make_record(
    attributes: Mapping[str, Any], *, event: str = "", trace: int = 1, span: int = 1, at: float = T0
) -> LogRecord:
    return LogRecord(
        event_name=event,
        trace_id=trace.to_bytes(16) if trace else b"",
        span_id=span.to_bytes(8) if span else b"",
        time_unix_nano=int(at * 1e9),
        attributes=pairs(attributes),
    )


def logs(*records: LogRecord, scope: str = "otel_triage") -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    group = request.resource_logs.add()
    group.resource.attributes.extend(pairs({"service.name": "shop"}))
    scoped = group.scope_logs.add()
    scoped.scope.name = scope
    scoped.log_records.extend(records)
    return request
