"""The span processor: marks attempts as they start, and triages failed LLM spans that no tap saw."""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.trace import SpanContext, StatusCode

from otel_triage.capture.calls import current_attempt, open_calls
from otel_triage.capture.guard import never_raises
from otel_triage.capture.telling import Teller, Told, mark, role_of, told_at
from otel_triage.facts.dialects import Role, read_attributes
from otel_triage.facts.exceptions import chain, is_cancellation, text_of, type_name
from otel_triage.facts.live import facts_of_exception
from otel_triage.facts.wire import FACT_NAMES, AttributeValue, span_attributes
from otel_triage.model import LLMError, Outcome
from otel_triage.verdict.classify import classify

CALL_ID: Final = FACT_NAMES["call_id"]
ERROR_ID: Final = FACT_NAMES["error_id"]


class SpanReader:
    """What `init` and `TriageSpanProcessor` do with spans. A teller is set by `init`."""

    def __init__(self) -> None:
        self.teller: Teller | None = None
        self.language = "en"

    @never_raises
    def started(self, span: Span) -> None:
        """Marks a span that starts inside an HTTP exchange of a watched call as one of its attempts.

        So a reader further on knows that its failure is the call's, or was absorbed by it.
        """
        attempt = current_attempt.get()
        if attempt is not None and span.is_recording():
            span.set_attribute(CALL_ID, attempt.call.call_id)

    @never_raises
    def triaged(self, span: ReadableSpan) -> ReadableSpan | None:
        """The span with a verdict on it, or None where it needs none of us.

        A failed LLM span without an `error_id` is one that no tap saw fail (botocore, grpc, an SDK
        of its own transport), or a parent that carries the failure of another span up.
        """
        call = open_calls.get(span.context.span_id) if span.context else None
        if call is not None and role_of(span) is Role.CALL:
            told = call.span_ended()
            return _with_attributes(span, span_attributes(*told)) if told else None
        if span.status.status_code is not StatusCode.ERROR:
            return None
        attributes = span.attributes or {}
        if ERROR_ID in attributes or CALL_ID in attributes or role_of(span) is not Role.CALL:
            return None
        exc = _in_flight(span)
        if self._is_parent(span, exc) or (exc is not None and is_cancellation(exc)):
            return None
        before = next((link for link in chain(exc) if told_at(link)), None) if exc is not None else None
        error = self._facts(span, exc, before)
        verdict = classify(error, language=self.language)
        if exc is not None and span.context is not None:
            mark(exc, Told(error, verdict, span.context), until=before)
        if self.teller is not None:
            self.teller.remember(span)
            self.teller.event(error, verdict, _context_of(span))
        return _with_attributes(span, span_attributes(error, verdict))

    def _is_parent(self, span: ReadableSpan, exc: BaseException | None) -> bool:
        """Whether it only carries up a failure told since it began: by its exception, or right below it."""
        start = span.start_time or 0
        if exc is not None and any(told_at(link) >= start for link in chain(exc) if told_at(link)):
            return True
        context = span.context
        return (
            self.teller is not None and context is not None and self.teller.told_below(context.span_id, start)
        )

    def _facts(self, span: ReadableSpan, exc: BaseException | None, before: BaseException | None) -> LLMError:
        scope = span.instrumentation_scope.name if span.instrumentation_scope else ""
        error = read_attributes(span.attributes or {}, scope=scope).facts
        if exc is not None:
            live = facts_of_exception(exc, now=time.time(), until=before)
            known = {name: getattr(live, name) for name in FACT_NAMES if getattr(live, name) is not None}
            error = replace(error, **known, causes=live.causes)
        elif error.message is None:
            error = replace(error, message=span.status.description)
        return replace(error, error_id=uuid.uuid4().hex, outcome=Outcome.FAILED)


def _in_flight(span: ReadableSpan) -> BaseException | None:
    """The exception that this span ended with, while it is still in flight.

    Instrumentations end the span inside their `except`. One that a fallback runs under (an old
    exception is being handled while a new call fails) does not match the span, and is not taken.
    """
    exc = sys.exc_info()[1]
    if exc is None or isinstance(exc, GeneratorExit):
        return None
    names = {type_name(exc), type(exc).__name__}
    said = {str((span.attributes or {}).get("error.type", ""))}
    said |= {str((event.attributes or {}).get("exception.type", "")) for event in span.events}
    text = text_of(exc)
    described = bool(text) and text in (span.status.description or "")
    return exc if names & said or described else None


def _context_of(span: ReadableSpan) -> Context:
    context: SpanContext | None = span.context
    return trace.set_span_in_context(trace.NonRecordingSpan(context)) if context else Context()


def _with_attributes(span: ReadableSpan, ours: Mapping[str, AttributeValue]) -> ReadableSpan | None:
    """A new span with our attributes; None where the SDK has dropped some of the application's at a limit."""
    if span.dropped_attributes or span.dropped_events or span.dropped_links:
        return None
    present = dict(span.attributes or {})
    return ReadableSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes={**ours, **present},
        events=span.events,
        links=span.links,
        kind=span.kind,
        status=span.status,
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


reader: Final = SpanReader()
"""The one reader of the process: every processor shares it, so that no failure is told twice."""


class TriageSpanProcessor(SpanProcessor):
    """Wraps an exporting processor and hands it failed LLM spans with their verdict.

    `provider.add_span_processor(TriageSpanProcessor(BatchSpanProcessor(OTLPSpanExporter())))`.
    What the tap saw is on the span already; this adds the verdict to failed LLM spans of
    clients that the tap does not cover. It never raises into the application.

    Args:
        next: The processor that exports.
    """

    def __init__(self, next: SpanProcessor) -> None:
        self._next = next

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Marks attempts, then hands on."""
        reader.started(span)
        self._next.on_start(span, parent_context)

    def on_end(self, span: ReadableSpan) -> None:
        """Hands on the span, with its verdict if it is a failed LLM span."""
        self._next.on_end(reader.triaged(span) or span)

    def shutdown(self) -> None:
        """Shuts the wrapped processor down."""
        self._next.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flushes the wrapped processor."""
        return self._next.force_flush(timeout_millis)


class ObservingProcessor(SpanProcessor):
    """What `init` attaches to a provider that already exports: marks attempts, tells of failed LLM spans.

    It cannot hand a changed span to a processor beside it; what it sees goes out as an error event.
    """

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Marks attempts."""
        reader.started(span)

    def on_end(self, span: ReadableSpan) -> None:
        """Tells of a failed LLM span that no tap saw."""
        reader.triaged(span)
