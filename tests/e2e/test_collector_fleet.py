"""collector-config/fleet.yaml: Collector -> one of two sidecars, by service.name -> backend."""

from __future__ import annotations

from collections import defaultdict
from hashlib import sha256
from typing import Any

from collector_records import DUMPS, QUOTA
from collector_tools import needs_otelcol, send
from conftest import World
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from span_dumps import load, logs, make_record
from test_whole_records import matches

from otel_triage.demo.sink import Sink
from otel_triage.demo.sink_records import SIGNALS
from otel_triage.sidecar.signals import ExportRequest, Signal

pytestmark = needs_otelcol
SERVICES = ("agents", "billing", "chat", "checkout", "search", "summary", "support", "translate")


def half(service: str) -> str:
    return "a" if sha256(service.encode()).hexdigest()[0] < "8" else "b"


def metrics() -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    group = request.resource_metrics.add()
    group.resource.attributes.add(key="service.name")
    metric = group.scope_metrics.add().metrics.add(name="requests")
    metric.gauge.data_points.add(as_int=1)
    return request


def of_service(request: Any, service: str | None) -> ExportRequest:
    """The request with another service's name in its resource."""
    (group,) = next(iter(request.ListFields()))[1]
    (name,) = [pair for pair in group.resource.attributes if pair.key == "service.name"]
    if service is None:
        group.resource.attributes.remove(name)
    else:
        name.value.string_value = service
    return request


def test_each_service_has_its_sidecar(world: World) -> None:
    with Sink() as sink:
        addresses = {}
        for name in ("a", "b"):
            process, _ = world.sidecar(
                name, otlp_endpoint=sink.grpc_endpoint, otlp_headers=f"x-sidecar={name}"
            )
            addresses[f"SIDECAR_{name.upper()}"] = process.line(r"listening grpc=(\S+)")[1]
        collector = world.collector("fleet.yaml", **addresses)
        for service in (*SERVICES, None):
            requests = {
                Signal.TRACES: load(*DUMPS[QUOTA["span_id"]]),
                Signal.LOGS: logs(make_record({"port": 8080})),
                Signal.METRICS: metrics(),
            }
            for signal, request in requests.items():
                send(collector.grpc, signal, of_service(request, service).SerializeToString())

        each = len(SERVICES) + 1
        sink.wait_for(lambda: [len(sink.spans()), len(sink.logs()), len(sink.points())] == [each] * 3)
        ways: dict[str | None, list[tuple[str, str]]] = defaultdict(list)
        for export in sink.exports():
            for record in SIGNALS[export.signal].records(export.body):
                way = (export.headers["x-sidecar"], record["kind"])
                ways[record["resource"].get("service.name")].append(way)
        assert {half(service) for service in SERVICES} == {"a", "b"}
        by_hash = {service: half(service) for service in SERVICES} | {None: "b"}
        assert {service: sorted(found) for service, found in ways.items()} == {
            service: [(name, "log"), (name, "metric"), (name, "span")] for service, name in by_hash.items()
        }
        for span in sink.spans():
            resource = QUOTA["resource"] | {"service.name": span["resource"].get("service.name")}
            resource = {key: value for key, value in resource.items() if value is not None}
            assert matches(span, QUOTA | {"resource": resource}) == QUOTA | {"resource": resource}
