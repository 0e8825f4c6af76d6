"""OTLP/gRPC in: generic handlers, so that a request's bytes arrive as they were sent."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

import grpc
import grpc.aio

from otel_triage.sidecar import rpc_status
from otel_triage.sidecar.loops import HOPS, Loops
from otel_triage.sidecar.metrics import Metrics
from otel_triage.sidecar.refusals import Refused, Why
from otel_triage.sidecar.signals import WIRE, Signal
from otel_triage.sidecar.stages import Message

_SUCCESS: Final = b""  # an empty Export…ServiceResponse: taken in full
_STREAMS: Final = 100  # requests at once on one connection; what comes on top waits in the client


class Accept(Protocol):
    """Take one request; return when it is durable, raise `Refused` if it cannot be taken."""

    async def __call__(self, signal: Signal, body: bytes, message: Message | None = None) -> None:
        """Take one request."""
        ...


def server(
    accept: Accept, *, token: str | None, max_bytes: int, loops: Loops, metrics: Metrics
) -> grpc.aio.Server:
    """Build a server for the three export services, not bound and not started.

    Args:
        accept: Takes a request.
        token: The bearer token that a client must show; None for any client.
        max_bytes: Largest request, decompressed.
        loops: Knows what goes in a circle.
        metrics: Where requests are counted.
    """
    made = grpc.aio.server(
        options=(
            ("grpc.max_receive_message_length", max_bytes),
            ("grpc.max_concurrent_streams", _STREAMS),
            ("grpc.so_reuseport", 0),  # a second sidecar on the same port must fail, not share
        )
    )
    for signal, wire in WIRE.items():
        handler = grpc.unary_unary_rpc_method_handler(_export(signal, accept, token, loops, metrics))
        made.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(wire.service, {"Export": handler}),)
        )
    return made


def _export(
    signal: Signal, accept: Accept, token: str | None, loops: Loops, metrics: Metrics
) -> Callable[[bytes, Any], Awaitable[bytes]]:
    received = metrics.received.labels(signal)
    acknowledged = metrics.acknowledged.labels(signal)
    expected = f"Bearer {token}".encode() if token is not None else None

    async def export(body: bytes, context: Any) -> bytes:
        received.inc()
        metadata = dict(context.invocation_metadata())
        try:
            if expected is not None:
                _authenticate(expected, metadata)
            loops.check_hops(metadata.get(HOPS))
            await accept(signal, body)
        except Refused as refused:
            metrics.refused.labels(signal, refused.why.label).inc()
            await context.abort(refused.why.code, refused.text, rpc_status.trailers(*refused.details()))
        acknowledged.inc()
        return _SUCCESS

    return export


def _authenticate(expected: bytes, metadata: Mapping[str, Any]) -> None:
    shown = metadata.get("authorization", "")
    if not hmac.compare_digest(shown.encode() if isinstance(shown, str) else shown, expected):
        raise Refused(Why.UNAUTHENTICATED, "metadata `authorization: Bearer TOKEN` is missing or wrong")
