"""Sentry in: envelopes, single events (`/store/`) and Sentry's OTLP endpoint, from any SDK.

Whoever holds the key of a DSN may send: by `X-Sentry-Auth`, in the query, or in the `dsn` of the
envelope's header (the `tunnel` option of JavaScript's SDK). SDKs do not send again what is refused, so
what can be kept is answered with 200 once it is durable, whatever the upstream's limits are.
Sources: https://develop.sentry.dev/sdk/overview/, …/sdk/data-model/envelopes/, and
https://docs.sentry.io/platforms/javascript/troubleshooting/#using-the-tunnel-option.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_triage.sidecar import otlp_json
from otel_triage.sidecar.envelopes import EVENT, Envelope, dump, read_envelope
from otel_triage.sidecar.http_body import CODINGS, App, Bodies, Gone, Receive, Reservations, Scope, Send
from otel_triage.sidecar.json_splice import members, spliced
from otel_triage.sidecar.loops import Loops
from otel_triage.sidecar.metrics import Metrics
from otel_triage.sidecar.ratelimits import ERROR, RateLimits
from otel_triage.sidecar.receive_grpc import Accept
from otel_triage.sidecar.receive_http import (
    JSON,
    SUCCESS,
    answer,
    answer_refused,
    check_media_type,
    hops_of,
    media_type_of,
)
from otel_triage.sidecar.refusals import Refused, Why
from otel_triage.sidecar.sentry_record import Sender, SentryRecord, pack
from otel_triage.sidecar.setting_types import KEY
from otel_triage.sidecar.signals import Signal
from otel_triage.sidecar.upstreams import Upstreams

CLIENT_HEADER: Final = b"x-otel-triage-client"
"""How `TriageTransport` names itself; it is told 404 where there is no upstream, and goes there directly."""

_PATH: Final = re.compile(
    r"/api/(?P<project>[A-Za-z0-9_-]{1,64})/(?P<way>envelope|store|integration/otlp/v1/traces)/?"
)
_TUNNEL: Final = re.compile(r"/tunnel/?")
_SIGNALS: Final = {"envelope": Signal.ENVELOPE, "store": Signal.ENVELOPE}
_PROJECT: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_EVENT_ID: Final = re.compile(r"[0-9A-Fa-f-]{32,36}")
# From these Sentry infers the user's address and browser, and which sites may send.
_PASSED: Final = (b"user-agent", b"origin", b"referer", b"x-forwarded-for")
_LONGEST: Final = 1000
_CORS: Final = [
    (b"access-control-allow-origin", b"*"),
    (b"access-control-expose-headers", b"x-sentry-error, x-sentry-rate-limits, retry-after"),
]
_PREFLIGHT: Final = [
    (b"access-control-allow-methods", b"POST"),
    (
        b"access-control-allow-headers",
        b"x-sentry-auth, x-requested-with, origin, accept, content-type, authentication, authorization,"
        b" content-encoding",
    ),
    (b"access-control-max-age", b"3600"),
]


class SentryHttp:
    """The ASGI application; every other path goes to `fallback`."""

    def __init__(
        self,
        accept: Accept,
        fallback: App,
        *,
        upstreams: Upstreams,
        limits: RateLimits,
        memory: Reservations,
        max_bytes: int,
        loops: Loops,
        metrics: Metrics,
    ) -> None:
        """Build the application.

        Args:
            accept: Takes a request.
            fallback: The ASGI application of all other paths.
            upstreams: Which keys are taken, and where they belong.
            limits: What upstreams do not take for now.
            memory: Where bytes are reserved while a body comes in.
            max_bytes: Largest body, also after decompression.
            loops: Knows what goes in a circle.
            metrics: Where requests are counted.
        """
        self._accept = accept
        self._fallback = fallback
        self._upstreams = upstreams
        self._limits = limits
        self._bodies = Bodies(memory, max_bytes, codings=CODINGS)
        self._loops = loops
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        found = tunnel = None
        if scope["type"] == "http":
            found, tunnel = _PATH.fullmatch(scope["path"]), _TUNNEL.fullmatch(scope["path"])
        if found is None and tunnel is None:
            await self._fallback(scope, receive, send)
        elif scope["method"] == "OPTIONS":
            await answer(send, 200, "text/plain", b"", [*_CORS, *_PREFLIGHT])
        elif found is not None and found["way"] not in _SIGNALS:
            await self._otlp(found["project"], scope, receive, send)
        else:
            project, way = (found["project"], found["way"]) if found is not None else (None, "envelope")
            await self._envelope(project, way, scope, receive, send)

    async def _envelope(
        self, project: str | None, way: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        signal = Signal.ENVELOPE
        self._metrics.received.labels(signal).inc()
        sender: Sender | None = None
        try:
            headers = self._post(scope)
            self._early(scope, headers)
            body = await self._bodies.read(headers, receive)
            envelope = read_envelope(_stored(body) if way == "store" else body)
            sender = self._sender(project, scope, headers, envelope)
            told = dump(_told(envelope))
            if envelope.items and not self._dropped(sender, envelope):
                await self._accept(signal, pack(sender, envelope.body), SentryRecord(sender, envelope))
        except Gone:
            self._metrics.refused.labels(signal, "disconnected").inc()
        except Refused as refused:
            self._metrics.refused.labels(signal, refused.why.label).inc()
            await self._refuse(send, refused, sender)
        else:
            self._metrics.acknowledged.labels(signal).inc()
            await answer(send, 200, JSON, told, [*_CORS, *self._limited(sender, errors=False)])

    async def _otlp(self, project: str, scope: Scope, receive: Receive, send: Send) -> None:
        signal = Signal.SENTRY_TRACES
        self._metrics.received.labels(signal).inc()
        media_type = ""
        try:
            headers = self._post(scope)
            media_type = media_type_of(headers)
            check_media_type(media_type)
            sender = self._sender(project, scope, headers, None)
            body = await self._bodies.read(headers, receive)
            content = _spans(media_type, body)
            if body:
                record = pack(sender, content.SerializeToString() if media_type == JSON else body)
                await self._accept(signal, record, SentryRecord(sender, content))
        except Gone:
            self._metrics.refused.labels(signal, "disconnected").inc()
        except Refused as refused:
            self._metrics.refused.labels(signal, refused.why.label).inc()
            await answer_refused(send, refused, media_type)
        else:
            self._metrics.acknowledged.labels(signal).inc()
            await answer(send, 200, media_type, SUCCESS[media_type])

    def _post(self, scope: Scope) -> dict[bytes, bytes]:
        if scope["method"] != "POST":
            raise Refused(Why.METHOD, f"{scope['method']} is not allowed; use POST")
        headers = dict(scope["headers"])
        self._loops.check_hops(hops_of(headers))
        return headers

    def _early(self, scope: Scope, headers: Mapping[bytes, bytes]) -> None:
        """Refuse a key that is not taken before its body is read."""
        for key in {shown["sentry_key"] for shown in _shown(scope, headers) if "sentry_key" in shown}:
            self._check(key)

    def _check(self, key: str) -> None:
        if not KEY.fullmatch(key) or not self._upstreams.allows(key):
            raise Refused(Why.FORBIDDEN, f"the key {key[:64]!r} is not taken here (OTEL_TRIAGE_SENTRY_KEYS)")

    def _sender(
        self, project: str | None, scope: Scope, headers: Mapping[bytes, bytes], envelope: Envelope | None
    ) -> Sender:
        """Who sends, by all that the request says of it.

        Raises:
            Refused: If it says nothing, two things, or a key that is not taken; and to our own
                transport if there is no upstream.
        """
        shown = _shown(scope, headers)
        keys = {one["sentry_key"] for one in shown if "sentry_key" in one}
        tunnelled = not keys
        dsn = envelope.headers.get("dsn") if envelope is not None else None
        if isinstance(dsn, str):
            key, named = _dsn(dsn)
            keys.add(key)
            if tunnelled:
                project = named
            elif project is not None and named != project:
                raise Refused(Why.FORBIDDEN, f"the path names project {project}, the dsn {named[:64]!r}")
        if len(keys) != 1:
            what = (
                "two keys"
                if keys
                else "no key: neither X-Sentry-Auth, nor sentry_key in the query, nor a dsn"
            )
            raise Refused(Why.FORBIDDEN, f"the request shows {what}")
        key = keys.pop()
        self._check(key)
        if project is None or not _PROJECT.fullmatch(project):
            raise Refused(Why.FORBIDDEN, "no project: neither in the path nor in the dsn")
        if CLIENT_HEADER in headers and self._upstreams.of(key) is None:
            raise Refused(Why.NO_UPSTREAM, "no upstream for this key (OTEL_TRIAGE_SENTRY_UPSTREAM)")
        client = next((one["sentry_client"] for one in shown if "sentry_client" in one), "")
        return Sender(project, key, _plain(client)[:100], time.time(), _passed(scope, headers))

    def _dropped(self, sender: Sender, envelope: Envelope) -> bool:
        """Whether upstream takes nothing of this now, so that the SDK itself should not have sent it.

        Never so with an error in it: that is kept until it is taken.
        """
        categories = {item.category for item in envelope.items}
        if ERROR in categories or self._limits.wait_s(sender.key, categories) <= 0:
            return False
        for category in categories:
            self._metrics.rate_limited.labels(category).inc()
        return True

    def _limited(self, sender: Sender | None, *, errors: bool) -> list[tuple[bytes, bytes]]:
        found = self._limits.header(sender.key, errors=errors) if sender is not None else None
        return [(b"x-sentry-rate-limits", found.encode())] if found else []

    async def _refuse(self, send: Send, refused: Refused, sender: Sender | None) -> None:
        extra = [*_CORS, (b"x-sentry-error", _plain(refused.text)[:_LONGEST].encode())]
        extra += self._limited(sender, errors=refused.why is Why.JOURNAL_FULL)
        if refused.retry_after_s is not None:
            extra.append((b"retry-after", str(refused.retry_after_s).encode()))
        if refused.why is Why.METHOD:
            extra.append((b"allow", b"POST"))
        await answer(send, refused.why.http, JSON, dump({"detail": refused.text, "causes": []}), extra)


def _shown(scope: Scope, headers: Mapping[bytes, bytes]) -> list[dict[str, str]]:
    """What header and query say of the sender, by names as `sentry_key`."""
    found = []
    for name in (b"x-sentry-auth", b"authorization"):
        scheme, _, fields = headers.get(name, b"").decode("latin-1").strip().partition(" ")
        if scheme.lower() == "sentry":
            pairs = (field.partition("=") for field in fields.split(","))
            found.append({key.strip(): value.strip() for key, _, value in pairs})
    query = scope.get("query_string", b"").decode("latin-1")
    if "sentry_key" in query:
        found.append(dict(parse_qsl(query)))
    return found


def _dsn(text: str) -> tuple[str, str]:
    """Key and project of a DSN; its host says nothing here."""
    try:
        url = urlsplit(text)
        return url.username or "", url.path.rstrip("/").rpartition("/")[2]
    except ValueError:
        return "", ""


def _passed(scope: Scope, headers: Mapping[bytes, bytes]) -> dict[str, str]:
    found = {
        name.decode(): _plain(headers[name].decode("latin-1"))[:_LONGEST]
        for name in _PASSED
        if headers.get(name)
    }
    peer = (scope.get("client") or ("", 0))[0]
    if peer and not peer.startswith("127.") and peer != "::1":
        found["x-forwarded-for"] = ", ".join(filter(None, (found.get("x-forwarded-for"), peer)))
    return found


def _plain(text: str) -> str:
    """A text as a header's value may be: printable ASCII."""
    return "".join(char if char.isascii() and char.isprintable() else "?" for char in text)


