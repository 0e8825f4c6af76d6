"""pipeline.yaml with a sidecar that sends to the applications' port: sidecar and Collector in a ring."""

from __future__ import annotations

import time

import httpx
from collector_records import DUMPS, GOOD, QUOTA
from collector_tools import free_address, needs_otelcol, send
from conftest import World
from prometheus_client.parser import text_string_to_metric_families
from span_dumps import load

from otel_triage.sidecar.loops import TURNS
from otel_triage.sidecar.signals import Signal

pytestmark = needs_otelcol
SECONDS = 15


def counts(admin: str) -> dict[str, float]:
    """Requests for traces: received, acknowledged, refused as a loop, waiting."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(httpx.get(f"http://{admin}/metrics").text):
        for sample in family.samples:
            if (
                sample.labels.get("signal", "traces") == "traces"
                and sample.labels.get("reason", "loop") == "loop"
            ):
                found[sample.name.removeprefix("otel_triage_")] = sample.value
    return found


def test_a_ring_of_sidecar_and_collector_ends(world: World) -> None:
    sidecar, app = free_address(), free_address()
    process, _ = world.sidecar(grpc_listen=sidecar, otlp_endpoint=f"http://{app}")
    admin = process.line(r"admin=(\S+)")[1]
    collector = world.collector("pipeline.yaml", COLLECTOR_GRPC=app, SIDECAR=sidecar)

    for sent, span in enumerate((QUOTA, GOOD), start=1):
        send(collector.grpc, Signal.TRACES, load(*DUMPS[span["span_id"]]).SerializeToString())
        end = time.monotonic() + SECONDS
        while counts(admin).get("requests_refused_total", 0) < sent:
            assert time.monotonic() < end, f"it goes on: {counts(admin)}"
            time.sleep(0.05)
        # The first one makes a turn more: its verdict was not yet on it.
        received = {QUOTA["span_id"]: TURNS + 2, GOOD["span_id"]: 2 * TURNS + 3}[span["span_id"]]
        assert counts(admin)["requests_received_total"] == received
        assert counts(admin)["requests_acknowledged_total"] == received - sent
