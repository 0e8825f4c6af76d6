"""Names on the wire: what is written is read back, and what others wrote does no harm."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from verdicts import verdict

from otel_triage.facts.wire import (
    FACT_NAMES,
    SPAN_LIMIT,
    VERDICT_NAMES,
    fact_attributes,
    read_facts,
    span_attributes,
    verdict_attributes,
)
from otel_triage.model import BrokeAt, LLMError, Outcome

FULL = LLMError(
    provider="openai",
    operation="chat",
    model="gpt-4o",
    response_model="gpt-4o-2024-08-06",
    max_tokens=64,
    stream=True,
    input_tokens=9,
    output_tokens=3,
    finish_reasons=("length",),
    status=429,
    error_type="openai.RateLimitError",
    server_address="api.openai.com",
    code="rate_limit_exceeded",
    type="tokens",
    param="messages",
    request_id="req_1",
    retry_after_s=1.5,
    requests_limit=1,
    requests_remaining=2,
    requests_reset_s=3.0,
    tokens_limit=4,
    tokens_remaining=5,
    tokens_reset_s=6.0,
    input_tokens_estimate=7,
    context_limit=8,
    requested_tokens=9,
    attempts=3,
    attempt_statuses=(429, 0, 429),
    stream_chunks=2,
    broke_at=BrokeAt.STREAM,
    account="acme",
    call_id="c",
    error_id="e",
    outcome=Outcome.FAILED,
    message="m",
    stacktrace="s",
)
VERDICT = verdict(confidence=0.97, root_cause="c", suggested_action="a", incident_id="i", version="v")


def test_there_and_back() -> None:
    attributes = fact_attributes(FULL)
    assert read_facts(attributes) == FULL
    assert attributes["http.request.resend_count"] == 2
    assert all(type(value) in (str, bool, int, float, tuple) for value in attributes.values())


def test_every_fact_is_in_the_record_above() -> None:
    assert [f.name for f in fields(LLMError) if f.name != "causes" and getattr(FULL, f.name) is None] == []


def test_the_span_carries_the_verdict_and_a_few_facts_in_their_order() -> None:
    # design, "Names on the wire": twelve of the verdict, then ten facts
    assert list(span_attributes(FULL, VERDICT)) == [
        "triage.category",
        "triage.reason",
        "triage.severity",
        "triage.retryable",
        "triage.owner",
        "triage.confidence",
        "triage.source",
        "triage.root_cause",
        "triage.suggested_action",
        "triage.fingerprint",
        "triage.incident_id",
        "triage.version",
        "triage.error_id",
        "triage.call_id",
        "triage.outcome",
        "triage.provider.error_code",
        "triage.provider.error_type",
        "triage.provider.request_id",
        "triage.retry_after_s",
        "triage.attempts",
        "triage.broke_at",
        "triage.account",
    ]
    assert len(span_attributes(FULL, VERDICT)) <= SPAN_LIMIT


def test_verdict_attributes_leave_out_what_is_not_known() -> None:
    assert set(verdict_attributes(VERDICT)) == set(VERDICT_NAMES.values())


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.one_of(st.text(max_size=4), st.integers(), st.floats()), max_size=3),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
)


@given(st.dictionaries(st.sampled_from(sorted(FACT_NAMES.values())), VALUES))
def test_foreign_values_are_read_or_left_out(attributes: dict[str, Any]) -> None:
    error = read_facts(attributes)
    assert read_facts(fact_attributes(error)) == error


def test_numbers_in_other_dress() -> None:
    error = read_facts(
        {
            "gen_ai.usage.input_tokens": 9.0,
            "http.response.status_code": "429",
            "triage.outcome": "nonsense",
            "gen_ai.response.finish_reasons": "stop",
            "http.request.resend_count": 2,
        }
    )
    assert error == LLMError(input_tokens=9, status=429, finish_reasons=("stop",), attempts=3)
