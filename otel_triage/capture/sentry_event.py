"""What becomes of one Sentry event on its way out: triaged, known as sent already, or left alone.

It runs inside Sentry's event processors, where the exception is still alive. Nothing here imports
sentry_sdk: events and hints are plain data.
"""

from __future__ import annotations

import sys
import threading
import uuid
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.trace import SpanContext, format_span_id, format_trace_id

from otel_triage.capture.guard import count, never_raises
from otel_triage.capture.hindsight import facts_afterwards, foreign
from otel_triage.capture.telling import Told, mark, told_of
from otel_triage.facts.evidence import Evidence, is_llm_exception, is_sdk_module
from otel_triage.facts.exceptions import chain, is_cancellation
from otel_triage.facts.sentry_events import (
    SentryEvent,
    captured_at_call,
    is_error_event,
    passes_prompts,
    read_event,
)
from otel_triage.facts.wire import FACT_NAMES
from otel_triage.model import LLMError, Outcome
from otel_triage.verdict.classify import classify
from otel_triage.verdict.sentry_events import Grouping, annotate_event

HINT: Final = "otel_triage"
"""Key of the hint under which an event of our own carries what it tells."""

AT_CALL: Final = ("triage.captured", "at_call")
"""The tag of events that Sentry's own integrations captured at the call."""

_REMEMBERED: Final = 1024
_MEMBERS: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class SentryOptions:
    """How events are written; `init` says what each means."""

    grouping: Grouping = "cause"
    language: str = "en"
    soft_events: bool = False
    defer_at_call: bool = False


class SentryEvents:
    """The events of this process, and which failures were sent already."""

    def __init__(self) -> None:
        self._sent: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, event: dict[str, Any], hint: Mapping[str, Any], options: SentryOptions) -> bool:
        """Triages an event in place; False if it is not to be sent. What goes wrong in here keeps it."""
        return self._keep(event, hint, options) is not False

    def forget(self, event_id: str) -> None:
        """Notes that an event was not sent after all: the application's `before_send` or sampling took it."""
        with self._lock:
            for error_id in [error_id for error_id, by in self._sent.items() if by == event_id]:
                del self._sent[error_id]

    @never_raises
    def _keep(self, event: dict[str, Any], hint: Mapping[str, Any], options: SentryOptions) -> bool:
        if not is_error_event(event):
            return True
        if isinstance(told := hint.get(HINT), Told):
            self._write(event, told, options)
            return True
        exc = _exception(hint)
        read = read_event(event)
        failures = [told for one in _members(exc) if (told := _triaged(one, read, options)) is not None]
        if exc is None and read.evidence is not Evidence.NONE:
            failures = [_decided(replace(read.error, error_id=uuid.uuid4().hex), read, options, clean=False)]
        _drop_locals(event, always=bool(failures))
        if not failures:
            return True
        at_call = captured_at_call(read.mechanism)
        if at_call and options.defer_at_call:
            count("sentry.deferred")
            return False
        if not self._first(failures, read.event_id):
            count("sentry.duplicate")
            return False
        if at_call:
            _unguess(event)
        self._write(event, failures[0], options)
        return True

    def _first(self, failures: list[Told], event_id: str) -> bool:
        """Whether this event is the first to tell of any of these, which it then is for all of them."""
        ids = [told.error.error_id for told in failures if told.error.error_id]
        with self._lock:
            if all(error_id in self._sent for error_id in ids):
                return False
            for error_id in ids:
                self._sent.setdefault(error_id, event_id)
            while len(self._sent) > _REMEMBERED:
                self._sent.popitem(last=False)
        return True

    def _write(self, event: dict[str, Any], told: Told, options: SentryOptions) -> None:
        annotate_event(event, told.error, told.verdict, grouping=options.grouping)
        _set_trace(event, told.span)
        count("sentry.triaged")


def is_unhandled(event: Mapping[str, Any]) -> bool:
    """Whether an event says that nobody handled its exception, and is not guessing."""
    values = _values(event)
    return any(_mechanism(one).get("handled") is False for one in values) and not any(
        captured_at_call(str(_mechanism(one).get("type"))) for one in values
    )


def _exception(hint: Mapping[str, Any]) -> BaseException | None:
    info = hint.get("exc_info")
    exc = info[1] if isinstance(info, tuple) and len(info) == 3 else None
    return exc if isinstance(exc, BaseException) else None


