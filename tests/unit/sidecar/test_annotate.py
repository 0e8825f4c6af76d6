"""Our attributes on spans and log records, as bytes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from span_dumps import make_record, make_span, ours, pairs, plain
from verdicts import verdict

from otel_triage.facts.wire import span_attributes, verdict_attributes
from otel_triage.model import BrokeAt, LLMError, Outcome
from otel_triage.sidecar.annotate import annotate_record, annotate_span, read_verdict

VERDICT = verdict(
    root_cause="Too many tokens a minute.",
    suggested_action="Wait 2 s, then retry.",
    fingerprint="f:0123456789abcdef",
    version="0.1.0+rules.1",
)
WRITTEN = {
    "triage.category": "rate_limit",
    "triage.reason": "tokens",
    "triage.severity": "low",
    "triage.retryable": "yes",
    "triage.owner": "account",
    "triage.confidence": 0.9,
    "triage.source": "rules",
    "triage.root_cause": "Too many tokens a minute.",
    "triage.suggested_action": "Wait 2 s, then retry.",
    "triage.fingerprint": "f:0123456789abcdef",
    "triage.version": "0.1.0+rules.1",
}
FULL = LLMError(
    error_id="e1",
    call_id="c1",
    outcome=Outcome.FAILED,
    code="rate_limit_exceeded",
    type="tokens",
    request_id="req_1",
    retry_after_s=2.0,
    attempts=3,
    broke_at=BrokeAt.HEADERS,
    account="org-x",
    message="not for the span",
)


def test_appended_where_there_are_none_of_ours() -> None:
    before = make_span({"gen_ai.request.model": "gpt-4o"}).SerializeToString()
    after = annotate_span(before, span_attributes(FULL, VERDICT))
    assert after.startswith(before)
    assert plain(Span.FromString(after).attributes) == {"gen_ai.request.model": "gpt-4o"} | WRITTEN | {
        "triage.error_id": "e1",
        "triage.call_id": "c1",
        "triage.outcome": "failed",
        "triage.provider.error_code": "rate_limit_exceeded",
        "triage.provider.error_type": "tokens",
        "triage.provider.request_id": "req_1",
        "triage.retry_after_s": 2.0,
        "triage.attempts": 3,
        "triage.broke_at": "headers",
        "triage.account": "org-x",
    }


def test_all_verdict_fields_are_replaced_together_and_nothing_doubled() -> None:
    old = {
        "app.tenant": "t1",
        "triage.category": "unclassified",
        "triage.reason": "unknown",
        "triage.incident_id": "i-old",
        "triage.error_id": "e1",
        "triage.stream.chunks": 4,
    }
    before = make_span(old, description="boom")
    after = Span.FromString(
        annotate_span(before.SerializeToString(), span_attributes(LLMError(error_id="e1"), VERDICT))
    )
    assert plain(after.attributes) == WRITTEN | {
        "app.tenant": "t1",
        "triage.error_id": "e1",
        "triage.stream.chunks": 4,  # a fact that the application half told
    }
    del after.attributes[:], before.attributes[:]
    assert after == before


def test_at_most_24_of_ours() -> None:
    told: dict[str, Any] = {f"triage.extra.{number}": number for number in range(30)} | {
        "triage.category": "x"
    }
    incident = replace(VERDICT, incident_id="i-1")
    after = Span.FromString(
        annotate_span(make_span(told).SerializeToString(), span_attributes(FULL, incident))
    )
    assert len(ours(after)) == 24
    assert ours(after)["triage.incident_id"] == "i-1"
    assert ours(after)["triage.account"] == "org-x"


def test_twice_is_once() -> None:
    attributes = span_attributes(FULL, VERDICT)
    once = annotate_span(make_span({"a": 1}).SerializeToString(), attributes)
    assert annotate_span(once, attributes) is once
    record = annotate_record(make_record({"a": 1}).SerializeToString(), verdict_attributes(VERDICT))
    assert annotate_record(record, verdict_attributes(VERDICT)) is record


def test_a_name_that_stands_twice_stands_once_after() -> None:
    once = annotate_span(make_span({}).SerializeToString(), span_attributes(FULL, VERDICT))
    doubled = once + Span(attributes=pairs({"triage.category": "timeout"})).SerializeToString()
    after = Span.FromString(annotate_span(doubled, span_attributes(FULL, VERDICT)))
    assert ours(after) == ours(Span.FromString(once))


def test_a_value_of_another_type_is_replaced() -> None:
    attributes = span_attributes(replace(FULL, attempts=1), VERDICT)
    once = Span.FromString(annotate_span(make_span({}).SerializeToString(), attributes))
    for pair in once.attributes:
        if pair.key == "triage.attempts":
            pair.value.bool_value = True  # equal to 1 in Python
    assert ours(Span.FromString(annotate_span(once.SerializeToString(), attributes)))["triage.attempts"] == 1


def test_unknown_fields_of_a_span_survive_both_ways() -> None:
    unknown = bytes((0xC2, 0x3E, 1, ord("x")))  # field 1000
    for attributes in ({"a": 1}, {"triage.category": "x"}):
        content = make_span(attributes).SerializeToString() + unknown
        assert unknown in annotate_span(content, span_attributes(FULL, VERDICT))


def test_record_gets_the_verdict_and_keeps_its_facts() -> None:
    facts = {"triage.error_id": "e1", "http.response.status_code": 429, "triage.category": "timeout"}
    after = LogRecord.FromString(
        annotate_record(make_record(facts).SerializeToString(), verdict_attributes(VERDICT))
    )
    assert plain(after.attributes) == WRITTEN | {"triage.error_id": "e1", "http.response.status_code": 429}


def test_verdict_is_read_back() -> None:
    assert read_verdict(WRITTEN) == VERDICT
    assert read_verdict(WRITTEN | {"triage.incident_id": "i"}) == replace(VERDICT, incident_id="i")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("triage.confidence", "high"),
        ("triage.owner", "nobody"),
        ("triage.reason", 7),
        ("triage.confidence", True),
    ],
)
def test_a_verdict_that_is_not_whole_is_none(name: str, value: Any) -> None:
    assert read_verdict(WRITTEN | {name: value}) is None
    assert read_verdict({key: data for key, data in WRITTEN.items() if key != name}) is None


_NAMES = st.text(alphabet="abc.xyz", min_size=1, max_size=8) | st.sampled_from(
    ["triage.category", "triage.note", "triage.error_id", "triage", "triage.stream.chunks"]
)
_VALUES = st.text(max_size=8) | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)
_ERRORS = st.builds(
    LLMError,
    error_id=st.none() | st.text(min_size=1, max_size=4),
    attempts=st.none() | st.integers(1, 9),
    retry_after_s=st.none() | st.floats(0, 9),
)


@given(
    attributes=st.dictionaries(_NAMES, _VALUES | st.lists(st.text(max_size=3), max_size=3), max_size=8),
    error=_ERRORS,
)
def test_splicing_is_the_same_as_serialising_anew(attributes: dict[str, Any], error: LLMError) -> None:
    """Against the plain way: parse, drop our verdict and the facts told again, add, serialise."""
    wanted = span_attributes(error, VERDICT)
    span = make_span(attributes)
    done = Span.FromString(annotate_span(span.SerializeToString(), wanted))
    verdict = set(WRITTEN) | {"triage.incident_id"}
    kept = {name: value for name, value in attributes.items() if name not in wanted and name not in verdict}
    assert plain(done.attributes) == plain(make_span({**kept, **wanted}).attributes)
    del done.attributes[:], span.attributes[:]
    assert done == span
