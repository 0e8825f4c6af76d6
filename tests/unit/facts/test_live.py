"""Live exceptions: the SDKs' own classes where they are installed, and what lies inside of others."""

from __future__ import annotations

import concurrent.futures
from typing import Any

import anthropic
import httpx
import openai
import pytest

from otel_triage.facts.live import facts_of_exception, links
from otel_triage.model import Cause

NOW = 1_768_780_800.0
QUOTA = {
    "message": "You exceeded it",
    "type": "insufficient_quota",
    "param": None,
    "code": "insufficient_quota",
}


def response(status: int, body: Any, headers: dict[str, str] | None = None) -> httpx.Response:
    return httpx.Response(status, json=body, headers=headers, request=httpx.Request("POST", "https://x/y"))


def told(exc: BaseException, *names: str) -> dict[str, Any]:
    error = facts_of_exception(exc, now=NOW)
    return {name: getattr(error, name) for name in names}


def test_openai_body_and_headers() -> None:
    answer = response(429, {"error": QUOTA}, {"retry-after": "7", "x-request-id": "req_1"})
    exc = openai.RateLimitError("Error code: 429", response=answer, body=QUOTA)  # type: ignore[arg-type]
    assert told(exc, "status", "code", "type", "message", "request_id", "retry_after_s") == {
        "status": 429,
        "code": "insufficient_quota",
        "type": "insufficient_quota",
        "message": "You exceeded it",
        "request_id": "req_1",
        "retry_after_s": 7.0,
    }


def test_anthropic_error_inside_of_a_stream_that_began_with_200() -> None:
    # https://github.com/anthropics/anthropic-sdk-python/issues/1918
    body = {
        "type": "error",
        "error": {"type": "overloaded_error", "message": "Overloaded"},
        "request_id": "req_2",
    }
    exc = anthropic.APIStatusError("Overloaded", response=response(200, body), body=body)  # type: ignore[arg-type]
    assert told(exc, "status", "type", "message", "request_id") == {
        "status": None,
        "type": "overloaded_error",
        "message": "Overloaded",
        "request_id": "req_2",
    }


def test_httpx_answer_that_was_read_is_read_by_us_too() -> None:
    answer = response(402, {"error": {"message": "No credits", "code": "insufficient_credits"}})
    with pytest.raises(httpx.HTTPStatusError) as caught:
        answer.raise_for_status()
    assert told(caught.value, "status", "code", "message") == {
        "status": 402,
        "code": "insufficient_credits",
        "message": "No credits",
    }


def test_an_answer_that_was_not_read_is_left_alone() -> None:
    class Stream(httpx.SyncByteStream):
        def __iter__(self) -> Any:
            raise AssertionError("read by us")

    answer = httpx.Response(500, stream=Stream(), request=httpx.Request("POST", "https://x/y"))
    with pytest.raises(httpx.HTTPStatusError) as caught:
        answer.raise_for_status()
    assert told(caught.value, "status") == {"status": 500}


class RetryError(Exception):
    """As tenacity's: the last attempt is a future (tenacity/__init__.py)."""

    def __init__(self, last_attempt: concurrent.futures.Future[Any]) -> None:
        self.last_attempt = last_attempt
        super().__init__(last_attempt)


def test_the_last_attempt_of_a_retry_decides() -> None:
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()
    inner = openai.RateLimitError("Error code: 429", response=response(429, {}), body=QUOTA)  # type: ignore[arg-type]
    future.set_exception(inner)
    error = facts_of_exception(RetryError(future), now=NOW)
    assert (error.status, error.code, error.message) == (429, "insufficient_quota", "You exceeded it")
    assert error.causes[-1] == Cause("openai.RateLimitError", "Error code: 429")


def test_a_future_that_is_not_done_is_not_waited_for() -> None:
    assert list(map(type, links(RetryError(concurrent.futures.Future())))) == [RetryError]


def test_what_is_wrapped_without_being_a_cause() -> None:
    # urllib3: ProtocolError('Connection aborted.', RemoteDisconnected(…)); litellm: original_exception
    inner = ConnectionResetError("reset by peer")
    assert list(links(ValueError("Connection aborted.", inner)))[1] is inner
    outer = RuntimeError("all failed")
    outer.errors = [KeyError("first"), inner]  # type: ignore[attr-defined]
    assert list(links(outer))[1] is inner


def test_botocore_response() -> None:
    exc = RuntimeError(
        "An error occurred (ThrottlingException) when calling the Converse operation: Slow down"
    )
    exc.response = {  # type: ignore[attr-defined]
        "Error": {"Code": "ThrottlingException", "Message": "Slow down"},
        "ResponseMetadata": {"HTTPStatusCode": 429, "RequestId": "b-1"},
    }
    assert told(exc, "status", "code", "message", "request_id") == {
        "status": 429,
        "code": "ThrottlingException",
        "message": "Slow down",
        "request_id": "b-1",
    }


def test_grpc_tells_by_methods() -> None:
    class StatusCode:
        name = "UNAVAILABLE"

    class AioRpcError(Exception):
        def code(self) -> StatusCode:
            return StatusCode()

        def details(self) -> str:
            return "The service is gone"

    assert told(AioRpcError("x"), "code", "message") == {
        "code": "UNAVAILABLE",
        "message": "The service is gone",
    }


def test_attributes_that_raise_or_lie_are_unknown() -> None:
    class Odd(Exception):
        body = property(lambda self: 1 / 0)
        response = 7
        status_code = "many"
        code = object()
        errors = None

        def __str__(self) -> str:
            raise ValueError

    error = facts_of_exception(Odd(), now=NOW)
    assert (error.status, error.code, error.message) == (None, None, None)
    cycle = ValueError("a")
    cycle.original_exception = cycle  # type: ignore[attr-defined]
    assert list(links(cycle)) == [cycle]


def test_the_exception_with_the_answer_is_the_one_that_failed() -> None:
    body = {"message": "You exceeded", "type": "insufficient_quota", "code": "insufficient_quota"}
    response = httpx.Response(
        429,
        headers={"x-request-id": "req_9", "retry-after": "7"},
        request=httpx.Request("POST", "https://api.openai.com/v1/chat/completions"),
    )
    exc = openai.RateLimitError("Error code: 429 - You exceeded", response=response, body=body)
    facts = facts_of_exception(RuntimeError("wrapped"), now=0)
    assert (facts.status, facts.message, facts.error_type) == (None, "wrapped", "RuntimeError")

    wrapper = RuntimeError("the agent failed")
    wrapper.__cause__ = exc
    facts = facts_of_exception(wrapper, now=0)
    assert {
        "status": facts.status,
        "code": facts.code,
        "type": facts.type,
        "message": facts.message,
        "request_id": facts.request_id,
        "retry_after_s": facts.retry_after_s,
        "error_type": facts.error_type,
    } == {
        "status": 429,
        "code": "insufficient_quota",
        "type": "insufficient_quota",
        "message": "You exceeded",
        "request_id": "req_9",
        "retry_after_s": 7.0,
        "error_type": "openai.RateLimitError",
    }
    assert [cause.type for cause in facts.causes] == ["RuntimeError", "openai.RateLimitError"]
