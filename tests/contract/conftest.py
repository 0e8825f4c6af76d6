"""The real SDKs against the loopback provider, with everything that we tell kept in memory."""

from __future__ import annotations

import gc
import socket
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry._logs import set_logger_provider
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import otel_triage
from otel_triage.capture.calls import dropped
from otel_triage.capture.guard import stats
from otel_triage.demo.provider import DemoProvider

# Two environments hold what cannot be installed together; each collects the tests of what it has.
# tests/report.py fails if a file ran in neither.
NEEDS = {
    "test_anthropic.py": "anthropic",
    "test_litellm.py": "litellm",
    "test_sentry_integration.py": "anthropic",
    "test_sentry_transport.py": "anthropic",
    "test_sentry_frameworks.py": "langchain_openai",
}
collect_ignore = [file for file, module in NEEDS.items() if find_spec(module) is None]


class Telemetry:
    """What the application's exporters were given."""

    def __init__(self) -> None:
        self._spans, self._logs = InMemorySpanExporter(), InMemoryLogRecordExporter()
        self._reader = InMemoryMetricReader()
        tracing, logging = TracerProvider(), LoggerProvider()
        tracing.add_span_processor(otel_triage.TriageSpanProcessor(SimpleSpanProcessor(self._spans)))
        logging.add_log_record_processor(SimpleLogRecordProcessor(self._logs))
        trace.set_tracer_provider(tracing)
        set_logger_provider(logging)
        metrics.set_meter_provider(MeterProvider([self._reader]))
        self._counted: dict[Any, int] = {}

    def clear(self) -> None:
        self._spans.clear()
        self._logs.clear()
        self._counted = self._totals()

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._spans.get_finished_spans())

    @property
    def triaged(self) -> list[ReadableSpan]:
        return [span for span in self.spans if "triage.category" in (span.attributes or {})]

    @property
    def events(self) -> list[dict[str, Any]]:
        """Error events: their attributes, and `event_name`, `trace_id`, `span_id`."""
        return [
            dict(data.log_record.attributes or {})
            | {
                "event_name": data.log_record.event_name,
                "trace_id": data.log_record.trace_id,
                "span_id": data.log_record.span_id,
            }
            for data in self._logs.get_finished_logs()
        ]

    def event(self) -> dict[str, Any]:
        """The one error event."""
        events = self.events
        assert len(events) == 1, ([event["event_name"] for event in events], self.calls(), stats())
        return events[0]

    def _totals(self) -> dict[Any, int]:
        data = self._reader.get_metrics_data()
        return {
            tuple(sorted((point.attributes or {}).items())): int(point.value)
            for resource in (data.resource_metrics if data else [])
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == "triage.llm.calls"
            for point in metric.data.data_points
        }

    def calls(self) -> dict[str, int]:
        """Calls counted since the test began, by outcome."""
        found: dict[str, int] = {}
        for attributes, total in self._totals().items():
            if new := total - self._counted.get(attributes, 0):
                outcome = dict(attributes)["triage.outcome"]
                found[outcome] = found.get(outcome, 0) + new
        return found


@pytest.fixture(scope="session")
def provider() -> Iterator[DemoProvider]:
    with DemoProvider() as running:
        yield running


@pytest.fixture(scope="session")
def shared_telemetry() -> Telemetry:
    return Telemetry()


@pytest.fixture
def telemetry(shared_telemetry: Telemetry) -> Iterator[Telemetry]:
    """Captures in this process for the time of a test; no error of our own may happen meanwhile."""
    gc.collect()
    dropped.clear()  # streams that earlier tests threw away
    shared_telemetry.clear()
    before = {name: count for name, count in stats().items() if name.startswith("error.")}
    handle = otel_triage.init()
    assert handle.enabled
    yield shared_telemetry
    handle.shutdown()
    after = {name: count for name, count in stats().items() if name.startswith("error.")}
    assert after == before


@pytest.fixture
def unused_tcp_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
