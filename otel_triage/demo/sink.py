"""A small OTLP backend for tests and demo: keeps what arrives, and misbehaves when it is told to.

OTLP/gRPC and OTLP/HTTP (protobuf, gzip) for traces, logs and metrics, each on a free port.
Spans, log records and metric data points become flat dicts (`sink_records`), one each.

Run as a process: `python -m otel_triage.demo.sink [--file PATH]` prints
`listening grpc=127.0.0.1:PORT http=127.0.0.1:PORT`, appends one JSON object a record to
PATH, and ends on SIGTERM or SIGINT.
"""

from __future__ import annotations

import argparse
import json
import math
import socket
import sys
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from signal import SIG_BLOCK, SIGINT, SIGTERM, pthread_sigmask, sigwait
from types import TracebackType
from typing import Any, Final, Self, TextIO, TypeVar

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from otel_triage.demo.sink_records import SIGNALS, Record, Signal

_HOST: Final = "127.0.0.1"
_PROTOBUF: Final = "application/x-protobuf"
_GZIP: Final = 16 + zlib.MAX_WBITS
_THREADS: Final = 16
_WAIT_S: Final = 10.0
_STOP_POLL_S: Final = 0.02
"""How often the standard library's server looks whether it is to end."""

_HTTP_STATUS: Final = {
    grpc.StatusCode.OK: 200,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNKNOWN: 500,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DATA_LOSS: 500,
}
"""The HTTP status that goes with each gRPC status (googleapis, google/rpc/code.proto)."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the sink says to exports, in terms of gRPC; over HTTP it is the status that goes with it.

    Attributes:
        status: OK, or the refusal.
        times: how many exports get it, None for all.
        signal: only exports of that signal (`traces`, `logs`, `metrics`).
        span_name: only exports that contain a span of that name.
        retry_after_s: `Retry-After` in whole seconds, or RetryInfo in the status details.
        rejected: partial success: so many items rejected, while the export is kept whole.
        message: words of the refusal or of the partial success.
        delay_s: the answer comes so much later.
        hold: the answer comes when this event is set.
    """

    status: grpc.StatusCode = grpc.StatusCode.OK
    times: int | None = 1
    signal: str | None = None
    span_name: str | None = None
    retry_after_s: float | None = None
    rejected: int = 0
    message: str = ""
    delay_s: float = 0.0
    hold: threading.Event | None = None

    def fits(self, signal: str, records: list[Record]) -> bool:
        """Whether this answer is for that export."""
        if self.signal not in (None, signal):
            return False
        return self.span_name is None or any(
            record["kind"] == "span" and record["name"] == self.span_name for record in records
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """One export that arrived, refused ones included: the bytes of the message as they were sent."""

    signal: str
    protocol: str
    body: bytes
    headers: Mapping[str, str]
    status: grpc.StatusCode


class Sink:
    """The backend in threads of this process.

        with Sink() as sink:
            exporter = OTLPSpanExporter(endpoint=sink.http_endpoint + "/v1/traces")
            ...
            sink.wait_for(lambda: sink.spans())

    An export is kept when it arrives, if its answer is OK: `delay_s` and `hold` put off the
    answer alone, as with a backend whose acknowledgement is late. Ports may be given, so
    that a backend can come back where it was.
    """

    def __init__(self, *, file: Path | None = None, grpc_port: int = 0, http_port: int = 0) -> None:
        self._path = file
        self._file: TextIO | None = None
        self._grpc_port = grpc_port
        self._http_port = http_port
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._answers: list[Answer] = []
        self._holds: list[threading.Event] = []
        self._exports: list[Export] = []
        self._records: list[Record] = []

    @property
    def grpc_endpoint(self) -> str:
        """Endpoint for OTLP/gRPC exporters."""
        return f"http://{_HOST}:{self._grpc_port}"

    @property
    def http_endpoint(self) -> str:
        """Base URL for OTLP/HTTP; exporters that take the whole URL add `/v1/traces` and the like."""
        return f"http://{_HOST}:{self._http_port}"

    def spans(self) -> list[Record]:
        """Spans kept so far, in order of arrival."""
        return self._kept("span")

    def logs(self) -> list[Record]:
        """Log records kept so far."""
        return self._kept("log")

    def points(self) -> list[Record]:
        """Metric data points kept so far."""
        return self._kept("metric")

    def exports(self) -> list[Export]:
        """All exports that arrived, refused ones too."""
        with self._changed:
            return list(self._exports)

    def raw(self, signal: str) -> list[bytes]:
        """The messages kept of a signal, as the bytes that were sent (after gzip)."""
        with self._changed:
            return [e.body for e in self._exports if e.signal == signal and e.status is grpc.StatusCode.OK]

    def answer_with(self, *answers: Answer) -> None:
        """From now on, each export gets the first of these that fits it and is not used up; else OK."""
        with self._changed:
            self._answers = list(answers)

    def wait_for(self, predicate: Callable[[], T], timeout_s: float = _WAIT_S) -> T:
        """Waits until the predicate, asked after each arrival, is true; returns what it gave.

        Raises:
            TimeoutError: it did not become true in time; the message counts what arrived.
        """
        ends = time.monotonic() + timeout_s
        with self._changed:
            while not (found := predicate()):
                remaining_s = ends - time.monotonic()
                if remaining_s <= 0:
                    kept = f"{len(self.spans())} spans, {len(self.logs())} logs, {len(self.points())} points"
                    raise TimeoutError(
                        f"not true in {timeout_s:g} s: {len(self._exports)} exports, kept {kept}"
                    )
                self._changed.wait(remaining_s)
            return found

    def __enter__(self) -> Self:
        if self._path is not None:
            self._file = self._path.open("a", encoding="utf-8")
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="sink-grpc")
        self._grpc = _grpc_server(self, self._pool)
        self._grpc_port = self._grpc.add_insecure_port(f"{_HOST}:{self._grpc_port}")
        self._http = _HTTPServer(self, self._http_port)
        self._http_port = self._http.server_port
        self._grpc.start()
        serve = partial(self._http.serve_forever, poll_interval=_STOP_POLL_S)
        self._thread = threading.Thread(target=serve, name="sink-http", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._closing.set()
            for hold in self._holds:
                hold.set()
        self._http.shutdown()
        self._http.server_close()
        self._grpc.stop(0).wait(_WAIT_S)
        self._pool.shutdown()
        self._thread.join(_WAIT_S)
        if self._file is not None:
            self._file.close()

    def receive(self, signal: Signal, body: bytes, protocol: str, headers: Mapping[str, str]) -> Answer:
        """Takes one export; returns its answer once it is due.

        Raises:
            DecodeError: the body is no message of that signal.
        """
        records = signal.records(body)
        with self._changed:
            answer = self._take_answer(signal.name, records)
            hold = None if self._closing.is_set() else answer.hold
            if hold is not None:
                self._holds.append(hold)
            self._exports.append(
                Export(
                    signal=signal.name, protocol=protocol, body=body, headers=headers, status=answer.status
                )
            )
            if answer.status is grpc.StatusCode.OK:
                self._records += records
                self._write(records)
            self._changed.notify_all()
        if hold is not None:
            hold.wait()
        if answer.delay_s:
            self._closing.wait(answer.delay_s)
        return answer

    def _kept(self, kind: str) -> list[Record]:
        with self._changed:
            return [record for record in self._records if record["kind"] == kind]

    def _take_answer(self, signal: str, records: list[Record]) -> Answer:
        for place, answer in enumerate(self._answers):
            if answer.times != 0 and answer.fits(signal, records):
                if answer.times is not None:
                    self._answers[place] = replace(answer, times=answer.times - 1)
                return answer
        return Answer()

    def _write(self, records: list[Record]) -> None:
        if self._file is not None:
            self._file.writelines(json.dumps(record) + "\n" for record in records)
            self._file.flush()


def _grpc_server(sink: Sink, pool: ThreadPoolExecutor) -> grpc.Server:
    server = grpc.server(
        pool,
        options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)],
    )
    for each in SIGNALS.values():
        # Without serialisers a handler takes and gives bytes.
        methods = {"Export": grpc.unary_unary_rpc_method_handler(_grpc_export(sink, each))}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(each.service, methods),))
    return server


