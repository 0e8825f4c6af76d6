"""The anthropic SDK, which traces itself: the verdict goes on its own span.

Expected records from docs.anthropic.com/en/api/errors and …/messages-streaming (sources of each body:
`otel_triage/demo/scenarios.toml`).
"""

from __future__ import annotations

import asyncio
from typing import Any

import anthropic
import pytest

PROMPT = "Tell me about the harbour towns of Jutland"
SPAN = ("anthropic.messages.create", "com.anthropic.sdk.python")

# scenario, stream -> status, provider's type, outcome, category, reason
CASES: dict[tuple[str, bool], tuple[int | None, str | None, str, str, str]] = {
    ("rate_limit_input_tokens", False): (429, "rate_limit_error", "failed", "rate_limit", "tokens"),
    ("credit_balance", False): (
        400,
        "invalid_request_error",
        "failed",
        "rate_limit",
        "quota_exhausted",
    ),
    ("invalid_api_key", False): (
        401,
        "authentication_error",
        "failed",
        "authentication_error",
        "invalid_key",
    ),
    ("prompt_too_long", False): (
        400,
        "invalid_request_error",
        "failed",
        "invalid_request",
        "context_length",
    ),
    ("request_too_large", False): (
        413,
        "request_too_large",
        "failed",
        "invalid_request",
        "payload_too_large",
    ),
    ("overloaded", False): (529, "overloaded_error", "failed", "provider_error", "overloaded"),
    ("api_error", False): (500, "api_error", "failed", "provider_error", "internal"),
    ("slow", False): (None, None, "failed", "timeout", "read"),
    ("drop", False): (None, None, "failed", "network_error", "connection_reset"),
    ("stream_error", True): (200, "overloaded_error", "failed", "provider_error", "overloaded"),
    ("cut_stream", True): (200, None, "failed", "network_error", "stream_interrupted"),
    ("stall_stream", True): (200, None, "failed", "timeout", "stream_stall"),
    ("max_tokens", False): (200, None, "soft", "prompt_issue", "output_truncated"),
    ("max_tokens", True): (200, None, "soft", "prompt_issue", "output_truncated"),
    ("refusal", True): (200, None, "soft", "prompt_issue", "refusal"),
    ("empty", False): (200, None, "soft", "prompt_issue", "empty_output"),
}


def ask(url: str, scenario: str, *, stream: bool) -> None:
    options = {
        "model": "claude-opus-4-8",
        "max_tokens": 64,
        "messages": [{"role": "user", "content": PROMPT}],
    }
    options["extra_headers"] = {"x-demo-scenario": f"anthropic.messages.{scenario}"}
    with anthropic.Anthropic(base_url=url, api_key="sk-ant-demo", max_retries=0, timeout=1.0) as client:
        answer = client.messages.create(stream=stream, **options)
        for _ in answer if stream else ():
            pass


async def ask_async(url: str, scenario: str, *, stream: bool) -> None:
    options = {
        "model": "claude-opus-4-8",
        "max_tokens": 64,
        "messages": [{"role": "user", "content": PROMPT}],
    }
    options["extra_headers"] = {"x-demo-scenario": f"anthropic.messages.{scenario}"}
    client = anthropic.AsyncAnthropic(base_url=url, api_key="sk-ant-demo", max_retries=0, timeout=1.0)
    async with client:
        answer = await client.messages.create(stream=stream, **options)
        if stream:
            async for _ in answer:
                pass


def run(mode: str, url: str, scenario: str, *, stream: bool) -> None:
    try:
        if mode == "sync":
            ask(url, scenario, stream=stream)
        else:
            asyncio.run(ask_async(url, scenario, stream=stream))
    except Exception:  # the SDK lets the HTTP library's exceptions out of a stream
        pass


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize(("scenario", "stream"), CASES)
def test_one_span_one_event(provider: Any, telemetry: Any, scenario: str, stream: bool, mode: str) -> None:
    status, kind, outcome, category, reason = CASES[scenario, stream]
    run(mode, provider.url, scenario, stream=stream)
    event = telemetry.event()
    assert {
        "status": event.get("http.response.status_code"),
        "type": event.get("triage.provider.error_type"),
        "outcome": event["triage.outcome"],
        "verdict": (event["triage.category"], event["triage.reason"]),
        "provider": event["gen_ai.provider.name"],
        "model": event["gen_ai.request.model"],
        "max_tokens": event["gen_ai.request.max_tokens"],
    } == {
        "status": status,
        "type": kind,
        "outcome": outcome,
        "verdict": (category, reason),
        "provider": "anthropic",
        "model": "claude-opus-4-8",
        "max_tokens": 64,
    }
    (span,) = telemetry.spans
    assert (span.name, span.instrumentation_scope.name) == SPAN
    assert (event["trace_id"], event["span_id"]) == (span.context.trace_id, span.context.span_id)
    assert telemetry.calls() == {outcome: 1}
    assert span.attributes["triage.error_id"] == event["triage.error_id"]


def test_tokens_of_a_broken_stream(provider: Any, telemetry: Any) -> None:
    run("sync", provider.url, "cut_stream", stream=True)
    event = telemetry.event()
    # message_start carries the input's size, so a broken call still says what it cost
    assert event["gen_ai.usage.input_tokens"] == 13
    assert "triage.input_tokens_estimate" not in event
