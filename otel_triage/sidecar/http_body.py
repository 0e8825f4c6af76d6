"""Bodies of HTTP requests: read and decompressed within limits. Bodies that lie or explode are refused."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping
from typing import Any, Final, Protocol, TypeAlias

import brotli

from otel_triage.sidecar.refusals import Refused, Why

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

_TIMEOUT_S: Final = 30.0
_GZIP: Final = 16 + zlib.MAX_WBITS
_MAX_MEMBERS: Final = 64  # each is cut off the rest by a copy: many would take quadratic time
_BROTLI_STEP: Final = 64 << 10


class Gone(Exception):
    """The client went away in the middle of its request."""


class Reservations(Protocol):
    """`pipeline.Memory`, as far as bodies need it."""

    def take(self, size: int) -> None:
        """Reserve bytes; raises `Refused` where that would be too much."""

    def give(self, size: int) -> None:
        """Return what was reserved."""


class Bodies:
    """Reads bodies. Memory is reserved while one comes in; who takes it reserves it again."""

    def __init__(self, memory: Reservations, max_bytes: int, *, codings: Collection[str]) -> None:
        """Read bodies of at most `max_bytes`, before and after decompression.

        Args:
            memory: Where bytes are reserved.
            max_bytes: The limit.
            codings: Names of the content encodings that are taken, beside `identity`.
        """
        self._memory = memory
        self._max_bytes = max_bytes
        self._codings = codings

    async def read(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        """The body, decompressed.

        Raises:
            Refused: If it is too large, too slow, or not what its headers say.
            Gone: If the client went away.
        """
        coding = headers.get(b"content-encoding", b"").strip().lower().decode("latin-1") or "identity"
        if coding != "identity" and coding not in self._codings:
            known = ", ".join((*self._codings, "identity"))
            raise Refused(Why.MEDIA_TYPE, f"content encoding {coding!r} is not one of: {known}")
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._max_bytes:
            raise _too_large(self._max_bytes)
        body = await self._receive(receive)
        return body if coding == "identity" else _DECODERS[coding](body, self._max_bytes)

    async def _receive(self, receive: Receive) -> bytes:
        event = await receive()
        if not event.get("more_body") and event["type"] == "http.request":
            body: bytes = event.get("body", b"")
            if len(body) > self._max_bytes:
                raise _too_large(self._max_bytes)
            return body
        chunks = bytearray()
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                while True:
                    if event["type"] == "http.disconnect":
                        raise Gone
                    chunk = event.get("body", b"")
                    self._memory.take(len(chunk))
                    chunks += chunk
                    if len(chunks) > self._max_bytes:
                        raise _too_large(self._max_bytes)
                    if not event.get("more_body"):
                        return bytes(chunks)
                    event = await receive()
        except TimeoutError:
            raise Refused(Why.SLOW, f"the body did not arrive within {_TIMEOUT_S:.0f} s") from None
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
        part, data = _inflate(data, _GZIP, "gzip", max_bytes, len(body))
        body += part
    return body


def undeflate(data: bytes, max_bytes: int) -> bytes:
    """Undo `deflate`: with zlib's frame (RFC 9110, 8.4.1.2), or without it, as many send it.

    Raises:
        Refused: If it is neither, ends too early, or unpacks to more than `max_bytes`.
    """
    framed = len(data) > 1 and data[0] & 15 == zlib.DEFLATED and int.from_bytes(data[:2], "big") % 31 == 0
    body, rest = _inflate(data, zlib.MAX_WBITS if framed else -zlib.MAX_WBITS, "deflate", max_bytes, 0)
    if rest:
        raise Refused(Why.INVALID, "the deflate body goes on behind its end")
    return body


def unbrotli(data: bytes, max_bytes: int) -> bytes:
    """Undo `br`, a part at a time, so that a small body cannot become a large one in memory.

    Raises:
        Refused: If it is not brotli, ends too early, or unpacks to more than `max_bytes`.
    """
    decoder = brotli.Decompressor()
    parts: list[bytes] = []
    size = 0
    try:
        part = decoder.process(data, output_buffer_limit=_BROTLI_STEP)
        while part or not (decoder.can_accept_more_data() or decoder.is_finished()):
            parts.append(part)
            size += len(part)
            if size > max_bytes:
                raise _too_large(max_bytes)
            part = decoder.process(b"", output_buffer_limit=_BROTLI_STEP)
    except brotli.error as error:
        raise Refused(Why.INVALID, f"the body is not brotli: {error}") from None
    if not decoder.is_finished():
        raise Refused(Why.INVALID, "the brotli body ends too early")
    return b"".join(parts)


def _inflate(data: bytes, window: int, name: str, max_bytes: int, before: int) -> tuple[bytes, bytes]:
    decoder = zlib.decompressobj(window)
    try:
        body = decoder.decompress(data, max_bytes + 1 - before)
    except zlib.error as error:
        raise Refused(Why.INVALID, f"the body is not {name}: {error}") from None
    if before + len(body) > max_bytes:
        raise _too_large(max_bytes)
    if not decoder.eof:
        raise Refused(Why.INVALID, f"the {name} body ends too early")
    return body, decoder.unused_data


_DECODERS: Final = {"gzip": gunzip, "br": unbrotli, "deflate": undeflate}
CODINGS: Final = tuple(_DECODERS)
"""All content encodings that can be undone."""


def _too_large(max_bytes: int) -> Refused:
    mib = max_bytes >> 20
    return Refused(
        Why.TOO_LARGE, f"larger than {mib} MiB decompressed (MAX_REQUEST_MIB); send smaller batches"
    )