def _grpc_export(sink: Sink, signal: Signal) -> Callable[[bytes, grpc.ServicerContext], bytes]:
    def export(body: bytes, context: grpc.ServicerContext) -> bytes:
        metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        try:
            answer = sink.receive(signal, body, "grpc", metadata)
        except DecodeError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"not a message of {signal.name}: {error}")
        if answer.status is not grpc.StatusCode.OK:
            details = _status(answer)
            context.set_trailing_metadata((("grpc-status-details-bin", details.SerializeToString()),))
            context.abort(answer.status, details.message)
        return signal.response(answer.rejected, answer.message)

    return export


def _status(answer: Answer) -> Status:
    """The refusal as google.rpc.Status, which both protocols carry (OTLP specification, "Failures")."""
    status = Status(code=answer.status.value[0], message=answer.message or "the sink was told to refuse")
    if answer.retry_after_s is not None:
        delay = Duration()
        delay.FromNanoseconds(round(answer.retry_after_s * 1e9))
        status.details.add().Pack(RetryInfo(retry_delay=delay))
    return status


class _HTTPServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, sink: Sink, port: int) -> None:
        super().__init__((_HOST, port), _Handler)
        self.sink = sink
        self._open: set[socket.socket] = set()

    def get_request(self) -> tuple[socket.socket, Any]:
        sock, address = super().get_request()
        self._open.add(sock)
        return sock, address

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Also ends the connections that clients keep alive: a backend that is down answers none of them."""
        super().server_close()
        for sock in list(self._open):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a client that gave up is no error of ours
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _HTTPServer

    def do_POST(self) -> None:
        length = self.headers.get("content-length", "")
        if not length.isdecimal():
            self.close_connection = True
            return self._refuse(411, "content-length is needed")
        body = self.rfile.read(int(length))
        signal = SIGNALS.get(self.path.removeprefix("/v1/"))
        if signal is None:
            return self._refuse(
                404, f"no such path; there are {', '.join('/v1/' + name for name in SIGNALS)}"
            )
        if self.headers.get_content_type() != _PROTOBUF:
            return self._refuse(415, f"content-type must be {_PROTOBUF}")
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            if headers.get("content-encoding") == "gzip":
                body = zlib.decompress(body, _GZIP)
            answer = self.server.sink.receive(signal, body, "http", headers)
        except (zlib.error, DecodeError) as error:
            return self._refuse(400, f"not a message of {signal.name}: {error}")
        if answer.status is grpc.StatusCode.OK:
            return self._send(200, signal.response(answer.rejected, answer.message), {})
        after = {} if answer.retry_after_s is None else {"Retry-After": str(math.ceil(answer.retry_after_s))}
        return self._send(_HTTP_STATUS[answer.status], _status(answer).SerializeToString(), after)

    def _refuse(self, status: int, message: str) -> None:
        self._send(status, Status(code=3, message=message).SerializeToString(), {})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": _PROTOBUF, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: what arrives is in the records."""


def main() -> None:
    """Runs the sink until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m otel_triage.demo.sink", description=main.__doc__)
    parser.add_argument("--file", type=Path, help="append one JSON object a record to this file")
    file = parser.parse_args().file
    ends = {SIGTERM, SIGINT}
    pthread_sigmask(SIG_BLOCK, ends)  # before the threads start, which inherit it
    with Sink(file=file) as sink:
        endpoints = (sink.grpc_endpoint, sink.http_endpoint)
        print("listening grpc={} http={}".format(*(e.removeprefix("http://") for e in endpoints)), flush=True)
        sigwait(ends)


if __name__ == "__main__":
    main()
