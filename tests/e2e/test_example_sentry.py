"""examples/fastapi_chat with Sentry's own SDK: by the sidecar, and past it once it is killed."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import brotli
import pytest
from conftest import REPOSITORY, World

from otel_triage.demo.sentry_sink import SentrySink

CALLS = 6


@pytest.fixture
def sentry() -> Iterator[SentrySink]:
    with SentrySink() as made:
        yield made


def decoded(sentry: SentrySink) -> list[dict[str, Any]]:
    """Error events that Sentry took; the SDK compresses what it sends."""
    read = {"br": brotli.decompress, "gzip": gzip.decompress}
    return [
        event
        for request in sentry.kept()
        for coding in [request.headers.get("content-encoding", "")]
        for event in replace(request, body=read.get(coding, bytes)(request.body)).events()
    ]


def test_example_by_the_sidecar_and_past_it(world: World, sentry: SentrySink) -> None:
    sidecar, http = world.sidecar(sentry_upstream=sentry.url)
    world.provider.default = "openai.chat.insufficient_quota"
    dsn = sentry.dsn("0123456789abcdef0123456789abcdef")
    app, client = world.app(REPOSITORY / "examples" / "fastapi_chat", http, SENTRY_DSN=dsn)
    for call in range(CALLS):
        assert client.post("/chat", json={"text": f"call {call}"}).status_code == 502
        if call == CALLS // 2:
            sentry.wait_for(lambda: decoded(sentry))
            sidecar.popen.kill()
            sidecar.popen.wait(10)
    app.end()
    sentry.wait_for(lambda: len({event["event_id"] for event in decoded(sentry)}) >= CALLS - 1)
    world.sidecar(sentry_upstream=sentry.url)  # what it had acknowledged is in its journal
    sentry.wait_for(lambda: len({event["event_id"] for event in decoded(sentry)}) == CALLS)
    for event in decoded(sentry):
        assert event["fingerprint"] == ["otel-triage", "openai", "rate_limit", "quota_exhausted"]
        tags = event["tags"]
        assert (tags["triage.reason"], tags["triage.captured"]) == ("quota_exhausted", "at_call")
    agents = {request.headers.get("x-otel-triage-client") for request in sentry.kept()}
    assert agents == {None}
