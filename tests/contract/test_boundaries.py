"""Where one call ends and another begins, and what must not cross: contexts, limits, encodings, secrets."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import openai
import pytest
from opentelemetry import trace
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, attach, detach, set_value

URL = "http://gateway.test/v1/chat/completions"
PROMPT = "Patient Johannes Albrechtsen, born 1961-03-04, complains of chest pain."
BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": PROMPT}]}
LLM_SPAN = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o"}


def answering(status: int, **options: Any) -> httpx.Client:
    return httpx.Client(transport=httpx.MockTransport(lambda _request: httpx.Response(status, **options)))


def refusing(exc: Exception) -> httpx.Client:
    def handle(_request: httpx.Request) -> httpx.Response:
        raise exc

    return httpx.Client(transport=httpx.MockTransport(handle))


def error(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "code": None, **more}}


def ask(http: httpx.Client, **options: Any) -> None:
    http.post(URL, json=BODY, **options).raise_for_status()


QUOTA = error("You exceeded your current quota", type="insufficient_quota", code="insufficient_quota")


def test_a_fallback_that_fails_inside_except_has_its_own_verdict(telemetry: Any) -> None:
    """The first failure is the context of the second, and not its cause."""

    def fall_back() -> None:
        try:
            ask(answering(429, json=QUOTA))
        except httpx.HTTPStatusError:
            ask(refusing(httpx.ConnectError("[Errno 111] Connection refused")))

    with pytest.raises(httpx.ConnectError):
        fall_back()
    first, second = telemetry.events
    assert (first["triage.reason"], second["triage.reason"]) == ("quota_exhausted", "connection_refused")
    assert "quota" not in second["exception.stacktrace"]


def test_two_failures_under_one_span_are_not_mixed(telemetry: Any) -> None:
    with trace.get_tracer("i").start_as_current_span("chat", attributes=LLM_SPAN):
        for http in (refusing(httpx.ConnectError("refused")), answering(429, json=QUOTA)):
            with pytest.raises(httpx.HTTPError):
                ask(http)
    (span,) = telemetry.spans
    assert span.attributes["triage.category"] == "network_error"
    assert "triage.provider.error_code" not in span.attributes
    assert len(telemetry.events) == 2


def test_attributes_that_the_instrumentation_sets_after_us_evict_none(telemetry: Any) -> None:
    own = {f"app.{number}": number for number in range(108)}
    with trace.get_tracer("i").start_as_current_span("chat", attributes=LLM_SPAN | own) as span:
        with pytest.raises(httpx.HTTPStatusError):
            ask(answering(500))
        for number in range(18):
            span.set_attribute(f"late.{number}", number)
    (ended,) = telemetry.spans
    assert ended.dropped_attributes == 0


def test_a_worker_that_a_call_started_makes_calls_of_its_own(telemetry: Any) -> None:
    async def main() -> None:
        workers: list[asyncio.Task[None]] = []
        go = asyncio.Event()

        async def work() -> None:
            await go.wait()
            async with httpx.AsyncClient(
                transport=httpx.MockTransport(lambda _r: httpx.Response(500))
            ) as own:
                await own.post(URL, json=BODY)

        async def start(_request: httpx.Request) -> None:
            workers.append(asyncio.create_task(work()))

        hooks: dict[str, list[Any]] = {"request": [start]}
        transport = httpx.MockTransport(lambda _r: httpx.Response(200, json={"choices": [{"text": "x"}]}))
        async with httpx.AsyncClient(event_hooks=hooks, transport=transport) as client:
            await client.post(URL, json=BODY)
        go.set()
        await workers[0]

    asyncio.run(main())
    assert telemetry.calls() == {"ok": 1, "failed": 1}


def test_whoever_asks_for_silence_gets_it(telemetry: Any) -> None:
    token = attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))
    with pytest.raises(httpx.HTTPStatusError):
        ask(answering(500))
    detach(token)
    assert (telemetry.spans, telemetry.events, telemetry.calls()) == ([], [], {})


STREAM = b'data: {"choices": [{"delta": {"content": "Hi"}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'


@pytest.mark.parametrize(
    ("headers", "content"),
    [
        ({"content-type": "Text/Event-Stream"}, STREAM),
        ({"content-type": "text/plain"}, STREAM),
        ({}, STREAM),
        ({"content-type": "text/event-stream"}, b"\xef\xbb\xbf" + STREAM),
        ({"content-type": "text/event-stream"}, STREAM.replace(b"\n", b"\r")),
    ],
)
def test_a_good_stream_in_odd_dress(telemetry: Any, headers: dict[str, str], content: bytes) -> None:
    http = answering(
        200, headers=headers, content=iter([content, b": and more, which the SDK does not read"])
    )
    with http.stream("POST", URL, json=BODY | {"stream": True}) as response:
        next(response.iter_bytes())
    assert telemetry.calls() == {"ok": 1}


def test_a_stream_that_was_read_in_one_piece(telemetry: Any) -> None:
    http = answering(200, headers={"content-type": "text/event-stream"}, content=STREAM)
    http.post(URL, json=BODY | {"stream": True})
    assert telemetry.calls() == {"ok": 1}


def test_an_event_of_two_megabytes_is_no_cut(telemetry: Any) -> None:
    line = (
        b'data: {"choices": [{"delta": {"images": ["'
        + b"x" * 2_000_000
        + b'"]}, "finish_reason": "stop"}]}\n\n'
    )
    pieces = iter([line[at : at + 1400] for at in range(0, len(line), 1400)] + [b"data: [DONE]\n\n"])
    http = answering(200, headers={"content-type": "text/event-stream"}, content=pieces)
    with http.stream("POST", URL, json=BODY | {"stream": True}) as response:
        for _ in response.iter_bytes():
            pass
    assert telemetry.calls() == {"ok": 1}


def test_a_redirect_that_is_not_followed_is_no_answer(telemetry: Any) -> None:
    answering(307, headers={"location": "http://gateway.test/other"}, content=b"<html>").post(URL, json=BODY)
    assert (telemetry.events, telemetry.calls()) == ([], {"unknown": 1})


def test_half_a_character_does_not_cost_a_batch(telemetry: Any) -> None:
    """JSON may hold half of a surrogate pair: an emoji that was cut. UTF-8, and so protobuf, cannot."""
    with pytest.raises(httpx.HTTPStatusError):
        ask(answering(400, content=b'{"error": {"message": "bad input \\ud83d", "code": "x\\ud83d"}}'))
    (span,) = telemetry.spans
    for text in (
        span.status.description,
        *map(str, span.attributes.values()),
        *map(str, telemetry.event().values()),
    ):
        text.encode("utf-8")


@pytest.mark.parametrize(
    "headers",
    [
        {"x-ratelimit-limit-requests": "9" * 5000},
        {"retry-after": "Fri, 15 Jan 2027 08:00:30 +9999999"},
        {"retry-after": "Mon, 01 Jan 99999 00:00:00 GMT"},
    ],
)
def test_an_odd_header_costs_itself_and_not_the_event(telemetry: Any, headers: dict[str, str]) -> None:
    with pytest.raises(httpx.HTTPStatusError):
        ask(answering(429, headers=headers, json=QUOTA))
    assert telemetry.event()["triage.reason"] == "quota_exhausted"


KEY = "4f3c2a1b9d8e7f60a1b2c3d4e5f60718"  # no form that anybody could know

ECHOES = {
    "verbatim": error(f"Bad input: {PROMPT}"),
    "in upper case": error(f"Bad input: {PROMPT.upper()}"),
    "in param": error("Bad value", param=PROMPT),
    "in code": error("Bad value", code=PROMPT),
    "in type": error("Bad value", type=PROMPT),
    "the key": error(f"Incorrect API key provided: {KEY}."),
}


@pytest.mark.parametrize("name", ECHOES)
def test_neither_prompt_nor_key_leaves(telemetry: Any, name: str) -> None:
    options = {"base_url": "http://gateway.test/v1", "api_key": KEY, "max_retries": 0}
    module = openai._base_client.__dict__.get("httpx2") or httpx
    transport = module.MockTransport(lambda _request: module.Response(400, json=ECHOES[name]))
    client = openai.OpenAI(http_client=module.Client(transport=transport), **options)
    with client, pytest.raises(openai.BadRequestError):
        client.chat.completions.create(**BODY)
    (span,) = telemetry.spans
    written = f"{telemetry.event()} {span.attributes} {span.status.description}".lower()
    assert "albrechtsen" not in written
    assert KEY not in written


def test_notes_groups_and_long_messages_are_cleaned_too(telemetry: Any) -> None:
    noted = httpx.ConnectError("refused")
    noted.add_note(f"the request was {PROMPT}")
    group = ExceptionGroup("two", [ValueError("one"), ValueError(f"got {PROMPT}")])
    long = httpx.ConnectError(f"{PROMPT} " * 200)
    for exc in (noted, group, long):
        with pytest.raises(type(exc)):
            ask(refusing(exc))
    assert len(telemetry.events) == 3
    assert "Albrechtsen" not in str(telemetry.events)
