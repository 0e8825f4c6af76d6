"""The real openai SDK meets every OpenAI scenario.

The expected records are written from the sources in scenarios.toml.
"""

from __future__ import annotations

from typing import Any

import openai
import pytest

from otel_triage.demo.provider import DemoProvider
from otel_triage.demo.provider_scenarios import load

TIMEOUT_S = 5.0
SHORT_S = 0.3
ASKED = [{"role": "user", "content": "Say this is a test"}]
RECORDED = "the id that the provider recorded"


@pytest.fixture(scope="module")
def provider():
    with DemoProvider() as running:
        yield running


@pytest.fixture(scope="module")
def client(provider):
    with openai.OpenAI(
        base_url=provider.url + "/v1", api_key="any", max_retries=0, timeout=TIMEOUT_S
    ) as made:
        yield made


def recorded(provider: DemoProvider, request_id: str) -> str:
    """RECORDED, or the id itself where the provider recorded another one for the last request."""
    return RECORDED if request_id == provider.requests[-1].request_id else request_id


def failure(provider: DemoProvider, error: BaseException) -> dict[str, Any]:
    """What an application can see of an SDK's error, without its wording."""
    seen: dict[str, Any] = {"raises": type(error).__name__}
    for name in ("status_code", "code", "type", "param", "request_id"):
        if getattr(error, name, None) is not None:
            seen[name] = getattr(error, name)
    if "request_id" in seen:
        seen["request_id"] = recorded(provider, seen["request_id"])
    if error.__cause__ is not None and not isinstance(error, openai.APIStatusError):
        seen["cause"] = type(error.__cause__).__name__
    return seen


def refused(raises: str, status: int, request_id: str | None = RECORDED, **rest: str) -> dict[str, Any]:
    seen = {"raises": raises, "status_code": status, **rest}
    return seen | {"request_id": request_id} if request_id else seen


# --------------------------------------------------------------- chat completions

LIMITED = refused("RateLimitError", 429, code="rate_limit_exceeded", type="tokens")
LIMITED_REQUESTS = refused("RateLimitError", 429, code="rate_limit_exceeded", type="requests")

CHAT_REFUSED = {
    "rate_limit_tokens": LIMITED,
    "request_too_large_tpm": LIMITED,
    "rate_limit_requests": LIMITED_REQUESTS,
    "rate_limit_requests_day": LIMITED_REQUESTS,
    "insufficient_quota": refused(
        "RateLimitError", 429, code="insufficient_quota", type="insufficient_quota"
    ),
    "invalid_api_key": refused(
        "AuthenticationError", 401, code="invalid_api_key", type="invalid_request_error"
    ),
    "country": refused(
        "PermissionDeniedError", 403, code="unsupported_country_region_territory", type="request_forbidden"
    ),
    "no_model_access": refused(
        "PermissionDeniedError", 403, code="model_not_found", type="invalid_request_error"
    ),
    "model_not_found": refused("NotFoundError", 404, code="model_not_found", type="invalid_request_error"),
    "context_length": refused(
        "BadRequestError", 400, code="context_length_exceeded", type="invalid_request_error", param="messages"
    ),
    "bad_parameter": refused(
        "BadRequestError",
        400,
        code="decimal_above_max_value",
        type="invalid_request_error",
        param="temperature",
    ),
    "unsupported_parameter": refused(
        "BadRequestError", 400, code="unsupported_parameter", type="invalid_request_error", param="max_tokens"
    ),
    "invalid_prompt": refused("BadRequestError", 400, code="invalid_prompt", type="invalid_request_error"),
    "bad_json": refused("BadRequestError", 400, type="invalid_request_error"),
    "unknown_url": refused("NotFoundError", 404, type="invalid_request_error"),
    "server_error": refused("InternalServerError", 500, type="server_error"),
    "overloaded": refused("InternalServerError", 503, type="server_error"),
    "bad_gateway": refused("InternalServerError", 502, request_id=None),
    "drop": {"raises": "APIConnectionError", "cause": "RemoteProtocolError"},
    "reset": {"raises": "APIConnectionError", "cause": "ReadError"},
}


def said(text, finish, completion_tokens, refusal=None):
    return {
        "text": text,
        "refusal": refusal,
        "finish": finish,
        "usage": (12, completion_tokens),
        "id": RECORDED,
    }


REFUSAL = "I'm sorry, but I can't assist with that request."

