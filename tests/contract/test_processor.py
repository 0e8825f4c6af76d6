"""`TriageSpanProcessor` on LLM spans of clients that no tap covers: facts from the exception in flight."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import httpx
import pytest
from opentelemetry import trace

from otel_triage.capture.telling import TOLD

CALL = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "aws.bedrock",
    "gen_ai.request.model": "claude",
}
AGENT = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "a"}


class ThrottlingException(Exception):
    """As an SDK of its own transport raises it."""

    status_code = 429
    body: ClassVar = {
        "message": "Too many tokens, please wait before trying again.",
        "code": "ThrottlingException",
    }


def fail_in_a_span(attributes: dict[str, str], exc: BaseException, name: str = "chat claude") -> None:
    with trace.get_tracer("bedrock").start_as_current_span(name, attributes=attributes):
        raise exc


def test_the_exception_in_flight_gives_the_facts(telemetry: Any) -> None:
    with pytest.raises(ThrottlingException):
        fail_in_a_span(CALL, ThrottlingException("An error occurred"))
    (span,) = telemetry.spans
    event = telemetry.event()
    assert span.attributes["triage.category"] == "rate_limit"
    assert span.attributes["triage.provider.error_code"] == "ThrottlingException"
    assert span.attributes["triage.error_id"] == event["triage.error_id"]
    assert event["http.response.status_code"] == 429
    assert event["exception.message"] == "Too many tokens, please wait before trying again."
    assert (event["trace_id"], event["span_id"]) == (span.context.trace_id, span.context.span_id)
    # The application's own attributes, events and status are as they were.
    assert CALL.items() <= dict(span.attributes).items()
    assert [event.name for event in span.events] == ["exception"]
    assert span.status.status_code.name == "ERROR"


def test_a_failing_agent_around_the_call_only_carries_the_error_up(telemetry: Any) -> None:
    tracer = trace.get_tracer("agents")
    with (
        pytest.raises(ThrottlingException),
        tracer.start_as_current_span("GET /ask"),
        tracer.start_as_current_span("invoke_agent a", attributes=AGENT),
    ):
        fail_in_a_span(CALL, ThrottlingException("An error occurred"))
    assert [span.name for span in telemetry.triaged] == ["chat claude"]
    telemetry.event()


def test_two_llm_spans_around_one_failure_are_one(telemetry: Any) -> None:
    """A framework's and the provider's instrumentation both on: the inner one has the verdict."""
    with (
        pytest.raises(ThrottlingException),
        trace.get_tracer("framework").start_as_current_span("chat", attributes=CALL),
    ):
        fail_in_a_span(CALL, ThrottlingException("An error occurred"))
    (span,) = telemetry.triaged
    assert span.instrumentation_scope.name == "bedrock"
    telemetry.event()


def fail_and_fall_back() -> None:
    """The fallback runs inside the except of the first failure, and fails otherwise."""
    try:
        raise ThrottlingException("first")
    except ThrottlingException:
        span = trace.get_tracer("i").start_span("chat fallback", attributes=CALL)
        span.set_attribute("error.type", "TimeoutError")
        span.set_status(trace.StatusCode.ERROR, "second")
        span.end()
        raise TimeoutError("second") from None


def test_an_old_exception_that_is_being_handled_is_not_taken(telemetry: Any) -> None:
    with pytest.raises(TimeoutError, match="second"):
        fail_and_fall_back()
    event = telemetry.event()
    assert event["triage.category"] == "timeout"
    assert "http.response.status_code" not in event


def test_a_cancelled_call_gets_no_verdict(telemetry: Any) -> None:
    with pytest.raises(asyncio.CancelledError):
        fail_in_a_span(CALL | {"error.type": "CancelledError"}, asyncio.CancelledError())
    assert (telemetry.triaged, telemetry.events) == ([], [])


@pytest.mark.parametrize("attributes", [{}, {"db.system": "postgresql"}, {"http.request.method": "POST"}])
def test_other_spans_pass_untouched(telemetry: Any, attributes: dict[str, str]) -> None:
    with pytest.raises(ThrottlingException):
        fail_in_a_span(attributes, ThrottlingException("An error occurred"))
    (span,) = telemetry.spans
    assert dict(span.attributes) == attributes
    assert telemetry.events == []


def test_a_healthy_llm_span_passes_untouched(telemetry: Any) -> None:
    with trace.get_tracer("i").start_as_current_span("chat claude", attributes=CALL):
        pass
    (span,) = telemetry.spans
    assert dict(span.attributes) == CALL
    assert telemetry.events == []


def test_the_mark_on_an_exception_is_a_plain_string(provider: Any, telemetry: Any) -> None:
    """An exception may be pickled to a process that has no otel-triage."""
    with httpx.Client() as client, pytest.raises(httpx.RemoteProtocolError) as caught:
        client.post(
            f"{provider.url}/v1/chat/completions",
            json={"model": "gpt-4o", "messages": []},
            headers={"x-demo-scenario": "openai.chat.drop"},
        )
    told = vars(caught.value)[TOLD]
    assert type(told) is str
    assert told == telemetry.event()["triage.error_id"]
