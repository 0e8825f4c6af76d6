"""One failing call with spans around and below it is one failure, and an absorbed retry is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

APP = Path(__file__).parent / "apps" / "retries"
FAILS = "openai.chat.rate_limit_requests"  # asks to wait 20 ms, so that three retries are quick


def ask(client: httpx.Client, scenario: str) -> int:
    return client.post("/ask", params={"scenario": scenario}).status_code


def by_kind(spans: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [span for span in spans if span["span_kind"] == kind]


def triaged(spans: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [span for span in spans if "triage.category" in span["attributes"]]


@pytest.mark.parametrize("transport", ["http", "grpc"])
@pytest.mark.parametrize("llm_spans", [False, True], ids=["no LLM span", "an LLM span"])
def test_exactly_one(world: Any, llm_spans: bool, transport: str) -> None:
    sink = world.sink()
    process, sidecar = world.sidecar(otlp_endpoint=f"http://{sink.grpc}")
    env = {"LLM_SPANS": "1"} if llm_spans else {}
    if transport == "grpc":
        env["GRPC"] = process.line(r"listening grpc=(\S+)")[1]
    app, client = world.app(APP, sidecar, **env)
    assert ask(client, FAILS) == 500
    app.end()

    assert len(world.provider.requests) == 4
    sink.wait_for(lambda: sink.calls() and sink.events() and by_kind(sink.spans(), "SERVER"))
    (event,) = sink.events()
    assert event["event_name"] == "gen_ai.client.operation.exception"
    assert event["attributes"]["triage.attempts"] == 4
    assert event["attributes"]["triage.attempt_statuses"] == [429, 429, 429, 429]
    assert sink.calls() == {"failed": 1}

    spans = sink.spans()
    (span,) = triaged(spans)
    assert span["attributes"]["triage.reason"] == "requests"
    assert span["attributes"]["triage.error_id"] == event["attributes"]["triage.error_id"]
    assert (span["trace_id"], span["span_id"]) == (event["trace_id"], event["span_id"])
    assert span["scope"] == ("opentelemetry.instrumentation.genai.openai" if llm_spans else "otel_triage")

    attempts = [span for span in spans if span["scope"] == "opentelemetry.instrumentation.httpx"]
    assert len(attempts) == 4
    assert {span["status"]["code"] for span in attempts} == {"ERROR"}
    ours = {name for span in attempts for name in span["attributes"] if name.startswith("triage.")}
    assert ours == {"triage.call_id"}
    (server,) = by_kind(spans, "SERVER")
    assert server["status"]["code"] == "ERROR"
    assert not [name for name in server["attributes"] if name.startswith("triage.")]


@pytest.mark.parametrize("llm_spans", [False, True], ids=["no LLM span", "an LLM span"])
def test_an_absorbed_retry_is_no_failure(world: Any, llm_spans: bool) -> None:
    sink = world.sink()
    _, sidecar = world.sidecar(otlp_endpoint=f"http://{sink.grpc}")
    app, client = world.app(APP, sidecar, **({"LLM_SPANS": "1"} if llm_spans else {}))
    assert ask(client, f"{FAILS},openai.chat.ok") == 200
    app.end()

    sink.wait_for(lambda: sink.calls() and by_kind(sink.spans(), "SERVER"))
    assert sink.calls() == {"absorbed": 1}
    assert sink.events() == []
    assert triaged(sink.spans()) == []


def test_the_event_does_not_depend_on_sampling(world: Any) -> None:
    sink = world.sink()
    _, sidecar = world.sidecar(otlp_endpoint=f"http://{sink.grpc}")
    app, client = world.app(APP, sidecar, OTEL_TRACES_SAMPLER="always_off", LLM_SPANS="1")
    assert ask(client, FAILS) == 500
    app.end()

    sink.wait_for(lambda: sink.calls() and sink.events())
    (event,) = sink.events()
    assert (event["attributes"]["triage.reason"], event["attributes"]["triage.attempts"]) == ("requests", 4)
    assert len(event["trace_id"]) == 32
    assert sink.spans() == []
    assert sink.calls() == {"failed": 1}
