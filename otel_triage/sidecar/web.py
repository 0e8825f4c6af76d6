"""Health, readiness and metrics over HTTP, and uvicorn inside our own loop."""

from __future__ import annotations

import asyncio
import hmac
import ssl
from collections.abc import Awaitable, Callable, Collection, Generator
from contextlib import contextmanager
from typing import Any, Final

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from otel_triage.sidecar.metrics import Metrics
from otel_triage.sidecar.refusals import Refused
from otel_triage.sidecar.settings import Settings

_MAX_HEADERS: Final = 512 << 10  # above one read of the socket, which may end in the next headers
_KEEP_ALIVE_S: Final = 75  # longer than exporters' usual intervals, so that they need not reconnect
_SHUTDOWN_S: Final = 2


def health_routes(not_ready: Callable[[], str | None], degraded: Callable[[], list[str]]) -> list[Route]:
    """`/healthz` (the event loop runs, and nothing else) and `/readyz`.

    Args:
        not_ready: Why no request can be taken now, or None.
        degraded: What does not work as it should, while requests are taken.
    """

    async def healthz(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        reason = not_ready()
        troubles = ([reason] if reason else []) + degraded()
        return JSONResponse({"degraded": troubles}, status_code=503 if reason else 200)

    return [Route("/healthz", healthz), Route("/readyz", readyz)]


def metrics_route(metrics: Metrics, token: str | None) -> Route:
    """`/metrics` in Prometheus' text format; with `token` only for who shows it as a bearer token."""
    expected = f"Bearer {token}".encode() if token is not None else None

    async def show(request: Request) -> Response:
        if (refusal := _unauthorized(request, expected)) is not None:
            return refusal
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return Route("/metrics", show)


def resend_route(resend: Callable[[Collection[int] | None], Awaitable[int]], token: str | None) -> Route:
    """`POST /api/v1/deadletters/resend`: `{"ids": [1, 2]}`, or `{}` for all; answers `{"resent": N}`.

    Args:
        resend: `Pipeline.resend`.
        token: The bearer token that must be shown; None for none.
    """
    expected = f"Bearer {token}".encode() if token is not None else None

    async def take(request: Request) -> Response:
        if (refusal := _unauthorized(request, expected)) is not None:
            return refusal
        try:
            ids = (await request.json()).get("ids")
            if ids is not None and not all(type(one) is int for one in ids):
                raise TypeError("an id is not a number")
        except (ValueError, TypeError, AttributeError) as error:
            return JSONResponse({"error": f'{{"ids": [1, 2]}} or {{}} is due: {error}'}, status_code=400)
        try:
            return JSONResponse({"resent": await resend(ids)})
        except Refused as refused:
            return JSONResponse({"error": refused.text}, status_code=refused.why.http)

    return Route("/api/v1/deadletters/resend", take, methods=["POST"])


def _unauthorized(request: Request, expected: bytes | None) -> Response | None:
    shown = request.headers.get("authorization", "").encode("latin-1")
    if expected is None or hmac.compare_digest(shown, expected):
        return None
    return PlainTextResponse(
        "the header `Authorization: Bearer TOKEN` is missing or wrong (OTEL_TRIAGE_ADMIN_TOKEN)\n",
        status_code=401,
        headers={"www-authenticate": "Bearer"},
    )


def application(routes: list[Route]) -> Starlette:
    """An ASGI application of these routes."""
    return Starlette(routes=routes)


class _BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, closed on a client whose headers do not end: the parser itself has no limit."""

    _header_bytes: int | None = 0

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._header_bytes is not None:
            self._header_bytes += len(data)
            if self._header_bytes > _MAX_HEADERS:
                self.transport.abort()

    def on_message_begin(self) -> None:
        self._header_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._header_bytes = None
        super().on_headers_complete()


class Server(uvicorn.Server):
    """uvicorn in a loop that is ours, and so are the signals."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._end = asyncio.Event()

    def end(self) -> None:
        """Let `serve` answer what it is answering, and return."""
        self.should_exit = True
        self._end.set()

    async def main_loop(self) -> None:
        """Wait for the end; uvicorn's own looks ten times a second, for things that are off here."""
        await self._end.wait()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave signals alone."""
        yield


def server(app: Any, settings: Settings | None) -> Server:
    """Build a server for `serve(sockets=[…])` within the loop that calls this.

    Args:
        app: An ASGI application.
        settings: Where to find the TLS files; None for plain HTTP.
    """
    tls: dict[str, Any] = {}
    if settings is not None and settings.tls_cert is not None:
        tls = {"ssl_certfile": str(settings.tls_cert), "ssl_keyfile": str(settings.tls_key)}
        if settings.tls_client_ca is not None:
            tls |= {"ssl_ca_certs": str(settings.tls_client_ca), "ssl_cert_reqs": ssl.CERT_REQUIRED}
    config = uvicorn.Config(
        app,
        loop="none",
        http=_BoundedProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # a client may not choose its own address
        server_header=False,
        date_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_SHUTDOWN_S,
        **tls,
    )
    return Server(config)
