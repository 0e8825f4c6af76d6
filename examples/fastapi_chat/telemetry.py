"""OpenTelemetry, Sentry and otel-triage, in the lines that a user writes."""

import os
from collections.abc import Callable

from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

import otel_triage


def set_up(app: FastAPI) -> Callable[[], None]:
    """Traces the service. Where to: OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_TRIAGE_SIDECAR, both the sidecar.

    Returns what to call when the service ends: uvicorn ends by a signal, and Python's own
    `atexit`, where OpenTelemetry sends what waits, does not run then.
    """
    provider = TracerProvider()
    provider.add_span_processor(otel_triage.TriageSpanProcessor(BatchSpanProcessor(OTLPSpanExporter())))
    trace.set_tracer_provider(provider)
    triage = otel_triage.init()
    FastAPIInstrumentor.instrument_app(app)
    close_sentry = set_up_sentry()

    def shut_down() -> None:
        provider.shutdown()
        close_sentry()
        triage.shutdown()

    return shut_down


def set_up_sentry() -> Callable[[], None]:
    """Sends errors to Sentry, if SENTRY_DSN says where that is: by the sidecar, and past it if it is down."""
    if not os.environ.get("SENTRY_DSN"):
        return lambda: None
    import sentry_sdk

    sentry_sdk.init(
        transport=otel_triage.TriageTransport,
        integrations=[otel_triage.TriageIntegration()],
    )
    return sentry_sdk.get_client().close
