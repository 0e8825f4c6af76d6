"""The example service -> sidecar -> sink: whole spans and error events, as a backend gets them.

The expected records are written by hand: bodies and headers from the sources that
`otel_triage/demo/scenarios.toml` cites, names from OpenTelemetry's GenAI conventions and the
project's own, verdicts from the taxonomy.
"""

from __future__ import annotations

import re
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from otel_triage.verdict.classify import version

EXAMPLE = Path(__file__).parents[2] / "examples" / "fastapi_chat"
HEX32, HEX16, NUMBER = re.compile(r"[0-9a-f]{32}"), re.compile(r"[0-9a-f]{16}"), re.compile(r"\d+")
FINGERPRINT = re.compile(r"f:[0-9a-f]+")
QUESTION = "Which harbour towns are there?"  # 30 characters, 30 // 4 tokens by the rule of thumb


def openai_account() -> dict[str, str]:
    return {"triage.account": "demo-org"}  # the header openai-organization of the answer


# Confidence is a share that was counted, anew with each rule set: of one of the kinds of support.
COUNTED = tomllib.loads(files("otel_triage.verdict").joinpath("calibration.toml").read_text("utf-8"))["rows"]
SURE = frozenset(
    share
    for right, errors in COUNTED.values()
    if errors >= 8 and (share := round((right + 1) / (errors + 2), 3)) >= 0.85
)
CALL = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o-mini",
    "server.address": "127.0.0.1",
}
IDS = {"triage.call_id": HEX32, "triage.error_id": HEX32}
BY_RULES = {"triage.source": "rules", "triage.version": version(), "triage.fingerprint": FINGERPRINT}

QUOTA_MESSAGE = (
    "You exceeded your current quota, please check your plan and billing details. For more information "
    "on this error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors."
)
QUOTA_ON_SPAN = (
    BY_RULES
    | IDS
    | openai_account()
    | {
        "triage.category": "rate_limit",
        "triage.reason": "quota_exhausted",
        "triage.severity": "high",
        "triage.retryable": "no",
        "triage.owner": "account",
        "triage.confidence": SURE,
        "triage.root_cause": "The account at OpenAI has no credit left, or its spending cap is reached. "
        "Every call fails until that changes.",
        "triage.suggested_action": "Do not retry. Add credit or raise the spending cap in OpenAI's billing "
        "settings.",
        "triage.outcome": "failed",
        "triage.provider.error_code": "insufficient_quota",
        "triage.provider.error_type": "insufficient_quota",
        "triage.provider.request_id": "req_00000000000000000000000000000001",
        "triage.attempts": 1,
    }
)
CUT_MESSAGE = "peer closed connection without sending complete message body (incomplete chunked read)"
CUT_ON_SPAN = (
    BY_RULES
    | IDS
    | openai_account()
    | {
        "triage.category": "network_error",
        "triage.reason": "stream_interrupted",
        "triage.severity": "low",
        "triage.retryable": "yes",
        "triage.owner": "network",
        "triage.confidence": SURE,
        "triage.root_cause": "The connection to OpenAI broke in the middle of the answer; the text that "
        "arrived is incomplete.",
        "triage.suggested_action": "Discard the partial answer and retry. If it goes on: look for proxies "
        "with short time-outs.",
        "triage.outcome": "failed",
        "triage.provider.request_id": "req_00000000000000000000000000000001",
        "triage.attempts": 1,
        "triage.broke_at": "stream",
    }
)
OVERLOADED_ON_SPAN = (
    BY_RULES
    | IDS
    | {
        "triage.account": "00000000-0000-4000-8000-000000000000",
        "triage.category": "provider_error",
        "triage.reason": "overloaded",
        "triage.severity": "medium",
        "triage.retryable": "yes",
        "triage.owner": "provider",
        "triage.confidence": SURE,
        "triage.root_cause": "Anthropic has too little capacity for claude-sonnet-4-5 at the moment "
        "(HTTP 529). Your own limits are not the cause.",
        "triage.suggested_action": "Retry with growing pauses. If it goes on: fail over to another model or "
        "region.",
        "triage.outcome": "failed",
        "triage.provider.error_type": "overloaded_error",
        "triage.provider.request_id": "req_011C00000000000000000001",
        "triage.attempts": 1,
    }
)
LENGTH_ON_SPAN = (
    BY_RULES
    | IDS
    | openai_account()
    | {
        "triage.category": "prompt_issue",
        "triage.reason": "output_truncated",
        "triage.severity": "low",
        "triage.retryable": "no",
        "triage.owner": "prompt",
        "triage.confidence": 0.97,
        "triage.root_cause": "The answer of gpt-4o-mini was cut off at its token limit (finish "
        "reason length): 3 output tokens.",
        "triage.suggested_action": "Raise max_tokens, ask for a shorter answer, or continue from where it "
        "stopped. The same call will be cut again.",
        "triage.outcome": "soft",
        "triage.provider.request_id": "req_00000000000000000000000000000001",
        "triage.attempts": 1,
    }
)
ANTHROPIC_CALL = CALL | {
    "gen_ai.provider.name": "anthropic",
    "gen_ai.request.model": "claude-sonnet-4-5",
    "gen_ai.request.max_tokens": 512,
}
# The limits that the scenarios' headers tell (x-ratelimit-…, anthropic-ratelimit-…).
LIMITS = {
    "triage.ratelimit.requests.limit": 10000,
    "triage.ratelimit.requests.remaining": 9999,
    "triage.ratelimit.requests.reset_s": 8.64,
    "triage.ratelimit.tokens.limit": 200000,
    "triage.ratelimit.tokens.remaining": 199977,
    "triage.ratelimit.tokens.reset_s": 0.006,
}
ESTIMATE = {"triage.input_tokens_estimate": 7}

