"""Recorded spans (`tests/data/spans`) as a backend gets them behind the sidecar: whole, written by hand.

What the instrumentations wrote is theirs; the verdicts are the taxonomy's, with the texts of
`advice/en.toml`. There is no tap here, so no outcome, ids or attempts.
"""

from __future__ import annotations

import re
from typing import Any, Final

from test_whole_records import SURE

from otel_triage.verdict.classify import version

Record = dict[str, Any]

_RESOURCE: Final = {
    "telemetry.sdk.language": "python",
    "telemetry.sdk.name": "opentelemetry",
    "telemetry.sdk.version": "1.45.2",
    "service.name": "demo",
}
_GENAI: Final = {
    "kind": "span",
    "name": "chat gpt-4o",
    "parent_span_id": None,
    "span_kind": "CLIENT",
    "events": [],
    "resource": _RESOURCE | {"service.instance.id": "5c422e14-fb3b-4374-8b49-d2352336670c"},
    "scope": "opentelemetry.instrumentation.genai.openai",
}
_CALL: Final = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o",
    "server.address": "127.0.0.1",
    "server.port": 9700,
    "gen_ai.request.temperature": 0.2,
    "gen_ai.request.max_tokens": 50,
}
_VERDICT: Final = {
    "triage.confidence": SURE,
    "triage.source": "rules",
    "triage.version": version(),
    "triage.fingerprint": re.compile("c:[0-9a-f]{16}"),
}

_OVER_TOKENS: Final = (
    "Error code: 429 - Rate limit reached for gpt-4o in organization org-x on tokens per min (TPM): "
    "Limit 30000, Used 29000, Requested 2000. Please try again in 2s."
)

QUOTA: Final[Record] = _GENAI | {
    "trace_id": "97cebcefcba162b6b6304049711986f7",
    "span_id": "582ac1200b81e2ed",
    "status": {
        "code": "ERROR",
        "message": "Error code: 429 - You exceeded your current quota, please check your plan and billing "
        "details.",
    },
    "start": 1795437679316068896,
    "end": 1795437679325977775,
    "attributes": _CALL
    | {"error.type": "openai.RateLimitError"}
    | _VERDICT
    | {
        "triage.category": "rate_limit",
        "triage.reason": "quota_exhausted",
        "triage.severity": "high",
        "triage.retryable": "no",
        "triage.owner": "account",
        "triage.root_cause": "The account at OpenAI has no credit left, or its spending cap is reached. "
        "Every call fails until that changes.",
        "triage.suggested_action": "Do not retry. Add credit or raise the spending cap in OpenAI's billing "
        "settings.",
    },
}
"""`otel_genai_openai`, `error_429_insufficient_quota`."""

CONTEXT: Final[Record] = _GENAI | {
    "trace_id": "10db3d834d6ecb4c371502822ed3f785",
    "span_id": "7ec7a0d207e96dff",
    "status": {
        "code": "ERROR",
        "message": "Error code: 400 - This model's maximum context length is 8192 tokens.",
    },
    "start": 1795437679498338860,
    "end": 1795437679501750273,
    "attributes": _CALL
    | {"error.type": "openai.BadRequestError"}
    | _VERDICT
    | {
        "triage.category": "invalid_request",
        "triage.reason": "context_length",
        "triage.severity": "medium",
        "triage.retryable": "no",
        "triage.owner": "application",
        "triage.root_cause": "The prompt exceeds gpt-4o's window of 8,192 tokens.",
        "triage.suggested_action": "Shorten the prompt or history, lower max_tokens (now 50), or use a model "
        "with a larger window. A retry cannot work.",
    },
}
"""`otel_genai_openai`, `error_400_context_length`."""

TOKENS: Final[Record] = {
    "kind": "span",
    "name": "openai.chat",
    "trace_id": "70130a7d6695cad3a3a65d6b215e9c71",
    "span_id": "f62f4b104f91a4e6",
    "parent_span_id": None,
    "span_kind": "CLIENT",
    "status": {"code": "ERROR", "message": _OVER_TOKENS},
    "start": 1795437663624402256,
    "end": 1795437663632942249,
    "attributes": {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.request.max_tokens": 50,
        "gen_ai.request.temperature": 0.2,
        "gen_ai.is_streaming": False,
        "gen_ai.openai.api_base": "http://127.0.0.1:9700/429/v1/",
        "error.type": "RateLimitError",
    }
    | _VERDICT
    | {
        "triage.category": "rate_limit",
        "triage.reason": "tokens",
        "triage.severity": "low",
        "triage.retryable": "yes",
        "triage.owner": "account",
        "triage.retry_after_s": 2.0,
        "triage.root_cause": "The account's limit of 30,000 tokens per minute at OpenAI is reached: 29,000 "
        "used, 2,000 more asked for.",
        "triage.suggested_action": "Retry after 2 s. If it goes on: shorten prompts, lower max_tokens (now "
        "50), or ask OpenAI for a higher limit.",
    },
    "events": [
        {
            "name": "exception",
            "time": 1795437663632917452,
            "attributes": {
                "exception.type": "openai.RateLimitError",
                "exception.message": _OVER_TOKENS,
                "exception.stacktrace": re.compile(
                    r"(?s)Traceback .*openai\.RateLimitError: " + re.escape(_OVER_TOKENS) + "\n"
                ),
                "exception.escaped": "False",
            },
        }
    ],
    "resource": _RESOURCE | {"service.instance.id": "ce8e183e-9dee-40c5-9024-73afef93e393"},
    "scope": "opentelemetry.instrumentation.openai.v1",
}
"""`openllmetry`, `error_429_rate_limit`."""

GOOD: Final[Record] = _GENAI | {
    "trace_id": "6c5c2208045ec5512916f384e563c242",
    "span_id": "cec80e5a87aae8e2",
    "status": {"code": "UNSET", "message": ""},
    "start": 1795437678536295181,
    "end": 1795437678546302948,
    "attributes": _CALL
    | {
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.response.model": "gpt-4o-0613",
        "gen_ai.response.id": "chatcmpl-1",
        "gen_ai.usage.input_tokens": 5,
        "gen_ai.usage.output_tokens": 2,
    },
}
"""`otel_genai_openai`, `good_call`: a model call that went well."""

HEALTHY: Final[Record] = {
    "kind": "span",
    "name": "POST",
    "trace_id": "ae9347d35fcff74e2dc4e4e63fd6f10e",
    "span_id": "192cab103f71f566",
    "parent_span_id": None,
    "span_kind": "CLIENT",
    "status": {"code": "UNSET", "message": ""},
    "start": 1795437889128198991,
    "end": 1795437889131160388,
    "attributes": {
        "http.method": "POST",
        "http.url": "http://127.0.0.1:9700/ok/v1/chat/completions",
        "http.status_code": 200,
    },
    "events": [],
    "resource": _RESOURCE | {"service.instance.id": "a15c19a0-7e79-45b0-9f4e-3b944773ad86"},
    "scope": "opentelemetry.instrumentation.httpx",
}
"""`otel_httpx2`, `good_call`: nothing failed, and nothing says that it is a model's."""

DUMPS: Final = {
    QUOTA["span_id"]: ("otel_genai_openai", "error_429_insufficient_quota"),
    CONTEXT["span_id"]: ("otel_genai_openai", "error_400_context_length"),
    TOKENS["span_id"]: ("openllmetry", "error_429_rate_limit"),
    GOOD["span_id"]: ("otel_genai_openai", "good_call"),
    HEALTHY["span_id"]: ("otel_httpx2", "good_call"),
}
"""Where each record's span is kept."""
