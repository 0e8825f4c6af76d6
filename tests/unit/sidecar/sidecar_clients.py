"""Raw clients of the sidecar's receivers, and what they read out of the answers."""

from __future__ import annotations

import json
from typing import Any

import grpc
import httpx
import pytest
from google.rpc.status_pb2 import Status
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from sidecar_tools import grpc_client, in_thread

from otel_triage.sidecar.process import Sidecar

PROTOBUF = {"content-type": "application/x-protobuf"}
JSON = {"content-type": "application/json"}
MIB = 1 << 20


def span(name: str) -> ReadableSpan:
    context = trace.SpanContext(0xA1, 0xB2, is_remote=False)
    return ReadableSpan(name, context=context, start_time=1, end_time=2)


def grpc_url(sidecar: Sidecar) -> str:
    return f"http://{sidecar.grpc_listen}"


def http_url(sidecar: Sidecar, path: str = "/v1/traces") -> str:
    return f"http://{sidecar.http_listen}{path}"


async def post(
    sidecar: Sidecar, body: bytes, headers: dict[str, str], path: str = "/v1/traces"
) -> httpx.Response:
    async with httpx.AsyncClient(timeout=20) as client:
        return await client.post(http_url(sidecar, path), content=body, headers=headers)


def call(sidecar: Sidecar, body: bytes, **kwargs: Any) -> bytes:
    with grpc_client(str(sidecar.grpc_listen)) as export:
        return export(body, timeout=10, **kwargs)


async def refused(sidecar: Sidecar, body: bytes, **kwargs: Any) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        await in_thread(call, sidecar, body, **kwargs)
    return caught.value


def status(response: httpx.Response) -> tuple[int, int, str]:
    """HTTP status, gRPC code and text of an error answer in protobuf."""
    assert response.headers["content-type"] == "application/x-protobuf"
    answer = Status.FromString(response.content)
    return response.status_code, answer.code, answer.message


SPAN = {
    "traceId": "5B8EFFF798038103D269B633813FC60C",
    "spanId": "eee19b7ec3c1b174",
    "parentSpanId": "EEE19B7EC3C1B173",
    "name": "chat",
    "kind": 3,
    "startTimeUnixNano": "1544712660000000000",
    "endTimeUnixNano": 1544712661000000000,
    "attributes": [
        {"key": "traceId", "value": {"stringValue": "5B8EFFF798038103D269B633813FC60C"}},
        {"key": "n", "value": {"intValue": 12}},
        {"key": "big", "value": {"intValue": "9007199254740993"}},
        {"key": "half", "value": {"doubleValue": 0.5}},
        {"key": "list", "value": {"arrayValue": {"values": [{"stringValue": "spanId"}, {}]}}},
        {
            "key": "map",
            "value": {"kvlistValue": {"values": [{"key": "spanId", "value": {"stringValue": "x"}}]}},
        },
        {"key": "raw", "value": {"bytesValue": "AAEC"}},
    ],
    "status": {"code": 2, "message": "b\u00f6se"},
    "flags": 257,
    "unknownField": {"traceId": "not hex", "deep": [1, {"spanId": None}]},
    "trace_id": "not a name in OTLP/JSON",
    "droppedEventsCount": None,
}


def json_request(span: dict[str, Any]) -> bytes:
    scope = {"scope": {"name": "s"}, "spans": [span]}
    return json.dumps({"resourceSpans": [{"resource": {}, "scopeSpans": [scope]}], "unknown": 1}).encode()
