"""Sentry events, read: evidence, facts and identity, as the SDKs of several languages write them."""

from __future__ import annotations

from typing import Any

import pytest

from otel_triage.facts.evidence import Evidence
from otel_triage.facts.sentry_events import own_attributes, read_event
from otel_triage.model import Cause, LLMError

RATE_LIMIT = (
    "Error code: 429 - {'error': {'message': 'Rate limit reached', 'type': 'requests', 'param': None,"
    " 'code': 'rate_limit_exceeded'}}"
)


def frame(module: str, *, in_app: bool = False, **more: object) -> dict[str, Any]:
    return {"module": module, "function": "call", "lineno": 1, "in_app": in_app, **more}


def exception(name: str, value: str, module: str | None = None, *frames: dict[str, Any]) -> dict[str, Any]:
    return {"type": name, "value": value, "module": module, "stacktrace": {"frames": list(frames)}}


def event(*values: dict[str, Any], **more: Any) -> dict[str, Any]:
    """An error event; `values` innermost first, as the SDKs send them."""
    return {
        "event_id": "0123456789abcdef0123456789abcdef",
        "timestamp": "2026-11-24T10:00:00.500000Z",
        "platform": "python",
        "exception": {"values": list(values)},
        **more,
    }


OPENAI = event(
    exception("HTTPStatusError", "429", "httpx2", frame("httpx2._models")),
    exception(
        "RateLimitError", RATE_LIMIT, "openai", frame("app", in_app=True), frame("openai._base_client")
    ),
    sdk={"name": "sentry.python.fastapi"},
    environment="production",
    contexts={"trace": {"trace_id": "a" * 32, "span_id": "b" * 16, "parent_span_id": "c" * 16}},
)


def test_whole_event_of_python() -> None:
    read = read_event(OPENAI)
    assert read.evidence is Evidence.EXCEPTION
    assert (read.event_id, read.trace_id, read.span_id, read.parent_id) == (
        "0123456789abcdef0123456789abcdef",
        "a" * 32,
        "b" * 16,
        "c" * 16,
    )
    assert (read.at, read.environment, read.reporter) == (
        1795514400.5,
        "production",
        "sentry:sentry.python.fastapi:",
    )
    assert read.ours == {}
    assert read.error == LLMError(
        provider="openai",
        status=429,
        error_type="openai.RateLimitError",
        code="rate_limit_exceeded",
        type="requests",
        message="Rate limit reached",
        causes=(Cause("openai.RateLimitError", RATE_LIMIT), Cause("httpx2.HTTPStatusError", "429")),
        stacktrace=(
            '  File "", line 1, in call\n    \n  File "", line 1, in call\n    \n'
            '  File "", line 1, in call\n    '
        ),
    )


def node(module: str, path: str) -> dict[str, Any]:
    return frame(module, filename=path, abs_path=path)


@pytest.mark.parametrize(
    ("given", "evidence", "provider"),
    [
        # Node: openai's errors are all `Error`; the frames tell
        (
            event(exception("Error", "429 Rate limit", None, node("openai.core:error", "/srv/a/core.js"))),
            Evidence.EXCEPTION,
            "openai",
        ),
        (
            event(exception("Error", "529 x", None, node("@anthropic-ai.sdk:client", "dist/client.js"))),
            Evidence.EXCEPTION,
            "anthropic",
        ),
        (
            event(exception("Error", "x", None, node("", "file:///srv/node_modules/openai/core.mjs"))),
            Evidence.EXCEPTION,
            "openai",
        ),
        (event(exception("AI_APICallError", "Too many requests")), Evidence.EXCEPTION, None),
        # Java
        (
            event(exception("RateLimitException", "429: slow down", "com.openai.errors")),
            Evidence.EXCEPTION,
            "openai",
        ),
        # Go: a bare list, no frames, one class name for all
        (
            {"exception": [{"type": "*apierror.Error", "value": "OpenAI API error: 429 Too Many Requests"}]},
            Evidence.HOST,
            "openai",
        ),
        (
            {
                "exception": [
                    {
                        "type": "*apierror.Error",
                        "value": 'POST "https://api.anthropic.com/v1/messages": 529  {"type":"error"}',
                    }
                ]
            },
            Evidence.HOST,
            "anthropic",
        ),
        # Sentry's own integrations, by what captured and by the span around
        (
            event({**exception("ValueError", "x"), "mechanism": {"type": "cohere", "handled": False}}),
            Evidence.CALL,
            "cohere",
        ),
        (
            event(
                exception("ValueError", "x"),
                contexts={"trace": {"op": "gen_ai.chat", "data": {"gen_ai.system": "openai"}}},
            ),
            Evidence.CALL,
            "openai",
        ),
        # @sentry/node 11: from inside a stream
        (
            event({**exception("Error", "x"), "mechanism": {"type": "auto.ai.openai.stream-response"}}),
            Evidence.CALL,
            "openai",
        ),
        (
            event({**exception("Error", "x"), "mechanism": {"type": "auto.ai.anthropic.stream_error"}}),
            Evidence.CALL,
            "anthropic",
        ),
        # the SDK's own code failed while it handled an answer
        (
            event(
                exception("RateLimitError", RATE_LIMIT, "openai", frame("openai._base_client")),
                exception("KeyError", "'x'", None, frame("app", in_app=True), frame("openai._response")),
            ),
            Evidence.EXCEPTION,
            "openai",
        ),
        # a member of a group, next to one that is a mistake
        (
            event(
                exception("RateLimitError", RATE_LIMIT, "openai", frame("openai._base_client")),
                {**exception("KeyError", "'x'"), "mechanism": {"exception_id": 1, "parent_id": 0}},
                {
                    **exception("ExceptionGroup", "all failed (2 sub-exceptions)"),
                    "mechanism": {"exception_id": 0, "is_exception_group": True},
                },
            ),
            Evidence.EXCEPTION,
            "openai",
        ),
        # raised anew under a name of the application's
        (
            event(
                exception("RateLimitError", RATE_LIMIT, "openai", frame("openai._base_client")),
                exception("AnswerError", "no answer", "app", frame("app", in_app=True)),
            ),
            Evidence.EXCEPTION,
            "openai",
        ),
        # a legacy single exception
        (
            {"exception": {"type": "APIError", "module": "anthropic", "value": "x"}},
            Evidence.EXCEPTION,
            "anthropic",
        ),
    ],
)
def test_evidence(given: dict[str, Any], evidence: Evidence, provider: str | None) -> None:
    read = read_event(given)
    assert (read.evidence, read.error.provider) == (evidence, provider)


