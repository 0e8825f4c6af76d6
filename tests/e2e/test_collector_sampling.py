"""collector-config/sampling.yaml: app -> sidecar -> Collector, which keeps traces by verdict -> backend."""

from __future__ import annotations

from typing import Any

import pytest
from collector_records import CONTEXT, DUMPS, GOOD, HEALTHY, QUOTA, TOKENS
from collector_tools import needs_otelcol, send
from conftest import World
from span_dumps import load, logs, make_record, make_span, traces
from test_whole_records import matches

from otel_triage.demo.sink import Sink
from otel_triage.sidecar.signals import Signal

pytestmark = needs_otelcol
SEVERE = {"http.route": "/chat"}


def of(name: str, trace: int) -> bytes:
    """A healthy span of the application's own."""
    return traces(
        make_span(SEVERE, name=name, kind=2, trace=trace, span=trace & 0xFFFF, status=0)
    ).SerializeToString()


@pytest.mark.parametrize("percent", ["0", "100"])
def test_traces_are_kept_by_severity_and_category(world: World, percent: str) -> None:
    with Sink() as sink:
        collector = world.collector(
            "sampling.yaml",
            BACKEND=sink.grpc_endpoint.removeprefix("http://"),
            DECISION_WAIT="1s",
            HEALTHY_PERCENT=percent,
        )
        process, _ = world.sidecar(otlp_endpoint=f"http://{collector.grpc}")
        sidecar = process.line(r"listening grpc=(\S+)")[1]

        def put(*spans: dict[str, Any]) -> None:
            for span in spans:
                send(sidecar, Signal.TRACES, load(*DUMPS[span["span_id"]]).SerializeToString())

        put(HEALTHY, GOOD, TOKENS)
        send(sidecar, Signal.TRACES, of("beside a low one", int(TOKENS["trace_id"], 16)))
        send(sidecar, Signal.TRACES, of("beside a severe one", int(QUOTA["trace_id"], 16)))
        send(sidecar, Signal.LOGS, logs(make_record({"port": 8080})).SerializeToString())
        put(CONTEXT, QUOTA)
        sink.wait_for(lambda: QUOTA["span_id"] in {span["span_id"] for span in sink.spans()})
        # Its decision came with or after all the others'; what those let through is sent before this trace.
        send(
            sidecar, Signal.TRACES, load("openinference", "error_429_insufficient_quota").SerializeToString()
        )
        sink.wait_for(lambda: [span for span in sink.spans() if span["name"] == "ChatCompletion"])

        kept = {span["name"] if span["scope"] == "app" else span["span_id"]: span for span in sink.spans()}
        severe = {QUOTA["span_id"], CONTEXT["span_id"], "beside a severe one", "9fd593a6a8cf3423"}
        rest = {HEALTHY["span_id"], GOOD["span_id"], TOKENS["span_id"], "beside a low one"}
        assert set(kept) == (severe if percent == "0" else severe | rest)
        for expected in (QUOTA, CONTEXT):
            assert matches(kept[expected["span_id"]], expected) == expected
        assert [record["attributes"] for record in sink.logs()] == [{"port": 8080}]