# route, scenario -> how the span looks besides the verdict, the verdict on it, what only the event has
CASES: dict[tuple[str, str], tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    ("/chat", "openai.chat.insufficient_quota"): (
        {
            "name": "chat gpt-4o-mini",
            "status": {"code": "ERROR", "message": QUOTA_MESSAGE},
            "attributes": CALL | {"error.type": "openai.RateLimitError", "http.response.status_code": 429},
        },
        QUOTA_ON_SPAN,
        ESTIMATE
        | {
            "triage.attempt_statuses": [429],
            "exception.type": "openai.RateLimitError",
            "exception.message": QUOTA_MESSAGE,
            "exception.stacktrace": re.compile(r"(?s)Traceback .*openai\.RateLimitError: Error code: 429 .*"),
        },
    ),
    ("/chat/stream", "openai.chat.cut_stream"): (
        {
            "name": "chat gpt-4o-mini",
            "status": {"code": "ERROR", "message": CUT_MESSAGE},
            "attributes": CALL
            | {
                "error.type": "httpx2.RemoteProtocolError",
                "http.response.status_code": 200,
                "gen_ai.request.stream": True,
                "gen_ai.response.model": "gpt-4o-mini",
            },
        },
        CUT_ON_SPAN,
        ESTIMATE
        | LIMITS
        | {
            "triage.attempt_statuses": [200],
            "triage.stream.chunks": 3,
            "triage.root_cause": "The connection to OpenAI broke in the middle of the answer, after 3 "
            "chunks; the text that arrived is incomplete.",
            "exception.type": "httpx2.RemoteProtocolError",
            "exception.message": CUT_MESSAGE,
            "exception.stacktrace": re.compile(
                r"(?s)Traceback .*httpx2\.RemoteProtocolError: peer closed .*"
            ),
        },
    ),
    ("/summary", "anthropic.messages.overloaded"): (
        {
            "name": "chat claude-sonnet-4-5",
            "status": {"code": "ERROR", "message": "Overloaded"},
            "attributes": ANTHROPIC_CALL | {"error.type": "529", "http.response.status_code": 529},
        },
        OVERLOADED_ON_SPAN,
        {
            "triage.input_tokens_estimate": 10,  # "Summarise: " and the question, 41 // 4
            "triage.attempt_statuses": [529],
            "exception.message": "Overloaded",
        },
    ),
    ("/chat", "openai.chat.length"): (
        {
            "name": "chat gpt-4o-mini",
            "status": {"code": "UNSET", "message": ""},
            "attributes": CALL
            | {
                "http.response.status_code": 200,
                "gen_ai.response.model": "gpt-4o-mini",
                "gen_ai.response.finish_reasons": ["length"],
                "gen_ai.usage.input_tokens": 12,
                "gen_ai.usage.output_tokens": 3,
            },
        },
        LENGTH_ON_SPAN,
        LIMITS | {"triage.attempt_statuses": [200]},
    ),
}


