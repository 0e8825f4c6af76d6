"""The triage stage: gives each failed model call of a request its verdict, and leaves the rest alone.

A request without any leaves as the bytes object that came (research: `sidecar-data-path.md`, 3.2).
"""

from __future__ import annotations

import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import fields
from operator import attrgetter
from typing import Any, Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_triage.desk.errors import Errors
from otel_triage.desk.joins import Failure, Link, Origin, Sighting
from otel_triage.facts.wire import span_attributes, verdict_attributes
from otel_triage.model import LLMError, Source, Verdict
from otel_triage.sidecar.annotate import annotate_record, annotate_span, read_verdict
from otel_triage.sidecar.envelopes import Envelope
from otel_triage.sidecar.find import Seen, completed, find_records, find_spans, may_hold_records
from otel_triage.sidecar.sentry_record import SentryRecord, unpack, with_body
from otel_triage.sidecar.signals import SENTRY, Signal
from otel_triage.sidecar.stages import Message, Triaged
from otel_triage.sidecar.triage_sentry import annotate_envelope
from otel_triage.sidecar.views import Splice
from otel_triage.verdict.sentry_events import Grouping

_VERDICTS: Final = 4096
_COMPLAINTS: Final = 100

# Facts that name one failure and do not change what it means: no part of the verdict's key.
_OF_ONE: Final = frozenset({"error_id", "call_id", "request_id", "account"})
_MEANING: Final = attrgetter(*(field.name for field in fields(LLMError) if field.name not in _OF_ONE))
# What a span shows of the facts (facts.wire): taken from the error event where it lacks them.
_SHOWN: Final = (
    "error_id", "call_id", "outcome", "code", "type", "request_id",
    "retry_after_s", "attempts", "broke_at", "account",
)  # fmt: skip
_RICHNESS: Final = list(Origin)

log = logging.getLogger(__name__)


