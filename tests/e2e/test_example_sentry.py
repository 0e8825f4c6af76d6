"""examples/fastapi_chat with Sentry's own SDK: by the sidecar, and past it once it is killed."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import brotli
import pytest
from bugsink_server import Bugsink
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


@pytest.mark.timeout(120)  # makes a database, and starts five processes
def test_bugsink_holds_all_of_it_once(world: World, bugsink: Bugsink) -> None:
    """The DSN is Bugsink's own: half of the traffic goes by the sidecar, half past it once that is killed."""
    project = bugsink.project()
    sidecar, http = world.sidecar(sentry_upstream=bugsink.url, sentry_keys=project.key)
    app, client = world.app(
        REPOSITORY / "examples" / "fastapi_chat", http, SENTRY_DSN=project.dsn(bugsink.url)
    )
    scenarios = ["insufficient_quota", "context_length", "insufficient_quota"] * 2
    for call, scenario in enumerate(scenarios, start=1):
        world.provider.default = f"openai.chat.{scenario}"
        assert client.post("/chat", json={"text": f"call {call}"}).status_code == 502
        if call == CALLS // 2:
            project.wait_for(lambda ids: len(ids) >= CALLS // 2)
            assert 'otel_triage_requests_received_total{signal="envelope"} 3.0' in world.metrics(sidecar)
            sidecar.popen.kill()
            sidecar.popen.wait(10)
    app.end()
    project.wait_for(lambda ids: len(ids) >= CALLS)
    issues = {issue[0]["contexts"]["triage"]["reason"]: issue for issue in project.issues()}
    assert {reason: len(issue) for reason, issue in issues.items()} == {
        "quota_exhausted": 4,
        "context_length": 2,
    }
    assert len(set(project.ids())) == len(project.ids())
    for event in (event for issue in issues.values() for event in issue):
        context = event["contexts"]["triage"]
        quota = context["reason"] == "quota_exhausted"
        assert event.get("fingerprint") == (
            ["otel-triage", "openai", "rate_limit", "quota_exhausted"] if quota else None
        )
        tags = {name: value for name, value in event["tags"].items() if name.startswith("triage.")}
        assert tags == {
            "triage.captured": "at_call",
            "triage.category": "rate_limit" if quota else "invalid_request",
            "triage.reason": context["reason"],
            "triage.severity": "high" if quota else "medium",
            "triage.retryable": "no",
            "triage.owner": "account" if quota else "application",
            "triage.provider": "openai",
            "triage.model": "gpt-4o-mini",
            "triage.outcome": "failed",
        }
        assert context["source"] == "rules"
        assert context["http.response.status_code"] == (429 if quota else 400)
        assert context.get("context_limit") == (None if quota else 128000)
