"""The failed model calls among the spans that Sentry SDKs send: for counting and joining, nothing is written.

Two forms: a `transaction` with its spans inside, and `span` items of version 2, in which current SDKs send
spans of model calls whatever they do with the others.

Sources: https://develop.sentry.dev/sdk/data-model/event-payloads/transaction/ and
https://develop.sentry.dev/sdk/telemetry/spans/span-protocol/.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from otel_triage.facts.dialects import Role, read_attributes
from otel_triage.facts.records import changed, unix_seconds
from otel_triage.facts.wire import FACT_NAMES
from otel_triage.model import LLMError

_OP: Final = "gen_ai."
_OPERATION: Final = FACT_NAMES["operation"]
# "unknown" is what has no status. A call that was given up on purpose is no failure.
_NOT_FAILED: Final = ("ok", "unset", "unknown", "cancelled")
_FAILED: Final = re.compile(rb'"status"\s*:\s*"(?!(?:%s)")' % "|".join(_NOT_FAILED).encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class SentrySpan:
    """A failed call. Ids are hex, times Unix seconds; `origin` is who made the span."""

    error: LLMError
    origin: str
    trace_id: str
    span_id: str
    parent_id: str
    began: float
    at: float
    environment: str


def may_hold_failed_calls(payload: bytes) -> bool:
    """Whether an item's payload may tell of a failed call, by its bytes alone."""
    return _OP.encode() in payload and _FAILED.search(payload) is not None


def failed_calls(payload: bytes) -> Iterator[SentrySpan]:
    """The failed calls of a transaction, of a list of spans, or of one span.

    Raises:
        ValueError: If it is not JSON.
        RecursionError: If it is nested too deeply.
    """
    body = json.loads(payload)
    if not isinstance(body, dict):
        return
    listed = [one for name in ("items", "spans") for one in _list(body.get(name)) if isinstance(one, dict)]
    for span in (_root(body), *listed):
        if span.get("status") in _NOT_FAILED or not isinstance(span.get("status"), str):
            continue
        if (found := _read(span, str(body.get("environment") or ""))) is not None:
            yield found


def _root(body: Mapping[str, Any]) -> dict[str, Any]:
    """A transaction's own span, which stands apart from the others; a single span is its own."""
    contexts = body.get("contexts")
    trace = contexts.get("trace") if isinstance(contexts, dict) else None
    times = {name: body.get(name) for name in ("start_timestamp", "timestamp")}
    return {**trace, **times} if isinstance(trace, dict) else dict(body)


def _read(span: Mapping[str, Any], environment: str) -> SentrySpan | None:
    attributes = {**_data(span.get("data")), **_typed(span.get("attributes"))}
    operation = attributes.get("sentry.op") or span.get("op")
    if isinstance(operation, str) and operation.startswith(_OP):
        attributes.setdefault(_OPERATION, operation.removeprefix(_OP))
    reading = read_attributes(attributes)
    if reading.role is not Role.CALL:
        return None
    ended = unix_seconds(span.get("end_timestamp") or span.get("timestamp"))
    began = unix_seconds(span.get("start_timestamp"))
    if ended is None or not isinstance(span.get("trace_id"), str) or not isinstance(span.get("span_id"), str):
        return None
    return SentrySpan(
        # SDKs write the application's own host as the server's.
        error=changed(reading.facts, {"server_address": None}),
        origin=str(attributes.get("sentry.origin") or span.get("origin") or ""),
        trace_id=span["trace_id"].replace("-", ""),
        span_id=span["span_id"],
        parent_id=str(span.get("parent_span_id") or ""),
        began=ended if began is None else began,
        at=ended,
        environment=str(attributes.get("sentry.environment") or environment),
    )


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _data(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, dict) else {}


def _typed(value: Any) -> dict[str, Any]:
    """Attributes of version 2, each with its type beside it."""
    return {
        name: one["value"] for name, one in _data(value).items() if isinstance(one, dict) and "value" in one
    }