class Triage:
    """The stage. Called on the event loop; it neither blocks nor raises.

    Args:
        errors: Where failures are joined and written down.
        decide: The verdict on an error: `verdict.classify.classify`.
        grouping: Whether Sentry events are grouped by their cause.
        clock: Unix time in seconds.
    """

    def __init__(
        self,
        errors: Errors,
        *,
        decide: Callable[[LLMError], Verdict],
        grouping: Grouping = "cause",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._errors = errors
        self._decide = decide
        self._grouping = grouping
        self._clock = clock
        self._verdicts: OrderedDict[tuple[Any, ...], Verdict] = OrderedDict()
        self._complaints: set[str] = set()
        self.counts: Counter[str] = Counter()
        """`failures` (new ones), `joined`, `carried`; `spans`, `records`, `events` annotated,
        `unreadable` events, `broken` (our faults)."""

    def __call__(self, signal: Signal, body: bytes, message: Message | None = None) -> Triaged:
        """Finds and annotates the failed calls of one request.

        Args:
            signal: Metrics pass untouched.
            body: The request as it came.
            message: `body`, parsed; parsed here where it is None.
        """
        try:
            if signal is Signal.TRACES:
                if not isinstance(message, ExportTraceServiceRequest):
                    message = ExportTraceServiceRequest.FromString(body)
                return self._triage(body, find_spans(body, message), spans=True)
            if signal in SENTRY:
                record = message if isinstance(message, SentryRecord) else unpack(signal, body)
                return self._sentry(body, record)
            if signal is Signal.LOGS and may_hold_records(body):
                if not isinstance(message, ExportLogsServiceRequest):
                    message = ExportLogsServiceRequest.FromString(body)
                return self._triage(body, find_records(body, message), spans=False)
        except Exception as error:  # noqa: BLE001 - telemetry goes on, whatever we do wrong
            self.broken(error)
        return Triaged(body)

    def _sentry(self, body: bytes, record: SentryRecord) -> Triaged:
        content = record.content
        if isinstance(content, Envelope):
            done, noted = annotate_envelope(content, record.sender, self, grouping=self._grouping)
            promise = self._errors.note(*noted) if noted else None
        else:
            inner = record.body
            triaged = self._triage(inner, find_spans(inner, content), spans=True)
            done, promise = None if triaged.body is inner else triaged.body, triaged.noted
        return Triaged(body if done is None else with_body(body, done), promise)

    def _triage(self, body: bytes, seen: Iterable[Seen], *, spans: bool) -> Triaged:
        """Decides each failure, writes what is to be written, notes what was learnt."""
        noted: dict[str, Failure] = {}
        splice: Splice | None = None
        changed = False
        for one in sorted(seen, key=lambda found: found.at):
            try:
                failure, told = self.judge(one)
                if failure is not None:
                    noted[failure.key] = failure
                if told is None:
                    continue
                error, verdict = told
                attributes = span_attributes(error, verdict) if spans else verdict_attributes(verdict)
                splice = splice or Splice(body)
                before = splice.get(*one.place)
                after = annotate_span(before, attributes) if spans else annotate_record(before, attributes)
                if after is not before:
                    splice.put(*one.place, after)
                    changed = True
                    self.counts["spans" if spans else "records"] += 1
            except Exception as error:  # noqa: BLE001 - one odd span keeps no other from its verdict
                self.broken(error)
        done = splice.body() if splice is not None and changed else body
        return Triaged(done, self._errors.note(*noted.values()) if noted else None)

    def judge(self, one: Seen) -> tuple[Failure | None, tuple[LLMError, Verdict] | None]:
        """What to note, and the facts and the verdict to write on the item; either may be nothing."""
        own = self._verdict(one.error)
        incoming = read_verdict(one.attributes)
        best = _best(own, incoming)
        sighting = _sighting(one, own)
        found = self._errors.find(sighting)
        to_note: Failure | None
        if found is None:
            self.counts["failures"] += 1
            failure = to_note = self._new(one, best)
            self._errors.joins.add(failure, sighting)
        else:
            failure, link = found
            self.counts["carried" if link is Link.CARRIED else "joined"] += 1
            if link is Link.CARRIED and one.span:
                return None, None
            to_note = self._join(failure, link, sighting, best)
        if incoming is not None and incoming.source is Source.HUMAN:
            return to_note, None
        return to_note, (completed(one.error, failure.error, _SHOWN), _surest(failure, one.origin, best))

    def _new(self, one: Seen, verdict: Verdict) -> Failure:
        return Failure(
            key=one.error.error_id or one.identity,
            origin=one.origin,
            error=one.error,
            verdict=verdict,
            service=one.service,
            environment=one.environment,
            trace_id=one.trace_id,
            span_id=one.span_id,
            began=one.began,
            at=one.at,
            noted=self._clock(),
        )

    def _join(self, failure: Failure, link: Link, sighting: Sighting, verdict: Verdict) -> Failure | None:
        """Adds what a further sighting knows; the failure if there is something to write down."""
        if link is Link.AGAIN:
            return None if failure.stored else failure
        richer = _RICHNESS.index(sighting.origin) < _RICHNESS.index(failure.origin)
        if richer:
            failure.error = completed(sighting.error, failure.error)
            failure.origin = sighting.origin
        else:
            failure.error = completed(failure.error, sighting.error)
        # What a Sentry SDK captured may tell more than a span without status and code.
        surer = sighting.origin is Origin.CAPTURED and verdict.confidence > failure.verdict.confidence
        if verdict.source is Source.HUMAN or (
            (richer or surer) and failure.verdict.source is not Source.HUMAN
        ):
            failure.verdict = verdict
        self._errors.joins.add(failure, sighting)
        return failure

    def _verdict(self, error: LLMError) -> Verdict:
        key = _MEANING(error)
        verdict = self._verdicts.get(key)
        if verdict is None:
            verdict = self._verdicts[key] = self._decide(error)
            if len(self._verdicts) > _VERDICTS:
                self._verdicts.popitem(last=False)
        else:
            self._verdicts.move_to_end(key)
        return verdict

    def broken(self, error: Exception) -> None:
        """Counts a fault of our own, and logs each kind once."""
        self.counts["broken"] += 1
        kind = f"{type(error).__name__}: {error}"[:200]
        if kind not in self._complaints and len(self._complaints) < _COMPLAINTS:
            self._complaints.add(kind)
            log.error("triage failed on a request, which goes on without that verdict", exc_info=error)


def _sighting(one: Seen, verdict: Verdict) -> Sighting:
    return Sighting(
        origin=one.origin,
        identity=one.identity,
        reporter=one.reporter,
        error=one.error,
        trace_id=one.trace_id,
        span_id=one.span_id,
        parent_id=one.parent_id,
        fingerprint=verdict.fingerprint,
        cause=(verdict.category, verdict.reason),
        began=one.began,
        at=one.at,
    )


def _best(own: Verdict, incoming: Verdict | None) -> Verdict:
    """Ours, unless a person decided, or the application knew more than what arrived here."""
    if incoming is None:
        return own
    return incoming if incoming.source is Source.HUMAN or incoming.confidence > own.confidence else own


def _surest(failure: Failure, origin: Origin, best: Verdict) -> Verdict:
    """The verdict to write: that of the failure where its facts are richer, else the surest."""
    known = failure.verdict
    if known.source is Source.HUMAN or best.source is Source.HUMAN:
        return known if known.source is Source.HUMAN else best
    if failure.origin is Origin.EVENT and origin is not Origin.EVENT:
        return known
    return known if known.confidence > best.confidence else best
