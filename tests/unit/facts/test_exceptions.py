"""Live exceptions: chains, texts that fail, bodies of SDKs, and the stage at which a send broke."""

from __future__ import annotations

import asyncio
import socket

import httpx
import pytest

from otel_triage.facts.exceptions import (
    broke_at,
    causes_of,
    chain,
    is_cancellation,
    stacktrace_of,
    text_of,
    type_name,
)
from otel_triage.model import BrokeAt, Cause


def caught(function: object) -> BaseException:
    try:
        function()  # type: ignore[operator]
    except BaseException as exc:
        return exc
    raise AssertionError("nothing was raised")


def test_cause_before_context_and_a_group_by_its_first() -> None:
    def explicit() -> None:
        try:
            raise KeyError("inner")
        except KeyError as inner:
            raise ValueError("outer") from inner

    def hidden() -> None:
        try:
            raise KeyError("inner")
        except KeyError:
            raise ValueError("outer") from None

    assert causes_of(caught(explicit)) == (Cause("ValueError", "outer"), Cause("KeyError", "'inner'"))
    assert causes_of(caught(hidden)) == (Cause("ValueError", "outer"),)
    group = ExceptionGroup("two", [TimeoutError("first"), ValueError("second")])
    assert [cause.type for cause in causes_of(group)] == ["ExceptionGroup", "TimeoutError"]


def test_a_ring_of_causes_ends() -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    assert list(chain(one)) == [one, two]


def test_an_exception_whose_text_fails() -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    assert text_of(Odd()) == ""
    assert "Odd" in stacktrace_of(Odd())


def test_a_cancellation_inside_a_time_out_is_no_cause() -> None:
    async def late() -> None:
        async with asyncio.timeout(0):
            await asyncio.sleep(60)

    exc = caught(lambda: asyncio.run(late()))
    assert causes_of(exc) == (Cause("TimeoutError"),)
    assert is_cancellation(asyncio.CancelledError())
    assert not is_cancellation(exc)


def test_type_names() -> None:
    assert type_name(ValueError()) == "ValueError"
    assert type_name(socket.gaierror()) == "socket.gaierror"


def test_secrets_in_a_stack_are_scrubbed() -> None:
    def fail() -> None:
        raise ValueError("key sk-proj-aB3dEfGhIjKlMnOpQrSt is wrong")

    assert "sk-proj-aB3dEfGhIjKlMnOpQrSt" not in stacktrace_of(caught(fail))


@pytest.mark.parametrize(
    ("exc", "stage"),
    [
        (httpx.ConnectError("refused"), BrokeAt.CONNECT),
        (httpx.ConnectTimeout("late"), BrokeAt.CONNECT),
        (httpx.PoolTimeout("full"), BrokeAt.CONNECT),
        (httpx.ReadTimeout("late"), BrokeAt.HEADERS),
        (httpx.RemoteProtocolError("Server disconnected without sending a response."), BrokeAt.HEADERS),
    ],
)
def test_stage(exc: Exception, stage: BrokeAt) -> None:
    assert broke_at(exc) is stage


def test_every_transport_exception_has_a_stage() -> None:
    """A class that httpx adds must be looked at: it would be taken for one that broke at the headers."""
    known = {
        "CloseError", "ConnectError", "ConnectTimeout", "DecodingError", "LocalProtocolError", "NetworkError",
        "PoolTimeout", "ProtocolError", "ProxyError", "ReadError", "ReadTimeout", "RemoteProtocolError",
        "RequestError", "TimeoutException", "TooManyRedirects", "TransportError", "UnsupportedProtocol",
        "WriteError", "WriteTimeout",
    }  # fmt: skip
    found = {
        name
        for name, cls in vars(httpx).items()
        if isinstance(cls, type) and issubclass(cls, httpx.RequestError)
    }
    assert found == known
