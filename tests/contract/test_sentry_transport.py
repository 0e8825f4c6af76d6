"""TriageTransport in real processes: by the sidecar, past one that is not there, and never slower at exit."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest
from sentry_runs import run, start

from otel_triage.demo.sentry_sink import SentryAnswer, SentryRequest, SentrySink

OURS: dict[str, Any] = {"integration": {}, "transport": True}


@pytest.fixture
def sidecar() -> Iterator[SentrySink]:
    with SentrySink() as made:
        yield made


def at(url: str) -> dict[str, str]:
    return {"OTEL_TRIAGE_SIDECAR": url}


def envelopes(sidecar: SentrySink) -> list[SentryRequest]:
    """What came of Sentry's; our error events and counts come as OTLP."""
    return [request for request in sidecar.requests() if request.path.startswith("/api/")]


def kept(sidecar: SentrySink) -> list[str]:
    """Ids of the events that it took."""
    return ids(request for request in envelopes(sidecar) if request.status < 300)


def ids(requests: Any) -> list[str]:
    return [event["event_id"] for request in requests for event in request.events()]


@contextmanager
def hole(*, accepts: bool) -> Iterator[str]:
    """A listener that takes connections and never answers, or (its queue full) does not even take them."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8 if accepts else 0)
        waiting = []
        if not accepts:
            for _ in range(4):
                filler = socket.socket()
                filler.setblocking(False)
                filler.connect_ex(listener.getsockname())
                waiting.append(filler)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        for filler in waiting:
            filler.close()


@contextmanager
def drip() -> Iterator[str]:
    """A listener whose answer never ends, though a byte of it comes before any time-out of a socket."""
    done = threading.Event()

    def answer(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nx: ")
            while not done.wait(0.1):
                connection.sendall(b"x")

    def serve() -> None:
        with suppress(OSError):  # the listener is closed
            while True:
                threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        done.set()
        listener.shutdown(socket.SHUT_RDWR)


class SlowSink(SentrySink):
    """Takes everything, each a little too slowly to take all that waits at exit."""

    def receive(self, path: str, headers: Mapping[str, str], body: bytes) -> SentryAnswer:
        time.sleep(0.35)
        return super().receive(path, headers, body)


def test_envelopes_go_by_the_sidecar(provider: Any, sidecar: SentrySink) -> None:
    [direct] = run(provider.url, {**OURS, "run": ["handled", "burst", "settle"]}, env=at(sidecar.url))
    assert direct.requests == []
    came = envelopes(sidecar)
    assert {request.path for request in came} == {"/api/1/envelope/"}
    assert {request.headers["x-otel-triage-client"] for request in came} == {"transport"}
    assert all("sentry_key=kkk" in request.headers["x-sentry-auth"] for request in came)
    events = [event for request in came for event in request.events()]
    assert len(events) == 6
    assert events[0]["tags"]["triage.reason"] == "quota_exhausted"
    assert direct.stats["sentry.by_sidecar"] == len(came)


@pytest.mark.parametrize("status", [404, 403, 503, 429])
def test_what_the_sidecar_does_not_take_goes_to_sentry(
    provider: Any, sidecar: SentrySink, status: int
) -> None:
    """Asked once: after an answer that speaks of the sidecar it is left alone for thirty seconds."""
    sidecar.answer_with(SentryAnswer(status=status, headers={"retry-after": "60"}, times=None))
    [direct] = run(provider.url, {**OURS, "run": ["handled", "burst", "settle"]}, env=at(sidecar.url))
    assert len(envelopes(sidecar)) == 1
    events = direct.payloads("event")
    assert len(events) == 6
    assert events[0]["tags"]["triage.reason"] == "quota_exhausted"
    assert direct.stats[f"sentry.direct.{status}"] == 1


def test_one_envelope_too_large_does_not_close_the_way(provider: Any, sidecar: SentrySink) -> None:
    sidecar.answer_with(SentryAnswer(status=413))
    [direct] = run(provider.url, {**OURS, "run": ["burst", "settle"]}, env=at(sidecar.url))
    assert len(direct.payloads("event")) == 1
    assert len(kept(sidecar)) == 4


def test_an_unclear_answer_is_sent_again_with_its_event_id(provider: Any, sidecar: SentrySink) -> None:
    sidecar.answer_with(SentryAnswer(hold=threading.Event(), times=None))
    [direct] = run(provider.url, {**OURS, "run": ["handled", "burst", "settle"]}, env=at(sidecar.url))
    [unclear] = ids(envelopes(sidecar))
    sent = ids(direct.requests)
    assert len(sent) == len(set(sent)) == 6
    assert unclear == sent[0]
    assert direct.stats["sentry.direct.no_answer"] == 1


def test_without_a_sidecar_it_is_sentrys_own(provider: Any) -> None:
    [direct] = run(provider.url, {**OURS, "run": ["burst", "settle"]})
    assert len(direct.payloads("event")) == 5
    assert not [name for name in direct.stats if name.startswith(("sentry.direct", "sentry.by"))]


def test_our_requests_are_nobodys_spans_and_breadcrumbs(provider: Any, sidecar: SentrySink) -> None:
    settings = {**OURS, "sentry": {"traces_sample_rate": 1.0}, "run": ["in_transaction", "burst", "settle"]}
    run(provider.url, settings, env=at(sidecar.url))
    assert len(kept(sidecar)) == 6
    bodies = b"".join(request.body for request in envelopes(sidecar))
    assert b'"transaction"' in bodies
    assert b"/envelope/" not in bodies


def exit_s(dsn: str, url: str, settings: dict[str, Any], env: dict[str, str]) -> float:
    """Seconds from the application's last line until all is done that is done at exit."""
    base = dsn.rpartition("/")[0]
    process = start("sentry_app.py", base, url, json.dumps([settings]), env=env)
    stdout, stderr = process.communicate(timeout=50)
    assert process.returncode == 0, stderr
    return float(stdout.split("EXIT ")[1])


