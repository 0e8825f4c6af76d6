"""What is an LLM error and what is not: positives and negatives of other trades."""

from __future__ import annotations

import pytest
from span_dumps import make_span

from otel_triage.facts.evidence import Evidence, evidence_of_span, is_cancelled, is_llm_exception
from otel_triage.facts.otlp import read_span
from otel_triage.model import Cause, LLMError, Outcome

INTERNAL, SERVER, CLIENT, CONSUMER = 1, 2, 3, 5


def _stack(*files: str, last: str = "ValueError: x") -> str:
    frames = "".join(f'  File "{file}", line 1, in f\n    g()\n' for file in files)
    return f"Traceback (most recent call last):\n{frames}{last}\n"


def _evidence(attributes: dict[str, object], *, kind: int = INTERNAL, **exception: str) -> Evidence:
    told = {f"exception.{name}": value for name, value in exception.items()}
    span = make_span(attributes, kind=kind, exception=told or None)
    return evidence_of_span(read_span(span), kind)


OPENAI = {"http.request.method": "POST", "url.full": "https://api.openai.com/v1/chat/completions"}


@pytest.mark.parametrize(
    ("attributes", "kind", "exception", "expected"),
    [
        ({"gen_ai.request.model": "gpt-4o"}, CLIENT, {}, Evidence.CALL),
        ({"triage.error_id": "e1"}, CLIENT, {}, Evidence.CALL),
        ({"triage.error_id": "e1", "triage.outcome": "absorbed"}, CLIENT, {}, Evidence.NONE),
        ({"gen_ai.request.model": "gpt-4o"}, SERVER, {}, Evidence.NONE),
        ({}, INTERNAL, {"type": "openai.RateLimitError"}, Evidence.EXCEPTION),
        ({}, SERVER, {"type": "openai.RateLimitError"}, Evidence.NONE),
        ({}, CONSUMER, {"type": "anthropic.APIStatusError"}, Evidence.NONE),
        ({"error.type": "litellm.exceptions.RateLimitError"}, INTERNAL, {}, Evidence.EXCEPTION),
        (OPENAI, CLIENT, {}, Evidence.HOST),
        (OPENAI, INTERNAL, {}, Evidence.NONE),
        ({**OPENAI, "http.request.method": "GET"}, CLIENT, {}, Evidence.NONE),
        ({**OPENAI, "triage.call_id": "c1"}, CLIENT, {}, Evidence.NONE),
        ({"gen_ai.request.model": "gpt-4o", "triage.call_id": "c1"}, CLIENT, {}, Evidence.CALL),
        (
            {"http.method": "POST", "http.url": "https://proxy.example.com/v1/chat/completions"},
            CLIENT,
            {},
            Evidence.NONE,
        ),
        (
            {
                "rpc.system": "grpc",
                "rpc.service": "google.cloud.aiplatform.v1.PredictionService",
                "rpc.method": "GenerateContent",
                "server.address": "us-central1-aiplatform.googleapis.com",
            },
            CLIENT,
            {},
            Evidence.HOST,
        ),
        (
            {"rpc.system": "aws-api", "server.address": "bedrock-runtime.us-east-1.amazonaws.com"},
            CLIENT,
            {},
            Evidence.HOST,
        ),
        # An agent, a chain or a tool is no call; what it raises may be an LLM error.
        (
            {"gen_ai.operation.name": "execute_tool"},
            INTERNAL,
            {"type": "stripe.error.CardError"},
            Evidence.NONE,
        ),
        (
            {"gen_ai.operation.name": "invoke_agent"},
            INTERNAL,
            {"type": "pydantic_ai.exceptions.UsageLimitExceeded"},
            Evidence.EXCEPTION,
        ),
        (
            {"gen_ai.request.model": "gpt-4o"},
            CLIENT,
            {"type": "asyncio.exceptions.CancelledError"},
            Evidence.NONE,
        ),
        (
            {"gen_ai.request.model": "gpt-4o"},
            CLIENT,
            {"type": "*errors.errorString", "message": "context canceled"},
            Evidence.NONE,
        ),
        ({"gen_ai.request.model": "gpt-4o", "http.response.status_code": 499}, CLIENT, {}, Evidence.NONE),
    ],
)
def test_evidence(
    attributes: dict[str, object], kind: int, exception: dict[str, str], expected: Evidence
) -> None:
    assert _evidence(attributes, kind=kind, **exception) is expected


