"""A Sentry transport that goes by the sidecar where there is one, and never waits for it for long.

Envelopes go to the sidecar first, and to the DSN itself, with the first verdict, where the sidecar does
not take them. An answer that stays out is unclear: the envelope then goes out a second time with the
same event id, by which Sentry tells that it is the same event.
"""

from __future__ import annotations

import contextvars
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

import urllib3
from opentelemetry import context as otel_context
from sentry_sdk.consts import EndpointType
from sentry_sdk.transport import HttpTransport

from otel_triage.capture import leaving, start
from otel_triage.capture.guard import count, never_raises
from otel_triage.capture.tap import SUPPRESSED

_Exchange: TypeAlias = Callable[[], urllib3.BaseHTTPResponse]

CLIENT_HEADER: Final = "X-Otel-Triage-Client"
"""How we name ourselves: the sidecar then answers 404, and keeps nothing, where it has no upstream."""

CONNECT_S: Final = 0.2
TRY_S: Final = 0.5
BREAK_S: Final = 30.0

_LOOK_S: Final = 0.05

# Answers that speak of this one envelope, and not of the sidecar or the key.
_OF_ENVELOPE: Final = frozenset({400, 413})


class TriageTransport(HttpTransport):
    """Sends envelopes by the sidecar, else to the DSN: `sentry_sdk.init(transport=TriageTransport)`.

    The sidecar is that of `otel_triage.init`, else `OTEL_TRIAGE_SIDECAR`; without one this is Sentry's own
    transport. A try takes at most 0.2 s to connect and 0.5 s in all. After one that failed the next is
    made 30 s later; in a flush only a sidecar that answered the try before is tried.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__(options)
        self._open_until = 0.0
        self._proven = False
        self._flush_ends: float | None = None
        self._flushed_s = 0.0
        self._runner: _Runner | None = None
        self._sidecar_pool = urllib3.PoolManager(**self._get_pool_options())

    def flush(self, timeout: float, callback: Callable[[int, float], None] | None = None) -> None:
        """Sends what waits, as Sentry's own does; all tries by the sidecar take at most half a second."""
        self._flushed_s = 0.0
        self._flush_ends = time.monotonic() + leaving.left_s()
        try:
            super().flush(timeout, callback)
        finally:
            self._flush_ends = None

    def kill(self) -> None:
        """Ends it. At exit this comes after a flush, and what else of ours waits then may wait less."""
        leaving.spend(self._flushed_s)
        super().kill()

    def _request(
        self, method: str, endpoint_type: EndpointType, body: Any, headers: Mapping[str, str]
    ) -> Any:
        if endpoint_type is EndpointType.ENVELOPE and (answer := self._by_sidecar(body, headers)) is not None:
            return answer
        return super()._request(method, endpoint_type, body, headers)

    @never_raises
    def _by_sidecar(self, body: Any, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse | None:
        """The sidecar's answer, or None where it did not take the envelope."""
        url, seconds = self._sidecar(), self._allowed_s()
        if url is None or seconds <= 0:
            return None
        began = time.monotonic()
        answer = self._try(url, seconds, body, headers)
        self._flushed_s += time.monotonic() - began
        status = answer.status if answer is not None else 0
        if answer is not None and 200 <= status < 300:
            self._proven = True
            count("sentry.by_sidecar")
            return answer
        count(f"sentry.direct.{status or 'no_answer'}")
        self._proven = status in _OF_ENVELOPE
        if not self._proven:
            self._open_until = time.monotonic() + BREAK_S
        return None

    def _sidecar(self) -> str | None:
        """Where the sidecar takes envelopes of this project; None where there is none, or the DSN is it."""
        base = start.sidecar()
        dsn = self.parsed_dsn
        if base is None or dsn is None or urlsplit(base).netloc == dsn.netloc:
            return None
        return f"{base.rstrip('/')}/api/{dsn.project_id}/envelope/"

    def _allowed_s(self) -> float:
        """How long a try may take now; not positive where none is to be made."""
        now = time.monotonic()
        if now < self._open_until:
            return 0.0
        ends = self._flush_ends
        if ends is None:
            return TRY_S
        return min(TRY_S, ends - now) if self._proven else 0.0

    def _try(
        self, url: str, seconds: float, body: Any, headers: Mapping[str, str]
    ) -> urllib3.BaseHTTPResponse | None:
        """One exchange on a connection of its own: none is found dead, none is shared with a fork."""

        def exchange() -> urllib3.BaseHTTPResponse:
            return self._sidecar_pool.request(
                "POST",
                url,
                body=body,
                headers={**headers, CLIENT_HEADER: "transport", "Connection": "close"},
                timeout=urllib3.Timeout(connect=min(CONNECT_S, seconds), total=seconds),
                retries=False,
                redirect=False,
            )

        if self._runner is None or self._runner.pid != os.getpid():
            self._runner = _Runner()
        ends = time.monotonic() + seconds

        def left_s() -> float:  # a flush may begin meanwhile
            return min(ends, self._flush_ends or ends) - time.monotonic()

        try:
            return self._runner.run(exchange, left_s)
        except queue.Empty:
            self._runner.leave()
            self._runner = None
            return None


class _Runner:
    """A thread that does what its caller need not wait for: no time-out of a socket covers a whole exchange.

    It waits from the first try on, since none can be started at exit; and in a context of its own, so that
    its requests are nobody's breadcrumbs and spans.
    """

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._work: queue.SimpleQueue[tuple[_Exchange, queue.SimpleQueue[Any]] | None] = queue.SimpleQueue()
        run = contextvars.Context().run
        threading.Thread(target=run, args=(self._run,), name="otel-triage-transport", daemon=True).start()

    def run(self, exchange: _Exchange, left_s: Callable[[], float]) -> urllib3.BaseHTTPResponse | None:
        """What an exchange gives, None if it fails; `left_s` is asked again while it goes on.

        Raises:
            queue.Empty: It took longer.
        """
        done: queue.SimpleQueue[urllib3.BaseHTTPResponse | None] = queue.SimpleQueue()
        self._work.put((exchange, done))
        while (left := left_s()) > _LOOK_S:
            with suppress(queue.Empty):
                return done.get(timeout=_LOOK_S)
        return done.get(timeout=max(left, 0.0))

    def leave(self) -> None:
        """Ends the thread once it is through."""
        self._work.put(None)

    def _run(self) -> None:
        otel_context.attach(otel_context.set_value(SUPPRESSED, True))
        while (work := self._work.get()) is not None:
            exchange, done = work
            answer = None
            with suppress(Exception):  # refused, reset, too late: all the same to who asked
                answer = exchange()
            done.put(answer)
