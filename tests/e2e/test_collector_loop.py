"""pipeline.yaml with a sidecar that sends to the applications' port: sidecar and Collector in a ring."""

from __future__ import annotations

from typing import Any

from collector_records import DUMPS, GOOD, QUOTA
from collector_tools import counted, free_address, needs_otelcol, send, wait_until
from conftest import World
from span_dumps import load

from otel_triage.sidecar.loops import TURNS
from otel_triage.sidecar.signals import Signal

pytestmark = needs_otelcol
SECONDS = 15


def test_a_ring_of_sidecar_and_collector_ends(world: World) -> None:
    sidecar, app = free_address(), free_address()
    process, _ = world.sidecar(grpc_listen=sidecar, otlp_endpoint=f"http://{app}")
    collector = world.collector("pipeline.yaml", COLLECTOR_GRPC=app, SIDECAR=sidecar)

    def goes_round(span: dict[str, Any], *, received: int, refused: int) -> None:
        send(collector.grpc, Signal.TRACES, load(*DUMPS[span["span_id"]]).SerializeToString())
        wait_until(lambda: counted(process, "requests_refused_total", reason="loop") == refused, SECONDS)
        assert counted(process, "requests_received_total") == received
        assert counted(process, "requests_acknowledged_total") == received - refused

    goes_round(QUOTA, received=TURNS + 2, refused=1)  # at its first turn its verdict was not yet on it
    goes_round(GOOD, received=2 * TURNS + 3, refused=2)  # the first one is no longer on its way
