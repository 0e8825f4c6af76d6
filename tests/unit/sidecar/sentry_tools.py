"""Envelopes, and a sidecar with the real triage stage in front of a recording Sentry."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from otel_triage.demo.sentry_sink import SentrySink
from otel_triage.sidecar.process import Sidecar
from otel_triage.sidecar.settings import load
from otel_triage.sidecar.wiring import rules_and_desk

KEY = "0123456789abcdef0123456789abcdef"
AUTH = {"x-sentry-auth": f"Sentry sentry_version=7, sentry_client=test/1.0, sentry_key={KEY}"}
EVENT_ID = "9ec79c33ec9942ab8353589fcb2e04dc"
TEXT = (
    "Error code: 429 - {'error': {'message': 'Rate limit reached for requests', 'type': 'requests',"
    " 'param': None, 'code': 'rate_limit_exceeded'}}"
)


def llm_event(event_id: str = EVENT_ID, text: str = TEXT, **more: Any) -> dict[str, Any]:
    """What sentry_sdk makes of openai's RateLimitError, cut down."""
    frames = [
        {"module": "app", "function": "ask", "in_app": True, "lineno": 3},
        {"module": "openai._base_client", "function": "request", "in_app": False, "lineno": 9},
    ]
    value = {"type": "RateLimitError", "module": "openai", "value": text, "stacktrace": {"frames": frames}}
    return {
        "event_id": event_id,
        "timestamp": "2026-11-24T10:00:00.123456Z",
        "platform": "python",
        "level": "error",
        "exception": {"values": [value]},
        **more,
    }


def item(kind: str, payload: bytes | dict[str, Any], *, sized: bool = True, **headers: Any) -> bytes:
    """One item, with its newline."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    length = {"length": len(body)} if sized else {}
    return json.dumps({"type": kind, **length, **headers}).encode() + b"\n" + body + b"\n"


def envelope(*items: bytes, **headers: Any) -> bytes:
    """An envelope of these items."""
    return json.dumps(headers).encode() + b"\n" + b"".join(items)


def event_envelope(event: dict[str, Any] | None = None, **headers: Any) -> bytes:
    """An envelope of one error event."""
    event = event or llm_event()
    return envelope(item("event", event), **{"event_id": event["event_id"], **headers})


@asynccontextmanager
async def forwarding(
    data_dir: Path, sentry: SentrySink | None = None, **settings: Any
) -> AsyncIterator[Sidecar]:
    """A running sidecar with rules and desk; closed at once in the end."""
    given = {"grpc_listen": "127.0.0.1:0", "http_listen": "127.0.0.1:0", "admin_listen": "127.0.0.1:0"}
    given |= {"data_dir": str(data_dir)} | {name: str(value) for name, value in settings.items()}
    if sentry is not None:
        given["sentry_upstream"] = sentry.url
    loaded, _ = load(None, {f"OTEL_TRIAGE_{name.upper()}": value for name, value in given.items()})
    sidecar = Sidecar(loaded, rules_and_desk)
    await sidecar.start()
    try:
        yield sidecar
    finally:
        await sidecar.close()


async def post(
    sidecar: Sidecar,
    body: bytes,
    path: str = "/api/1/envelope/",
    headers: dict[str, str] | None = AUTH,
    **options: Any,
) -> httpx.Response:
    """One request to the HTTP listener."""
    async with httpx.AsyncClient(timeout=20) as client:
        url = f"http://{sidecar.http_listen}{path}"
        return await client.post(url, content=body, headers=headers or {}, **options)


async def kept(sentry: SentrySink, count: int) -> list[Any]:
    """What the upstream has, once it has so much."""
    return await asyncio.to_thread(sentry.wait_for, lambda: (found := sentry.kept())[count - 1 :] and found)
