"""Finds the failed model calls of a request, and what around them only carries the failure up.

As long as nothing failed, only span statuses and three long needles are looked at.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from otel_triage.desk.joins import SAME_S, Origin
from otel_triage.facts.answers import SOFT_REASONS
from otel_triage.facts.dialects import Role
from otel_triage.facts.evidence import Evidence, evidence_of_record, evidence_of_span
from otel_triage.facts.otlp import (
    FAILED,
    changed,
    event_name,
    failed_at,
    read_key_values,
    read_record,
    read_span,
    told_at,
)
from otel_triage.facts.wire import FACT_NAMES
from otel_triage.model import ERROR_EVENT, SOFT_EVENT, LLMError, Outcome
from otel_triage.sidecar.views import Splice

Place = tuple[int, int, int]
"""Where a span or log record is in its request: resource, scope, item."""

_EVENTS: Final = frozenset({ERROR_EVENT, SOFT_EVENT})
_LOG_NEEDLES: Final = (b"exception.", ERROR_EVENT.encode(), SOFT_EVENT.encode())
_EXCEPTION_NAMES: Final = ("exception.type", "exception.message", "exception.stacktrace")
_ERROR_ID: Final = FACT_NAMES["error_id"]
_TOLD: Final = _ERROR_ID.encode()
_DEPTH: Final = 64

# The names under which dialects keep finish reasons hold one of these (Vercel's finishReason: not yet).
_FINISH: Final = (b"finish_reason", b".stop_reason")
# A finish reason is looked for in so many bytes behind its name: an optional "s", lengths, the value.
_WINDOW: Final = 28
_SOFT: Final = tuple({reason.encode()[:8] for reason in SOFT_REASONS})


@dataclass(slots=True, kw_only=True)
class Seen:
    """One failed span, log record of an exception or Sentry event, read."""

    place: Place
    origin: Origin
    evidence: Evidence
    error: LLMError
    attributes: dict[str, Any]
    identity: str
    reporter: str
    trace_id: str
    span_id: str
    parent_id: str
    began: float
    at: float
    service: str
    environment: str
    span: bool = True


def find_spans(body: bytes, message: ExportTraceServiceRequest) -> list[Seen]:
    """The failed calls among the spans of a request; `message` is `body`, parsed."""
    failed = {
        (group, scope, item)
        for group, resource_spans in enumerate(message.resource_spans)
        for scope, scope_spans in enumerate(resource_spans.scope_spans)
        for item, span in enumerate(scope_spans.spans)
        if span.HasField("status") and span.status.code == FAILED
    }
    told = body.count(_TOLD)
    soft = _soft_values(body)
    if not failed and not told and not soft:
        return []
    seen = [one for place in failed if (one := _read_span(message, place))]
    if soft or told > sum(_ERROR_ID in one.attributes for one in seen):
        others = {
            place
            for place, content in Splice(body).items()
            if place not in failed and (_TOLD in content or any(value in content for value in soft))
        }
        seen += [one for place in others if (one := _read_span(message, place, failed=False))]
    return _own_failures(message, seen)


def _soft_values(body: bytes) -> set[bytes]:
    """The encoded finish reasons in a request that may be those of soft failures."""
    found: set[bytes] = set()
    for needle in _FINISH:
        if needle in body:
            windows = [part[:_WINDOW] for part in body.split(needle)[1:]]
            # What follows a value differs from span to span: look at all of them in one text first.
            together = b"\0".join(windows)
            for reason in _SOFT:
                if reason in together:
                    found |= {
                        needle + value for window in windows if reason in (value := _up_to_value(window))
                    }
    return found


def _up_to_value(window: bytes) -> bytes:
    """A window without what follows the value, which has tag 0x12 and a length in front."""
    start = window.find(b"\x12", 0, 2)
    if start < 0 or start + 1 >= len(window):
        return window
    return window[: start + 2 + window[start + 1]]


def _read_span(message: ExportTraceServiceRequest, place: Place, *, failed: bool = True) -> Seen | None:
    group, scope, item = place
    resource_spans = message.resource_spans[group]
    scope_spans = resource_spans.scope_spans[scope]
    span = scope_spans.spans[item]
    read = read_span(span, scope_spans.scope.name)
    error = read.error
    if not failed and not error.error_id:
        if read.role is not Role.CALL or not SOFT_REASONS.intersection(error.finish_reasons or ()):
            return None
        error = replace(error, outcome=error.outcome or Outcome.SOFT)
    evidence = evidence_of_span(read, span.kind, error)
    if evidence is Evidence.NONE:
        return None
    service, environment = _resource(resource_spans.resource)
    trace_id, span_id = span.trace_id.hex(), span.span_id.hex()
    return Seen(
        place=place,
        origin=Origin.SPAN if evidence is Evidence.CALL else Origin.AROUND,
        evidence=evidence,
        error=error,
        attributes=read.attributes,
        identity=f"span:{trace_id}:{span_id}",
        reporter=f"span:{scope_spans.scope.name}",
        trace_id=trace_id,
        span_id=span_id,
        parent_id=span.parent_span_id.hex(),
        began=span.start_time_unix_nano / 1e9,
        at=failed_at(span),
        service=service,
        environment=environment,
    )


def may_hold_records(body: bytes) -> bool:
    """Whether a request of logs may tell of a failed call, by its bytes alone."""
    return any(needle in body for needle in _LOG_NEEDLES)


def find_records(body: bytes, message: ExportLogsServiceRequest) -> Iterator[Seen]:
    """The error events and logged exceptions of model calls in a request of logs."""
    for (group, scope, item), content in Splice(body).items():
        if may_hold_records(content):
            resource_logs = message.resource_logs[group]
            scope_logs = resource_logs.scope_logs[scope]
            one = _read_record(scope_logs.log_records[item], content, scope_logs.scope.name)
            if one is not None:
                one.place = (group, scope, item)
                one.service, one.environment = _resource(resource_logs.resource)
                yield one


def _read_record(record: LogRecord, content: bytes, scope: str) -> Seen | None:
    read = read_record(record, scope)
    error = read.error
    name = event_name(record, read.attributes)
    if name not in _EVENTS and not any(known in read.attributes for known in _EXCEPTION_NAMES):
        return None
    if name == SOFT_EVENT and error.outcome is None:
        error = replace(error, outcome=Outcome.SOFT)
    evidence = evidence_of_record(read, name, _EVENTS)
    if evidence is Evidence.NONE:
        return None
    at = told_at(record)
    return Seen(
        place=(0, 0, 0),
        origin=Origin.EVENT if evidence is Evidence.CALL else Origin.AROUND,
        evidence=evidence,
        error=error,
        attributes=read.attributes,
        identity=f"log:{hashlib.blake2b(content, digest_size=16).hexdigest()}",
        reporter=f"log:{scope}",
        trace_id=record.trace_id.hex(),
        span_id=record.span_id.hex(),
        parent_id="",
        began=at,
        at=at,
        service="",
        environment="",
        span=False,
    )


def _resource(resource: Resource) -> tuple[str, str]:
    """`service.name` and the deployment environment, under its new name or its old one."""
    attributes = read_key_values(resource.attributes)
    environment = attributes.get("deployment.environment.name") or attributes.get("deployment.environment")
    return str(attributes.get("service.name") or ""), str(environment or "")


def completed(error: LLMError, other: LLMError, names: Collection[str] = FACT_NAMES) -> LLMError:
    """`error` with what only `other` knows of these facts."""
    known: dict[str, Any] = {
        name: value
        for name in names
        if getattr(error, name) is None and (value := getattr(other, name)) is not None
    }
    if not error.causes and other.causes:
        known["causes"] = other.causes
    return changed(error, known) if known else error


def _own_failures(message: ExportTraceServiceRequest, seen: list[Seen]) -> list[Seen]:
    """Those that failed themselves: neither parents that carry an error up, nor attempts of a call.

    What a dropped one knows (a parent's message, an attempt's status) completes the one that stays.
    """
    traces = Counter(one.trace_id for one in seen)
    if all(
        traces[one.trace_id] == 1 and (one.evidence is not Evidence.HOST or not one.parent_id) for one in seen
    ):
        return seen
    spans: dict[bytes, tuple[Span, str]] = {
        span.span_id: (span, scope_spans.scope.name)
        for resource_spans in message.resource_spans
        for scope_spans in resource_spans.scope_spans
        for span in scope_spans.spans
    }
    known = {(one.trace_id, one.span_id): one for one in seen}
    dropped: set[str] = set()
    attempted: set[str] = set()
    for one in sorted(seen, key=lambda found: found.at, reverse=True):
        for span, scope in _ancestors(one, spans):
            above = known.get((one.trace_id, span.span_id.hex()))
            if above is None:
                if one.evidence is Evidence.HOST and read_span(span, scope).role is Role.CALL:
                    dropped.add(one.identity)  # an attempt of a call that went well in the end
                continue
            lower = _failure_of(one, above)
            if lower is None:
                continue
            upper = above if lower is one else one
            dropped.add(upper.identity)
            # Of several attempts the last one's facts are those of the call.
            if upper.evidence is not Evidence.HOST or lower.identity not in attempted:
                lower.error = completed(lower.error, upper.error)
            if upper.evidence is Evidence.HOST:
                attempted.add(lower.identity)
    return [one for one in seen if one.identity not in dropped]


def _ancestors(one: Seen, spans: dict[bytes, tuple[Span, str]]) -> Iterator[tuple[Span, str]]:
    above = bytes.fromhex(one.parent_id)
    for _ in range(_DEPTH):
        found = spans.get(above)
        if found is None or found[0].trace_id.hex() != one.trace_id:
            return
        yield found
        above = found[0].parent_span_id


def _failure_of(child: Seen, parent: Seen) -> Seen | None:
    """Which of two failed spans, one above the other, is the failure; None if they are two failures."""
    if child.error.error_id and parent.error.error_id and child.error.error_id != parent.error.error_id:
        return None
    if parent.error.error_id and not child.error.error_id:
        return parent  # the tap put the failure there
    if child.evidence is Evidence.HOST and parent.evidence is not Evidence.HOST:
        return parent  # an attempt of it
    same = abs(child.at - parent.at) <= SAME_S or (
        child.error.message is not None and child.error.message == parent.error.message
    )
    return child if same else None
