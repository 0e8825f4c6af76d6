"""Exceptions that real clients raise against real sockets on loopback, and the verdict on each."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import openai
import pytest

from otel_triage.model import BrokeAt, Cause, LLMError
from otel_triage.verdict.classify import classify

CHUNKED = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n5\r\ndata:\r\n"
)


def error_of(exception: BaseException, broke_at: BrokeAt | None = None) -> LLMError:
    """The chain as Python shows it: `__cause__`, else `__context__` unless suppressed."""
    causes, at = [], exception
    while at is not None:
        causes.append(Cause(f"{type(at).__module__}.{type(at).__qualname__}", str(at)))
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
    return LLMError(
        error_type=causes[0].type, message=str(exception), causes=tuple(causes), broke_at=broke_at
    )


@contextmanager
def server(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A TCP server on a free port that reads one request a connection and lets `answer` reply."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(20)
    done = threading.Event()
    opened: list[socket.socket] = []

    def serve() -> None:
        while not done.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            opened.append(connection)
            connection.settimeout(20)
            connection.recv(65536)
            answer(connection)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        done.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection in opened:
            connection.close()
        thread.join(20)


def silent(_: socket.socket) -> None:
    """Keeps the connection open and says nothing."""


def hang_up(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_RDWR)


def cut(connection: socket.socket) -> None:
    connection.sendall(CHUNKED)
    connection.shutdown(socket.SHUT_RDWR)


def stall(connection: socket.socket) -> None:
    connection.sendall(CHUNKED)


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def ask_httpx(port: int, scheme: str = "http") -> None:
    with httpx.Client(timeout=0.3, trust_env=False) as client:
        client.post(f"{scheme}://127.0.0.1:{port}/v1/chat/completions", json={"model": "m"})


def ask_openai(port: int, scheme: str = "http") -> None:
    with openai.OpenAI(
        base_url=f"{scheme}://127.0.0.1:{port}/v1", api_key="x", max_retries=0, timeout=0.3
    ) as client:
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])


def stream_openai(port: int) -> None:
    with openai.OpenAI(
        base_url=f"http://127.0.0.1:{port}/v1", api_key="x", max_retries=0, timeout=0.3
    ) as client:
        for _ in client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "hi"}], stream=True
        ):
            pass


def failure(ask: Callable[[], None]) -> BaseException:
    with pytest.raises(Exception) as raised:  # noqa: PT011 - the class differs from client to client
        ask()
    return raised.value


def verdict_on(exception: BaseException, broke_at: BrokeAt | None = None) -> str:
    verdict = classify(error_of(exception, broke_at))
    return f"{verdict.category}/{verdict.reason}"


@pytest.mark.parametrize("ask", [ask_httpx, ask_openai])
@pytest.mark.parametrize(
    ("answer", "broke_at", "expected"),
    [
        (silent, BrokeAt.HEADERS, "timeout/read"),
        (hang_up, BrokeAt.HEADERS, "network_error/connection_reset"),
        (cut, BrokeAt.BODY, "network_error/stream_interrupted"),
    ],
)
def test_broken_exchange(ask, answer, broke_at, expected):
    with server(answer) as port:
        exception = failure(lambda: ask(port))
    assert verdict_on(exception, broke_at) == verdict_on(exception) == expected


@pytest.mark.parametrize(
    ("answer", "expected"), [(stall, "timeout/stream_stall"), (cut, "network_error/stream_interrupted")]
)
def test_broken_stream(answer, expected):
    with server(answer) as port:
        exception = failure(lambda: stream_openai(port))
    assert verdict_on(exception, BrokeAt.STREAM) == expected


@pytest.mark.parametrize("ask", [ask_httpx, ask_openai])
def test_nobody_listens(ask):
    exception = failure(lambda: ask(closed_port()))
    assert verdict_on(exception, BrokeAt.CONNECT) == "network_error/connection_refused"


@pytest.mark.parametrize("ask", [ask_httpx, ask_openai])
def test_tls_to_a_server_that_has_none(ask):
    with server(lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as port:
        exception = failure(lambda: ask(port, "https"))
    assert any(
        isinstance(link, ssl.SSLError) or "SSL" in str(link) for link in (exception, exception.__cause__)
    )
    assert verdict_on(exception, BrokeAt.CONNECT) == "network_error/tls"


def test_no_connection_left_in_the_pool():
    taken = threading.Event()
    with (
        server(lambda _: taken.set()) as port,
        httpx.Client(
            timeout=httpx.Timeout(10, pool=0.1), limits=httpx.Limits(max_connections=1), trust_env=False
        ) as client,
    ):
        url = f"http://127.0.0.1:{port}/"
        holder = threading.Thread(target=lambda: failure(lambda: client.post(url, timeout=2)))
        holder.start()
        assert taken.wait(10)
        exception = failure(lambda: client.post(url))
        holder.join(20)
    assert verdict_on(exception) == "timeout/pool"


def test_a_base_url_without_protocol():
    with httpx.Client(trust_env=False) as client:
        assert verdict_on(failure(lambda: client.get("api.example.com/v1"))) == "code_bug/configuration"


def test_a_closed_client():
    client = httpx.Client(trust_env=False)
    client.close()
    assert verdict_on(failure(lambda: client.get("http://127.0.0.1:1/"))) == "code_bug/async_misuse"


def test_no_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert verdict_on(failure(openai.OpenAI)) == "authentication_error/missing_key"
