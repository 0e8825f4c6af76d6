"""Stack traces and classes that stand in the text of an error."""

from __future__ import annotations

import json

from otel_triage.facts.records import facts_of_text
from otel_triage.model import Cause


def test_a_stack_trace_in_the_message_is_read() -> None:
    text = (
        "Connection error: OllamaException - 'steps'\nTraceback (most recent call last):\n"
        '  File "/srv/app/plan.py", line 3, in run\n    return plan["steps"]\nKeyError: \'steps\''
    )
    error = facts_of_text("litellm.APIConnectionError", text)
    assert [cause.type for cause in error.causes] == ["litellm.APIConnectionError", "KeyError"]


def test_the_stack_trace_of_its_own_is_preferred() -> None:
    text = "failed\nTraceback (most recent call last):\n  File \"a.py\", line 1, in f\nKeyError: 'x'"
    own = 'Traceback (most recent call last):\n  File "b.py", line 1, in g\nOSError: disk'
    assert [cause.type for cause in facts_of_text("OSError", text, own).causes] == ["OSError"]


def test_a_class_in_front_of_a_printed_message_is_named() -> None:
    error = facts_of_text("", "{'error': \"acme.PlanError: no plan\", 'success': False}")
    assert ([cause.type for cause in error.causes], error.message) == (["acme.PlanError"], "no plan")


def test_a_stack_trace_in_a_json_log_line_is_read() -> None:
    trace = 'Traceback (most recent call last):\n  File "a.py", line 4, in f\nhttpx.ReadTimeout: slow'
    error = facts_of_text("", json.dumps({"message": "call failed", "exc_info": trace}))
    assert ([cause.type for cause in error.causes], error.message) == (["httpx.ReadTimeout"], "call failed")


def test_a_body_in_the_stack_trace_alone_is_read() -> None:
    stack = (
        'Traceback (most recent call last):\n  File "a.py", line 4, in f\n'
        "openai.RateLimitError: Error code: 429 - {'error': {'code': 'insufficient_quota', 'message': 'x'}}"
    )
    error = facts_of_text("", "", stack)
    assert (error.status, error.code, error.message) == (429, "insufficient_quota", "x")


def test_a_cause_in_the_text_of_its_wrapper_is_a_link_of_the_chain() -> None:
    # https://docs.spring.io/spring-framework/docs/5.3.x/javadoc-api/org/springframework/core/NestedRuntimeException.html
    text = "I/O error on POST request; nested exception is java.net.SocketTimeoutException: Read timed out"
    assert facts_of_text("org.springframework.web.client.ResourceAccessException", text).causes == (
        Cause("org.springframework.web.client.ResourceAccessException", text),
        Cause("java.net.SocketTimeoutException", "Read timed out"),
    )
    # https://learn.microsoft.com/dotnet/api/system.exception.tostring
    text = "System.Net.Http.HttpRequestException: Failed ---> System.Net.Sockets.SocketException (1): Refused"
    assert facts_of_text("", text).causes == (
        Cause("System.Net.Http.HttpRequestException"),
        Cause("System.Net.Sockets.SocketException", "Refused"),
    )
    assert facts_of_text("Error", "rewritten ---> see Notes: none").causes == (
        Cause("Error", "rewritten ---> see Notes: none"),
    )


def test_an_application_s_own_500_is_no_status_of_a_provider() -> None:
    # https://github.com/encode/starlette/blob/master/starlette/exceptions.py: "500: detail"
    own = facts_of_text("fastapi.exceptions.HTTPException", "500: The model returned no text")
    assert (own.status, own.message) == (None, "The model returned no text")
    inner = facts_of_text("fastapi.exceptions.HTTPException", "500: Error code: 429 - slow down")
    assert (inner.status, inner.message) == (429, "slow down")
    assert facts_of_text("HTTPException", "500: Internal Server Error").status == 500
    assert facts_of_text("HTTPException", "404: no such deployment").status == 404