CHAT_ANSWERED = {
    "ok": said("This is a test.", "stop", 5),
    "ok_gzip": said("This is a test.", "stop", 5),
    "length": said("This is a", "length", 3),
    "content_filter": said(None, "content_filter", 14),
    "refusal": said(None, "stop", 12, REFUSAL),
    "empty": said("", "stop", 9),
    "slow": said("This is a test.", "stop", 5),
}

CHAT_STREAMED = {
    "ok": said("This is a test.", "stop", 5),
    "ok_gzip": said("This is a test.", "stop", 5),
    "length": said("This is a", "length", 3),
    "content_filter": said("This", "content_filter", 14),
    "refusal": said("", "stop", 12, REFUSAL),
    "empty": said("", "stop", 9),
}

CHAT_BROKEN = {
    "cut_stream": {"raises": "APIConnectionError", "cause": "RemoteProtocolError", "text": "This is"},
    "stall_stream": {"raises": "APITimeoutError", "cause": "ReadTimeout", "text": "This is"},
    "stream_error": {"raises": "APIError", "type": "server_error", "text": "This is"},
}

CHAT_OTHER = {"cut_body", "no_choices", "html_ok"}


def chat(client, name, **more):
    headers = {"x-demo-scenario": f"openai.chat.{name}"}
    return client.chat.completions.create(model="gpt-4o-mini", messages=ASKED, extra_headers=headers, **more)


@pytest.mark.parametrize("name", CHAT_REFUSED)
@pytest.mark.parametrize("stream", [False, True])
def test_chat_refused(provider, client, name, stream):
    with pytest.raises(openai.APIError) as caught:
        chat(client, name, stream=stream)
    assert failure(provider, caught.value) == CHAT_REFUSED[name]


@pytest.mark.parametrize("name", CHAT_ANSWERED)
def test_chat_answered(provider, client, name):
    answer = chat(client, name)
    choice = answer.choices[0]
    assert answer.model == "gpt-4o-mini"
    assert {
        "text": choice.message.content,
        "refusal": choice.message.refusal,
        "finish": choice.finish_reason,
        "usage": (answer.usage.prompt_tokens, answer.usage.completion_tokens),
        "id": recorded(provider, answer._request_id),
    } == CHAT_ANSWERED[name]


@pytest.mark.parametrize("name", CHAT_STREAMED)
def test_chat_streamed(provider, client, name):
    with chat(client, name, stream=True, stream_options={"include_usage": True}) as stream:
        chunks = list(stream)
        request_id = stream.response.headers["x-request-id"]
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    assert {chunk.model for chunk in chunks} == {"gpt-4o-mini"}
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert {
        "text": "".join(delta.content or "" for delta in deltas),
        "refusal": "".join(delta.refusal or "" for delta in deltas) or None,
        "finish": chunks[-2].choices[0].finish_reason,
        "usage": (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens),
        "id": recorded(provider, request_id),
    } == CHAT_STREAMED[name]


def test_usage_only_where_it_is_asked_for(provider, client):
    with chat(client, "ok", stream=True) as stream:
        chunks = list(stream)
    assert [chunk.usage for chunk in chunks] == [None] * 7
    assert chunks[-1].choices[0].finish_reason == "stop"


@pytest.mark.parametrize("name", CHAT_BROKEN)
def test_chat_stream_breaks(provider, client, name):
    text = ""
    with (  # noqa: PT012 -- where in the stream it breaks is the point
        pytest.raises(openai.APIError) as caught,
        chat(client.with_options(timeout=SHORT_S), name, stream=True) as stream,
    ):
        for chunk in stream:
            text += chunk.choices[0].delta.content or ""
    assert {**failure(provider, caught.value), "text": text} == CHAT_BROKEN[name]


@pytest.mark.parametrize("name", CHAT_BROKEN)
async def test_chat_stream_breaks_async(provider, name):
    text = ""
    async with openai.AsyncOpenAI(
        base_url=provider.url + "/v1", api_key="any", max_retries=0, timeout=SHORT_S
    ) as client:
        with pytest.raises(openai.APIError) as caught:  # noqa: PT012
            async with await chat(client, name, stream=True) as stream:
                async for chunk in stream:
                    text += chunk.choices[0].delta.content or ""
    assert {**failure(provider, caught.value), "text": text} == CHAT_BROKEN[name]


@pytest.mark.parametrize("name", ["rate_limit_tokens", "drop", "bad_gateway"])
async def test_chat_refused_async(provider, name):
    async with openai.AsyncOpenAI(base_url=provider.url + "/v1", api_key="any", max_retries=0) as client:
        with pytest.raises(openai.APIError) as caught:
            await chat(client, name)
    assert failure(provider, caught.value) == CHAT_REFUSED[name]