BUSY = ["handled", "settle", "burst", "late"]
IDLE = ["late"]  # what waits at exit is the session alone


@pytest.fixture(scope="module")
def alone(provider: Any) -> dict[int, float]:
    with SentrySink() as sentry:
        return {len(names): exit_s(sentry.dsn(), provider.url, {"run": names}, {}) for names in (BUSY, IDLE)}


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("way", "names"),
    [
        ("refused", BUSY),
        ("not accepted", BUSY),
        ("not answered", BUSY),
        ("not answered", IDLE),
        ("dripping", BUSY),
        ("stalled", BUSY),
        ("slow", BUSY),
    ],
)
def test_exit_is_not_slower(
    provider: Any,
    alone: dict[int, float],
    way: str,
    names: list[str],
    unused_tcp_port: int,
    sidecar: SentrySink,
) -> None:
    """`stalled` has taken an envelope, and then answers no more. Nothing is lost whatever it does."""
    with ExitStack() as stack:
        sentry, slow = stack.enter_context(SentrySink()), stack.enter_context(SlowSink())
        url = {
            "refused": f"http://127.0.0.1:{unused_tcp_port}",
            "not accepted": stack.enter_context(hole(accepts=False)),
            "not answered": stack.enter_context(hole(accepts=True)),
            "dripping": stack.enter_context(drip()),
            "stalled": sidecar.url,
            "slow": slow.url,
        }[way]
        sidecar.answer_with(SentryAnswer(), SentryAnswer(hold=threading.Event(), times=None))
        took = exit_s(sentry.dsn(), provider.url, {**OURS, "run": names}, at(url))
        assert took - alone[len(names)] <= 0.5 + 0.2, (took, alone)  # a machine that others use too
        told = set(ids(sentry.requests())) | set(kept(sidecar)) | set(kept(slow))
        assert len(told) == (6 if names is BUSY else 0)
