"""The parts of a running sidecar: built, started and stopped in order."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import grpc

from otel_triage.sidecar import datadir, receive_grpc, web
from otel_triage.sidecar.addresses import Listen, bound, is_loopback, own_listener
from otel_triage.sidecar.deliver import Delivery, NoDownstream, Outbox
from otel_triage.sidecar.deliver_sentry import SentryDelivery
from otel_triage.sidecar.exporters import Exporter
from otel_triage.sidecar.journal import Journal
from otel_triage.sidecar.loops import Loops
from otel_triage.sidecar.metrics import Metrics
from otel_triage.sidecar.pipeline import Downstream, Pipeline
from otel_triage.sidecar.ratelimits import RateLimits
from otel_triage.sidecar.receive_http import OtlpHttp
from otel_triage.sidecar.receive_sentry import SentryHttp
from otel_triage.sidecar.settings import Settings, SettingsError, variable
from otel_triage.sidecar.signals import OTLP, SENTRY
from otel_triage.sidecar.stages import Stage
from otel_triage.sidecar.upstreams import Upstreams

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
        insecure = settings.allow_insecure_bind or is_loopback(settings.http_listen.host)
        self._upstreams = Upstreams(settings.sentries, any_key=insecure)
        self._limits = RateLimits()
        self._loops = Loops()
        self._deliveries: list[Outbox] = []
        to_otlp, to_sentry = self._downstreams(share)
        self._stage = stage(settings, metrics)
        self.pipeline = Pipeline(
            self._journal,
            self._stage.triage,
            {OTLP: to_otlp, SENTRY: to_sentry},
            loops=self._loops,
            memory_bytes=share,
            metrics=metrics,
        )
        self._serving: list[asyncio.Task[None]] = []
        self._build_servers()

    def _downstreams(self, memory_bytes: int) -> tuple[Downstream, Downstream]:
        """What takes OTLP, and what takes Sentry's requests; those that exist share the memory."""
        settings = self._settings
        sentry = any(entry.upstream for entry in settings.sentries)
        limits: dict[str, Any] = {
            "memory_bytes": memory_bytes // (2 if sentry and settings.otlp_endpoint else 1),
            "max_age_s": settings.journal_hours * _HOUR_S,
            "metrics": self.metrics,
        }
        to_otlp: Downstream = NoDownstream(self.metrics)
        to_sentry: Downstream = NoDownstream(self.metrics)
        if settings.otlp_endpoint is not None:
            to_otlp = delivery = Delivery(
                _exporter(settings.otlp_endpoint, settings, self._loops.hops), **limits
            )
            self._deliveries.append(delivery)
        if sentry:
            to_sentry = forwarding = SentryDelivery(self._upstreams, self._limits, self._loops.hops, **limits)
            self._deliveries.append(forwarding)
        return to_otlp, to_sentry

    def _build_servers(self) -> None:
        settings, metrics = self._settings, self.metrics
        token = settings.ingest_token.get_secret_value() if settings.ingest_token else None
        admin_token = settings.admin_token.get_secret_value() if settings.admin_token else None
        max_bytes = settings.max_request_mib * _MIB
        health = web.health_routes(self.pipeline.not_ready, self.degraded)

        self._grpc = receive_grpc.server(
            self.pipeline.accept, token=token, max_bytes=max_bytes, loops=self._loops, metrics=metrics
        )
        self.grpc_listen = _bind_grpc(self._grpc, settings)

        self._http_socket, self._admin_socket = (
            _bind("http_listen", settings.http_listen),
            _bind("admin_listen", settings.admin_listen),
        )
        self.http_listen, self.admin_listen = bound(self._http_socket), bound(self._admin_socket)
        sentry = SentryHttp(
            self.pipeline.accept,
            web.application(health),
            upstreams=self._upstreams,
            limits=self._limits,
            memory=self.pipeline.memory,
            max_bytes=max_bytes,
            loops=self._loops,
            metrics=metrics,
        )
        otlp = OtlpHttp(
            self.pipeline.accept,
            sentry,
            memory=self.pipeline.memory,
            token=token,
            max_bytes=max_bytes,
            loops=self._loops,
            metrics=metrics,
        )
        self._http = web.server(otlp, settings)
        admin = web.application(
            [
                *health,
                web.metrics_route(metrics, admin_token),
                web.resend_route(self.pipeline.resend, admin_token),
            ]
        )
        self._admin = [(web.server(admin, settings), self._admin_socket)]
        if settings.health_listen is not None:
            # For probes and scrapers, which show no token and speak no TLS.
            probes = web.application([*health, web.metrics_route(metrics, None)])
            sock = _bind("health_listen", settings.health_listen)
            self.health_listen = bound(sock)
            self._admin.append((web.server(probes, None), sock))

    def degraded(self) -> list[str]:
        """What does not work as it should, while requests are taken."""
        deliveries = (trouble for delivery in self._deliveries for trouble in delivery.degraded())
        return [*self.pipeline.degraded(), *self._stage.degraded(), *deliveries]

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
        for delivery in self._deliveries:
            await delivery.close()
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
            log.warning("cannot resolve the downstreams in time; not checked for a loop")


def listens(settings: Settings) -> dict[str, Listen]:
    """The addresses to listen on, by setting."""
    names = ("grpc_listen", "http_listen", "admin_listen", "health_listen")
    return {name: listen for name in names if (listen := getattr(settings, name)) is not None}


def refuse_itself(settings: Settings, listeners: list[Listen]) -> None:
    """Refuse a downstream that is one of `listeners`.

    Raises:
        SettingsError: If it is.
    """
    upstreams = (("sentry_upstream", entry.upstream) for entry in settings.sentries)
    for field, endpoint in (("otlp_endpoint", settings.otlp_endpoint), *upstreams):
        own = own_listener(endpoint, listeners) if endpoint is not None else None
        if own is not None:
            name = variable(field)
            example = (Settings.model_fields[field].examples or [""])[0]
            raise SettingsError(
                f"{name}: {endpoint} is this sidecar's own listener {own}: a loop. "
                f"Give the backend's address. Example: {name}={example}"
            )


def _exporter(endpoint: str, settings: Settings, hops: Callable[[], str]) -> Exporter:
    """Import the one client that is asked for: each costs a fifth of the start's time."""
    if settings.otlp_protocol == "grpc":
        from otel_triage.sidecar.export_grpc import GrpcExporter

        return GrpcExporter(endpoint, settings.otlp_headers, settings.otlp_certificate, hops)
    from otel_triage.sidecar.export_http import HttpExporter

    return HttpExporter(endpoint, settings.otlp_headers, settings.otlp_certificate, hops)


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