def test_chat_body_cut_short(provider, client):
    with pytest.raises(openai.APIConnectionError) as caught:
        chat(client, "cut_body")
    assert failure(provider, caught.value) == {"raises": "APIConnectionError", "cause": "RemoteProtocolError"}


def test_chat_slower_than_the_timeout(provider, client):
    with pytest.raises(openai.APITimeoutError) as caught:
        chat(client.with_options(timeout=SHORT_S), "slow")
    assert failure(provider, caught.value) == {"raises": "APITimeoutError", "cause": "ReadTimeout"}


def test_chat_without_choices(provider, client):
    answer = chat(client, "no_choices")
    assert answer.choices is None
    assert answer.error == {
        "message": "Provider returned error",
        "code": 429,
        "metadata": {"raw": "Too Many Requests", "provider_name": "Hyperbolic"},
    }


def test_chat_html_in_place_of_json(provider, client):
    answer = chat(client, "html_ok")
    assert isinstance(answer, str)
    assert answer.startswith("<!DOCTYPE html>")


def test_limits_and_waits_in_headers(provider, client):
    with pytest.raises(openai.RateLimitError) as caught:
        chat(client, "rate_limit_tokens")
    headers = caught.value.response.headers
    names = [name for name in headers if name.startswith(("retry-after", "x-ratelimit", "openai-"))]
    assert {name: headers[name] for name in names} == {
        "retry-after": "1",
        "retry-after-ms": "174",
        "x-ratelimit-limit-requests": "10000",
        "x-ratelimit-limit-tokens": "30000",
        "x-ratelimit-remaining-requests": "9999",
        "x-ratelimit-remaining-tokens": "11072",
        "x-ratelimit-reset-requests": "8.64s",
        "x-ratelimit-reset-tokens": "37.856s",
        "openai-organization": "demo-org",
        "openai-processing-ms": "287",
        "openai-version": "2020-10-01",
    }
    assert caught.value.message == (
        "Error code: 429 - Rate limit reached for gpt-4o-mini in organization org-demo on tokens per min "
        "(TPM): Limit 30000, Used 18928, Requested 11159. Please try again in 174ms. Visit "
        "https://platform.openai.com/account/rate-limits to learn more."
    )


# --------------------------------------------------------------- attempts of one call


def test_a_list_of_scenarios_is_one_an_attempt(provider, client):
    answer = chat(client.with_options(max_retries=2), "rate_limit_requests,openai.chat.ok")
    assert answer.choices[0].message.content == "This is a test."
    assert [(seen.scenario, seen.headers["x-stainless-retry-count"]) for seen in provider.requests[-2:]] == [
        ("openai.chat.rate_limit_requests", "0"),
        ("openai.chat.ok", "1"),
    ]


def test_the_last_scenario_repeats(provider, client):
    with pytest.raises(openai.RateLimitError) as caught:
        chat(client.with_options(max_retries=3), "rate_limit_tokens,openai.chat.rate_limit_requests")
    assert [seen.scenario for seen in provider.requests[-4:]] == [
        "openai.chat.rate_limit_tokens",
        *["openai.chat.rate_limit_requests"] * 3,
    ]
    assert caught.value.request_id == provider.requests[-1].request_id


# --------------------------------------------------------------- embeddings


def test_embeddings(provider, client):
    answer = client.embeddings.create(model="text-embedding-3-small", input="a test")
    assert answer.model == "text-embedding-3-small"
    assert answer.data[0].embedding == [0.5, -0.25, 0.125]
    assert answer.usage.prompt_tokens == 8
    assert recorded(provider, answer._request_id) == RECORDED


