"""Where events and counts leave the application: by a bounded exporter of our own, else by the application's.

The queue, the batches, the retries and the restart after a fork are those of the OpenTelemetry SDK.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import metrics, trace
from opentelemetry._logs import LogRecord, get_logger_provider

from otel_triage.capture import exits, guard, leaving
from otel_triage.capture.guard import count, never_raises
from otel_triage.model import CALLS_METRIC

if TYPE_CHECKING:
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk.metrics import MeterProvider

_logger = logging.getLogger("otel_triage")

SCOPE: Final = "otel_triage"
_COUNT_EVERY_MS: Final = 10_000
_EVENT_DELAY_MS: Final = 1_000
_LOADED_BY: Final = os.getpid()


class Outlet:
    """Events and counts, on their way out.

    With a sidecar and the extra `otlp` they have providers of their own, so that they depend neither on
    sampling nor on what the application set up; else they go where the application sends its own.

    Args:
        sidecar: Base URL of the sidecar's HTTP listener, such as `http://127.0.0.1:4318`.
    """

    def __init__(self, sidecar: str | None) -> None:
        self._make = _own_providers(sidecar.rstrip("/")) if sidecar else None
        self._lock = threading.Lock()
        self._logs: LoggerProvider | None = None
        self._metrics: MeterProvider | None = None
        self._counter: metrics.Counter | None = None
        self._closers: list[_Closer] = []
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
        if self._make is None or self._logs is not None or self._closed:
            return
        with self._lock:
            if self._logs is None:
                self._metrics, self._logs = self._make()
                self._closers = [_Closer(self._logs.shutdown), _Closer(self._metrics.shutdown)]
                exits.at_exit(self.close)

    @never_raises
    def close(self) -> None:
        """Sends what waits and stops, within half a second: an application's exit is not ours to delay."""
        with self._lock:
            closed, self._closed = self._closed, True
        if closed:
            return
        for closer in self._closers:
            closer.begin()
        began = time.monotonic()
        end = began + leaving.left_s()
        for closer in self._closers:
            closer.wait(max(0.0, end - time.monotonic()))
        leaving.spend(time.monotonic() - began)

    @never_raises
    def flush(self, timeout_s: float = 5.0) -> None:
        """Sends what waits now."""
        for provider in (self._logs, self._metrics):
            if provider is not None:
                provider.force_flush(int(timeout_s * 1000))


class _Closer:
    """Shuts something down in a thread that waits for that from the start: at exit none can be started.

    A forked child gets a thread of its own.
    """

    def __init__(self, shutdown: Callable[[], Any]) -> None:
        self._shutdown = shutdown
        self._start()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._start)

    def _start(self) -> None:
        self._told, self._done = threading.Event(), threading.Event()
        threading.Thread(target=self._run, name="otel-triage-closer", daemon=True).start()

    def _run(self) -> None:
        self._told.wait()
        never_raises(self._shutdown)()
        self._done.set()

    def begin(self) -> None:
        """Shuts down in the background."""
        self._told.set()

    def wait(self, timeout_s: float) -> None:
        """Waits until that is done, at most so many seconds."""
        self._done.wait(timeout_s)


_exporting = threading.local()


class _OncePerExport(logging.Filter):
    """Keeps the exporters' own log lines to themselves while they export for us: they say each retry."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not getattr(_exporting, "ours", False)


def _export(what: str, export: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Exports for us: what is lost is counted, and said once."""
    _exporting.ours = True
    try:
        result = export(*args, **kwargs)
    finally:
        _exporting.ours = False
    if result.name != "SUCCESS":
        count(f"dropped.{what}")
        if guard.counts[f"dropped.{what}"] == 1:
            _logger.warning(
                "otel-triage: the sidecar did not take a batch of %s within ten seconds; it is dropped. "
                "The application is not affected (logged once, counted in stats())",
                what,
            )
    return result


def _own_providers(sidecar: str) -> Callable[[], tuple[MeterProvider, LoggerProvider]] | None:
    """What makes our own providers, its libraries loaded; None where they are not installed."""
    try:
        from opentelemetry.exporter.otlp.proto.http import _log_exporter, metric_exporter
    except ImportError:
        _logger.warning("otel-triage: no exporter to reach %s; pip install 'otel-triage[otlp]'", sidecar)
        return None
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, Resource

    class Events(_log_exporter.OTLPLogExporter):
        def export(self, *args: Any, **kwargs: Any) -> Any:
            return _export("events", super().export, *args, **kwargs)

    class Counts(metric_exporter.OTLPMetricExporter):
        def export(self, *args: Any, **kwargs: Any) -> Any:
            return _export("counts", super().export, *args, **kwargs)

    for module in (_log_exporter, metric_exporter):
        logging.getLogger(module.__name__).addFilter(_OncePerExport())

    # Made now, since they load more when they are; they open no connection before they export.
    events, counts = Events(endpoint=f"{sidecar}/v1/logs"), Counts(endpoint=f"{sidecar}/v1/metrics")

    def make() -> tuple[MeterProvider, LoggerProvider]:
        resource = getattr(trace.get_tracer_provider(), "resource", None)
        if not isinstance(resource, Resource):
            resource = Resource.create()
        counted = resource
        if os.getpid() != _LOADED_BY:  # a forked worker: its counts must not continue another one's series
            counted = resource.merge(Resource({SERVICE_INSTANCE_ID: str(uuid.uuid4())}))
        logs = LoggerProvider(resource, shutdown_on_exit=False)
        logs.add_log_record_processor(BatchLogRecordProcessor(events, schedule_delay_millis=_EVENT_DELAY_MS))
        reader = PeriodicExportingMetricReader(counts, export_interval_millis=_COUNT_EVERY_MS)
        return MeterProvider([reader], counted, shutdown_on_exit=False), logs

    return make
