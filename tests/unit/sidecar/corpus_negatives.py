"""Real errors that are none of ours, and twins that are, through the sidecar as Sentry events and as spans.

The corpus stays out of the repository: `OTEL_TRIAGE_NEGATIVES` names its file. A negative counts as
touched if anything of it comes out changed.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from sentry_tools import AUTH, envelope, forwarding, item, post

from otel_triage.demo.sentry_sink import SentrySink
from otel_triage.demo.sink import Sink
from otel_triage.facts.stacktrace import read_stacktrace

CORPUS = os.environ.get("OTEL_TRIAGE_NEGATIVES", "")
TOUCHED, MISSED = 0.01, 0.05

pytestmark = [
    pytest.mark.skipif(not CORPUS, reason="OTEL_TRIAGE_NEGATIVES names no corpus"),
    pytest.mark.timeout(180),
]

Row = dict[str, Any]


def rows(shape: str) -> list[Row]:
    lines = Path(CORPUS).read_text("utf-8").splitlines()
    return [row for line in lines if (row := json.loads(line))["shape"] in (shape, "both")]


def frame_of(module: str) -> dict[str, Any]:
    """A frame as an SDK would send it: a path is the application's own file, a module is a library's."""
    if module.startswith("/") or ":\\" in module:
        return {"abs_path": module, "filename": module, "function": "f", "in_app": True}
    return {"module": module, "function": "f", "in_app": False}


def as_event(row: Row, event_id: str) -> dict[str, Any]:
    trace = read_stacktrace(row["stacktrace"]) if row["stacktrace"] else None
    chain = [(cause.type, cause.message) for cause in (trace.causes if trace else ())]
    name = row["error_type"]
    if chain and chain[0][0].rpartition(".")[2] == name.rpartition(".")[2]:
        name = max(name, chain.pop(0)[0], key=len)
    values = []
    for kind, message in [(name, row["error_message"]), *chain]:
        module, _, short = kind.rpartition(".")
        values.append({"type": short or kind, "module": module or None, "value": message})
    values[0]["stacktrace"] = {"frames": [frame_of(frame) for frame in (trace.frames if trace else ())]}
    values[0]["mechanism"] = {"type": "generic", "handled": False}
    return {
        "event_id": event_id,
        "timestamp": 1_700_000_000.5,
        "platform": row["platform"],
        "level": "error",
        "tags": row["tags"],
        "exception": {"values": values[::-1]},
    }


def value(of: Any) -> AnyValue:
    if isinstance(of, bool):
        return AnyValue(bool_value=of)
    if isinstance(of, int):
        return AnyValue(int_value=of)
    return AnyValue(double_value=of) if isinstance(of, float) else AnyValue(string_value=str(of))


def as_spans(row: Row, number: int) -> bytes:
    """The failed span below a failing server span."""
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add().scope_spans.add()
    group.scope.name = row["scope"]
    at = 1_700_000_000_000_000_000 + number * 60_000_000_000
    told = {name: row[f"error_{name}"] for name in ("type", "message")} | {"stacktrace": row["stacktrace"]}
    for span_id, parent, name, kind, attributes in (
        (2, 1, row["span_name"], row["span_kind"], row["attributes"]),
        (1, 0, "POST /work", "SERVER", {"http.request.method": "POST", "http.response.status_code": 500}),
    ):
        span = group.spans.add(
            trace_id=number.to_bytes(16, "big"), span_id=span_id.to_bytes(8, "big"), name=name
        )
        span.parent_span_id = parent.to_bytes(8, "big") if parent else b""
        span.kind = Span.SpanKind.Value(f"SPAN_KIND_{kind}")
        span.start_time_unix_nano, span.end_time_unix_nano = at, at + 1_000_000_000
        span.status.code = 2
        span.attributes.extend(KeyValue(key=key, value=value(of)) for key, of in attributes.items())
        event = span.events.add(name="exception", time_unix_nano=at + 900_000_000)
        event.attributes.extend(
            KeyValue(key=f"exception.{key}", value=value(of)) for key, of in told.items() if of
        )
    return request.SerializeToString()


def judge(kind: str, found: list[tuple[Row, bool]]) -> None:
    """Compare shares with what is allowed; each row with whether it came out changed."""
    negatives = [(row, changed) for row, changed in found if not row.get("llm")]
    twins = [(row, changed) for row, changed in found if row.get("llm")]
    touched = [row["id"] for row, changed in negatives if changed]
    missed = [row["id"] for row, changed in twins if not changed]
    print(
        f"{kind}: {len(touched)} of {len(negatives)} touched {touched},"
        f" {len(missed)} of {len(twins)} missed {missed}"
    )
    assert len(negatives) > 100
    assert twins
    assert len(touched) <= TOUCHED * len(negatives), touched
    assert len(missed) <= MISSED * len(twins), missed


async def test_as_events(tmp_path: Path) -> None:
    known = rows("event")
    sent = {f"{number:032x}": as_event(row, f"{number:032x}") for number, row in enumerate(known, 1)}
    with SentrySink() as sentry:
        async with forwarding(tmp_path, sentry) as sidecar:
            for event_id, event in sent.items():
                body = envelope(item("event", event), event_id=event_id)
                assert (await post(sidecar, body, headers=AUTH)).status_code == 200
            await asyncio.to_thread(sentry.wait_for, lambda: len(sentry.kept()) == len(sent), 60)
        came = {event["event_id"]: event for event in sentry.events()}
    judge("events", [(row, came[key] != sent[key]) for row, key in zip(known, sent, strict=True)])


async def test_as_spans(tmp_path: Path) -> None:
    known = rows("span")
    sent = [as_spans(row, number) for number, row in enumerate(known, 1)]
    with Sink() as sink:
        async with forwarding(tmp_path, otlp_endpoint=sink.grpc_endpoint) as sidecar:
            for body in sent:
                headers = {"content-type": "application/x-protobuf"}
                assert (await post(sidecar, body, "/v1/traces", headers)).status_code == 200
            await asyncio.to_thread(sink.wait_for, lambda: len(sink.spans()) == 2 * len(sent), 60)
        came: dict[bytes, bytes] = {}
        for raw in sink.raw("traces"):
            for resource in ExportTraceServiceRequest.FromString(raw).resource_spans:
                for span in resource.scope_spans[0].spans:
                    came[span.trace_id + span.span_id] = span.SerializeToString()
    found = []
    for row, body in zip(known, sent, strict=True):
        spans = ExportTraceServiceRequest.FromString(body).resource_spans[0].scope_spans[0].spans
        changed = [came[span.trace_id + span.span_id] != span.SerializeToString() for span in spans]
        found.append((row, any(changed)))
    judge("spans", found)


def test_the_control() -> None:
    """The same judgement finds a negative that was touched."""
    found = [
        (row, number < 5) for number, row in enumerate(row for row in rows("span") if not row.get("llm"))
    ]
    twin = next(row for row in rows("span") if row.get("llm"))
    with pytest.raises(AssertionError):
        judge("control", [*found, (twin, True)])
