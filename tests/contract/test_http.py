"""Bare httpx and httpx2: the exchange is the call."""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
from typing import Any

import pytest
from opentelemetry import trace

from otel_triage.capture.calls import current_attempt, current_call

PROMPT = "Tell me about the harbour towns of Jutland"
BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": PROMPT}]}


@pytest.fixture(params=["httpx", "httpx2"])
def http(request: pytest.FixtureRequest) -> Any:
    return importlib.import_module(request.param)


def url(provider: Any) -> str:
    return f"{provider.url}/v1/chat/completions"


def wants(scenario: str) -> dict[str, str]:
    return {
        "x-demo-scenario": f"openai.chat.{scenario}",
        "authorization": "Bearer sk-demo-0123456789abcdef",
    }


def verdict(event: dict[str, Any]) -> tuple[str, str]:
    return event["triage.category"], event["triage.reason"]


def test_raise_for_status(provider: Any, telemetry: Any, http: Any) -> None:
    with http.Client() as client, pytest.raises(http.HTTPStatusError):
        client.post(url(provider), json=BODY, headers=wants("insufficient_quota")).raise_for_status()
    event = telemetry.event()
    assert verdict(event) == ("rate_limit", "quota_exhausted")
    assert event["error.type"] == "429"
    assert "exception.type" not in event
    assert len(event["triage.account"]) == len("demo-org")
    assert telemetry.calls() == {"failed": 1}


def test_async_raise_for_status(provider: Any, telemetry: Any, http: Any) -> None:
    async def ask() -> None:
        async with http.AsyncClient() as client:
            answer = await client.post(url(provider), json=BODY, headers=wants("overloaded"))
            with pytest.raises(http.HTTPStatusError):
                answer.raise_for_status()

    asyncio.run(ask())
    assert verdict(telemetry.event()) == ("provider_error", "overloaded")


def test_connection_refused(telemetry: Any, http: Any, unused_tcp_port: int) -> None:
    with http.Client() as client, pytest.raises(http.ConnectError):
        client.post(f"http://127.0.0.1:{unused_tcp_port}/v1/chat/completions", json=BODY)
    event = telemetry.event()
    assert verdict(event) == ("network_error", "connection_refused")
    assert event["triage.broke_at"] == "connect"
    assert event["exception.type"] == f"{http.__name__}.ConnectError"
    (span,) = telemetry.spans
    assert span.attributes["triage.error_id"] == event["triage.error_id"]


def test_a_body_cut_off_is_broken_at_its_body(provider: Any, telemetry: Any, http: Any) -> None:
    with http.Client() as client, pytest.raises(http.RemoteProtocolError):
        client.post(url(provider), json=BODY, headers=wants("cut_body"))
    assert telemetry.event()["triage.broke_at"] == "body"


def test_stream_read_to_its_end(provider: Any, telemetry: Any, http: Any) -> None:
    with http.Client() as client:
        body = BODY | {"stream": True}
        with client.stream("POST", url(provider), json=body, headers=wants("ok")) as answer:
            lines = [line for line in answer.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    assert telemetry.events == []
    assert telemetry.calls() == {"ok": 1}


@pytest.mark.parametrize("scenario", ["cut_stream", "stream_error"])
def test_stream_that_fails(provider: Any, telemetry: Any, http: Any, scenario: str) -> None:
    with http.Client() as client:
        body = BODY | {"stream": True}
        with client.stream("POST", url(provider), json=body, headers=wants(scenario)) as answer:
            try:
                for _ in answer.iter_lines():
                    pass
            except http.RemoteProtocolError:
                assert scenario == "cut_stream"
    expected = {
        "cut_stream": ("network_error", "stream_interrupted"),
        "stream_error": ("provider_error", "internal"),
    }
    assert verdict(telemetry.event()) == expected[scenario]
    assert telemetry.calls() == {"failed": 1}


@pytest.mark.parametrize("scenario", ["cut_stream", "stream_error"])
def test_async_stream_that_fails(provider: Any, telemetry: Any, http: Any, scenario: str) -> None:
    async def ask() -> None:
        async with http.AsyncClient() as client:
            body = BODY | {"stream": True}
            async with client.stream("POST", url(provider), json=body, headers=wants(scenario)) as answer:
                try:
                    async for _ in answer.aiter_bytes():
                        pass
                except http.RemoteProtocolError:
                    assert scenario == "cut_stream"

    asyncio.run(ask())
    assert telemetry.calls() == {"failed": 1}
    telemetry.event()


def test_stream_left_early_is_cancelled(provider: Any, telemetry: Any, http: Any) -> None:
    with http.Client() as client:
        body = BODY | {"stream": True}
        with client.stream("POST", url(provider), json=body, headers=wants("ok")) as answer:
            next(answer.iter_lines())
    assert telemetry.events == []
    assert telemetry.calls() == {"cancelled": 1}


def test_refused_stream_whose_body_is_read(provider: Any, telemetry: Any, http: Any) -> None:
    with http.Client() as client:
        body = BODY | {"stream": True}
        with client.stream("POST", url(provider), json=body, headers=wants("context_length")) as answer:
            assert b"context_length_exceeded" in answer.read()
    assert verdict(telemetry.event()) == ("invalid_request", "context_length")


def test_refused_stream_whose_body_is_not_read(provider: Any, telemetry: Any, http: Any) -> None:
    with http.Client() as client:
        body = BODY | {"stream": True}
        with client.stream("POST", url(provider), json=body, headers=wants("context_length")) as answer:
            assert answer.status_code == 400
    event = telemetry.event()
    assert (event["triage.category"], event["http.response.status_code"]) == ("invalid_request", 400)
    assert telemetry.calls() == {"failed": 1}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/chat/completions", {"messages": []}),  # no model: the path alone is no evidence
        ("POST", "/api/orders", {"model": "shoe"}),
        ("GET", "/v1/responses", None),
    ],
)
def test_other_traffic_is_not_ours(
    provider: Any, telemetry: Any, http: Any, method: str, path: str, body: Any
) -> None:
    with http.Client() as client:
        client.request(method, provider.url + path, json=body)
    assert (telemetry.spans, telemetry.events, telemetry.calls()) == ([], [], {})


