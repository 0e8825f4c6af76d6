"""The openai SDK (2.x on httpx, 3.x on httpx2), sync and async, against the loopback provider.

Expected facts are written from the provider's documented bodies and headers (their sources stand in
`otel_triage/demo/scenarios.toml`) and from the SDK's documented exceptions.
"""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest

HTTP = "httpx2" if int(openai.__version__.split(".")[0]) >= 3 else "httpx"

CHAT = {
    "gen_ai.provider.name": "openai",
    "gen_ai.operation.name": "chat",
    "gen_ai.request.model": "gpt-4o",
    "server.address": "127.0.0.1",
    "triage.attempts": 1,
}
# The prompt below has 42 characters, 42 // 4 tokens by the rule of thumb.
PROMPT = "Tell me about the harbour towns of Jutland"
FAILED = {"event_name": "gen_ai.client.operation.exception", "triage.outcome": "failed"}
UNKNOWN_INPUT = {"triage.input_tokens_estimate": 10}
SOFT = {"event_name": "triage.soft_failure", "triage.outcome": "soft", "http.response.status_code": 200}
SOFT |= {"triage.attempt_statuses": (200,)}
STREAM = {"gen_ai.request.stream": True}


def answered(status: int, error: str) -> dict[str, Any]:
    """The facts of a refused request."""
    return (
        CHAT
        | FAILED
        | UNKNOWN_INPUT
        | {
            "http.response.status_code": status,
            "triage.attempt_statuses": (status,),
            "error.type": f"openai.{error}",
            "exception.type": f"openai.{error}",
        }
    )


def said(code: str | None, kind: str | None, message: str, param: str | None = None) -> dict[str, Any]:
    """What stands in the provider's error body."""
    found = {
        "triage.provider.error_code": code,
        "triage.provider.error_type": kind,
        "triage.provider.error_param": param,
        "exception.message": message,
    }
    return {name: value for name, value in found.items() if value is not None}


def verdict(category: str, reason: str, retryable: str, owner: str, severity: str) -> dict[str, Any]:
    return {
        "triage.category": category,
        "triage.reason": reason,
        "triage.retryable": retryable,
        "triage.owner": owner,
        "triage.severity": severity,
        "triage.source": "rules",
    }


LIMITS = "Visit https://platform.openai.com/account/rate-limits to learn more."

# scenario, stream -> facts and verdict on the error event, all of them but those in VOLATILE
EXPECTED: dict[tuple[str, bool], dict[str, Any]] = {
    ("openai.chat.rate_limit_tokens", False): answered(429, "RateLimitError")
    | said(
        "rate_limit_exceeded",
        "tokens",
        "Rate limit reached for gpt-4o in organization org-demo on tokens per min (TPM): Limit 30000, "
        f"Used 18928, Requested 11159. Please try again in 174ms. {LIMITS}",
    )
    | {"triage.retry_after_s": 0.174}
    | verdict("rate_limit", "tokens", "yes", "account", "low"),
    ("openai.chat.insufficient_quota", False): answered(429, "RateLimitError")
    | said(
        "insufficient_quota",
        "insufficient_quota",
        "You exceeded your current quota, please check your plan and billing details. For more information "
        "on this error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors.",
    )
    | verdict("rate_limit", "quota_exhausted", "no", "account", "high"),
    ("openai.chat.invalid_api_key", False): answered(401, "AuthenticationError")
    | said(
        "invalid_api_key",
        "invalid_request_error",
        "Incorrect API key provided: [secret]. You can find your API key at "
        "https://platform.openai.com/account/api-keys.",
    )
    | verdict("authentication_error", "invalid_key", "no", "account", "high"),
    ("openai.chat.context_length", False): answered(400, "BadRequestError")
    | said(
        "context_length_exceeded",
        "invalid_request_error",
        "This model's maximum context length is 128000 tokens. However, your messages resulted in 204308 "
        "tokens. Please reduce the length of the messages.",
        "messages",
    )
    | {"triage.context_limit": 128000, "triage.requested_tokens": 204308}
    | verdict("invalid_request", "context_length", "no", "application", "medium"),
    ("openai.chat.bad_gateway", False): answered(502, "InternalServerError")
    | said(None, None, "502 Bad Gateway")
    | verdict("provider_error", "unavailable", "yes", "provider", "medium"),
    ("openai.chat.drop", False): CHAT
    | FAILED
    | UNKNOWN_INPUT
    | {
        "error.type": "openai.APIConnectionError",
        "exception.type": "openai.APIConnectionError",
        "exception.message": "Connection error.",
        "triage.attempt_statuses": (0,),
        "triage.broke_at": "headers",
    }
    | verdict("network_error", "connection_reset", "yes", "network", "low"),
    ("openai.chat.length", False): CHAT
    | SOFT
    | {
        "gen_ai.response.model": "gpt-4o",
        "gen_ai.response.finish_reasons": ("length",),
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 3,
    }
    | verdict("prompt_issue", "output_truncated", "no", "prompt", "low"),
    ("openai.chat.empty", True): CHAT
    | SOFT
    | STREAM
    | UNKNOWN_INPUT
    | {
        "gen_ai.response.model": "gpt-4o",
        "gen_ai.response.finish_reasons": ("stop",),
        "triage.provider.error_code": "empty_output",
        "triage.stream.chunks": 3,
    }
    | verdict("prompt_issue", "empty_output", "yes", "prompt", "low"),
    ("openai.chat.cut_stream", True): CHAT
    | FAILED
    | STREAM
    | UNKNOWN_INPUT
    | {
        "http.response.status_code": 200,
        "triage.attempt_statuses": (200,),
        "gen_ai.response.model": "gpt-4o",
        "error.type": f"{HTTP}.RemoteProtocolError",
        "exception.type": f"{HTTP}.RemoteProtocolError",
        "exception.message": "peer closed connection without sending complete message body "
        "(incomplete chunked read)",
        "triage.broke_at": "stream",
        "triage.stream.chunks": 3,
    }
    | verdict("network_error", "stream_interrupted", "yes", "network", "low"),
    ("openai.chat.stream_error", True): CHAT
    | FAILED
    | STREAM
    | UNKNOWN_INPUT
    | {
        "http.response.status_code": 200,
        "triage.attempt_statuses": (200,),
        "gen_ai.response.model": "gpt-4o",
        "error.type": "openai.APIError",
        "exception.type": "openai.APIError",
        "triage.stream.chunks": 4,
    }
    | said(None, "server_error", "The server had an error while processing your request. Sorry about that!")
    | verdict("provider_error", "internal", "yes", "provider", "medium"),
}

