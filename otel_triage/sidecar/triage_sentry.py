"""The verdict into a Sentry envelope: only its error events of model calls change; its spans are read."""

from __future__ import annotations

from typing import Any, Final, Protocol

from otel_triage.desk.joins import Failure, Origin
from otel_triage.facts.evidence import Evidence
from otel_triage.facts.records import changed
from otel_triage.facts.sentry_events import CONTEXT, SentryEvent, read_event
from otel_triage.facts.sentry_spans import SentrySpan, failed_calls, may_hold_failed_calls
from otel_triage.facts.wire import FACT_NAMES
from otel_triage.model import LLMError, Verdict
from otel_triage.sidecar.envelopes import EVENT, Envelope, Item, dump
from otel_triage.sidecar.find import Seen
from otel_triage.sidecar.json_splice import Remove, members, spliced
from otel_triage.sidecar.sentry_record import Sender
from otel_triage.verdict.sentry_events import Grouping, annotate_event

EVENT_LIMIT: Final = 1 << 20
"""Bytes of an item that is read. Relay refuses a larger event (`max_event_size`)."""

_WITH_SPANS: Final = frozenset({"transaction", "span"})

_MESSAGE: Final = FACT_NAMES["message"]
_GROUP: Final = "fingerprint"


class Judge(Protocol):
    """The triage stage, as far as events need it."""

    counts: Any

    def judge(self, one: Seen) -> tuple[Failure | None, tuple[LLMError, Verdict] | None]:
        """What to note, and the facts and the verdict to write."""

    def broken(self, error: Exception) -> None:
        """Count a fault of our own."""


def annotate_envelope(
    envelope: Envelope, sender: Sender, judge: Judge, *, grouping: Grouping
) -> tuple[bytes | None, list[Failure]]:
    """The envelope's bytes with verdicts in its events, or None where nothing changed; and what to note."""
    payloads: dict[int, bytes] = {}
    noted: dict[str, Failure] = {}
    for index, item in enumerate(envelope.items):
        failures: list[Failure] = []
        payload = None
        try:
            if item.type == EVENT:
                failures, payload = _event(envelope, item, sender, judge, grouping)
            elif item.type in _WITH_SPANS:
                failures = _spans(envelope, item, sender, judge)
        except (ValueError, RecursionError):  # the upstream decides what becomes of it
            judge.counts["unreadable"] += 1
            continue
        except Exception as error:  # noqa: BLE001 - one odd item keeps no other from its verdict
            judge.broken(error)
            continue
        noted |= {failure.key: failure for failure in failures}
        if payload is not None:
            payloads[index] = payload
            judge.counts["events"] += 1
    return (envelope.replaced(payloads) if payloads else None), list(noted.values())


def _spans(envelope: Envelope, item: Item, sender: Sender, judge: Judge) -> list[Failure]:
    """What to note of the failed calls among the spans of an item, which is left as it is."""
    payload = envelope.payload(item)
    if not may_hold_failed_calls(payload):
        return []
    if len(payload) > EVENT_LIMIT:
        raise ValueError("larger than what is read")
    judged = (judge.judge(_seen_span(span, sender))[0] for span in failed_calls(payload))
    return [failure for failure in judged if failure is not None]


def _seen_span(span: SentrySpan, sender: Sender) -> Seen:
    return Seen(
        place=(0, 0, 0),
        origin=Origin.SPAN,
        evidence=Evidence.CALL,
        error=span.error,
        attributes={},
        identity=f"span:{span.trace_id}:{span.span_id}",
        reporter=f"sentry-span:{span.origin}",
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_id=span.parent_id,
        began=span.began,
        at=span.at,
        service=f"sentry:{sender.project}",
        environment=span.environment,
    )


def _event(
    envelope: Envelope, item: Item, sender: Sender, judge: Judge, grouping: Grouping
) -> tuple[list[Failure], bytes | None]:
    if item.end - item.payload > EVENT_LIMIT:
        raise ValueError("larger than an event may be")
    text = envelope.payload(item).decode("utf-8")
    event = {key: member.data for key, member in members(text).items()}
    read = read_event(event)
    if read.evidence is Evidence.NONE:
        return [], None
    failure, told = judge.judge(_seen(envelope, read, sender))
    failures = [failure] if failure is not None else []
    if told is None:
        return failures, None
    error, verdict = told
    # The words in the event's texts may echo a prompt: only those that the tap cleaned are written.
    error = changed(error, {"message": read.ours.get(_MESSAGE)})
    after = _written(text, event, error, verdict, grouping)
    return failures, after if after != envelope.payload(item) else None


def _seen(envelope: Envelope, read: SentryEvent, sender: Sender) -> Seen:
    # The header's id wins over the payload's (https://develop.sentry.dev/sdk/data-model/envelopes/).
    header = envelope.headers.get("event_id")
    event_id = header.replace("-", "") if isinstance(header, str) and header else read.event_id
    at = read.at if read.at is not None else sender.received
    return Seen(
        place=(0, 0, 0),
        origin=Origin.EVENT if read.error.error_id else Origin.CAPTURED,
        evidence=read.evidence,
        error=read.error,
        attributes=dict(read.ours),
        identity=f"sentry:{event_id}" if event_id else f"sentry:{sender.key}:{at}",
        reporter=read.reporter,
        trace_id=read.trace_id,
        span_id=read.span_id,
        parent_id=read.parent_id,
        began=at,
        at=at,
        service=f"sentry:{sender.project}",
        environment=read.environment,
        span=False,
    )


def _written(
    text: str, event: dict[str, Any], error: LLMError, verdict: Verdict, grouping: Grouping
) -> bytes:
    """The event's text with tags, our context and the fingerprint put in; all else as it came."""
    before = {"tags": event.get("tags"), _GROUP: event.get(_GROUP)}
    contexts = event.get("contexts")
    if isinstance(contexts, dict):
        event = {**event, "contexts": dict(contexts)}
    annotate_event(event, error, verdict, grouping=grouping)
    changes: dict[str, Any] = {
        name: _json(event[name]) if name in event else Remove
        for name, value in before.items()
        if event.get(name) != value
    }
    found = members(text).get("contexts")
    if isinstance(contexts, dict) and found is not None:
        new = event["contexts"][CONTEXT]
        if contexts.get(CONTEXT) != new:
            inner = spliced(text[found.value : found.end], {CONTEXT: _json(new)})
            changes["contexts"] = inner
    elif contexts is None:
        changes["contexts"] = _json(event["contexts"])
    return spliced(text, changes).encode("utf-8", "strict") if changes else text.encode()


def _json(value: Any) -> str:
    return dump(value).decode()
