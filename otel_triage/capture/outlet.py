"""Where events and counts leave the application: by a bounded exporter of our own, else by the application's.

The queue, the batches, the retries and the restart after a fork are those of the OpenTelemetry SDK.
"""

from __future__ import annotations

import atexit
import logging
import threading
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import metrics, trace
from opentelemetry._logs import LogRecord, get_logger_provider

from otel_triage.capture.guard import count, never_raises
from otel_triage.model import CALLS_METRIC

if TYPE_CHECKING:
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk.metrics import MeterProvider

_logger = logging.getLogger("otel_triage")

SCOPE: Final = "otel_triage"
_COUNT_EVERY_MS: Final = 10_000
_EVENT_DELAY_MS: Final = 1_000
_EXIT_S: Final = 0.5


class Outlet:
    """Events and counts, on their way out.

    With a sidecar and the extra `otlp` they have providers of their own, so that they depend neither on
    sampling nor on what the application set up; else they go where the application sends its own.

    Args:
        sidecar: Base URL of the sidecar's HTTP listener, such as `http://127.0.0.1:4318`.
    """

    def __init__(self, sidecar: str | None) -> None:
        self._sidecar = sidecar.rstrip("/") if sidecar else None
        if self._sidecar and find_spec("opentelemetry.exporter.otlp.proto.http") is None:
            _logger.warning("otel-triage: no exporter to reach %s; pip install 'otel-triage[otlp]'", sidecar)
            self._sidecar = None
        self._lock = threading.Lock()
        self._logs: LoggerProvider | None = None
        self._metrics: MeterProvider | None = None
        self._counter: metrics.Counter | None = None
        self._closed = False

    def event(self, record: LogRecord) -> None:
        """Hands one event on. Returns at once: it is queued."""
        self._open()
        provider = self._logs or get_logger_provider()
        provider.get_logger(SCOPE).emit(record)
        count("events")

    def count_call(self, attributes: dict[str, Any]) -> None:
        """Adds one call to `triage.llm.calls`."""
        self._open()
        if self._counter is None:
            provider = self._metrics or metrics.get_meter_provider()
            self._counter = provider.get_meter(SCOPE).create_counter(
                CALLS_METRIC, unit="{call}", description="LLM calls by provider, model, operation and outcome"
            )
        self._counter.add(1, attributes)

    def _open(self) -> None:
        """Makes our own providers at the first use: by then the application has named its resource."""
        if self._sidecar is None or self._logs is not None or self._closed:
            return
        with self._lock:
            if self._logs is None:
                self._metrics, self._logs = _providers(self._sidecar)
                atexit.register(self.close)

    @never_raises
    def close(self) -> None:
        """Sends what waits and stops, within half a second: an application's exit is not ours to delay."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            providers = [provider for provider in (self._logs, self._metrics) if provider is not None]
        threads = [threading.Thread(target=provider.shutdown, daemon=True) for provider in providers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(_EXIT_S)

    @never_raises
    def flush(self, timeout_s: float = 5.0) -> None:
        """Sends what waits now."""
        for provider in (self._logs, self._metrics):
            if provider is not None:
                provider.force_flush(int(timeout_s * 1000))


def _providers(sidecar: str) -> tuple[MeterProvider, LoggerProvider]:
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource

    resource = getattr(trace.get_tracer_provider(), "resource", None)
    if not isinstance(resource, Resource):
        resource = Resource.create()
    logs = LoggerProvider(resource, shutdown_on_exit=False)
    exporter = OTLPLogExporter(endpoint=f"{sidecar}/v1/logs")
    logs.add_log_record_processor(BatchLogRecordProcessor(exporter, schedule_delay_millis=_EVENT_DELAY_MS))
    reader = PeriodicExportingMetricReader(
        OTLPMetricExporter(endpoint=f"{sidecar}/v1/metrics"), export_interval_millis=_COUNT_EVERY_MS
    )
    return MeterProvider([reader], resource, shutdown_on_exit=False), logs
