"""OTLP/gRPC out.

Source of the retryable codes: OTLP specification 1.11, "Failures" of OTLP/gRPC.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import grpc
import grpc.aio

from otel_triage.sidecar import rpc_status
from otel_triage.sidecar.exporters import TIMEOUT_S, Outcome, Rejected, Retry, accepted
from otel_triage.sidecar.loops import HOPS
from otel_triage.sidecar.signals import WIRE, Signal

RETRYABLE_CODES: Final = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
        # Not by the specification: these refuse us and not the request. A token that expired must
        # not send a night's telemetry to the dead letters; it waits until a person mends it.
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
    }
)
"""And RESOURCE_EXHAUSTED, if it comes with RetryInfo."""

_CHANNEL: Final = (
    # gRPC's own reconnect back-off grows to two minutes, beyond ours.
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 5000),
)


class GrpcExporter:
    """OTLP/gRPC. `http://` in the endpoint is plain text, `https://` is TLS."""

    def __init__(
        self, endpoint: str, headers: Mapping[str, str], certificate: Path | None, hops: Callable[[], str]
    ) -> None:
        """Prepare a channel; it connects by itself, within a running event loop.

        Args:
            endpoint: Base URL.
            headers: Sent with every export.
            certificate: CA file; None for the system's.
            hops: What the header `loops.HOPS` says.
        """
        url = urlsplit(endpoint)
        secure = url.scheme == "https"
        host = f"[{url.hostname}]" if ":" in (url.hostname or "") else url.hostname
        target = f"dns:///{host}:{url.port or (443 if secure else 80)}"
        if secure:
            roots = certificate.read_bytes() if certificate else None
            self._channel = grpc.aio.secure_channel(
                target, grpc.ssl_channel_credentials(roots), options=_CHANNEL
            )
        else:
            self._channel = grpc.aio.insecure_channel(target, options=_CHANNEL)
        self._calls = {signal: self._channel.unary_unary(wire.method) for signal, wire in WIRE.items()}
        self._metadata = tuple(headers.items())
        self._hops = hops

    async def export(self, signal: Signal, body: bytes) -> Outcome:
        """Send once."""
        try:
            metadata = (*self._metadata, (HOPS, self._hops()))
            answer = await self._calls[signal](body, timeout=TIMEOUT_S, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            code, text = error.code(), error.details() or ""
            after_s = rpc_status.retry_after(error.trailing_metadata() or ())
            retryable = code in RETRYABLE_CODES
            if retryable or (code is grpc.StatusCode.RESOURCE_EXHAUSTED and after_s is not None):
                return Retry(code.name, text, after_s)
            return Rejected(code.name, text)
        return accepted(signal, answer)

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()
