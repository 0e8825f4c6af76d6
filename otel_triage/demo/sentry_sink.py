"""A small Sentry for tests and demo: keeps the bytes that arrive, and answers as it is told to.

Takes `/api/<project>/envelope/` and Sentry's OTLP endpoint on a free port of loopback. It knows
nothing of the sidecar's own reader of envelopes: what it splits, it splits by the format's words.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Self, TypeVar

_HOST: Final = "127.0.0.1"
_WAIT_S: Final = 10.0
_STOP_POLL_S: Final = 0.02

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class SentryAnswer:
    """What the upstream says: to the next `times` requests (None: to all), after `hold` is set."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b"{}"
    times: int | None = 1
    hold: threading.Event | None = None


@dataclass(frozen=True, slots=True)
class SentryRequest:
    """One request that arrived, refused ones too."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    status: int
    at: float

    def header(self) -> dict[str, Any]:
        """The envelope's headers."""
        found: dict[str, Any] = json.loads(self.body.partition(b"\n")[0])
        return found

    def items(self) -> list[tuple[dict[str, Any], bytes]]:
        """The envelope's items: headers and payload."""
        found = []
        rest = self.body.partition(b"\n")[2]
        while rest.strip(b"\n"):
            line, _, rest = rest.partition(b"\n")
            headers = json.loads(line)
            size = headers.get("length", rest.find(b"\n") if b"\n" in rest else len(rest))
            found.append((headers, rest[:size]))
            rest = rest[size + 1 :]
        return found

    def events(self) -> list[dict[str, Any]]:
        """The error events in it."""
        return [json.loads(payload) for headers, payload in self.items() if headers["type"] == "event"]


class SentrySink:
    """The upstream in threads of this process: `with SentrySink() as sentry: … sentry.url`."""

    def __init__(self, *, port: int = 0) -> None:
        self._port = port
        self._changed = threading.Condition()
        self._answers: list[SentryAnswer] = []
        self._requests: list[SentryRequest] = []
        self._closing = threading.Event()

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://{_HOST}:{self._port}"

    @property
    def port(self) -> int:
        """Its port, so that it can come back where it was."""
        return self._port

    def dsn(self, key: str = "k" * 32, project: str = "1") -> str:
        """A DSN of a project here."""
        return f"http://{key}@{_HOST}:{self._port}/{project}"

    def requests(self) -> list[SentryRequest]:
        """All requests, in order of arrival."""
        with self._changed:
            return list(self._requests)

    def kept(self) -> list[SentryRequest]:
        """Those that were answered with success."""
        return [request for request in self.requests() if request.status < 300]

    def events(self) -> list[dict[str, Any]]:
        """The error events in what was kept."""
        return [event for request in self.kept() for event in request.events()]

    def answer_with(self, *answers: SentryAnswer) -> None:
        """From now on each request gets the first of these that is not used up; else 200."""
        with self._changed:
            self._answers = list(answers)

    def wait_for(self, predicate: Callable[[], T], timeout_s: float = _WAIT_S) -> T:
        """Wait until the predicate, asked after each arrival, is true; returns what it gave.

        Raises:
            TimeoutError: it did not become true in time.
        """
        ends = time.monotonic() + timeout_s
        with self._changed:
            while not (found := predicate()):
                left_s = ends - time.monotonic()
                if left_s <= 0:
                    raise TimeoutError(f"not true in {timeout_s:g} s: {len(self._requests)} requests")
                self._changed.wait(left_s)
            return found

    def receive(self, path: str, headers: Mapping[str, str], body: bytes) -> SentryAnswer:
        """Take one request; returns its answer once it is due."""
        with self._changed:
            answer = self._next()
            self._requests.append(SentryRequest(path, headers, body, answer.status, time.time()))
            self._changed.notify_all()
        while answer.hold is not None and not answer.hold.wait(_STOP_POLL_S) and not self._closing.is_set():
            pass
        return answer

    def _next(self) -> SentryAnswer:
        for place, answer in enumerate(self._answers):
            if answer.times != 0:
                if answer.times is not None:
                    self._answers[place] = replace(answer, times=answer.times - 1)
                return answer
        return SentryAnswer()

    def __enter__(self) -> Self:
        self._server = _Server((_HOST, self._port), partial(_Handler, self))
        self._port = self._server.server_port
        serve = partial(self._server.serve_forever, poll_interval=_STOP_POLL_S)
        self._thread = threading.Thread(target=serve, name="sentry-sink", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(_WAIT_S)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128


class _Handler(BaseHTTPRequestHandler):
    # One request a connection: when the sink goes away, no client holds on to it.
    protocol_version = "HTTP/1.0"

    def __init__(self, sink: SentrySink, *args: Any) -> None:
        self._sink = sink
        super().__init__(*args)

    def do_POST(self) -> None:
        body = self._body()
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self._sink.receive(self.path, headers, body)
        self.send_response(answer.status)
        for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)

    def _body(self) -> bytes:
        """The body, by its length or in chunks (Node sends them without one)."""
        if self.headers["transfer-encoding"] != "chunked":
            return self.rfile.read(int(self.headers["content-length"]))
        chunks = []
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():  # trailers
            pass
        return b"".join(chunks)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: what arrives is in the requests."""
