"""Records of errors to facts: tags, texts, chains and stacks together."""

from __future__ import annotations

from typing import Any

import pytest

from otel_triage.facts.records import facts_of_record, facts_of_text
from otel_triage.model import Cause, LLMError

QUOTA = "You exceeded your current quota, please check your plan and billing details."
BODY = f"{{'error': {{'message': '{QUOTA}', 'type': 'insufficient_quota', 'code': 'insufficient_quota'}}}}"


def test_a_record_of_the_contract() -> None:
    record = {
        "error_type": "RateLimitError",
        "error_message": f"Error code: 429 - {BODY}",
        "stacktrace": None,
        "tags": {"provider": "openai", "model": "gpt-4o", "http_status": "429"},
        "timestamp": "2026-01-19T00:00:00Z",
        "id": "passed through, and no fact",
    }
    assert facts_of_record(record) == LLMError(
        provider="openai",
        model="gpt-4o",
        status=429,
        error_type="RateLimitError",
        code="insufficient_quota",
        type="insufficient_quota",
        message=QUOTA,
        causes=(Cause("RateLimitError", f"Error code: 429 - {BODY}"),),
    )


@pytest.mark.parametrize(
    ("tags", "facts"),
    [
        # names as other tools write them -> OpenTelemetry's (dialects.toml, [providers])
        ({"provider": "azure"}, {"provider": "azure.ai.openai"}),
        ({"provider": "vertex_ai"}, {"provider": "gcp.vertex_ai"}),
        ({"provider": "mistral", "status": 404}, {"provider": "mistral_ai", "status": 404}),
        ({"gen_ai.system": "az.ai.openai"}, {"provider": "azure.ai.openai"}),
        (
            {"base_url": "https://api.deepseek.com/v1", "provider": "openai"},
            {"provider": "deepseek", "server_address": "api.deepseek.com"},
        ),
        ({"status_code": "503"}, {"status": 503}),
        ({"http_status": "timeout"}, {}),
        ({"stream": "true", "max_tokens": "50"}, {"stream": True, "max_tokens": 50}),
        ({"finish_reason": "length"}, {"finish_reasons": ("length",)}),
        ({"retry_after": "12"}, {"retry_after_s": 12.0}),
        ({"error_code": "model_not_found", "unknown": "x"}, {"code": "model_not_found"}),
        ({"model": None, "provider": ["openai"]}, {}),
    ],
)
def test_tags(tags: dict[str, Any], facts: dict[str, Any]) -> None:
    assert facts_of_text(tags=tags) == LLMError(**facts)


def test_a_tag_beats_the_text_but_not_a_good_status() -> None:
    assert facts_of_text("E", "Error code: 500 - busy now", "", {"http_status": "429"}).status == 429
    assert facts_of_text("E", "Error code: 529 - busy now", "", {"http_status": "200"}).status == 529


def test_the_provider_is_read_from_an_address_in_the_text() -> None:
    text = "Client error '401 Unauthorized' for url 'https://api.anthropic.com/v1/messages'"
    assert facts_of_text("httpx.HTTPStatusError", text).provider == "anthropic"
    assert facts_of_text("E", "see https://platform.openai.com/docs/errors").provider is None
    botocore = (
        'Read timeout on endpoint URL: "https://bedrock-runtime.us-east-1.amazonaws.com/model/x/invoke"'
    )
    assert facts_of_text("ReadTimeoutError", botocore).provider == "aws.bedrock"
    pool = "HTTPSConnectionPool(host='api.groq.com', port=443): Max retries exceeded"
    assert facts_of_text("ConnectionError", pool).provider == "groq"


def test_limits_in_the_message() -> None:
    error = facts_of_text("BadRequestError", "prompt is too long: 210000 tokens > 200000 maximum")
    assert (error.context_limit, error.requested_tokens) == (200000, 210000)


def test_the_provider_speaks_inside_of_the_chain() -> None:
    stack = (
        'Traceback (most recent call last):\n  File "/v/site-packages/openai/_base_client.py", line 1, in f\n'
        f"    raise e\nopenai.RateLimitError: Error code: 429 - {BODY}\n"
        "\nThe above exception was the direct cause of the following exception:\n\n"
        'Traceback (most recent call last):\n  File "/app/a.py", line 1, in f\n    g()\n'
        "app.AskFailed: The assistant answered with status 500\n"
    )
    error = facts_of_text("AskFailed", "The assistant answered with status 500", stack)
    assert error == LLMError(
        status=429,
        error_type="app.AskFailed",
        code="insufficient_quota",
        type="insufficient_quota",
        message=QUOTA,
        stacktrace=stack,
        causes=(
            Cause("app.AskFailed", "The assistant answered with status 500"),
            Cause("openai.RateLimitError", f"Error code: 429 - {BODY}"),
        ),
    )


def test_a_wrapper_with_a_status_of_its_own_yields_to_the_cause() -> None:
    stack = (
        'Traceback (most recent call last):\n  File "/a.py", line 1, in f\n    x\n'
        "B: Error code: 401 - bad key given\n"
        "\nDuring handling of the above exception, another exception occurred:\n\n"
        'Traceback (most recent call last):\n  File "/b.py", line 1, in f\n    x\nA: HTTP 500: it failed\n'
    )
    error = facts_of_text("A", "HTTP 500: it failed", stack)
    assert (error.status, error.message) == (401, "bad key given")


def test_members_that_node_prints_behind_the_stack() -> None:
    # util.inspect of an openai (npm) APIError
    stack = (
        "Error: 429 You exceeded it\n"
        "    at APIError.generate (/app/node_modules/openai/core/error.js:53:20) {\n"
        "  status: 429,\n  code: 'insufficient_quota',\n  param: null,\n  type: 'insufficient_quota'\n}"
    )
    error = facts_of_text("Error", "429 You exceeded it", stack)
    assert (error.status, error.code, error.type, error.message) == (
        429,
        "insufficient_quota",
        "insufficient_quota",
        "You exceeded it",
    )


def test_the_last_attempt_of_a_retry_is_a_cause() -> None:
    text = "RetryError[<Future at 0x7f state=finished raised RateLimitError>]"
    assert facts_of_text("tenacity.RetryError", text).causes == (
        Cause("tenacity.RetryError", text),
        Cause("RateLimitError"),
    )


def test_a_reset_is_counted_from_the_records_time() -> None:
    record = {
        "error_message": "limit will reset at 2026-01-19T01:00:00Z",
        "timestamp": "2026-01-19T00:30:00+00:00",
    }
    assert facts_of_record(record).retry_after_s == 1800.0
    assert facts_of_record({**record, "timestamp": 1_768_784_340}).retry_after_s == 60.0
    assert facts_of_record({**record, "timestamp": "yesterday"}).retry_after_s is None


def test_members_of_the_wrong_kind_are_unknown() -> None:
    record = {"error_type": 1, "error_message": ["x"], "stacktrace": {}, "tags": [], "timestamp": True}
    assert facts_of_record(record) == LLMError()