SITE = "/app/.venv/lib/python3.12/site-packages"


@pytest.mark.parametrize(
    "stack",
    [
        _stack(
            "/app/main.py",
            f"{SITE}/openai/_base_client.py",
            f"{SITE}/httpx/_client.py",
            last="ValueError: proxy",
        ),
        _stack("C:\\app\\Lib\\site-packages\\anthropic\\_client.py", last="httpx2.ReadTimeout: timed out"),
        _stack("/app/main.py", f"{SITE}/langchain_core/prompts/string.py", last="KeyError: 'name'"),
        _stack("/app/main.py", f"{SITE}/google/genai/errors.py", last="google.genai.errors.ClientError: 429"),
        _stack("/app/main.py", f"{SITE}/mistralai/sdk.py"),
        "Error: 429 Rate limit reached\n    at f (/app/node_modules/openai/core.js:1:2)\n",
        "Error: boom\n    at f (/app/node_modules/@ai-sdk/openai/dist/index.js:1:2)\n",
        "java.io.IOException: x\n\tat com.anthropic.core.Http.send(Http.kt:1)\n",
    ],
)
def test_stacks_of_llm_clients(stack: str) -> None:
    assert is_llm_exception(LLMError(stacktrace=stack))


@pytest.mark.parametrize(
    "error",
    [
        # OpenStack's workflow engine, a course platform, Django apps called agents, other trades' packages.
        LLMError(causes=(Cause("mistral.exceptions.MistralException"),)),
        LLMError(stacktrace=_stack("/opt/st2/lib/python3.8/site-packages/mistral/engine/tasks.py")),
        LLMError(stacktrace=_stack("/edx/lms/djangoapps/instructor/views/api.py")),
        LLMError(causes=(Cause("instructor.models.DoesNotExist"),)),
        LLMError(causes=(Cause("agents.models.Agent.DoesNotExist"),)),
        LLMError(causes=(Cause("marvin.cloudstackException.CloudstackAPIException"),)),
        LLMError(stacktrace=_stack(f"{SITE}/fireworks/core/launchpad.py")),
        LLMError(stacktrace=_stack(f"{SITE}/haystack/backends/elasticsearch_backend.py")),
        LLMError(causes=(Cause("openai_compat.RateLimitError"),)),
        LLMError(causes=(Cause("RateLimitError"), Cause("APIConnectionError"))),
        LLMError(stacktrace=_stack("/app/openai/client.py")),
        LLMError(causes=(Cause("stripe.error.RateLimitError", "Too many requests"),)),
        LLMError(causes=(Cause("redis.exceptions.TimeoutError", "Timeout reading from socket"),)),
        # A tool that an agent runs: the framework is below it, but did not raise.
        LLMError(
            stacktrace=_stack(
                f"{SITE}/pydantic_ai/_agent_graph.py", "/app/tools.py", last="stripe.error.CardError: x"
            )
        ),
        LLMError(stacktrace="Error: x\n    at f (/app/node_modules/openai-like/core.js:1:2)\n"),
    ],
)
def test_other_trades_are_no_evidence(error: LLMError) -> None:
    assert not is_llm_exception(error)


def test_cancelled() -> None:
    assert is_cancelled(LLMError(outcome=Outcome.CANCELLED))
    assert is_cancelled(LLMError(causes=(Cause("AbortError"),)))
    assert not is_cancelled(
        LLMError(causes=(Cause("openai.APITimeoutError"), Cause("asyncio.CancelledError")))
    )
    assert not is_cancelled(LLMError(status=500, message="canceled orders cannot be read"))