def matches(got: Any, expected: Any) -> Any:
    """`got` with what fits a pattern of `expected` replaced by it, so that one comparison shows the rest."""
    if isinstance(expected, frozenset):
        return expected if got in expected else got
    if isinstance(expected, re.Pattern):
        return expected if isinstance(got, str) and expected.fullmatch(got) else got
    if isinstance(expected, dict) and isinstance(got, dict):
        return {key: matches(value, expected.get(key)) for key, value in got.items()}
    if isinstance(expected, list) and isinstance(got, list) and len(expected) == len(got):
        return [matches(one, like) for one, like in zip(got, expected, strict=True)]
    return got


@pytest.mark.parametrize(("route", "scenario"), CASES)
def test_whole_records(world: Any, route: str, scenario: str) -> None:
    sink = world.sink()
    _, sidecar = world.sidecar(otlp_endpoint=f"http://{sink.grpc}")
    check_whole_records(world, sink, sidecar, route, scenario)


def check_whole_records(world: Any, sink: Any, sidecar: str, route: str, scenario: str) -> None:
    """One call of the example, by this way and with this scenario; what arrives is as it is written here."""
    look, on_span, on_event = CASES[route, scenario]
    app, client = world.app(EXAMPLE, sidecar)
    world.provider.default = scenario
    client.post(route, json={"text": QUESTION})
    app.end()
    sink.wait_for(lambda: sink.events() and [span for span in sink.spans() if span["span_kind"] == "SERVER"])

    resource = {
        "service.name": "chat",
        "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "opentelemetry",
        "telemetry.sdk.version": re.compile(r"\d+\.\d+\.\d+"),
        "service.instance.id": re.compile(r"[0-9a-f-]{36}"),
    }
    (server,) = [span for span in sink.spans() if span["span_kind"] == "SERVER"]
    (span,) = [span for span in sink.spans() if span["scope"] == "otel_triage"]
    expected_span = {
        "kind": "span",
        "name": look["name"],
        "trace_id": server["trace_id"],
        "span_id": HEX16,
        "parent_span_id": server["span_id"],
        "span_kind": "CLIENT",
        "status": look["status"],
        "attributes": look["attributes"] | on_span,
        "events": [],
        "resource": resource,
        "scope": "otel_triage",
    }
    times = {"start": span.pop("start"), "end": span.pop("end")}
    assert matches(span, expected_span) == expected_span
    assert server["start"] <= times["start"] < times["end"]

    (event,) = sink.events()
    soft = on_span["triage.outcome"] == "soft"
    expected_event = {
        "kind": "log",
        "event_name": "triage.soft_failure" if soft else "gen_ai.client.operation.exception",
        "severity": "WARN",
        "severity_number": 13,
        "body": on_event.get("exception.message"),
        "trace_id": span["trace_id"],
        "span_id": span["span_id"],
        "attributes": look["attributes"] | on_span | on_event,
        "resource": resource,
        "scope": "otel_triage",
    }
    moments = {"time": event.pop("time"), "observed_time": event.pop("observed_time")}
    assert matches(event, expected_event) == expected_event
    assert times["start"] < moments["time"] <= moments["observed_time"]
    assert event["attributes"]["triage.error_id"] == span["attributes"]["triage.error_id"]
    assert QUESTION not in str(sink.spans()) + str(sink.events())
