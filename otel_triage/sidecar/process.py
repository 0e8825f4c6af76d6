"""The parts of a running sidecar: built, started and stopped in order."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable
from typing import Final, TypeAlias

import grpc

from otel_triage.sidecar import datadir, receive_grpc, web
from otel_triage.sidecar.addresses import Listen, bound, own_listener
from otel_triage.sidecar.deliver import Delivery, NoDownstream
from otel_triage.sidecar.exporters import Exporter
from otel_triage.sidecar.journal import Journal
from otel_triage.sidecar.metrics import Metrics
from otel_triage.sidecar.pipeline import Pipeline
from otel_triage.sidecar.receive_http import OtlpHttp
from otel_triage.sidecar.settings import Settings, SettingsError, variable
from otel_triage.sidecar.stages import Stage

DRAIN_S: Final = 10.0
"""From SIGTERM to the end, at most."""
RESOLVE_S: Final = 3.0
"""How long the start waits for the resolver, to see whether the downstream is the sidecar itself."""
JOURNAL_FILE: Final = "journal.db"

_GRACE_S: Final = 2.0  # for requests that are being received when the end comes
_MIB: Final = 1 << 20
_HOUR_S: Final = 3600.0
_DAY_S: Final = 24 * _HOUR_S

StageFactory: TypeAlias = Callable[[Settings, Metrics], Stage]

log = logging.getLogger(__name__)


class Sidecar:
    """One sidecar. `await start()`, and later `await stop()`."""

    def __init__(self, settings: Settings, stage: StageFactory) -> None:
        """Claim the data directory and the addresses; nothing is answered yet.

        Must be called within the event loop.

        Raises:
            SettingsError: If an address cannot be had.
            DataDirError: If the directory cannot be used.
            JournalError: If the journal cannot be used.
        """
        self._settings = settings
        self._lock = datadir.claim(settings.data_dir)
        metrics = self.metrics = Metrics()
        self._journal = Journal(
            settings.data_dir / JOURNAL_FILE,
            max_bytes=settings.journal_mib * _MIB,
            keep_dead_s=settings.keep_deadletter_days * _DAY_S,
            metrics=metrics,
        )
        # A quarter of the memory each for what comes in and what goes out: a parsed request takes
        # about three times its size on the wire.
        share = settings.memory_mib * _MIB // 4
        self._delivery = _delivery(settings, share, metrics)
        self._stage = stage(settings, metrics)
        self.pipeline = Pipeline(
            self._journal,
            self._stage.triage,
            self._delivery or NoDownstream(metrics),
            memory_bytes=share,
            metrics=metrics,
        )
        self._serving: list[asyncio.Task[None]] = []
        self._build_servers()

    def _build_servers(self) -> None:
        settings, metrics = self._settings, self.metrics
        token = settings.ingest_token.get_secret_value() if settings.ingest_token else None
        admin_token = settings.admin_token.get_secret_value() if settings.admin_token else None
        max_bytes = settings.max_request_mib * _MIB
        health = web.health_routes(self.pipeline.not_ready, self.degraded)

        self._grpc = receive_grpc.server(
            self.pipeline.accept, token=token, max_bytes=max_bytes, metrics=metrics
        )
        self.grpc_listen = _bind_grpc(self._grpc, settings)

        self._http_socket, self._admin_socket = (
            _bind("http_listen", settings.http_listen),
            _bind("admin_listen", settings.admin_listen),
        )
        self.http_listen, self.admin_listen = bound(self._http_socket), bound(self._admin_socket)
        otlp = OtlpHttp(
            self.pipeline.accept,
            web.application(health),
            memory=self.pipeline.memory,
            token=token,
            max_bytes=max_bytes,
            metrics=metrics,
        )
        self._http = web.server(otlp, settings)
        admin = web.application([*health, web.metrics_route(metrics, admin_token)])
        self._admin = [(web.server(admin, settings), self._admin_socket)]
        if settings.health_listen is not None:
            # For probes and scrapers, which show no token and speak no TLS.
            probes = web.application([*health, web.metrics_route(metrics, None)])
            sock = _bind("health_listen", settings.health_listen)
            self.health_listen = bound(sock)
            self._admin.append((web.server(probes, None), sock))

    def degraded(self) -> list[str]:
        """What does not work as it should, while requests are taken."""
        delivery = self._delivery.degraded() if self._delivery is not None else []
        return [*self.pipeline.degraded(), *self._stage.degraded(), *delivery]

    async def start(self) -> None:
        """Recover, listen and serve; returns when all listeners answer.

        Raises:
            SettingsError: If the downstream is one of our own listeners.
        """
        await self._refuse_itself()
        self.pipeline.start()
        await self._grpc.start()
        for server, sock in [(self._http, self._http_socket), *self._admin]:
            self._serving.append(asyncio.create_task(server.serve(sockets=[sock])))
            while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
                await asyncio.sleep(0.005)

    async def stop(self) -> None:
        """Become unready, stop receiving, deliver for a while, write the rest down, end."""
        self.pipeline.draining = True
        try:
            async with asyncio.timeout(DRAIN_S):
                self._http.end()
                await asyncio.gather(self._grpc.stop(_GRACE_S), self._serving[0])
                await self.pipeline.drain()
        except TimeoutError:
            log.warning("not everything could be delivered within %.0f s", DRAIN_S)
        await self.close()

    async def close(self) -> None:
        """Stop at once; what is not settled stays in the journal."""
        for server in (self._http, *(server for server, _ in self._admin)):
            server.end()
        await self._grpc.stop(0)
        if self._delivery is not None:
            await self._delivery.close()
        await self.pipeline.close()
        await asyncio.to_thread(self._stage.close)
        if self._journal.records:
            log.info("%d records stay in the journal for the next start", self._journal.records)
        await asyncio.gather(*self._serving)
        os.close(self._lock)

    async def _refuse_itself(self) -> None:
        listeners = [self.grpc_listen, self.http_listen, *(bound(sock) for _, sock in self._admin)]
        try:
            async with asyncio.timeout(RESOLVE_S):
                await asyncio.to_thread(refuse_itself, self._settings, listeners)
        except TimeoutError:
            log.warning("cannot resolve %s in time; not checked for a loop", self._settings.otlp_endpoint)


def listens(settings: Settings) -> dict[str, Listen]:
    """The addresses to listen on, by setting."""
    names = ("grpc_listen", "http_listen", "admin_listen", "health_listen")
    return {name: listen for name in names if (listen := getattr(settings, name)) is not None}


def refuse_itself(settings: Settings, listeners: list[Listen]) -> None:
    """Refuse a downstream that is one of `listeners`.

    Raises:
        SettingsError: If it is.
    """
    endpoint = settings.otlp_endpoint
    own = own_listener(endpoint, listeners) if endpoint is not None else None
    if own is not None:
        name = variable("otlp_endpoint")
        raise SettingsError(
            f"{name}: {endpoint} is this sidecar's own listener {own}: a loop. "
            f"Give the backend's address. Example: {name}=http://collector:4317"
        )


def _delivery(settings: Settings, memory_bytes: int, metrics: Metrics) -> Delivery | None:
    if settings.otlp_endpoint is None:
        return None
    return Delivery(
        _exporter(settings.otlp_endpoint, settings),
        memory_bytes=memory_bytes,
        max_age_s=settings.journal_hours * _HOUR_S,
        metrics=metrics,
    )


def _exporter(endpoint: str, settings: Settings) -> Exporter:
    """Import the one client that is asked for: each costs a fifth of the start's time."""
    if settings.otlp_protocol == "grpc":
        from otel_triage.sidecar.export_grpc import GrpcExporter

        return GrpcExporter(endpoint, settings.otlp_headers, settings.otlp_certificate)
    from otel_triage.sidecar.export_http import HttpExporter

    return HttpExporter(endpoint, settings.otlp_headers, settings.otlp_certificate)


def _bind(name: str, listen: Listen) -> socket.socket:
    try:
        return listen.bind()
    except OSError as error:
        hint = " (another sidecar or Collector?)" if error.errno == errno.EADDRINUSE else ""
        raise SettingsError(
            f"{variable(name)}: {error.strerror}{hint}. "
            f"Example: {variable(name)}=127.0.0.1:0 takes a free port"
        ) from None


def _bind_grpc(server: grpc.aio.Server, settings: Settings) -> Listen:
    listen = settings.grpc_listen
    _bind("grpc_listen", listen).close()  # gRPC's own message does not say why
    try:
        if settings.tls_cert is not None and settings.tls_key is not None:
            pair = (settings.tls_key.read_bytes(), settings.tls_cert.read_bytes())
            roots = settings.tls_client_ca.read_bytes() if settings.tls_client_ca else None
            credentials = grpc.ssl_server_credentials([pair], roots, require_client_auth=roots is not None)
            port = server.add_secure_port(str(listen), credentials)
        else:
            port = server.add_insecure_port(str(listen))
    except RuntimeError as error:
        raise SettingsError(f"{variable('grpc_listen')}: cannot listen on {listen}: {error}") from None
    return Listen(listen.host, port)
