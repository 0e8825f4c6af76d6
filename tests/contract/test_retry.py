"""`should_retry` and `retry_after` on the exceptions of real clients, with the tap and without it."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

import otel_triage

BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello?"}]}


@pytest.fixture(params=["with the tap", "without it"], autouse=True)
def tap(request: pytest.FixtureRequest) -> Iterator[None]:
    handle = otel_triage.init() if request.param == "with the tap" else None
    yield
    if handle is not None:
        handle.shutdown()


def by_sdk(provider: Any, scenario: str) -> BaseException:
    options = {"timeout": 1.0, "max_retries": 0}
    with openai.OpenAI(base_url=f"{provider.url}/v1", api_key="k", **options) as client:
        try:
            client.chat.completions.create(extra_headers={"x-demo-scenario": scenario}, **BODY)
        except openai.OpenAIError as exc:
            return exc
    raise AssertionError("no exception")


def by_http(provider: Any, scenario: str) -> BaseException:
    with httpx.Client(timeout=1.0) as client:
        try:
            client.post(
                f"{provider.url}/v1/chat/completions", json=BODY, headers={"x-demo-scenario": scenario}
            ).raise_for_status()
        except httpx.HTTPError as exc:
            return exc
    raise AssertionError("no exception")


# scenario -> retry?, seconds that the provider names (header or words: otel_triage/demo/scenarios.toml)
CASES = {
    "rate_limit_tokens": (True, 0.174),
    "rate_limit_requests_day": (False, 432.0),  # 7 m 12 s: later
    "insufficient_quota": (False, None),
    "request_too_large_tpm": (False, None),
    "invalid_api_key": (False, None),
    "context_length": (False, None),
    "server_error": (True, None),
    "overloaded": (True, None),
    "bad_gateway": (True, None),
    "slow": (True, None),
    "drop": (True, None),
}


@pytest.mark.parametrize("ask", [by_sdk, by_http])
@pytest.mark.parametrize("name", CASES)
def test_predicates(provider: Any, name: str, ask: Any) -> None:
    exc = ask(provider, f"openai.chat.{name}")
    assert (otel_triage.should_retry(exc), otel_triage.retry_after(exc)) == CASES[name]


def test_a_wrapped_exception_is_what_it_wraps(provider: Any) -> None:
    wrapper = RuntimeError("the agent failed")
    wrapper.__cause__ = by_sdk(provider, "openai.chat.overloaded")
    assert otel_triage.should_retry(wrapper)


@pytest.mark.parametrize(
    "exc",
    [
        TimeoutError("the database"),
        ConnectionRefusedError(),
        ValueError("429"),
        asyncio.CancelledError(),
        httpx.ReadTimeout("late"),
        httpx.ReadTimeout("late", request=httpx.Request("GET", "http://shop.example/orders")),
    ],
)
def test_what_is_not_ours_is_not_retried(exc: BaseException) -> None:
    assert (otel_triage.should_retry(exc), otel_triage.retry_after(exc)) == (False, None)


def test_the_example(provider: Any, monkeypatch: pytest.MonkeyPatch, request: Any) -> None:
    monkeypatch.syspath_prepend(str(request.config.rootpath / "examples" / "retries"))
    example = importlib.import_module("retries")

    def tries(scenario: str) -> int:
        before = len(provider.requests)
        provider.default = scenario
        with openai.OpenAI(base_url=f"{provider.url}/v1", api_key="k") as client:
            try:
                example.ask(client, "Hello?")
            except openai.OpenAIError:
                pass
            finally:
                provider.default = ""
        return len(provider.requests) - before

    assert tries("openai.chat.insufficient_quota") == 1
    assert tries("openai.chat.rate_limit_requests") == 4  # waits 20 ms each, as the provider says
    assert tries("openai.chat.ok") == 1
