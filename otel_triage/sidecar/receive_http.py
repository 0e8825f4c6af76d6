"""OTLP/HTTP in: a bare ASGI application for `/v1/traces`, `/v1/logs` and `/v1/metrics`.

Protobuf or JSON, plain or gzip. An answer has the request's encoding; errors are a
`google.rpc.Status` (OTLP specification 1.11, "OTLP/HTTP").
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Final

from otel_triage.sidecar import otlp_json, rpc_status
from otel_triage.sidecar.http_body import App, Bodies, Gone, Receive, Scope, Send
from otel_triage.sidecar.loops import HOPS, Loops
from otel_triage.sidecar.metrics import Metrics
from otel_triage.sidecar.pipeline import Memory
from otel_triage.sidecar.receive_grpc import Accept
from otel_triage.sidecar.refusals import Refused, Why
from otel_triage.sidecar.signals import OTLP, Signal

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"

PATHS: Final = {f"/v1/{signal}": signal for signal in OTLP}
SUCCESS: Final = {PROTOBUF: b"", JSON: b"{}"}


class OtlpHttp:
    """The ASGI application; every other path goes to `fallback`."""

    def __init__(
        self,
        accept: Accept,
        fallback: App,
        *,
        memory: Memory,
        token: str | None,
        max_bytes: int,
        loops: Loops,
        metrics: Metrics,
    ) -> None:
        """Build the application.

        Args:
            accept: Takes a request.
            fallback: The ASGI application of all other paths.
            memory: Where bytes are reserved while a body comes in.
            token: The bearer token that a client must show; None for any client.
            max_bytes: Largest body, also after decompression.
            loops: Knows what goes in a circle.
            metrics: Where requests are counted.
        """
        self._accept = accept
        self._fallback = fallback
        self._bodies = Bodies(memory, max_bytes, codings=("gzip",))
        self._expected = f"Bearer {token}".encode() if token is not None else None
        self._loops = loops
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        signal = PATHS.get(scope["path"]) if scope["type"] == "http" else None
        if signal is None:
            await self._fallback(scope, receive, send)
            return
        self._metrics.received.labels(signal).inc()
        headers = dict(scope["headers"])
        media_type = media_type_of(headers)
        try:
            await self._take(signal, scope["method"], headers, media_type, receive)
        except Gone:
            self._metrics.refused.labels(signal, "disconnected").inc()
        except Refused as refused:
            self._metrics.refused.labels(signal, refused.why.label).inc()
            await answer_refused(send, refused, media_type)
        else:
            self._metrics.acknowledged.labels(signal).inc()
            await answer(send, 200, media_type, SUCCESS[media_type])

    async def _take(
        self, signal: Signal, method: str, headers: dict[bytes, bytes], media_type: str, receive: Receive
    ) -> None:
        if method != "POST":
            raise Refused(Why.METHOD, f"{method} is not allowed; use POST")
        if self._expected is not None and not hmac.compare_digest(
            headers.get(b"authorization", b""), self._expected
        ):
            raise Refused(Why.UNAUTHENTICATED, "the header `Authorization: Bearer TOKEN` is missing or wrong")
        self._loops.check_hops(hops_of(headers))
        check_media_type(media_type)
        body = await self._bodies.read(headers, receive)
        if media_type == JSON:
            message = otlp_json.parse(signal, body)
            await self._accept(signal, message.SerializeToString(), message)
        else:
            await self._accept(signal, body)


def hops_of(headers: Mapping[bytes, bytes]) -> str | None:
    """The header that names the sidecars on a request's way."""
    found = headers.get(HOPS.encode())
    return found.decode("latin-1") if found is not None else None


def media_type_of(headers: Mapping[bytes, bytes]) -> str:
    """The media type of a request, without its parameters; "" if it names none."""
    return headers.get(b"content-type", b"").partition(b";")[0].strip().lower().decode("latin-1")


def check_media_type(media_type: str) -> None:
    """Refuse what is no encoding of OTLP."""
    if media_type not in SUCCESS:
        raise Refused(Why.MEDIA_TYPE, f"content type {media_type!r} is not one of: {', '.join(SUCCESS)}")


async def answer_refused(send: Send, refused: Refused, media_type: str) -> None:
    """Say why not, as a `google.rpc.Status` in the request's encoding."""
    extra = []
    if refused.retry_after_s is not None:
        extra.append((b"retry-after", str(refused.retry_after_s).encode()))
    if refused.why is Why.METHOD:
        extra.append((b"allow", b"POST"))
    if refused.why is Why.UNAUTHENTICATED:
        extra.append((b"www-authenticate", b"Bearer"))
    if media_type == JSON:
        body = rpc_status.status_json(*refused.details())
    else:
        media_type, body = PROTOBUF, rpc_status.status(*refused.details()).SerializeToString()
    await answer(send, refused.why.http, media_type, body, extra)


async def answer(
    send: Send, status: int, media_type: str, body: bytes, extra: list[tuple[bytes, bytes]] | None = None
) -> None:
    """Send a whole answer."""
    headers = [
        (b"content-type", media_type.encode()),
        (b"content-length", str(len(body)).encode()),
        *(extra or ()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