def _stored(body: bytes) -> bytes:
    """A single event as an envelope.

    Raises:
        Refused: If it is not one JSON object.
    """
    try:
        text = body.decode("utf-8")
        event = {key: member.data for key, member in members(text).items()}
    except (ValueError, RecursionError) as error:
        raise Refused(Why.INVALID, f"not a JSON object: {error}") from None
    event_id = event.get("event_id")
    if not isinstance(event_id, str) or not _EVENT_ID.fullmatch(event_id):
        event_id = uuid.uuid4().hex
        text = spliced(text, {"event_id": json.dumps(event_id)})
    payload = text.strip().encode()
    kind = "transaction" if event.get("type") == "transaction" else EVENT
    return b"\n".join(
        (dump({"event_id": event_id}), dump({"type": kind, "length": len(payload)}), payload, b"")
    )


def _told(envelope: Envelope) -> dict[str, Any]:
    """The answer: the event's id, where there is one."""
    event_id = envelope.headers.get("event_id")
    if event_id is None:
        for item in envelope.items:
            if item.type == EVENT:
                try:
                    found = members(envelope.payload(item).decode("utf-8"))
                    event_id = found["event_id"].data
                except (ValueError, RecursionError, KeyError):
                    continue
                break
    return {"id": event_id} if isinstance(event_id, str) and _EVENT_ID.fullmatch(event_id) else {}


def _spans(media_type: str, body: bytes) -> ExportTraceServiceRequest:
    if media_type == JSON:
        message = otlp_json.parse(Signal.TRACES, body)
        assert isinstance(message, ExportTraceServiceRequest)
        return message
    try:
        return ExportTraceServiceRequest.FromString(body)
    except DecodeError as error:
        raise Refused(Why.INVALID, f"not an export request in protobuf: {error}") from None