# Different at each call, or spelled out by tests of their own.
VOLATILE = {
    "trace_id",
    "span_id",
    "triage.call_id",
    "triage.error_id",
    "triage.account",
    "triage.provider.request_id",
    "triage.confidence",
    "triage.fingerprint",
    "triage.version",
    "triage.root_cause",
    "triage.suggested_action",
    "exception.stacktrace",
}


def facts(event: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in event.items()
        if name not in VOLATILE and not name.startswith("triage.ratelimit.")
    }


def ask(url: str, scenario: str, *, stream: bool, retries: int = 0) -> None:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="sk-demo-0123456789abcdef", max_retries=retries)
    with client:
        answer = client.with_options(timeout=1.0).chat.completions.create(
            model="gpt-4o",
            messages=[{"role": "user", "content": PROMPT}],
            stream=stream,
            extra_headers={"x-demo-scenario": scenario},
        )
        for _ in answer if stream else ():
            pass


async def ask_async(url: str, scenario: str, *, stream: bool, retries: int = 0) -> None:
    client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="sk-demo-0123456789abcdef", max_retries=retries)
    async with client:
        answer = await client.with_options(timeout=1.0).chat.completions.create(
            model="gpt-4o",
            messages=[{"role": "user", "content": PROMPT}],
            stream=stream,
            extra_headers={"x-demo-scenario": scenario},
        )
        if stream:
            async for _ in answer:
                pass


