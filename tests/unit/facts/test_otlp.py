"""Spans and log records to facts: the recorded dialects against expectations from the scenario itself.

The loopback provider of the recordings answered with these bodies; what a dialect tells of them
is written from its source (see `dialects.toml`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from span_dumps import load, make_record, make_span, plain, spans_of

from otel_triage.facts.otlp import complete, read_exception_text, read_record, read_span
from otel_triage.model import BrokeAt, Cause, LLMError

TPM = (
    "Rate limit reached for gpt-4o in organization org-x on tokens per min (TPM): "
    "Limit 30000, Used 29000, Requested 2000. Please try again in 2s."
)
QUOTA = "You exceeded your current quota, please check your plan and billing details."
WINDOW = "This model's maximum context length is 8192 tokens."
SERVER = "The server had an error while processing your request. Sorry about that!"
MIDWAY = "The server had an error processing your request"
ANTHROPIC_TPM = "This request would exceed your organization's rate limit of 50,000 input tokens per minute"
PEER = "peer closed connection without sending complete message body (incomplete chunked read)"
LOOPBACK = "127.0.0.1"

# What an openai client that prints the message alone (3.x) leaves of each answer.
PRINTED = {
    "error_429_rate_limit": {"status": 429, "message": TPM, "retry_after_s": 2.0},
    "error_429_insufficient_quota": {"status": 429, "message": QUOTA},
    "error_400_context_length": {"status": 400, "message": WINDOW},
    "error_500": {"status": 500, "message": SERVER},
}
# And one that prints the whole body (2.x).
WHOLE = {
    "error_429_rate_limit": PRINTED["error_429_rate_limit"]
    | {"code": "rate_limit_exceeded", "type": "tokens"},
    "error_429_insufficient_quota": PRINTED["error_429_insufficient_quota"]
    | {"code": "insufficient_quota", "type": "insufficient_quota"},
    "error_400_context_length": PRINTED["error_400_context_length"]
    | {"code": "context_length_exceeded", "type": "invalid_request_error", "param": "messages"},
    "error_500": PRINTED["error_500"] | {"type": "server_error"},
}
CLASSES = {
    "error_429_rate_limit": "RateLimitError",
    "error_429_insufficient_quota": "RateLimitError",
    "error_400_context_length": "BadRequestError",
    "error_500": "InternalServerError",
}
OPENAI = {"provider": "openai", "operation": "chat", "model": "gpt-4o", "max_tokens": 50}


def _bare(error: LLMError) -> LLMError:
    return replace(error, causes=())


def _read(dialect: str, scenario: str, name: str | None = None) -> LLMError:
    found = [
        read_span(span, scope).error
        for scope, span in spans_of(load(dialect, scenario))
        if name in (None, span.name)
    ]
    assert len(found) == 1
    return found[0]


# By dialect: what its spans tell besides, the prefix of its error.type (None: it has none), what is printed.
OPENAI_DIALECTS: dict[str, tuple[dict[str, Any], str | None, dict[str, Any]]] = {
    "otel_genai_openai": ({"server_address": LOOPBACK}, "openai.", PRINTED),
    "otel_openai_v2_openai2": ({"server_address": LOOPBACK}, "", WHOLE),
    "openllmetry": ({"server_address": LOOPBACK, "stream": False}, "", PRINTED),
    "openllmetry_openai2": ({"server_address": LOOPBACK, "stream": False}, "", WHOLE),
    "openinference": ({"stream": False}, None, PRINTED),
    # It sets the response's model to the request's where there was no response.
    "logfire": ({"response_model": "gpt-4o"}, None, PRINTED),
}


@pytest.mark.parametrize("scenario", CLASSES)
@pytest.mark.parametrize("dialect", OPENAI_DIALECTS)
def test_openai_dialects(dialect: str, scenario: str) -> None:
    more, prefix, printed = OPENAI_DIALECTS[dialect]
    kind = None if prefix is None else prefix + CLASSES[scenario]
    expected = LLMError(**{**OPENAI, **more, **printed[scenario]}, error_type=kind)
    assert _bare(_read(dialect, scenario)) == expected


@pytest.mark.parametrize("dialect", ["openllmetry", "openinference", "logfire"])
def test_causes_come_from_the_stack_trace(dialect: str) -> None:
    [(scope, span)] = spans_of(load(dialect, "error_429_rate_limit"))
    read = read_span(span, scope)
    assert read.error.causes == (Cause("openai.RateLimitError", f"Error code: 429 - {TPM}"),)
    assert read.stacktrace.startswith("Traceback (most recent call last):")


@pytest.mark.parametrize(
    ("dialect", "scenario", "expected"),
    [
        (
            "otel_genai_openai",
            "stream_cut",
            LLMError(
                **OPENAI,
                stream=True,
                response_model="gpt-4o-0613",
                server_address=LOOPBACK,
                error_type="openai.APIConnectionError",
                message="Connection error.",
            ),
        ),
        (
            "otel_genai_openai",
            "stream_mid_error_event",
            LLMError(
                **OPENAI,
                stream=True,
                response_model="gpt-4o-0613",
                server_address=LOOPBACK,
                error_type="openai.APIError",
                message=MIDWAY,
            ),
        ),
        (
            "otel_openai_v2_openai2",
            "stream_cut",
            LLMError(
                **OPENAI,
                response_model="gpt-4o-0613",
                server_address=LOOPBACK,
                error_type="RemoteProtocolError",
                message=PEER,
            ),
        ),
        ("openinference", "stream_cut", LLMError(**OPENAI, stream=True, message="Connection error.")),
        ("openinference", "stream_mid_error_event", LLMError(**OPENAI, stream=True, message=MIDWAY)),
    ],
)
def test_broken_streams(dialect: str, scenario: str, expected: LLMError) -> None:
    assert _bare(_read(dialect, scenario)) == expected


def test_innermost_causes_of_a_cut_stream() -> None:
    error = _read("openinference_langchain", "stream_cut")
    assert [cause.type for cause in error.causes] == [
        "langchain_openai.chat_models.base.OpenAIConnectionError",
        "openai.APIConnectionError",
        "httpx2.RemoteProtocolError",
        "httpcore2.RemoteProtocolError",
        "h11._util.RemoteProtocolError",
    ]


NATIVE = {
    "provider": "anthropic",
    "operation": "chat",
    "model": "claude-x",
    "max_tokens": 10,
    "server_address": LOOPBACK,
}
STREAMED = NATIVE | {
    "stream": True,
    "status": 200,
    "response_model": "claude-x",
    "input_tokens": 5,
    "broke_at": BrokeAt.STREAM,
}


@pytest.mark.parametrize(
    ("scenario", "facts"),
    [
        ("error_429", NATIVE | {"status": 429, "type": "rate_limit_error", "request_id": "req_ant_429"}),
        ("error_500", NATIVE | {"status": 529, "type": "overloaded_error", "request_id": "req_ant_500"}),
        (
            "error_400_context",
            NATIVE | {"status": 400, "type": "invalid_request_error", "request_id": "req_ant_400"},
        ),
        ("stream_cut", STREAMED | {"error_type": "connection_error", "request_id": "req_ant_cut"}),
        ("stream_mid_error", STREAMED | {"type": "overloaded_error", "request_id": "req_ant_miderr"}),
    ],
)
def test_anthropic_sdk_tells_type_status_and_request_id_but_no_message(
    scenario: str, facts: dict[str, Any]
) -> None:
    expected = LLMError(**{"error_type": facts.get("type"), **facts})
    assert _read("openllmetry_anthropic", scenario, "anthropic.messages.create") == expected


@pytest.mark.parametrize(
    ("dialect", "name", "facts"),
    [
        ("openllmetry_anthropic", "anthropic.chat", {"error_type": "RateLimitError"}),
        ("openinference_anthropic", "messages.create", {}),
    ],
)
def test_anthropic_body_is_read_from_the_message(dialect: str, name: str, facts: dict[str, Any]) -> None:
    assert _bare(_read(dialect, "error_429", name)) == LLMError(
        provider="anthropic",
        operation="chat",
        model="claude-x",
        max_tokens=10,
        stream=False,
        status=429,
        type="rate_limit_error",
        request_id="req_ant",
        message=ANTHROPIC_TPM,
        **facts,
    )


def test_pydantic_ai_prints_the_inner_body() -> None:
    assert _bare(_read("pydantic_ai", "error_400_context", "chat gpt-4o")) == LLMError(
        provider="openai",
        operation="chat",
        model="gpt-4o",
        server_address=LOOPBACK,
        status=400,
        code="context_length_exceeded",
        type="invalid_request_error",
        param="messages",
        message=WINDOW,
    )


def test_botocore_code_request_id_and_attempts() -> None:
    assert _bare(_read("otel_botocore", "error_429")) == LLMError(
        provider="aws.bedrock",
        operation="chat",
        model="anthropic.claude-x",
        server_address=LOOPBACK,
        status=429,
        error_type="ThrottlingException",
        code="ThrottlingException",
        request_id="amz-429",
        attempts=1,
        message="Too many requests, please wait before trying again.",
    )


def test_plain_http_client_span() -> None:
    assert _read("otel_httpx2", "error_500") == LLMError(status=500, server_address=LOOPBACK)


# Texts as the clients print them (sources beside the patterns in otlp.py).
@pytest.mark.parametrize(
    ("text", "status", "code", "kind", "message"),
    [
        ("Error code: 502", 502, None, None, "Error code: 502"),
        ("status_code: 429, model_name: m, body: {'message': 'slow', 'code': 'c'}", 429, "c", None, "slow"),
        (
            'POST "https://x": 529  {"type":"error","error":{"type":"overloaded_error","message":"O"}}',
            529,
            None,
            "overloaded_error",
            "O",
        ),
        ('POST "https://x": 429 Too Many Requests {"error":{"message":"m"}}', 429, None, None, "m"),
        (
            "Client error '429 Too Many Requests' for url 'https://x/y'",
            429,
            None,
            None,
            "Client error '429 Too Many Requests' for url 'https://x/y'",
        ),
        (
            "500 Server Error: Internal Server Error for url: https://x",
            500,
            None,
            None,
            "500 Server Error: Internal Server Error for url: https://x",
        ),
        (
            "OpenAI API error: 429 Too Many Requests",
            429,
            None,
            None,
            "OpenAI API error: 429 Too Many Requests",
        ),
        ("429 Rate limit reached", 429, None, None, "Rate limit reached"),
        ("429: Rate limit reached", 429, None, None, "Rate limit reached"),
        (
            '529 {"type":"error","error":{"type":"overloaded_error","message":"O"}}',
            529,
            None,
            "overloaded_error",
            "O",
        ),
        ("Connection error.", None, None, None, "Connection error."),
        ("There are 500 reasons", None, None, None, "There are 500 reasons"),
        ("429", None, None, None, "429"),
    ],
)
def test_printed_texts(
    text: str, status: int | None, code: str | None, kind: str | None, message: str
) -> None:
    printed = read_exception_text(text)
    assert (printed.status, printed.body.code, printed.body.type, printed.body.message) == (
        status,
        code,
        kind,
        message,
    )


def test_a_wrapper_without_words_yields_to_its_cause() -> None:
    stack = (
        'Traceback (most recent call last):\n  File "/a/site-packages/openai/_client.py", line 1, in f\n'
        "    raise e\nopenai.RateLimitError: "
        "Error code: 429 - {'error': {'message': 'm', 'code': 'insufficient_quota'}}\n"
        "\nThe above exception was the direct cause of the following exception:\n\n"
        'Traceback (most recent call last):\n  File "/app/a.py", line 1, in f\n    g()\n'
        "app.AskFailed: no answer\n"
    )
    exception = {
        "exception.type": "app.AskFailed",
        "exception.message": "no answer",
        "exception.stacktrace": stack,
    }
    error = _bare(complete(LLMError(), exception))
    assert error == LLMError(status=429, code="insufficient_quota", message="m")


def test_javascript_writes_the_code_as_the_exceptions_type() -> None:
    # OTel JS recordException prefers `error.code`.
    told = complete(LLMError(), {"exception.type": "insufficient_quota", "exception.message": f"429 {QUOTA}"})
    assert _bare(told) == LLMError(status=429, code="insufficient_quota", message=QUOTA)


def test_what_the_tap_told_is_kept() -> None:
    facts = LLMError(error_id="e1", status=429, code="rate_limit_exceeded", message="own words")
    exception = {
        "exception.type": "x.Y",
        "exception.message": "Error code: 500 - {'error': {'message': 'm', 'code': 'c'}}",
    }
    assert _bare(complete(facts, exception)) == facts


def test_error_event_is_read_back_as_it_was_written() -> None:
    attributes = {
        "gen_ai.provider.name": "openai",
        "http.response.status_code": 429,
        "triage.error_id": "e1",
        "triage.provider.error_code": "insufficient_quota",
        "triage.attempt_statuses": [429, 429],
        "triage.broke_at": "headers",
        "triage.outcome": "failed",
        "exception.type": "openai.RateLimitError",
        "exception.message": QUOTA,
    }
    read = read_record(make_record(attributes, event="gen_ai.client.operation.exception"))
    assert read.error == LLMError(
        provider="openai",
        status=429,
        error_id="e1",
        code="insufficient_quota",
        attempt_statuses=(429, 429),
        broke_at=BrokeAt.HEADERS,
        outcome="failed",
        message=QUOTA,
        causes=(Cause("openai.RateLimitError", QUOTA),),
    )
    assert read.attributes["triage.attempt_statuses"] == (429, 429)


def test_every_kind_of_value_is_read() -> None:
    span = make_span({"a": True, "b": 1, "c": 1.5, "d": "x", "e": ["x"]})
    span.attributes.add(key="nothing")
    span.attributes.add(key="bytes").value.bytes_value = b"\0"
    span.attributes.add(key="map").value.kvlist_value.values.add(key="k").value.int_value = 1
    assert read_span(span).attributes == {
        "a": True,
        "b": 1,
        "c": 1.5,
        "d": "x",
        "e": ("x",),
        "nothing": None,
        "bytes": b"\0",
        "map": {"k": 1},
    }
    assert plain(make_span({"a": True}).attributes) == {"a": True}
