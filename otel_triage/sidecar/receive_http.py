"""OTLP/HTTP in: a bare ASGI application for `/v1/traces`, `/v1/logs` and `/v1/metrics`.

Protobuf or JSON, plain or gzip. An answer has the request's encoding; errors are a
`google.rpc.Status` (OTLP specification 1.11, "OTLP/HTTP").
"""

from __future__ import annotations

import asyncio
import hmac
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeAlias

from otel_triage.sidecar import otlp_json, rpc_status
from otel_triage.sidecar.metrics import Metrics
from otel_triage.sidecar.pipeline import Memory
from otel_triage.sidecar.receive_grpc import Accept
from otel_triage.sidecar.refusals import Refused, Why
from otel_triage.sidecar.signals import Signal

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"

_PATHS: Final = {f"/v1/{signal}": signal for signal in Signal}
_BODY_TIMEOUT_S: Final = 30.0
_GZIP: Final = 16 + zlib.MAX_WBITS
_MAX_MEMBERS: Final = 64  # each is cut off the rest by a copy: many would take quadratic time
_SUCCESS: Final = {PROTOBUF: b"", JSON: b"{}"}


class _Gone(Exception):
    """The client went away in the middle of its request."""


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
        metrics: Metrics,
    ) -> None:
        """Build the application.

        Args:
            accept: Takes a request.
            fallback: The ASGI application of all other paths.
            memory: Where bytes are reserved while a body comes in.
            token: The bearer token that a client must show; None for any client.
            max_bytes: Largest body, also after decompression.
            metrics: Where requests are counted.
        """
        self._accept = accept
        self._fallback = fallback
        self._memory = memory
        self._expected = f"Bearer {token}".encode() if token is not None else None
        self._max_bytes = max_bytes
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        signal = _PATHS.get(scope["path"]) if scope["type"] == "http" else None
        if signal is None:
            await self._fallback(scope, receive, send)
            return
        self._metrics.received.labels(signal).inc()
        headers = dict(scope["headers"])
        media_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower().decode("latin-1")
        try:
            await self._take(signal, scope["method"], headers, media_type, receive)
        except _Gone:
            self._metrics.refused.labels(signal, "disconnected").inc()
        except Refused as refused:
            self._metrics.refused.labels(signal, refused.why.label).inc()
            await _answer_refused(send, refused, media_type)
        else:
            self._metrics.acknowledged.labels(signal).inc()
            await _answer(send, 200, media_type, _SUCCESS[media_type])

    async def _take(
        self, signal: Signal, method: str, headers: dict[bytes, bytes], media_type: str, receive: Receive
    ) -> None:
        if method != "POST":
            raise Refused(Why.METHOD, f"{method} is not allowed; use POST")
        if self._expected is not None and not hmac.compare_digest(
            headers.get(b"authorization", b""), self._expected
        ):
            raise Refused(Why.UNAUTHENTICATED, "the header `Authorization: Bearer TOKEN` is missing or wrong")
        if media_type not in _SUCCESS:
            raise Refused(Why.MEDIA_TYPE, f"content type {media_type!r} is not one of: {PROTOBUF}, {JSON}")
        coding = headers.get(b"content-encoding", b"identity").strip().lower()
        if coding not in (b"gzip", b"identity", b""):
            raise Refused(
                Why.MEDIA_TYPE, f"content encoding {coding.decode('latin-1')!r} is not one of: gzip, identity"
            )
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._max_bytes:
            raise _too_large(self._max_bytes)
        body = await self._read(receive)
        if coding == b"gzip":
            body = gunzip(body, self._max_bytes)
        if media_type == JSON:
            message = otlp_json.parse(signal, body)
            await self._accept(signal, message.SerializeToString(), message)
        else:
            await self._accept(signal, body)

    async def _read(self, receive: Receive) -> bytes:
        """Read the body. Its memory is reserved while it comes in; `accept` reserves it again."""
        event = await receive()
        if not event.get("more_body") and event["type"] == "http.request":
            body: bytes = event.get("body", b"")
            if len(body) > self._max_bytes:
                raise _too_large(self._max_bytes)
            return body
        chunks = bytearray()
        try:
            async with asyncio.timeout(_BODY_TIMEOUT_S):
                while True:
                    if event["type"] == "http.disconnect":
                        raise _Gone
                    chunk = event.get("body", b"")
                    self._memory.take(len(chunk))
                    chunks += chunk
                    if len(chunks) > self._max_bytes:
                        raise _too_large(self._max_bytes)
                    if not event.get("more_body"):
                        return bytes(chunks)
                    event = await receive()
        except TimeoutError:
            raise Refused(Why.SLOW, f"the body did not arrive within {_BODY_TIMEOUT_S:.0f} s") from None
        finally:
            self._memory.give(len(chunks))


def gunzip(data: bytes, max_bytes: int) -> bytes:
    """Undo gzip, one member or several, never beyond the limit.

    Raises:
        Refused: If it is not gzip, ends too early, or unpacks to more than `max_bytes`.
    """
    body = b""
    members = 0
    while data:
        members += 1
        if members > _MAX_MEMBERS:
            raise Refused(Why.INVALID, f"the gzip body has more than {_MAX_MEMBERS} members; one is enough")
        member = zlib.decompressobj(_GZIP)
        try:
            body += member.decompress(data, max_bytes + 1 - len(body))
        except zlib.error as error:
            raise Refused(Why.INVALID, f"the body is not gzip: {error}") from None
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
        if not member.eof:
            raise Refused(Why.INVALID, "the gzip body ends too early")
        data = member.unused_data
    return body


def _too_large(max_bytes: int) -> Refused:
    mib = max_bytes >> 20
    return Refused(
        Why.TOO_LARGE, f"larger than {mib} MiB decompressed (MAX_REQUEST_MIB); send smaller batches"
    )


async def _answer_refused(send: Send, refused: Refused, media_type: str) -> None:
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
    await _answer(send, refused.why.http, media_type, body, extra)


async def _answer(
    send: Send, status: int, media_type: str, body: bytes, extra: list[tuple[bytes, bytes]] | None = None
) -> None:
    headers = [
        (b"content-type", media_type.encode()),
        (b"content-length", str(len(body)).encode()),
        *(extra or ()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