def test_embeddings_model_not_found(provider, client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.embeddings.create(
            model="nope", input="a", extra_headers={"x-demo-scenario": "openai.embeddings.model_not_found"}
        )
    assert failure(provider, caught.value) == CHAT_REFUSED["model_not_found"]


# --------------------------------------------------------------- Responses


def response(status, text, output_tokens, *, incomplete=None, error=None, refusal=None):
    usage = (22, output_tokens) if output_tokens else None
    return {
        "status": status,
        "text": text,
        "usage": usage,
        "incomplete": incomplete,
        "error": error,
        "refusal": refusal,
    }


RESPONSES_ANSWERED = {
    "ok": response("completed", "This is a test.", 6),
    "incomplete_max_output_tokens": response("incomplete", "This is a", 16, incomplete="max_output_tokens"),
    "incomplete_content_filter": response("incomplete", "This is a", 4, incomplete="content_filter"),
    "refusal": response("completed", "", 12, refusal=REFUSAL),
    "empty": response("completed", "", 9),
    "failed": response("failed", "", None, error="server_error"),
    "failed_rate_limit": response("failed", "", None, error="rate_limit_exceeded"),
}

LAST_EVENT = {
    "completed": "response.completed",
    "incomplete": "response.incomplete",
    "failed": "response.failed",
}

RESPONSES_REFUSED = {
    "rate_limit_tokens": LIMITED,
    "context_length": refused(
        "BadRequestError", 400, code="context_length_exceeded", type="invalid_request_error", param="input"
    ),
    "model_not_found": refused(
        "BadRequestError", 400, code="model_not_found", type="invalid_request_error", param="model"
    ),
    "server_error": refused("InternalServerError", 500, code="server_error", type="server_error"),
}

RESPONSES_BROKEN = {
    "cut_stream": {"raises": "APIConnectionError", "cause": "RemoteProtocolError", "text": "This"},
    "stall_stream": {"raises": "APITimeoutError", "cause": "ReadTimeout", "text": "This"},
    "stream_error_nested": {
        "raises": "APIError",
        "code": "server_is_overloaded",
        "type": "service_unavailable_error",
        "text": "",
    },
}

RESPONSES_OTHER = {"stream_error"}


def respond(client, name, **more):
    headers = {"x-demo-scenario": f"openai.responses.{name}"}
    return client.responses.create(
        model="gpt-4o-mini", input="Say this is a test", extra_headers=headers, **more
    )


def as_record(answer):
    parts = [part for item in answer.output for part in item.content]
    return response(
        answer.status,
        answer.output_text,
        answer.usage and answer.usage.output_tokens,
        incomplete=answer.incomplete_details and answer.incomplete_details.reason,
        error=answer.error and answer.error.code,
        refusal=next((part.refusal for part in parts if part.type == "refusal"), None),
    )


@pytest.mark.parametrize("name", RESPONSES_ANSWERED)
def test_responses_answered(provider, client, name):
    answer = respond(client, name)
    assert as_record(answer) == RESPONSES_ANSWERED[name]
    assert (answer.model, recorded(provider, answer._request_id)) == ("gpt-4o-mini", RECORDED)


@pytest.mark.parametrize("name", RESPONSES_ANSWERED)
def test_responses_streamed(provider, client, name):
    with respond(client, name, stream=True) as stream:
        events = list(stream)
    assert as_record(events[-1].response) == RESPONSES_ANSWERED[name]
    assert events[-1].type == LAST_EVENT[RESPONSES_ANSWERED[name]["status"]]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert (
        "".join(e.delta for e in events if e.type == "response.output_text.delta")
        == (RESPONSES_ANSWERED[name]["text"])
    )


@pytest.mark.parametrize("name", RESPONSES_REFUSED)
@pytest.mark.parametrize("stream", [False, True])
def test_responses_refused(provider, client, name, stream):
    with pytest.raises(openai.APIError) as caught:
        respond(client, name, stream=stream)
    assert failure(provider, caught.value) == RESPONSES_REFUSED[name]


@pytest.mark.parametrize("name", RESPONSES_BROKEN)
def test_responses_stream_breaks(provider, client, name):
    text = ""
    with (  # noqa: PT012 -- where in the stream it breaks is the point
        pytest.raises(openai.APIError) as caught,
        respond(client.with_options(timeout=SHORT_S), name, stream=True) as stream,
    ):
        for event in stream:
            text += event.delta if event.type == "response.output_text.delta" else ""
    assert {**failure(provider, caught.value), "text": text} == RESPONSES_BROKEN[name]


def test_responses_error_event_is_handed_on(provider, client):
    with respond(client, "stream_error", stream=True) as stream:
        last = list(stream)[-1]
    assert (last.type, last.code, last.param) == ("error", "server_error", None)
    assert last.message == "The server had an error while processing your request. Sorry about that!"


# --------------------------------------------------------------- every scenario is met


def test_every_scenario_has_an_expected_record():
    met = {f"openai.chat.{name}" for name in {*CHAT_REFUSED, *CHAT_ANSWERED, *CHAT_STREAMED, *CHAT_BROKEN}}
    met |= {
        f"openai.responses.{name}" for name in {*RESPONSES_ANSWERED, *RESPONSES_REFUSED, *RESPONSES_BROKEN}
    }
    met |= {f"openai.chat.{name}" for name in CHAT_OTHER} | {f"openai.responses.{n}" for n in RESPONSES_OTHER}
    met |= {"openai.embeddings.ok", "openai.embeddings.model_not_found"}
    assert met == {name for name in load() if name.startswith("openai.")}