CRUMB = {
    "category": "http",
    "data": {"url": "https://api.openai.com/v1/chat/completions", "status_code": 429},
}


@pytest.mark.parametrize(
    "given",
    [
        {},
        event(exception("OperationalError", "too many clients", "psycopg2", frame("psycopg2"))),
        # breadcrumbs and tags tell of what was before
        event(exception("ValueError", "x"), breadcrumbs={"values": [CRUMB]}),
        event(exception("ValueError", "x"), tags={"gen_ai.request.model": "gpt-4o"}),
        # a bug in the code that handled the failed call, which is told by an event of its own
        event(
            exception("RateLimitError", RATE_LIMIT, "openai", frame("openai._base_client")),
            exception("KeyError", "'fallback'", None, frame("app", in_app=True)),
        ),
        # an integration of a framework, which captures failures of tools too
        event({**exception("Error", "x"), "mechanism": {"type": "auto.ai.vercelai"}}),
        event({**exception("Error", "x"), "mechanism": {"type": "auto.ai.openaix"}}),
        # an agent's tool failed inside of its own span
        event(exception("ValueError", "x"), contexts={"trace": {"op": "gen_ai.execute_tool"}}),
        # the application's own module has a library's name
        event(exception("ValueError", "x", None, frame("openai.views", in_app=True))),
        event(exception("Error", "x", None, frame("anthropic:client", in_app=True))),
        # a context of the application's that has our name
        event(exception("ValueError", "x"), contexts={"triage": {"category": "billing"}}),
        # no error event
        {**OPENAI, "type": "transaction"},
        {**OPENAI, "type": "feedback"},
        # a log line about it, without the exception
        {"logentry": {"formatted": "openai.RateLimitError: 429"}, "level": "error"},
        # the caller gave up
        event(exception("AbortError", "Request was aborted.", None, node("openai:core", "core.js"))),
    ],
)
def test_no_evidence(given: dict[str, Any]) -> None:
    assert read_event(given).evidence is Evidence.NONE


def test_what_our_integration_told_stands_first() -> None:
    told = {
        "category": "rate_limit", "reason": "tokens", "source": "rules", "error_id": "e1",
        "retry_after_s": 7.5, "http.response.status_code": 429, "gen_ai.provider.name": "azure.ai.openai",
        "exception.message": "cleaned", "provider.error_code": "429", "type": "triage", "foreign": 1,
    }  # fmt: skip
    given = event(*OPENAI["exception"]["values"], contexts={"triage": told})
    read = read_event(given)
    assert read.evidence is Evidence.CALL
    assert own_attributes(given) == {
        "triage.category": "rate_limit", "triage.reason": "tokens", "triage.source": "rules",
        "triage.error_id": "e1", "triage.retry_after_s": 7.5, "http.response.status_code": 429,
        "gen_ai.provider.name": "azure.ai.openai", "exception.message": "cleaned",
        "triage.provider.error_code": "429",
    }  # fmt: skip
    error = read.error
    assert (error.error_id, error.retry_after_s, error.provider, error.code, error.message) == (
        "e1", 7.5, "azure.ai.openai", "429", "cleaned",
    )  # fmt: skip
    assert error.type == "requests", "what the tap did not know is read from the text"


def test_the_status_of_a_server_span_is_not_the_calls() -> None:
    server = {"op": "http.server", "data": {"http.response.status_code": 500, "server.address": "shop"}}
    error = read_event(event(*OPENAI["exception"]["values"], contexts={"trace": server})).error
    assert (error.status, error.server_address) == (429, None)


def test_extra_error_data_of_javascript() -> None:
    given = event(
        exception("Error", "429 slow down", None, node("openai.core:error", "core.js")),
        contexts={"Error": {"status": 429, "code": "insufficient_quota", "type": "insufficient_quota"}},
    )
    error = read_event(given).error
    assert (error.status, error.code) == (429, "insufficient_quota")


@pytest.mark.parametrize(
    "odd", [None, 1, "x", [], [None], {}, {"values": None}, {"values": [1, {"type": 2}]}]
)
@pytest.mark.parametrize(
    "member", ["exception", "contexts", "tags", "sdk", "timestamp", "event_id", "environment"]
)
def test_members_of_any_kind(member: str, odd: object) -> None:
    assert read_event({**OPENAI, member: odd}).error is not None


def test_odd_frames_and_traces() -> None:
    odd = {"type": "E", "value": 5, "module": 7, "mechanism": [], "stacktrace": {"frames": [None, {}, 3]}}
    given = event(
        odd, contexts={"trace": {"data": {"gen_ai.x": [1]}, "op": 3, "trace_id": 4}}, tags=[["a"], 1]
    )
    assert read_event(given).evidence is Evidence.NONE
