"""What comes in: the three OTLP signals with their names on the wire (one table), and Sentry's two ways."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

ExportRequest: TypeAlias = ExportTraceServiceRequest | ExportLogsServiceRequest | ExportMetricsServiceRequest
ExportResponse: TypeAlias = (
    ExportTraceServiceResponse | ExportLogsServiceResponse | ExportMetricsServiceResponse
)


class Signal(StrEnum):
    """A kind of request. Of OTLP the value is the last part of its HTTP path.

    Those of Sentry are kept with their sender (`sentry_record`).
    """

    TRACES = "traces"
    LOGS = "logs"
    METRICS = "metrics"
    ENVELOPE = "envelope"
    SENTRY_TRACES = "sentry_traces"


@dataclass(frozen=True, slots=True)
class Wire:
    """How one signal travels: its messages, its gRPC service, and what a partial success counts."""

    request: type[ExportRequest]
    response: type[ExportResponse]
    service: str
    rejected: str

    @property
    def method(self) -> str:
        """The full gRPC method, e.g. `/opentelemetry.proto…TraceService/Export`."""
        return f"/{self.service}/Export"


_SERVICE: Final = "opentelemetry.proto.collector"

WIRE: Final[dict[Signal, Wire]] = {
    Signal.TRACES: Wire(
        ExportTraceServiceRequest,
        ExportTraceServiceResponse,
        f"{_SERVICE}.trace.v1.TraceService",
        "rejected_spans",
    ),
    Signal.LOGS: Wire(
        ExportLogsServiceRequest,
        ExportLogsServiceResponse,
        f"{_SERVICE}.logs.v1.LogsService",
        "rejected_log_records",
    ),
    Signal.METRICS: Wire(
        ExportMetricsServiceRequest,
        ExportMetricsServiceResponse,
        f"{_SERVICE}.metrics.v1.MetricsService",
        "rejected_data_points",
    ),
}

OTLP: Final = tuple(WIRE)
"""The signals that come and leave as OTLP."""
SENTRY: Final = (Signal.ENVELOPE, Signal.SENTRY_TRACES)
"""What comes from Sentry SDKs and goes to Sentry."""
