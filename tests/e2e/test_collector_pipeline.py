"""collector-config/pipeline.yaml: app -> Collector -> sidecar -> Collector -> backend."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from collector_records import DUMPS, GOOD, HEALTHY, QUOTA, TOKENS
from collector_tools import free_address, needs_otelcol, send
from conftest import World
from span_dumps import dialects, load, logs, make_record, scenarios
from test_whole_records import EXAMPLE, QUESTION, matches

from otel_triage.demo.sink import Sink
from otel_triage.demo.sink_records import SIGNALS
from otel_triage.sidecar.signals import Signal

pytestmark = needs_otelcol
# Nothing in these spans says "a model's": an HTTP client's, of calls that it saw end well.
NOT_A_MODELS = {
    ("otel_httpx2", "good_call"),
    ("otel_httpx2", "stream_cut"),
    ("otel_httpx2", "stream_mid_error"),
}
ARRIVES_S = 30  # the Collector waits 1 s to 10 s before it asks a sidecar that was not there again


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as made:
        yield made


@pytest.fixture
def other() -> Iterator[Sink]:
    with Sink() as made:
        yield made


def host(endpoint: str) -> str:
    return endpoint.removeprefix("http://")


def server_spans(sink: Sink) -> list[dict[str, Any]]:
    return [span for span in sink.spans() if span["span_kind"] == "SERVER"]


def has(sink: Sink, expected: dict[str, Any]) -> bool:
    return expected["span_id"] in {span["span_id"] for span in sink.spans()}


@pytest.mark.timeout(90)
def test_only_failures_and_model_calls_pass_the_sidecar(world: World, sink: Sink) -> None:
    sidecar = free_address()
    collector = world.collector("pipeline.yaml", BACKEND=host(sink.grpc_endpoint), SIDECAR=sidecar)
    for dialect, scenario in (DUMPS[span["span_id"]] for span in (HEALTHY, GOOD, QUOTA, TOKENS)):
        send(collector.grpc, Signal.TRACES, load(dialect, scenario).SerializeToString())
    send(collector.grpc, Signal.LOGS, logs(make_record({"port": 8080}), scope="server").SerializeToString())
    app, client = world.app(EXAMPLE, collector.http)
    for scenario in ("openai.chat.ok", "openai.chat.insufficient_quota"):
        world.provider.default = scenario
        client.post("/chat", json={"text": QUESTION})
    app.end()

    # There is no sidecar yet. So what arrives now did not pass one.
    sink.wait_for(lambda: server_spans(sink) and has(sink, HEALTHY) and sink.logs() and sink.points())
    assert [span for span in sink.spans() if span["name"] == HEALTHY["name"]] == [HEALTHY]
    assert [span["attributes"]["http.status_code"] for span in server_spans(sink)] == [200]
    assert {span["status"]["code"] for span in sink.spans()} == {"UNSET"}
    assert [record["attributes"] for record in sink.logs()] == [{"port": 8080}]
    assert {point["name"] for point in sink.points()} == {"triage.llm.calls"}

    world.sidecar(grpc_listen=sidecar, otlp_endpoint=f"http://{collector.triaged}")
    sink.wait_for(lambda: len(server_spans(sink)) == 2 and len(sink.logs()) == 2, ARRIVES_S)
    sink.wait_for(lambda: all(has(sink, span) for span in (GOOD, QUOTA, TOKENS)), ARRIVES_S)
    by_id = {span["span_id"]: span for span in sink.spans()}
    assert len(by_id) == len(sink.spans()), "none comes twice"
    for expected in (HEALTHY, GOOD, QUOTA, TOKENS):
        assert matches(by_id[expected["span_id"]], expected) == expected
    (ours,) = [span for span in sink.spans() if span["scope"] == "otel_triage"]
    event = sink.logs()[1]
    assert event["event_name"] == "gen_ai.client.operation.exception"
    assert event["attributes"]["triage.error_id"] == ours["attributes"]["triage.error_id"]
    assert ours["attributes"]["triage.reason"] == "quota_exhausted"


def test_the_spans_of_every_instrumentation_take_the_right_way(world: World, sink: Sink, other: Sink) -> None:
    """Here a second backend stands where the sidecar would, to see what is sent there."""
    collector = world.collector(
        "pipeline.yaml", BACKEND=host(sink.grpc_endpoint), SIDECAR=host(other.grpc_endpoint)
    )
    to_sidecar, past_it = set(), set()
    for dialect in dialects():
        for scenario in scenarios(dialect):
            body = load(dialect, scenario).SerializeToString()
            send(collector.grpc, Signal.TRACES, body)
            ids = {span["span_id"] for span in SIGNALS["traces"].records(body)}
            (past_it if (dialect, scenario) in NOT_A_MODELS else to_sidecar).update(ids)
    sink.wait_for(lambda: len(sink.spans()) >= len(past_it))
    other.wait_for(lambda: len(other.spans()) >= len(to_sidecar))
    assert {span["span_id"] for span in sink.spans()} == past_it
    assert {span["span_id"] for span in other.spans()} == to_sidecar
