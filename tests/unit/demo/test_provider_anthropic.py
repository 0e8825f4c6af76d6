"""The real anthropic SDK meets every Anthropic scenario.

The expected records are written from the sources in scenarios.toml.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import anthropic
import httpx2
import pytest

from otel_triage.demo.provider import DemoProvider
from otel_triage.demo.provider_scenarios import load

TIMEOUT_S = 5.0
SHORT_S = 0.3
RECORDED = "the id that the provider recorded"
ASKED = [{"role": "user", "content": "Say hello."}]
MODEL = "claude-sonnet-4-20250514"


@pytest.fixture(scope="module")
def provider():
    with DemoProvider() as running:
        yield running


@pytest.fixture(scope="module")
def client(provider):
    with anthropic.Anthropic(base_url=provider.url, api_key="any", max_retries=0, timeout=TIMEOUT_S) as made:
        yield made


def recorded(provider: DemoProvider, request_id: str) -> str:
    """RECORDED, or the id itself where the provider recorded another one for the last request."""
    return RECORDED if request_id == provider.requests[-1].request_id else request_id


def failure(provider: DemoProvider, error: BaseException) -> dict[str, Any]:
    seen: dict[str, Any] = {"raises": type(error).__name__}
    for name in ("status_code", "type", "request_id"):
        if getattr(error, name, None) is not None:
            seen[name] = getattr(error, name)
    if "request_id" in seen:
        seen["request_id"] = recorded(provider, seen["request_id"])
    if error.__cause__ is not None and not isinstance(error, (anthropic.APIStatusError, httpx2.HTTPError)):
        seen["cause"] = type(error.__cause__).__name__
    return seen


def refused(raises: str, status: int, kind: str | None, request_id: str | None = RECORDED) -> dict[str, Any]:
    seen = {"raises": raises, "status_code": status, "type": kind, "request_id": request_id}
    return {name: value for name, value in seen.items() if value is not None}


REFUSED = {
    "rate_limit_input_tokens": refused("RateLimitError", 429, "rate_limit_error"),
    "credit_balance": refused("BadRequestError", 400, "invalid_request_error"),
    "invalid_api_key": refused("AuthenticationError", 401, "authentication_error"),
    "permission": refused("PermissionDeniedError", 403, "permission_error"),
    "country": refused("PermissionDeniedError", 403, "forbidden", request_id=None),
    "model_not_found": refused("NotFoundError", 404, "not_found_error"),
    "prompt_too_long": refused("BadRequestError", 400, "invalid_request_error"),
    "request_too_large": refused("ContentTooLargeError", 413, "request_too_large", request_id=None),
    "bad_json": refused("BadRequestError", 400, "invalid_request_error"),
    "unknown_url": refused("NotFoundError", 404, "not_found_error"),
    "api_error": refused("InternalServerError", 500, "api_error"),
    "timeout": refused("GatewayTimeoutError", 504, "timeout_error"),
    "overloaded": refused("OverloadedError", 529, "overloaded_error"),
    "bad_gateway": refused("InternalServerError", 502, None, request_id=None),
    "drop": {"raises": "APIConnectionError", "cause": "RemoteProtocolError"},
}

MESSAGES = {
    "rate_limit_input_tokens": (
        "This request would exceed the rate limit for your organization of 20,000 input tokens per minute. "
        "For details, refer to: https://docs.anthropic.com/en/api/rate-limits. You can see the response "
        "headers for current usage. Please reduce the prompt length or the maximum tokens requested, or try "
        "again later. You may also contact sales at https://www.anthropic.com/contact-sales to discuss your "
        "options for a rate limit increase."
    ),
    "credit_balance": (
        "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade "
        "or purchase credits."
    ),
    "model_not_found": f"model: {MODEL}",
    "prompt_too_long": "prompt is too long: 208310 tokens > 200000 maximum",
    "request_too_large": "Request exceeds the maximum size",
    "overloaded": "Overloaded",
}


def said(text: str, stop: str, output_tokens: int, category: str | None = None) -> dict[str, Any]:
    return {"text": text, "stop": stop, "usage": (13, output_tokens), "category": category, "model": MODEL}


ANSWERED = {
    "ok": said("Hello, world!", "end_turn", 5),
    "max_tokens": said("Hello", "max_tokens", 1),
    "refusal": said("Hello..", "refusal", 3, "cyber"),
    "empty": said("", "end_turn", 2),
}
# In a stream, the SDK keeps the status of the answer (provider_errors.tsv row
# anthropic/200/overloaded_error), and lets httpx2's own errors through.
BROKEN = {
    "stream_error": {
        "raises": "APIStatusError",
        "status_code": 200,
        "type": "overloaded_error",
        "request_id": RECORDED,
        "text": "Hello",
    },
    "cut_stream": {"raises": "RemoteProtocolError", "text": "Hello"},
    "stall_stream": {"raises": "ReadTimeout", "text": "Hello"},
}


def ask(client, name, **more):
    headers = {"x-demo-scenario": f"anthropic.messages.{name}"}
    return client.messages.create(model=MODEL, max_tokens=100, messages=ASKED, extra_headers=headers, **more)


def as_record(message):
    return {
        "text": "".join(block.text for block in message.content),
        "stop": message.stop_reason,
        "usage": (message.usage.input_tokens, message.usage.output_tokens),
        "category": message.stop_details and message.stop_details.category,
        "model": message.model,
    }


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("stream", [False, True])
def test_refused(provider, client, name, stream):
    with pytest.raises(anthropic.APIError) as caught:
        ask(client, name, stream=stream)
    assert failure(provider, caught.value) == REFUSED[name]


@pytest.mark.parametrize("name", MESSAGES)
def test_words(provider, client, name):
    with pytest.raises(anthropic.APIStatusError) as caught:
        ask(client, name)
    assert caught.value.api_message == MESSAGES[name]


@pytest.mark.parametrize("name", ANSWERED)
def test_answered(provider, client, name):
    message = ask(client, name)
    assert as_record(message) == ANSWERED[name]
    assert recorded(provider, message._request_id) == RECORDED


@pytest.mark.parametrize("name", ANSWERED)
def test_streamed(provider, client, name):
    headers = {"x-demo-scenario": f"anthropic.messages.{name}"}
    with client.messages.stream(model=MODEL, max_tokens=100, messages=ASKED, extra_headers=headers) as stream:
        message = stream.get_final_message()
        request_id = stream.response.headers["request-id"]
    assert as_record(message) == ANSWERED[name]
    assert recorded(provider, request_id) == RECORDED


@pytest.mark.parametrize("name", BROKEN)
def test_stream_breaks(provider, client, name):
    text = ""
    with (  # noqa: PT012 -- where in the stream it breaks is the point
        pytest.raises((anthropic.APIError, httpx2.HTTPError)) as caught,
        ask(client.with_options(timeout=SHORT_S), name, stream=True) as stream,
    ):
        for event in stream:
            text += event.delta.text if event.type == "content_block_delta" else ""
    assert {**failure(provider, caught.value), "text": text} == BROKEN[name]


@pytest.mark.parametrize("name", BROKEN)
async def test_stream_breaks_async(provider, name):
    text = ""
    async with anthropic.AsyncAnthropic(
        base_url=provider.url, api_key="any", max_retries=0, timeout=SHORT_S
    ) as client:
        with pytest.raises((anthropic.APIError, httpx2.HTTPError)) as caught:  # noqa: PT012
            async with await ask(client, name, stream=True) as stream:
                async for event in stream:
                    text += event.delta.text if event.type == "content_block_delta" else ""
    assert {**failure(provider, caught.value), "text": text} == BROKEN[name]


async def test_answered_async(provider):
    async with anthropic.AsyncAnthropic(base_url=provider.url, api_key="any") as client:
        assert as_record(await ask(client, "ok")) == ANSWERED["ok"]


def test_slower_than_the_timeout(provider, client):
    with pytest.raises(anthropic.APITimeoutError) as caught:
        ask(client.with_options(timeout=SHORT_S), "slow")
    assert failure(provider, caught.value) == {"raises": "APITimeoutError", "cause": "ReadTimeout"}


def test_limits_and_waits_in_headers(provider, client):
    with pytest.raises(anthropic.RateLimitError) as caught:
        ask(client, "rate_limit_input_tokens")
    headers = dict(caught.value.response.headers)
    reset = datetime.fromisoformat(headers["anthropic-ratelimit-input-tokens-reset"])
    assert timedelta(seconds=-2) < reset - datetime.now(UTC) < timedelta(seconds=2)
    names = ("retry-after", "x-should-retry", "anthropic-ratelimit-input-tokens-limit")
    assert [headers[name] for name in names] == ["1", "true", "20000"]
    assert headers["anthropic-ratelimit-input-tokens-remaining"] == "0"


def test_a_list_of_scenarios_is_one_an_attempt(provider, client):
    names = "rate_limit_input_tokens,anthropic.messages.ok"
    assert as_record(ask(client.with_options(max_retries=1), names)) == ANSWERED["ok"]
    assert [seen.scenario.rpartition(".")[2] for seen in provider.requests[-2:]] == [
        "rate_limit_input_tokens",
        "ok",
    ]


def test_every_scenario_has_an_expected_record():
    met = {f"anthropic.messages.{name}" for name in {*REFUSED, *ANSWERED, *BROKEN, "slow"}}
    assert met == {name for name in load() if name.startswith("anthropic.")}
