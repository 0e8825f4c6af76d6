"""collector-config/sidecar.yaml: app -> sidecar -> Collector -> backend."""

from __future__ import annotations

import pytest
from collector_tools import needs_otelcol
from conftest import World
from test_whole_records import check_whole_records

pytestmark = needs_otelcol


@pytest.mark.parametrize(
    ("route", "scenario"), [("/chat", "openai.chat.insufficient_quota"), ("/chat", "openai.chat.length")]
)
def test_whole_records_come_through_the_collector(world: World, route: str, scenario: str) -> None:
    sink = world.sink()
    collector = world.collector("sidecar.yaml", BACKEND=sink.grpc)
    _, sidecar = world.sidecar(otlp_endpoint=f"http://{collector.grpc}")
    check_whole_records(world, sink, sidecar, route, scenario)
    sink.wait_for(lambda: sink.calls() == {"soft" if scenario.endswith("length") else "failed": 1})