def test_nothing_stays_behind_in_the_context(provider: Any, telemetry: Any, http: Any) -> None:
    with http.Client() as client:
        client.post(url(provider), json=BODY, headers=wants("server_error"))
    assert (current_attempt.get(), current_call.get()) == (None, None)


def test_an_unsampled_parent_gets_no_span_and_still_an_event(
    provider: Any, telemetry: Any, http: Any
) -> None:
    context = trace.SpanContext(
        trace_id=0x1234, span_id=0x5678, is_remote=False, trace_flags=trace.TraceFlags(0)
    )
    with trace.use_span(trace.NonRecordingSpan(context)), http.Client() as client:
        client.post(url(provider), json=BODY, headers=wants("server_error"))
    assert telemetry.spans == []
    event = telemetry.event()
    assert (event["trace_id"], event["span_id"]) == (0x1234, 0x5678)


def test_the_span_is_made_below_the_applications_own(provider: Any, telemetry: Any, http: Any) -> None:
    with trace.get_tracer("app").start_as_current_span("handle") as parent, http.Client() as client:
        client.post(url(provider), json=BODY, headers=wants("server_error"))
    made, around = telemetry.spans
    assert (made.name, made.kind.name, made.parent.span_id) == (
        "chat gpt-4o",
        "CLIENT",
        parent.get_span_context().span_id,
    )
    assert around.start_time <= made.start_time <= made.end_time <= around.end_time
    assert not any(name.startswith("triage.") for name in around.attributes)


def test_the_existing_llm_span_is_used(provider: Any, telemetry: Any, http: Any) -> None:
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
    }
    tracer = trace.get_tracer("some.instrumentation")
    with tracer.start_as_current_span("chat gpt-4o", attributes=attributes), http.Client() as client:
        client.post(url(provider), json=BODY, headers=wants("server_error"))
    (span,) = telemetry.spans
    event = telemetry.event()
    ours = {name for name in span.attributes if name.startswith("triage.")}
    assert ours == {
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
        "triage.version",
        "triage.error_id",
        "triage.call_id",
        "triage.outcome",
        "triage.provider.error_type",
        "triage.provider.request_id",
        "triage.attempts",
        "triage.account",
    }
    assert len(ours) <= 24
    assert span.attributes["triage.error_id"] == event["triage.error_id"]


def test_no_attribute_of_the_application_is_evicted(provider: Any, telemetry: Any, http: Any) -> None:
    own = {f"app.{number}": number for number in range(123)}
    attributes = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o", **own}
    with trace.get_tracer("i").start_as_current_span("chat", attributes=attributes), http.Client() as client:
        client.post(url(provider), json=BODY, headers=wants("server_error"))
    (span,) = telemetry.spans
    assert span.dropped_attributes == 0
    assert attributes.items() <= dict(span.attributes).items()


def test_httpx2_under_the_name_of_httpx() -> None:
    """`httpx2.alias_httpx()` makes both names one class: it is wrapped once. In a process of its own."""
    code = (
        "import otel_triage; otel_triage.init(); import httpx2; httpx2.alias_httpx(); import httpx;"
        "assert httpx.Client is httpx2.Client; print(type(vars(httpx.Client)['send'].__wrapped__).__name__)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert out.stdout.strip() == "function"