def _members(exc: BaseException | None) -> Iterator[BaseException]:
    """The exception, or the members of a group: each may be a failure of its own."""
    waiting = [exc] if exc is not None else []
    for _ in range(_MEMBERS):
        if not waiting:
            return
        one = waiting.pop(0)
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions
        else:
            yield one


def _triaged(exc: BaseException, read: SentryEvent, options: SentryOptions) -> Told | None:
    """What was told of an exception, else what it tells now; None where it is no failed model call."""
    if is_cancellation(exc):
        return None
    until = foreign(exc)
    told = next((told for link in chain(exc, until=until) if (told := told_of(link)) is not None), None)
    if told is not None:
        return told
    error, asked = facts_afterwards(exc, until)
    evidence = read.evidence
    if until is not None and evidence is not Evidence.CALL:
        evidence = Evidence.NONE  # it may speak of the other failure
    if not asked and evidence is Evidence.NONE and not is_llm_exception(error):
        return None
    told = _decided(error, read, options, clean=asked)
    mark(exc, told, until=until)
    return told


def _decided(error: LLMError, read: SentryEvent, options: SentryOptions, *, clean: bool) -> Told:
    """A verdict on facts, with what else the event says (of the span that was current, say).

    Args:
        error: The facts.
        read: The event, read.
        options: How events are written.
        clean: Whether the message is free of the prompt: only a request that is known makes sure of that.
    """
    more = {
        name: getattr(read.error, name)
        for name in FACT_NAMES
        if getattr(error, name) is None and getattr(read.error, name) is not None
    }
    error = replace(error, **more, outcome=Outcome.FAILED)
    verdict = classify(error, language=options.language)
    shown = error if clean else replace(error, message=None)
    return Told(shown, verdict, trace.get_current_span().get_span_context())


def _values(event: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = event.get("exception")
    values = found.get("values") if isinstance(found, Mapping) else None
    return [one for one in values if isinstance(one, dict)] if isinstance(values, list) else []


def _mechanism(value: Mapping[str, Any]) -> dict[str, Any]:
    found = value.get("mechanism")
    return found if isinstance(found, dict) else {}


def _unguess(event: dict[str, Any]) -> None:
    """Takes the guess "unhandled" off an event that was captured before its caller could handle anything."""
    for value in _values(event):
        _mechanism(value).pop("handled", None)
    tags = event.get("tags")
    if isinstance(tags, list):
        tags.append(list(AT_CALL))
    else:
        event["tags"] = {**(tags or {}), AT_CALL[0]: AT_CALL[1]}


def _drop_locals(event: Mapping[str, Any], *, always: bool) -> None:
    """Takes prompts, bodies and keys out: the locals of the frames that a call passed through.

    Args:
        event: The event.
        always: Whether it is of a model call; else only if its frames show that one was under way.
    """
    threads = event.get("threads")
    others = threads.get("values") if isinstance(threads, Mapping) else None
    stacks = [
        [frame for frame in stack.get("frames") or () if isinstance(frame, dict)]
        for one in (*_values(event), *(others if isinstance(others, list) else ()))
        if isinstance(one, Mapping) and isinstance(stack := one.get("stacktrace"), Mapping)
    ]
    if not always and not any(is_sdk_module(_module(frame)) for frames in stacks for frame in frames):
        return
    for frames in stacks:
        inside = False
        for frame in frames:  # the oldest first
            # Python's own modules, where a call goes on: ssl and http.client hold the whole request.
            python = _module(frame).partition(".")[0] in sys.stdlib_module_names
            inside = passes_prompts(_module(frame)) or (inside and python)
            if inside:
                frame.pop("vars", None)


def _module(frame: Mapping[str, Any]) -> str:
    module = frame.get("module")
    return module if isinstance(module, str) else ""


def _set_trace(event: dict[str, Any], span: SpanContext) -> None:
    """Makes trace and span OpenTelemetry's: what Sentry makes up without it joins nothing."""
    if not span.is_valid:
        return
    contexts = event.get("contexts")
    if not isinstance(contexts, dict):
        return
    before = contexts.get("trace")
    kept = dict(before) if isinstance(before, Mapping) else {}
    kept.pop("parent_span_id", None)
    kept.pop("dynamic_sampling_context", None)  # of the trace that it was
    contexts["trace"] = {
        **kept,
        "trace_id": format_trace_id(span.trace_id),
        "span_id": format_span_id(span.span_id),
    }
