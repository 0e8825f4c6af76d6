"""Which sightings are one failure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from verdicts import verdict

from otel_triage.desk.joins import Failure, Joins, Link, Origin, Sighting
from otel_triage.model import LLMError

T0 = 1_750_000_000.0
VERDICT = verdict(root_cause="", suggested_action="")
CALL = Sighting(
    origin=Origin.SPAN,
    identity="span:aa:02",
    reporter="span:one",
    error=LLMError(provider="openai", model="gpt-4o", status=429),
    trace_id="aa",
    span_id="02",
    parent_id="01",
    fingerprint="f:1",
    began=T0 - 10,
    at=T0,
)


def _joins(sighting: Sighting, **more: Any) -> Joins:
    joins = Joins(lambda: T0, **more)
    joins.add(_failure(sighting), sighting)
    return joins


def _failure(sighting: Sighting, *, key: str = "k") -> Failure:
    return Failure(
        key=key,
        origin=sighting.origin,
        error=sighting.error,
        verdict=VERDICT,
        service="",
        environment="",
        trace_id=sighting.trace_id,
        span_id=sighting.span_id,
        began=sighting.began,
        at=sighting.at,
        noted=T0,
    )


def _link(known: Sighting, seen: Sighting) -> Link | None:
    found = _joins(known).find(seen)
    return found[1] if found else None


OTHER = replace(CALL, identity="span:aa:03", span_id="03", reporter="span:two")
AROUND = replace(
    CALL, origin=Origin.AROUND, identity="span:aa:09", span_id="09", reporter="span:http", parent_id="02"
)
EVENT = replace(CALL, origin=Origin.EVENT, identity="log:1", reporter="log:tap", parent_id="", began=T0)
TOLD = replace(EVENT, error=LLMError(error_id="e"))


@pytest.mark.parametrize(
    ("known", "seen", "link"),
    [
        (CALL, CALL, Link.AGAIN),
        # by the tap's id, wherever and whenever
        (TOLD, replace(OTHER, error=TOLD.error, trace_id="zz", at=T0 + 99), Link.SAME),
        (TOLD, replace(CALL, error=LLMError(error_id="f")), None),
        # event and span of one span id, however their fingerprints differ
        (EVENT, replace(CALL, fingerprint="f:2", at=T0 + 5), Link.SAME),
        (CALL, replace(EVENT, fingerprint="f:2"), Link.SAME),
        # another instrumentation: by fingerprint, or as a twin
        (CALL, OTHER, Link.SAME),
        (CALL, replace(OTHER, fingerprint="f:2"), Link.SAME),
        (CALL, replace(OTHER, fingerprint="f:2", error=replace(CALL.error, model="o3")), None),
        (CALL, replace(OTHER, fingerprint="f:2", error=replace(CALL.error, status=500)), None),
        (CALL, replace(OTHER, at=T0 + 2.1), None),
        (CALL, replace(OTHER, at=T0 + 2), Link.SAME),
        (CALL, replace(OTHER, trace_id="bb"), None),
        # the same instrumentation: another call
        (CALL, replace(OTHER, reporter="span:one"), None),
        # above the call
        (CALL, replace(OTHER, span_id="01", identity="span:aa:01"), Link.CARRIED),
        (CALL, replace(OTHER, span_id="01", identity="span:aa:01", at=T0 + 60, began=T0 + 50), None),
        (CALL, replace(AROUND, fingerprint="f:2"), Link.CARRIED),
        # an attempt, long before the call gave up
        (CALL, replace(AROUND, at=T0 - 8), Link.CARRIED),
        (CALL, replace(AROUND, at=T0 + 60), None),
        # the attempt came first
        (replace(AROUND, at=T0 - 8), CALL, Link.SAME),
        (replace(AROUND, at=T0 - 20), CALL, None),
        # two things around calls
        (AROUND, replace(AROUND, identity="x", span_id="0a"), Link.CARRIED),
        (AROUND, replace(AROUND, identity="x", span_id="0a", fingerprint="f:2", began=T0), None),
    ],
)  # fmt: skip
def test_links(known: Sighting, seen: Sighting, link: Link | None) -> None:
    assert _link(known, seen) == link


def test_the_nearest_failure_is_taken() -> None:
    joins = _joins(replace(CALL, at=T0 - 1.5))
    near = replace(CALL, identity="span:aa:05", span_id="05", at=T0)
    joins.add(_failure(near, key="near"), near)
    found = joins.find(OTHER)
    assert found is not None
    assert found[0].key == "near"


def test_memory_is_bounded() -> None:
    joins = Joins(lambda: T0, limit=3)
    for number in range(10):
        sighting = replace(CALL, identity=f"span:{number}", trace_id=f"{number:02}", span_id=f"{number}")
        joins.add(_failure(sighting, key=f"k{number}"), sighting)
    assert len(joins) == 3
    assert joins.forgotten == 7
    assert joins.known("span:0") is None
    assert joins.known("span:9") is not None
    assert len(joins._by_trace) == len(joins._by_key) == 3


def test_old_failures_leave() -> None:
    now = [T0]
    joins = Joins(lambda: now[0])
    joins.add(_failure(CALL), CALL)
    now[0] += 900
    assert joins.find(CALL) is not None
    now[0] += 86_400
    assert joins.find(CALL) is None
    assert len(joins) == len(joins._by_key) == len(joins._by_trace) == 0


CAPTURED = replace(
    CALL,
    origin=Origin.CAPTURED,
    identity="sentry:e1",
    reporter="sentry:sentry.python:generic",
    span_id="01",
    parent_id="",
    began=T0 + 1,
    at=T0 + 1,
)
CAUSE = ("rate_limit", "tokens")
UNKNOWN = ("unclassified", "unknown")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Link.SAME),
        ({"fingerprint": "f:2", "cause": CAUSE}, Link.SAME),
        ({"fingerprint": "f:2", "cause": CAUSE, "error": LLMError()}, Link.SAME),
        ({"fingerprint": "f:2", "cause": CAUSE, "error": LLMError(provider="anthropic")}, None),
        # a Sentry SDK without tracing: one trace for all that a process does
        ({"fingerprint": "f:2", "cause": ("timeout", "read")}, None),
        ({"fingerprint": "f:2", "cause": ("timeout", "read"), "span_id": "02"}, None),
        # one of Sentry's spans, or an exception without a message, tells no cause
        ({"fingerprint": "f:2", "cause": UNKNOWN}, Link.SAME),
        ({"fingerprint": "f:2", "cause": UNKNOWN, "error": LLMError(provider="anthropic")}, None),
        ({"at": T0 + 2.1}, None),
        ({"trace_id": "bb"}, None),
    ],
)
@pytest.mark.parametrize("captured_first", [False, True])
def test_a_captured_exception_and_the_span(
    changes: dict[str, Any], expected: Link | None, captured_first: bool
) -> None:
    if captured_first:
        captured = replace(CAPTURED, **{key: value for key, value in changes.items() if key != "cause"})
        joins = Joins(lambda: T0)
        failure = _failure(captured)
        told = changes.get("cause", CAUSE)
        verdict = replace(VERDICT, fingerprint=captured.fingerprint, category=told[0], reason=told[1])
        failure.verdict = verdict
        joins.add(failure, captured)
        found = joins.find(replace(CALL, cause=CAUSE))
    else:
        found = _joins(CALL).find(replace(CAPTURED, **changes))
    assert (found[1] if found else None) is expected


def test_one_reporter_captures_one_failure_once() -> None:
    again = replace(CAPTURED, identity="sentry:e2", at=T0 + 1.5)
    at_call = replace(again, reporter="sentry:sentry.python:openai")
    assert _link(CAPTURED, again) is None
    assert _link(CAPTURED, at_call) is Link.SAME
    assert _link(CAPTURED, replace(at_call, fingerprint="f:2", cause=UNKNOWN)) is None
    assert _link(CAPTURED, CAPTURED) is Link.AGAIN


def test_a_captured_exception_with_an_error_id_joins_by_it() -> None:
    event = replace(CALL, origin=Origin.EVENT, error=LLMError(error_id="e1"))
    same = replace(CAPTURED, trace_id="bb", at=T0 + 60, error=LLMError(error_id="e1"))
    assert _link(event, same) is Link.SAME
    assert _link(event, replace(same, trace_id="aa", at=T0, error=LLMError(error_id="e2"))) is None
