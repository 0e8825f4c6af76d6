"""Tells of a call at its end, once: on the LLM span, as an error event, and in the count of all calls."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

from opentelemetry import trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import Span, SpanKind, StatusCode

from otel_triage.capture import reading as readings
from otel_triage.capture.calls import Call
from otel_triage.capture.guard import count, never_raises
from otel_triage.capture.outlet import SCOPE, Outlet
from otel_triage.facts.answers import Reading
from otel_triage.facts.dialects import Role, read_attributes
from otel_triage.facts.exceptions import chain
from otel_triage.facts.wire import AttributeValue, fact_attributes, span_attributes, verdict_attributes
from otel_triage.model import ERROR_EVENT, SOFT_EVENT, LLMError, Outcome, Verdict
from otel_triage.verdict.classify import classify

TOLD: Final = "__otel_triage_error_id__"
"""Attribute of an exception that has been told of: a plain string, so that it survives pickling."""

_REMEMBERED: Final = 1024
_DEFAULT_ATTRIBUTE_LIMIT: Final = 128


class Teller:
    """Writes what happened, and remembers by trace what was told: a failing parent is no second failure."""

    def __init__(self, outlet: Outlet, *, language: str) -> None:
        self._outlet = outlet
        self._language = language
        self._told_in: OrderedDict[int, int] = OrderedDict()

    @never_raises
    def call_ended(self, call: Call, exc: BaseException | None) -> None:
        """The one place that hears of the end of a call."""
        reading = readings.reading_of(call)
        outcome = readings.outcome_of(call, exc, reading)
        self._count(call, outcome)
        if outcome in (Outcome.FAILED, Outcome.SOFT):
            self._tell(call, exc, reading, outcome)

    @never_raises
    def _count(self, call: Call, outcome: Outcome) -> None:
        count(f"calls.{outcome}")
        labels = {
            "gen_ai.provider.name": call.endpoint.provider,
            "gen_ai.operation.name": call.endpoint.operation,
            "gen_ai.request.model": readings.model_of(call),
            "triage.outcome": str(outcome),
        }
        self._outlet.count_call({name: value for name, value in labels.items() if value is not None})

    def _tell(self, call: Call, exc: BaseException | None, reading: Reading, outcome: Outcome) -> None:
        error = readings.facts_of(call, exc, reading, outcome)
        verdict = classify(error, language=self._language)
        call.told = error, verdict
        if exc is not None and error.error_id is not None:
            mark(exc, error.error_id)
            _remember(error.error_id, verdict)
        context = self._on_span(call, error, verdict)
        self.event(error, verdict, context)

    @never_raises
    def event(self, error: LLMError, verdict: Verdict, context: Context) -> None:
        """Sends one failure as an error event, with all its facts and the first verdict."""
        self.remember(context)
        soft = error.outcome is Outcome.SOFT
        attributes: dict[str, AttributeValue] = fact_attributes(error) | verdict_attributes(verdict)
        if error.causes:
            attributes["exception.type"] = error.causes[0].type
        self._outlet.event(
            LogRecord(
                timestamp=time.time_ns(),
                context=context,
                severity_number=SeverityNumber.WARN,
                severity_text="WARN",
                body=error.message,
                attributes=attributes,
                event_name=SOFT_EVENT if soft else ERROR_EVENT,
            )
        )

    @never_raises
    def remember(self, context: Context) -> None:
        """Notes that a failure of this trace has been told."""
        trace_id = trace.get_current_span(context).get_span_context().trace_id
        if trace_id:
            self._told_in[trace_id] = time.time_ns()
            while len(self._told_in) > _REMEMBERED:
                self._told_in.popitem(last=False)

    def told_since(self, trace_id: int, start_ns: int) -> bool:
        """Whether a failure of this trace was told at or after a point in time."""
        return self._told_in.get(trace_id, 0) >= start_ns

    def _on_span(self, call: Call, error: LLMError, verdict: Verdict) -> Context:
        """Puts verdict and facts on the LLM span, or on one of our own; gives the context of the event."""
        around = call.span.get_span_context()
        role = role_of(call.span)
        if role is Role.CALL:
            annotate(call.span, span_attributes(error, verdict))
        elif role is Role.OTHER and (around.trace_flags.sampled or not around.is_valid):
            return _own_span(call, error, verdict)
        return call.context


def mark(exc: BaseException, error_id: str) -> None:
    """Marks an exception and all of its chain as told, so that no other layer tells of it again."""
    for link in chain(exc):
        vars(link).setdefault(TOLD, error_id)


_verdicts: OrderedDict[str, Verdict] = OrderedDict()


def _remember(error_id: str, verdict: Verdict) -> None:
    _verdicts[error_id] = verdict
    while len(_verdicts) > _REMEMBERED:
        _verdicts.popitem(last=False)


def verdict_of(exc: BaseException) -> Verdict | None:
    """The verdict that was told of this exception, if that was lately: the tap saw more than it carries."""
    error_id = error_id_of(exc)
    return _verdicts.get(error_id) if error_id is not None else None


def error_id_of(exc: BaseException) -> str | None:
    """The id under which this exception, or one of its chain, has been told."""
    return next((str(found) for link in chain(exc) if (found := vars(link).get(TOLD))), None)


def role_of(span: Span | ReadableSpan) -> Role:
    """Whether a span is one LLM call, a step around calls, or neither, in any dialect."""
    scope = getattr(span, "instrumentation_scope", None)
    attributes: Mapping[str, Any] = getattr(span, "attributes", None) or {}
    return read_attributes(attributes, scope=scope.name if scope else "").role


def annotate(span: Span, attributes: Mapping[str, AttributeValue]) -> None:
    """Sets our attributes while a span records: none over the application's own, none beyond its limit."""
    if not span.is_recording():
        return
    present: Mapping[str, Any] = getattr(span, "attributes", None) or {}
    limits = getattr(span, "_limits", None)
    most = getattr(limits, "max_span_attributes", None) or _DEFAULT_ATTRIBUTE_LIMIT
    room = most - len(present)
    for name, value in attributes.items():
        if name in present:
            continue
        if room <= 0:
            count("dropped.attribute_limit")
            return
        span.set_attribute(name, value)
        room -= 1


def _own_span(call: Call, error: LLMError, verdict: Verdict) -> Context:
    """A span of our own for a failed or soft call that has none, with the call's true start and end."""
    facts = {
        name: value
        for name, value in fact_attributes(error).items()
        if not name.startswith(("triage.", "exception."))
    }
    name = " ".join(part for part in (error.operation or "llm", error.model) if part)
    span = trace.get_tracer(SCOPE).start_span(
        name,
        context=call.context,
        kind=SpanKind.CLIENT,
        start_time=call.started_ns,
        attributes=facts | span_attributes(error, verdict),
    )
    if error.outcome is Outcome.FAILED:
        span.set_status(StatusCode.ERROR, error.message or verdict.root_cause)
    span.end()
    return trace.set_span_in_context(span, call.context)
