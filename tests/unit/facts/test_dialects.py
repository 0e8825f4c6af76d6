"""The table of dialects: each row read from attributes as its source writes them."""

from __future__ import annotations

import tomllib
from importlib.resources import files

import pytest

from otel_triage.facts.dialects import Reading, Role, read_attributes
from otel_triage.facts.wire import FACT_NAMES
from otel_triage.model import LLMError


def test_current_otel_names_and_ours() -> None:
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": "claude-x",
        "gen_ai.request.max_tokens": 10,
        "gen_ai.request.stream": True,
        "gen_ai.response.finish_reasons": ("length",),
        "http.response.status_code": 429,
        "http.request.resend_count": 2,
        "triage.error_id": "e1",
        "triage.provider.error_code": "overloaded",
    }
    assert read_attributes(attributes) == Reading(
        Role.CALL,
        LLMError(
            operation="chat",
            provider="anthropic",
            model="claude-x",
            max_tokens=10,
            stream=True,
            finish_reasons=("length",),
            status=429,
            attempts=3,
            error_id="e1",
            code="overloaded",
        ),
    )


def test_old_otel_names_lose_against_current_ones() -> None:
    attributes = {
        "gen_ai.system": "az.ai.openai",
        "gen_ai.usage.prompt_tokens": 5,
        "gen_ai.usage.completion_tokens": 2,
        "gen_ai.usage.input_tokens": 6,
    }
    assert read_attributes(attributes) == Reading(
        Role.CALL, LLMError(provider="azure.ai.openai", input_tokens=6, output_tokens=2)
    )


def test_openllmetry_request_type_and_base_url() -> None:
    attributes = {
        "gen_ai.system": "openai",
        "llm.request.type": "completion",
        "llm.is_streaming": False,
        "gen_ai.openai.api_base": "https://api.groq.com/openai/v1/",
    }
    # The openai SDK serves any endpoint: the host says who answers.
    assert read_attributes(attributes) == Reading(
        Role.CALL,
        LLMError(provider="groq", operation="text_completion", stream=False, server_address="api.groq.com"),
    )


def test_openinference_invocation_parameters() -> None:
    attributes = {
        "openinference.span.kind": "LLM",
        "llm.system": "openai",
        "llm.invocation_parameters": '{"model": "gpt-4o", "stream": true, "max_tokens": 50}',
        "llm.finish_reason": "length",
        "llm.token_count.prompt": 5,
    }
    assert read_attributes(attributes) == Reading(
        Role.CALL,
        LLMError(
            provider="openai",
            operation="chat",
            model="gpt-4o",
            stream=True,
            max_tokens=50,
            finish_reasons=("length",),
            input_tokens=5,
        ),
    )


def test_logfire_writes_lists_as_json() -> None:
    attributes = {"gen_ai.request.model": "gpt-4o", "gen_ai.response.finish_reasons": '["length"]'}
    assert read_attributes(attributes).facts == LLMError(model="gpt-4o", finish_reasons=("length",))


def test_anthropic_error_type_is_the_providers_in_its_own_scope_only() -> None:
    attributes = {"gen_ai.provider.name": "anthropic", "error.type": "rate_limit_error"}
    own = read_attributes(attributes, scope="com.anthropic.sdk.python").facts
    assert own == LLMError(provider="anthropic", error_type="rate_limit_error", type="rate_limit_error")
    assert read_attributes(attributes, scope="app").facts.type is None
    # The client's own word for what broke is no error type of the provider.
    told = {"error.type": "connection_error", "gen_ai.provider.name": "anthropic"}
    assert read_attributes(told, scope="com.anthropic.sdk.python").facts.type is None


@pytest.mark.parametrize(
    ("attributes", "role"),
    [
        ({"gen_ai.operation.name": "invoke_agent", "gen_ai.request.model": "gpt-4o"}, Role.CARRIER),
        ({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "pay"}, Role.CARRIER),
        ({"openinference.span.kind": "CHAIN", "llm.model_name": "gpt-4o"}, Role.CARRIER),
        ({"traceloop.span.kind": "workflow"}, Role.CARRIER),
        ({"gen_ai.agent.name": "a"}, Role.CARRIER),
        ({"ai.operationId": "ai.generateText", "ai.model.id": "gpt-4o"}, Role.CARRIER),
        ({"ai.operationId": "ai.generateText.doGenerate", "ai.model.id": "gpt-4o"}, Role.CALL),
        ({"gen_ai.operation.name": "speech", "gen_ai.request.model": "tts-1"}, Role.CALL),
        ({"http.method": "POST", "http.status_code": 429}, Role.OTHER),
        ({"model_name": "xl", "db.system": "redis"}, Role.OTHER),
    ],
)
def test_roles(attributes: dict[str, str], role: Role) -> None:
    assert read_attributes(attributes).role is role


def test_http_semconv_old_and_new() -> None:
    old = {"http.url": "https://api.openai.com/v1/chat/completions", "http.status_code": 429}
    new = {"url.full": "https://api.openai.com/v1/chat/completions", "error.type": "429"}
    facts = LLMError(provider="openai", server_address="api.openai.com", status=429)
    assert read_attributes(old).facts == facts
    assert read_attributes(new).facts.status == 429
    headers = {"http.response.header.retry-after": ("20",)}
    assert read_attributes(headers).facts.retry_after_s == 20.0


def test_values_of_the_wrong_kind_are_no_facts() -> None:
    attributes = {
        "gen_ai.request.model": 7,
        "http.status_code": "soon",
        "llm.invocation_parameters": "{broken",
        "url.full": "http://[broken",
        "gen_ai.response.finish_reasons": "[broken",
        "http.response.header.retry-after": ("Wed, 21 Oct 2015 07:28:00 GMT",),
    }
    assert read_attributes(attributes).facts == LLMError(finish_reasons=("[broken",))


def test_table_is_sound() -> None:
    table = tomllib.loads(files("otel_triage.facts").joinpath("dialects.toml").read_text("utf-8"))
    known = {*FACT_NAMES.values(), "http.request.resend_count"}
    for row in table["dialect"]:
        assert row["source"].startswith("https://"), row["name"]
        assert set(row) <= {"name", "source", "kind", "calls", "carriers", "scope", "unless", "facts"}
        assert set(row.get("facts", {})) <= known, row["name"]
        assert row.get("kind") or not (row.get("calls") or row.get("carriers")), row["name"]
