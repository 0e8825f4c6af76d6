"""Good answers and streams, as the API references show them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_triage.facts.answers import BAD, EMPTY, REFUSED, EventReader, read_answer
from otel_triage.facts.bodies import ErrorBody

USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}


def chat(message: dict[str, Any], finish: str | None = "stop") -> dict[str, Any]:
    """https://platform.openai.com/docs/api-reference/chat/object"""
    return {
        "id": "chatcmpl-1",
        "model": "gpt-4o-2024-08-06",
        "choices": [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}],
        "usage": USAGE,
    }


@pytest.mark.parametrize(
    ("message", "finish", "code", "soft"),
    [
        ({"content": "Hi."}, "stop", None, []),
        ({"content": "Hi"}, "length", None, ["length"]),
        ({"content": None}, "content_filter", None, ["content_filter"]),
        ({"content": ""}, "stop", EMPTY, []),
        ({"content": None, "refusal": "I can't."}, "stop", REFUSED, []),
        ({"content": None, "tool_calls": [{"id": "call_1"}]}, "tool_calls", None, []),
        ({"content": None, "audio": {"id": "audio_1"}}, "stop", None, []),
    ],
)
def test_chat(message: dict[str, Any], finish: str, code: str | None, soft: list[str]) -> None:
    reading = read_answer("openai.chat", json.dumps(chat(message, finish)).encode())
    assert (reading.soft_code, reading.soft_reasons) == (code, soft)
    assert (reading.response_model, reading.input_tokens, reading.output_tokens) == (
        "gpt-4o-2024-08-06",
        9,
        3,
    )


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'"text"', b'{"id": "x"}', b'{"choices": null}', b"\xff"]
)
def test_what_the_api_does_not_promise(body: bytes) -> None:
    assert read_answer("openai.chat", body).soft_code == BAD


def test_an_error_inside_a_200() -> None:
    reading = read_answer("openai.chat", b'{"error": {"message": "Provider returned error", "code": 502}}')
    assert reading.error == ErrorBody(status=502, message="Provider returned error")
    assert not reading.bad


@pytest.mark.parametrize(
    ("content", "stop", "code", "soft"),
    [
        ([{"type": "text", "text": "Hi"}], "end_turn", None, []),
        ([{"type": "text", "text": "Hi"}], "max_tokens", None, ["max_tokens"]),
        ([{"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}], "tool_use", None, []),
        ([{"type": "thinking", "thinking": ""}], "end_turn", None, []),
        ([], "end_turn", EMPTY, []),
        ([{"type": "text", "text": ""}], "refusal", None, ["refusal"]),
    ],
)
def test_anthropic(content: list[Any], stop: str, code: str | None, soft: list[str]) -> None:
    """https://docs.anthropic.com/en/api/messages"""
    body = {
        "type": "message",
        "model": "claude",
        "content": content,
        "stop_reason": stop,
        "usage": {"input_tokens": 5, "output_tokens": 1},
    }
    reading = read_answer("anthropic.messages", json.dumps(body).encode())
    assert (reading.soft_code, reading.soft_reasons, reading.input_tokens) == (code, soft, 5)


@pytest.mark.parametrize(
    ("response", "code", "soft", "error"),
    [
        (
            {"status": "completed", "output": [{"type": "message", "content": [{"text": "Hi"}]}]},
            None,
            [],
            None,
        ),
        ({"status": "completed", "output": [{"type": "function_call", "name": "f"}]}, None, [], None),
        ({"status": "completed", "output": [{"type": "reasoning", "summary": []}]}, EMPTY, [], None),
        (
            {
                "status": "incomplete",
                "incomplete_details": {"reason": "max_output_tokens"},
                "output": [],
            },
            None,
            ["max_output_tokens"],
            None,
        ),
        ({"status": "queued", "output": []}, None, [], None),  # background: the answer is fetched later
    ],
)
def test_responses(
    response: dict[str, Any], code: str | None, soft: list[str], error: ErrorBody | None
) -> None:
    """https://platform.openai.com/docs/api-reference/responses/object"""
    reading = read_answer("openai.responses", json.dumps(response).encode())
    assert (reading.soft_code, reading.soft_reasons, reading.error) == (code, soft, error)


def sse(*events: Any) -> bytes:
    lines = []
    for event in events:
        if isinstance(event, dict) and "type" in event:
            lines.append(f"event: {event['type']}")
        lines.append(f"data: {event if isinstance(event, str) else json.dumps(event)}\n")
    return "\n".join(lines).encode() + b"\n"


def delta(content: str | None, finish: str | None = None) -> dict[str, Any]:
    part = {} if content is None else {"content": content}
    return {"model": "gpt-4o", "choices": [{"index": 0, "delta": part, "finish_reason": finish}]}


STREAM = sse(delta("Hel"), delta("lo"), delta(None, "stop"), {"choices": [], "usage": USAGE}, "[DONE]")


@given(st.lists(st.integers(1, len(STREAM)), max_size=30))
def test_a_stream_reads_the_same_however_it_is_cut_into_chunks(cuts: list[int]) -> None:
    reader = EventReader("openai.chat")
    start = 0
    for cut in sorted({*cuts, len(STREAM)}):
        reader.feed(STREAM[start:cut])
        start = cut
    reading = reader.reading
    assert (reader.chunks, reading.ended, reading.content, reading.finish_reasons) == (
        5,
        True,
        True,
        ["stop"],
    )
    assert (reading.input_tokens, reading.output_tokens, reading.soft_code) == (9, 3, None)


def test_crlf_and_comments() -> None:
    reader = EventReader("openai.chat")
    reader.feed(b": keep-alive\r\n\r\n" + sse(delta("Hi", "length")).replace(b"\n", b"\r\n"))
    assert reader.reading.soft_reasons == ["length"]
    assert reader.chunks == 1


@pytest.mark.parametrize(
    ("api", "events", "expected"),
    [
        (
            "openai.chat",
            sse(delta("Hi"), {"error": {"message": "Sorry", "type": "server_error", "code": None}}),
            ErrorBody(type="server_error", message="Sorry"),
        ),
        (
            "anthropic.messages",
            sse({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
            ErrorBody(type="overloaded_error", message="Overloaded"),
        ),
        (
            "openai.responses",
            sse({"type": "error", "code": "server_error", "message": "Sorry", "param": None}),
            ErrorBody(code="server_error", message="Sorry"),
        ),
        (
            "openai.responses",
            sse(
                {
                    "type": "response.failed",
                    "response": {"status": "failed", "error": {"code": "server_error", "message": "m"}},
                }
            ),
            ErrorBody(code="server_error", message="m"),
        ),
    ],
)
def test_error_inside_a_stream(api: str, events: bytes, expected: ErrorBody) -> None:
    reader = EventReader(api)
    reader.feed(events)
    assert reader.reading.error == expected


@given(st.binary(max_size=400))
def test_any_bytes_are_survived(data: bytes) -> None:
    for api in ("openai.chat", "openai.responses", "anthropic.messages", None):
        EventReader(api).feed(data)
        read_answer(api, data)


def test_memory_is_bounded() -> None:
    reader = EventReader("openai.chat")
    for _ in range(40):
        reader.feed(b"x" * 1_000_000)  # one line that never ends
    assert len(reader._rest) <= 32 << 20
    assert not reader.readable  # so that the missing end marker means nothing
