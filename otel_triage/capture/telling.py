"""Tells of a call at its end, once: on the LLM span, as an error event, and in the count of all calls."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

from opentelemetry import trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import Span, SpanContext, SpanKind, StatusCode

from otel_triage.capture import reading as readings
from otel_triage.capture.calls import Call
from otel_triage.capture.guard import count, never_raises
from otel_triage.capture.outlet import SCOPE, Outlet
from otel_triage.facts.answers import Reading
from otel_triage.facts.dialects import Role, read_attributes
from otel_triage.facts.exceptions import chain
from otel_triage.facts.wire import (
    FACT_NAMES,
    AttributeValue,
    fact_attributes,
    plain,
    span_attributes,
    verdict_attributes,
)
from otel_triage.model import ERROR_EVENT, SOFT_EVENT, LLMError, Outcome, Verdict
from otel_triage.verdict.classify import classify

TOLD: Final = "__otel_triage_error_id__"
"""Attribute of an exception that has been told of: a plain string, so that it survives pickling."""

_REMEMBERED: Final = 1024
_DEFAULT_ATTRIBUTE_LIMIT: Final = 128
_HEADROOM: Final = 32


class Teller:
    """Writes what happened, and remembers below which span: a failing parent is no second failure."""

    def __init__(
        self, outlet: Outlet, *, language: str, on_soft: Callable[[Told], object] | None = None
    ) -> None:
        self._outlet = outlet
        self._language = language
        self._on_soft = on_soft
        self._told_below: OrderedDict[int, int] = OrderedDict()

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
        self.remember(call.span)
        context = self._on_span(call, error, verdict) or call.context
        told = Told(error, verdict, trace.get_current_span(context).get_span_context())
        if exc is not None:
            mark(exc, told, until=call.handled)
        elif call.attempts and call.attempts[-1].response is not None:
            remember_told(call.attempts[-1].response, told)  # it may be raised later: `raise_for_status`
        self.event(error, verdict, context)
        if outcome is Outcome.SOFT and self._on_soft is not None:
            self._on_soft(told)

    @never_raises
    def event(self, error: LLMError, verdict: Verdict, context: Context) -> None:
        """Sends one failure as an error event, with all its facts and the first verdict."""
        soft = error.outcome is Outcome.SOFT
        attributes: dict[str, AttributeValue] = fact_attributes(error) | verdict_attributes(verdict)
        if error.causes:
            attributes["exception.type"] = plain(error.causes[0].type)
        self._outlet.event(
            LogRecord(
                timestamp=time.time_ns(),
                context=context,
                severity_number=SeverityNumber.WARN,
                severity_text="WARN",
                body=plain(error.message) if error.message else None,
                attributes=attributes,
                event_name=SOFT_EVENT if soft else ERROR_EVENT,
            )
        )

    def remember(self, span: Span | ReadableSpan) -> None:
        """Notes that the failure of a span has been told, for the span right above it."""
        parent = getattr(span, "parent", None)
        if parent is not None:
            self._told_below[parent.span_id] = time.time_ns()
            while len(self._told_below) > _REMEMBERED:
                self._told_below.popitem(last=False)

    def told_below(self, span_id: int, start_ns: int) -> bool:
        """Whether a failure right below this span was told since it began: it only carries that up."""
        return self._told_below.get(span_id, 0) >= start_ns

    @never_raises
    def _on_span(self, call: Call, error: LLMError, verdict: Verdict) -> Context:
        """Puts verdict and facts on the LLM span, or on one of our own; gives the context of the event."""
        around = call.span.get_span_context()
        role = role_of(call.span)
        if role is Role.CALL:
            annotate(call.span, span_attributes(error, verdict))
        elif role is Role.OTHER and (around.trace_flags.sampled or not around.is_valid):
            return _own_span(call, error, verdict)
        return call.context


@dataclass(frozen=True, slots=True)
class Told:
    """A failure that was told of: its facts and verdict, on which span, and when (ns since 1970)."""

    error: LLMError
    verdict: Verdict
    span: SpanContext
    at: int = field(default_factory=time.time_ns)


_told: OrderedDict[str, Told] = OrderedDict()


def mark(exc: BaseException, told: Told, *, until: BaseException | None = None) -> None:
    """Marks an exception and its causes as told, so that no other layer tells of them again."""
    for link in chain(exc, until=until):
        remember_told(link, told)


def remember_told(thing: object, told: Told) -> None:
    """Marks an exception or an answer as told, unless it was before."""
    error_id = told.error.error_id
    if error_id is None:
        return
    vars(thing).setdefault(TOLD, error_id)
    # The stack is the exception's own; a thousand of them would be large.
    _told[error_id] = replace(told, error=replace(told.error, stacktrace=None))
    while len(_told) > _REMEMBERED:
        _told.popitem(last=False)


def told_of(link: BaseException) -> Told | None:
    """What was told of this very exception, or of the answer that it was made of, if that was lately."""
    answer = None
    with suppress(Exception):  # a property of foreign code
        answer = getattr(link, "response", None)
    for thing in (link, answer):
        error_id = getattr(thing, "__dict__", {}).get(TOLD)
        if isinstance(error_id, str) and error_id in _told:
            return _told.get(error_id)
    return None


def verdict_of(exc: BaseException) -> Verdict | None:
    """The verdict that was told of this exception, if that was lately: the tap saw more than it carries."""
    return next((found.verdict for link in chain(exc) if (found := told_of(link)) is not None), None)


def told_at(link: BaseException) -> int:
    """When this exception was told (nanoseconds since 1970), 0 if it was not."""
    found = told_of(link)
    return found.at if found is not None else 0


def role_of(span: Span | ReadableSpan) -> Role:
    """Whether a span is one LLM call, a step around calls, or neither, in any dialect."""
    scope = getattr(span, "instrumentation_scope", None)
    attributes: Mapping[str, Any] = getattr(span, "attributes", None) or {}
    return read_attributes(attributes, scope=scope.name if scope else "").role


def annotate(span: Span, attributes: Mapping[str, AttributeValue]) -> None:
    """Sets our attributes while a span records: none over the application's own, none near its limit.

    The instrumentation sets more after us, and what is too much then evicts the oldest. A span that has
    one failure's verdict keeps it whole: a second one's would mix with it.
    """
    present: Mapping[str, Any] = getattr(span, "attributes", None) or {}
    if not span.is_recording() or FACT_NAMES["error_id"] in present:
        return
    limits = getattr(span, "_limits", None)
    most = getattr(limits, "max_span_attributes", None) or _DEFAULT_ATTRIBUTE_LIMIT
    if len(present) + len(attributes) + _HEADROOM > most:
        count("dropped.attribute_limit")
        return
    for name, value in attributes.items():
        if name not in present:
            span.set_attribute(name, value)


def _own_span(call: Call, error: LLMError, verdict: Verdict) -> Context:
    """A span of our own for a failed or soft call that has none, with the call's true start and end."""
    facts = {
        name: value
        for name, value in fact_attributes(error).items()
        if not name.startswith(("triage.", "exception."))
    }
    name = " ".join(part for part in (error.operation or "llm", error.model) if part)
    span = trace.get_tracer(SCOPE).start_span(
        str(plain(name)),
        context=call.context,
        kind=SpanKind.CLIENT,
        start_time=call.started_ns,
        attributes=facts | span_attributes(error, verdict),
    )
    if error.outcome is Outcome.FAILED:
        span.set_status(StatusCode.ERROR, str(plain(error.message or verdict.root_cause)))
    span.end()
    return trace.set_span_in_context(span, call.context)