def run(mode: str, url: str, scenario: str, *, stream: bool, retries: int = 0) -> BaseException | None:
    """Makes one call and returns what the application got for an exception."""
    try:
        if mode == "sync":
            ask(url, scenario, stream=stream, retries=retries)
        else:
            asyncio.run(ask_async(url, scenario, stream=stream, retries=retries))
    except Exception as exc:
        return exc
    return None


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize(("scenario", "stream"), EXPECTED)
def test_error_event(provider: Any, telemetry: Any, scenario: str, stream: bool, mode: str) -> None:
    run(mode, provider.url, scenario, stream=stream)
    event = telemetry.event()
    assert facts(event) == EXPECTED[scenario, stream]
    own = provider.requests[-1].request_id if "http.response.status_code" in event else None
    # A gateway in front of the provider has an id of its own only: Cloudflare's.
    gateway = scenario == "openai.chat.bad_gateway"
    assert event.get("triage.provider.request_id") == ("8d65e0a58f7df577-NRT" if gateway else own)
    assert PROMPT not in str(event)

    (span,) = telemetry.spans
    failed = EXPECTED[scenario, stream]["triage.outcome"] == "failed"
    assert span.status.status_code.name == ("ERROR" if failed else "UNSET")
    assert span.attributes["triage.error_id"] == event["triage.error_id"]
    assert (span.context.trace_id, span.context.span_id) == (event["trace_id"], event["span_id"])
    assert span.attributes["triage.category"] == event["triage.category"]
    assert telemetry.calls() == {"failed" if failed else "soft": 1}


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("scenario", ["openai.chat.ok", "openai.chat.ok_gzip"])
def test_a_good_call_is_counted_and_nothing_else(
    provider: Any, telemetry: Any, scenario: str, stream: bool, mode: str
) -> None:
    assert run(mode, provider.url, scenario, stream=stream) is None
    assert (telemetry.spans, telemetry.events) == ([], [])
    assert telemetry.calls() == {"ok": 1}


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_three_refused_attempts_are_one_failed_call(provider: Any, telemetry: Any, mode: str) -> None:
    before = len(provider.requests)
    exc = run(mode, provider.url, "openai.chat.rate_limit_tokens", stream=False, retries=2)
    assert isinstance(exc, openai.RateLimitError)
    assert len(provider.requests) - before == 3
    event = telemetry.event()
    assert (event["triage.attempts"], event["triage.attempt_statuses"]) == (3, (429, 429, 429))
    assert event["http.request.resend_count"] == 2
    assert len(telemetry.spans) == 1
    assert telemetry.calls() == {"failed": 1}


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("stream", [False, True])
def test_an_absorbed_retry_is_no_failure(provider: Any, telemetry: Any, mode: str, stream: bool) -> None:
    scenario = "openai.chat.rate_limit_tokens,openai.chat.ok"
    assert run(mode, provider.url, scenario, stream=stream, retries=1) is None
    assert (telemetry.spans, telemetry.events) == ([], [])
    assert telemetry.calls() == {"absorbed": 1}


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_stream_that_the_caller_leaves_is_cancelled(provider: Any, telemetry: Any, mode: str) -> None:
    options: dict[str, Any] = {
        "model": "gpt-4o",
        "messages": [{"role": "user", "content": PROMPT}],
        "stream": True,
    }

    def leave() -> None:
        with openai.OpenAI(base_url=f"{provider.url}/v1", api_key="k") as client:
            answer = client.chat.completions.create(**options)
            next(iter(answer))
            answer.close()

    async def leave_async() -> None:
        async with openai.AsyncOpenAI(base_url=f"{provider.url}/v1", api_key="k") as client:
            answer = await client.chat.completions.create(**options)
            await anext(aiter(answer))
            await answer.close()

    leave() if mode == "sync" else asyncio.run(leave_async())
    assert telemetry.events == []
    assert telemetry.calls() == {"cancelled": 1}


def test_a_cancelled_task_is_cancelled(provider: Any, telemetry: Any) -> None:
    async def cancel() -> None:
        call = asyncio.create_task(ask_async(provider.url, "openai.chat.slow", stream=False))
        before = len(provider.requests)
        while len(provider.requests) == before:
            await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(cancel())
    assert (telemetry.spans, telemetry.events) == ([], [])
    assert telemetry.calls() == {"cancelled": 1}


@pytest.mark.parametrize("wrapper", ["with_raw_response", "with_streaming_response"])
def test_raw_responses(provider: Any, telemetry: Any, wrapper: str) -> None:
    options: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": PROMPT}]}
    options["extra_headers"] = {"x-demo-scenario": "openai.chat.length"}
    with openai.OpenAI(base_url=f"{provider.url}/v1", api_key="k") as client:
        create = getattr(client.chat.completions, wrapper).create
        if wrapper == "with_raw_response":
            assert create(**options).parse().choices[0].finish_reason == "length"
        else:
            with create(**options) as response:
                assert response.parse().choices[0].finish_reason == "length"
    assert telemetry.event()["gen_ai.response.finish_reasons"] == ("length",)
    assert telemetry.calls() == {"soft": 1}


@pytest.mark.parametrize(
    ("scenario", "stream", "category", "reason"),
    [
        ("openai.responses.incomplete_max_output_tokens", False, "prompt_issue", "output_truncated"),
        ("openai.responses.incomplete_max_output_tokens", True, "prompt_issue", "output_truncated"),
        ("openai.responses.failed", False, "provider_error", "internal"),
        ("openai.responses.failed", True, "provider_error", "internal"),
        ("openai.responses.failed_rate_limit", True, "rate_limit", "tokens"),
        ("openai.responses.stream_error", True, "provider_error", "internal"),
        ("openai.responses.cut_stream", True, "network_error", "stream_interrupted"),
        ("openai.responses.refusal", True, "prompt_issue", "refusal"),
    ],
)
def test_responses_api(
    provider: Any, telemetry: Any, scenario: str, stream: bool, category: str, reason: str
) -> None:
    with openai.OpenAI(base_url=f"{provider.url}/v1", api_key="k", max_retries=0) as client:
        try:
            answer = client.responses.create(
                model="gpt-4o", input=PROMPT, stream=stream, extra_headers={"x-demo-scenario": scenario}
            )
            for _ in answer if stream else ():
                pass
        except Exception:  # openai 2.x lets httpx's own exceptions out of a stream
            pass
    event = telemetry.event()
    assert (event["triage.category"], event["triage.reason"]) == (category, reason)
    assert (event["gen_ai.operation.name"], event["triage.attempts"]) == ("chat", 1)
