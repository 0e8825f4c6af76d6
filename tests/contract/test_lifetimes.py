"""Nothing of the application lives longer because we looked at it, and the collector waits for nothing."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from opentelemetry import metrics

import otel_triage

URL = "http://gateway.test/v1/chat/completions"
BODY = {"model": "gpt-4o", "messages": []}


@pytest.fixture
def no_gc() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def client(answer: Any) -> httpx2.Client:
    return httpx2.Client(transport=httpx2.MockTransport(answer))


def refuse(_request: Any) -> Any:
    raise httpx2.ConnectError("refused")


@pytest.mark.usefixtures("telemetry", "no_gc")
def test_an_exception_goes_when_the_application_lets_go() -> None:
    with client(refuse) as http:
        try:
            http.post(URL, json=BODY)
        except httpx2.ConnectError as exc:
            gone = weakref.ref(exc)
    assert gone() is None


@pytest.mark.usefixtures("telemetry", "no_gc")
@pytest.mark.parametrize("status", [200, 500])
def test_a_response_goes_when_the_application_lets_go(status: int) -> None:
    with client(lambda _request: httpx2.Response(status, json={"choices": []})) as http:
        gone = weakref.ref(http.post(URL, json=BODY))
        assert gone() is None
        with http.stream("POST", URL, json=BODY) as response:
            response.read()
            gone = weakref.ref(response)
        del response
    assert gone() is None


def test_a_stream_thrown_away_is_told_later_and_from_elsewhere(telemetry: Any) -> None:
    """The collector runs at any allocation, also while this thread holds the lock of the metrics SDK."""
    with client(lambda _request: httpx2.Response(200, content=iter([b"data: {}\n\n"]))) as http:
        request = http.build_request("POST", URL, json=BODY)
        http.send(request, stream=True)  # its status is looked at, and it is forgotten
        gc.collect()
        assert telemetry.calls() == {}
        http.post(URL, json=BODY).read()
    assert telemetry.calls() == {"unknown": 1, "soft": 1}


def test_a_collection_inside_the_metrics_lock_does_not_lock_up(telemetry: Any) -> None:
    done = threading.Event()

    def collect_inside(_options: Any) -> Any:
        gc.collect()
        return [metrics.Observation(1)]

    metrics.get_meter("app").create_observable_gauge("app.gauge", [collect_inside])

    def run() -> None:
        with client(lambda _request: httpx2.Response(200, content=iter([b"data: {}\n\n"]))) as http:
            http.send(http.build_request("POST", URL, json=BODY), stream=True)
            telemetry.calls()  # collects metrics, and garbage within
        done.set()

    threading.Thread(target=run, daemon=True).start()
    assert done.wait(10)
    otel_triage.init().flush()


def test_speech_and_files_are_not_kept(telemetry: Any) -> None:
    """A body that is neither JSON nor events says nothing to us: none of it stays in memory."""
    from otel_triage.capture.watch import Watch

    watch = Watch(api=None, status=200, headers={"content-type": "audio/pcm"})
    watch.feed(b"x" * 1_000_000)
    assert (watch.body, len(watch._body)) == (None, 0)
