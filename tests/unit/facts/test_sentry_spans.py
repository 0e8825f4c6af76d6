"""Failed calls among the spans that Sentry SDKs send."""

from __future__ import annotations

import json
from typing import Any

import pytest

from otel_triage.facts.sentry_spans import SentrySpan, failed_calls, may_hold_failed_calls
from otel_triage.model import LLMError

TRACE_ID, SPAN_ID, ROOT_ID = "46537878cb15443385446d94d97374bb", "8a450092e3e4230a", "a2ec6a285287c051"
ATTRIBUTES = {
    "sentry.op": "gen_ai.chat",
    "sentry.origin": "auto.ai.openai",
    "gen_ai.system": "openai",
    "gen_ai.operation.name": "chat",
    "gen_ai.request.model": "gpt-4o",
    "sentry.environment": "test",
    "server.address": "host",  # the application's own
}
# As sentry_sdk 2.75 writes it, with the attributes that all spans have left out.
STREAMED: dict[str, Any] = {
    "status": "error",
    "trace_id": TRACE_ID,
    "span_id": SPAN_ID,
    "parent_span_id": ROOT_ID,
    "name": "chat gpt-4o",
    "start_timestamp": 1795557796.25,
    "end_timestamp": 1795557796.5,
    "attributes": {name: {"value": value, "type": "string"} for name, value in ATTRIBUTES.items()},
}
# As sentry_sdk 2.50 and @sentry/node 10 write it.
INSIDE: dict[str, Any] = {
    "trace_id": TRACE_ID,
    "span_id": SPAN_ID,
    "parent_span_id": ROOT_ID,
    "op": "gen_ai.chat",
    "status": "internal_error",
    "origin": "auto.ai.openai",
    "start_timestamp": "2026-11-24T22:03:16.250000Z",
    "timestamp": "2026-11-24T22:03:16.500000Z",
    "data": {"gen_ai.system": "openai", "gen_ai.request.model": "gpt-4o"},
}
EXPECTED = SentrySpan(
    error=LLMError(provider="openai", operation="chat", model="gpt-4o"),
    origin="auto.ai.openai",
    trace_id=TRACE_ID,
    span_id=SPAN_ID,
    parent_id=ROOT_ID,
    began=1795557796.25,
    at=1795557796.5,
    environment="test",
)


def transaction(*spans: Any, **trace: Any) -> dict[str, Any]:
    return {
        "type": "transaction",
        "environment": "test",
        "start_timestamp": 1795557796.25,
        "timestamp": 1795557796.5,
        "contexts": {"trace": {"trace_id": TRACE_ID, "span_id": ROOT_ID, "op": "http.server", **trace}},
        "spans": list(spans),
    }


def read(body: Any) -> list[SentrySpan]:
    payload = json.dumps(body).encode()
    assert list(failed_calls(payload)) == [] or may_hold_failed_calls(payload)
    return list(failed_calls(payload))


@pytest.mark.parametrize(
    "body",
    [
        {"version": 2, "items": [{**STREAMED, "status": "ok"}, STREAMED]},
        transaction(INSIDE),
        transaction({**INSIDE, "op": "db", "data": {}}, {**INSIDE, "status": "ok"}, INSIDE, status="ok"),
        {**INSIDE, "environment": "test"},  # an item `span` of the first version
        # the transaction is the call
        transaction(span_id=SPAN_ID, parent_span_id=ROOT_ID, **{
            name: INSIDE[name] for name in ("op", "status", "origin", "data")
        }),
    ],
)  # fmt: skip
def test_whole_spans(body: Any) -> None:
    assert read(body) == [EXPECTED]


@pytest.mark.parametrize("status", ["ok", "unset", "unknown", "cancelled", None, 2])
def test_what_did_not_fail(status: Any) -> None:
    for body in (transaction({**INSIDE, "status": status}), {"items": [{**STREAMED, "status": status}]}):
        assert read(body) == []
        assert not may_hold_failed_calls(json.dumps(body).encode())


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        transaction({**INSIDE, "op": "gen_ai.execute_tool"}),  # a tool failed, or a step around calls
        transaction({**INSIDE, "op": "gen_ai.invoke_agent"}),
        transaction({**INSIDE, "op": "db", "data": {}}),
        transaction({**INSIDE, "trace_id": None}),
        transaction({**INSIDE, "timestamp": None}),
        transaction({**INSIDE, "data": [1], "op": 3}),
        {"items": [{**STREAMED, "attributes": {"gen_ai.system": "openai"}}, 7], "spans": {"x": 1}},
    ],
)
def test_what_is_no_failed_call(body: Any) -> None:
    assert read(body) == []


@pytest.mark.parametrize("payload", [b"{", b"\xff", b'{"status":"error"' * 3])
def test_what_cannot_be_read(payload: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        list(failed_calls(payload))
