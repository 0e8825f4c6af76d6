"""Watches a response body as it passes: never buffers a stream, never changes a byte."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from otel_triage.facts.answers import EventReader

_ERROR_BODY: Final = 64 * 1024
_WHOLE_BODY: Final = 1 << 20
_INFLATED: Final = 64 << 20

_Decode = Callable[[bytes], bytes]


def _inflater(window: int) -> _Decode:
    """Incremental decompression that stops at 64 MiB: a body may be a bomb."""
    inflate = zlib.decompressobj(window)
    total = 0

    def decode(data: bytes) -> bytes:
        nonlocal total
        out = inflate.decompress(data, _WHOLE_BODY)
        total += len(out)
        if total > _INFLATED:
            raise ValueError("the body inflates to more than 64 MiB")
        return out + decode(inflate.unconsumed_tail) if inflate.unconsumed_tail else out

    return decode


def _decoder(encoding: str) -> _Decode | None:
    """How to read a content encoding (RFC 9110, 8.4.1), or None: br and zstd need a library."""
    if encoding in ("", "identity"):
        return bytes
    if encoding in ("gzip", "x-gzip"):
        return _inflater(31)
    return _inflater(15) if encoding == "deflate" else None


class Watch:
    """What was seen of one response body.

    Server-sent events are read as they pass; of an error the first 64 KiB, of a JSON answer the
    first 1 MiB are kept until the call ends; of anything else (speech, files) nothing.
    `complete`: the body ended by itself. `broken`: it does not decompress.
    """

    def __init__(
        self, *, api: str | None, status: int, headers: Mapping[str, str], stream: bool = False
    ) -> None:
        kind = headers.get("content-type", "").lower()
        # Gateways forget the type of what was asked for as a stream.
        sse = kind.startswith("text/event-stream") or (stream and "json" not in kind and "html" not in kind)
        self.events = EventReader(api) if sse and status < 400 else None
        self.complete = False
        self.broken = False
        self.readable = sse or status >= 400 or (api is not None and "json" in kind)
        self._limit = _ERROR_BODY if status >= 400 else _WHOLE_BODY
        self._decode = _decoder(headers.get("content-encoding", "").strip().lower())
        self._body = bytearray()

    @property
    def chunks(self) -> int | None:
        """Events so far, where this is a stream of events."""
        return self.events.chunks if self.events else None

    @property
    def body(self) -> bytes | None:
        """The body, where it is none of events and was read to a limit that makes sense."""
        return bytes(self._body) if self.events is None and self.readable else None

    def feed(self, data: bytes) -> None:
        """Takes the next raw bytes; what cannot be decoded makes the rest unreadable, not wrong."""
        if not self.readable:
            return
        if self._decode is None:
            self.readable = False
            return
        try:
            text = self._decode(data)
        except zlib.error:
            self.broken, self.readable = True, False
            return
        except (ValueError, RecursionError):
            self.readable = False
            return
        if self.events is not None:
            self.events.feed(text)
        elif len(self._body) + len(text) <= self._limit:
            self._body += text
        else:
            self._body += text[: self._limit - len(self._body)]
            self.readable = self._limit == _ERROR_BODY

    def seen_whole(self) -> bool:
        """Whether the answer itself is known to have come to its end."""
        if self.complete:
            return True
        return self.events is not None and (
            self.events.reading.ended or self.events.reading.error is not None
        )


def _delegate(tap: Any, name: str) -> Any:
    if name in ("_inner", "_attempt"):  # asked for on a half-made object: no recursion
        raise AttributeError(name)
    return getattr(tap._inner, name)


def make_taps(module: Any) -> tuple[type, type]:
    """The two stream classes for one HTTP library: it asks for subclasses of its own.

    Args:
        module: `httpx` or `httpx2`, already imported by the application.
    """

    class Tap(module.SyncByteStream):  # type: ignore[misc]
        def __init__(self, inner: Any, attempt: Any) -> None:
            self._inner, self._attempt = inner, attempt

        def __iter__(self) -> Any:
            try:
                for data in self._inner:
                    self._attempt.saw(data)
                    yield data
            except GeneratorExit:
                raise
            except BaseException as exc:
                self._attempt.body_broke(exc)
                raise
            self._attempt.body_ended()

        def close(self) -> None:
            try:
                self._inner.close()
            finally:
                self._attempt.body_closed()

        def __del__(self) -> None:
            with suppress(Exception):
                self._attempt.body_dropped()

        def __getattr__(self, name: str) -> Any:  # httpx2 reads `elapsed` off the stream
            return _delegate(self, name)

    class AsyncTap(module.AsyncByteStream):  # type: ignore[misc]
        def __init__(self, inner: Any, attempt: Any) -> None:
            self._inner, self._attempt = inner, attempt

        async def __aiter__(self) -> Any:
            try:
                async for data in self._inner:
                    self._attempt.saw(data)
                    yield data
            except GeneratorExit:
                raise
            except BaseException as exc:
                self._attempt.body_broke(exc)
                raise
            self._attempt.body_ended()

        async def aclose(self) -> None:
            try:
                await self._inner.aclose()
            finally:
                self._attempt.body_closed()

        def __del__(self) -> None:
            with suppress(Exception):
                self._attempt.body_dropped()

        def __getattr__(self, name: str) -> Any:
            return _delegate(self, name)

    return Tap, AsyncTap
