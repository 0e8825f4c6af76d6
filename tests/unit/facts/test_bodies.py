"""Error bodies: each expected record is read off the body by hand."""

from __future__ import annotations

import pytest

from otel_triage.facts.bodies import ErrorBody, read_error_body, read_error_text, token_limits

BODIES = {
    "openai": (
        # https://platform.openai.com/docs/guides/error-codes
        {"error": {"message": "Slow down", "type": "tokens", "param": None, "code": "rate_limit_exceeded"}},
        ErrorBody(code="rate_limit_exceeded", type="tokens", message="Slow down"),
    ),
    "openai responses stream, error event": (
        # openai.types.responses.ResponseErrorEvent
        {"type": "error", "code": "server_error", "message": "Sorry", "param": "input", "sequence_number": 3},
        ErrorBody(code="server_error", param="input", message="Sorry"),
    ),
    "openai responses stream, failed": (
        # openai.types.responses.ResponseFailedEvent
        {
            "type": "response.failed",
            "response": {
                "id": "resp_1",
                "status": "failed",
                "error": {"code": "rate_limit_exceeded", "message": "m"},
            },
        },
        ErrorBody(code="rate_limit_exceeded", message="m"),
    ),
    "anthropic": (
        # https://docs.anthropic.com/en/api/errors
        {
            "type": "error",
            "error": {"type": "overloaded_error", "message": "Overloaded"},
            "request_id": "req_1",
        },
        ErrorBody(type="overloaded_error", message="Overloaded", request_id="req_1"),
    ),
    "google": (
        # https://cloud.google.com/apis/design/errors: the number is the HTTP status, the word is the code
        {"error": {"code": 429, "message": "Quota exceeded", "status": "RESOURCE_EXHAUSTED"}},
        ErrorBody(code="RESOURCE_EXHAUSTED", status=429, message="Quota exceeded"),
    ),
    "a list around it (Gemini's stream)": (
        [{"error": {"code": 503, "message": "busy", "status": "UNAVAILABLE"}}],
        ErrorBody(code="UNAVAILABLE", status=503, message="busy"),
    ),
    "a bare string": ({"error": "model not found"}, ErrorBody(message="model not found")),
    "fastapi": ({"detail": "no such model"}, ErrorBody(message="no such model")),
    "vllm": (
        {
            "object": "error",
            "message": "too long",
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        },
        ErrorBody(type="BadRequestError", status=400, message="too long"),
    ),
    "a numeric code that is no status (zhipu)": (
        {"error": {"code": "1302", "message": "m"}},
        ErrorBody(code="1302", message="m"),
    ),
    "nothing": ({"ok": True}, ErrorBody()),
}


@pytest.mark.parametrize("name", BODIES)
def test_body(name: str) -> None:
    data, expected = BODIES[name]
    assert read_error_body(data) == expected


TEXTS = {
    "openai 2.x prints the dict": (
        "Error code: 429 - {'error': {'message': 'You exceeded', 'type': 'insufficient_quota', "
        "'param': None, 'code': 'insufficient_quota'}}",
        ErrorBody(code="insufficient_quota", status=429, type="insufficient_quota", message="You exceeded"),
    ),
    "a JSON body behind a prefix": (
        'HTTP 529: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}',
        ErrorBody(type="overloaded_error", status=529, message="Overloaded"),
    ),
    "an HTML page": (
        "<html>\n<head><title>502 Bad Gateway</title></head>\n<body>nginx</body></html>",
        ErrorBody(status=502, message="502 Bad Gateway"),
    ),
    "prose with a brace": (
        "unexpected character {x} in template",
        ErrorBody(message="unexpected character {x} in template"),
    ),
    "cut off": (
        '{"error": {"code": "model_not_found", "message": "abc',
        ErrorBody(code="model_not_found", message="abc"),
    ),
    "an answer with no words": ("Error code: 502", ErrorBody(status=502, message="Error code: 502")),
    "empty": ("", ErrorBody()),
}


@pytest.mark.parametrize("name", TEXTS)
def test_text(name: str) -> None:
    text, expected = TEXTS[name]
    assert read_error_text(text) == expected


def test_deeply_nested_body_ends() -> None:
    data: dict[str, object] = {"message": "in"}
    for _ in range(200):
        data = {"error": data}
    assert read_error_body(data) == ErrorBody()


@pytest.mark.parametrize(
    ("message", "limits"),
    [
        (
            "This model's maximum context length is 128000 tokens. However, your messages resulted in 204308"
            " tokens.",
            (128000, 204308),
        ),
        (
            "This model's maximum context length is 8192 tokens, however you requested 9001 tokens (8001 in"
            " your prompt; 1000 for the completion).",
            (8192, 9001),
        ),
        ("prompt is too long: 210,000 tokens > 200,000 maximum", (200000, 210000)),
        ("maximum context length is 4096", (4096, None)),
        ("Rate limit reached: Limit 30000, Used 1", (None, None)),
    ],
)
def test_token_limits(message: str, limits: tuple[int | None, int | None]) -> None:
    assert token_limits(message) == limits


@pytest.mark.timeout(5)
@pytest.mark.parametrize(
    "text",
    [
        "<html><title>" + " " * 15_000,
        "<title" * 3000,
        "{" + "[1 " * 6000 + "]",
        '{"a":' * 4000,
        "maximum context length is " + "1" * 15_000,
    ],
)
def test_hostile_text_is_read_in_time(text: str) -> None:
    read_error_text(text)
    token_limits(text)
