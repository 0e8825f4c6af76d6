"""Out to Sentry: an envelope, or OTLP to Sentry's own endpoint, once, to the upstream of the settings."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import httpx

from otel_triage.sidecar.envelopes import read_envelope
from otel_triage.sidecar.export_http import post, retry_after
from otel_triage.sidecar.exporters import TIMEOUT_S, Accepted, Outcome, Rejected, Retry
from otel_triage.sidecar.loops import HOPS
from otel_triage.sidecar.ratelimits import RateLimits
from otel_triage.sidecar.sentry_record import outgoing, split
from otel_triage.sidecar.signals import Signal

ENVELOPE_TYPE: Final = "application/x-sentry-envelope"
OTLP_PATH: Final = "integration/otlp/v1/traces"

_PATHS: Final = {Signal.ENVELOPE: "envelope", Signal.SENTRY_TRACES: OTLP_PATH}
_TYPES: Final = {Signal.ENVELOPE: ENVELOPE_TYPE, Signal.SENTRY_TRACES: "application/x-protobuf"}
_LATER: Final = frozenset({408, 429})  # of the 4xx; any other refuses the request for good


class SentryExporter:
    """One HTTP client for all upstreams. It follows no redirects and keeps no cookies."""

    def __init__(self, limits: RateLimits, hops: Callable[[], str]) -> None:
        """Prepare a client; what upstreams limit is told to `limits`, and `hops` is as in `GrpcExporter`."""
        self._limits = limits
        self._hops = hops
        self._client = httpx.AsyncClient(timeout=TIMEOUT_S)

    async def export(self, signal: Signal, upstream: str, record: bytes) -> Outcome:
        """Send a record once. Does not raise for anything the network does."""
        sender, body = split(record)
        if signal is Signal.ENVELOPE:
            body = outgoing(read_envelope(body), sender, upstream, time.time())
        headers = {"user-agent": "otel-triage", **sender.headers}
        headers |= {"x-sentry-auth": sender.auth, "content-type": _TYPES[signal], HOPS: self._hops()}
        url = f"{upstream}/api/{sender.project}/{_PATHS[signal]}/"
        try:
            response, answer = await post(self._client, url, body, headers)
        except httpx.HTTPError as error:
            return Retry(type(error).__name__, str(error))
        finally:
            self._client.cookies.clear()
        status = response.status_code
        self._limits.update(sender.key, status, response.headers)
        if response.is_success:
            return Accepted()
        text = response.headers.get("x-sentry-error") or answer[:500].decode("utf-8", "replace")
        text = text or response.reason_phrase
        if 400 <= status < 500 and status not in _LATER:
            return Rejected(str(status), text)
        wait_s = None if status == 429 else retry_after(response.headers.get("retry-after"))
        return Retry(str(status), text, wait_s)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()
