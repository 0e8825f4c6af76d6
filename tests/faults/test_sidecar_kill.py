"""SIGKILL at named points of a record's way: what was acknowledged arrives after a restart.

The clients are the SDK's own exporters; each span has a name of its own. An exporter's SUCCESS
creates an obligation. Twenty kills on one journal, each start also recovering from the kill
before it.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from sidecar_tools import SidecarProcess, names

from otel_triage.demo.sink import Answer, Sink

KILLED = -9
DOWN = Answer(status=grpc.StatusCode.UNAVAILABLE, times=None)
NUMBERS = itertools.count()


class Clients:
    """Four exporters in threads, two of each protocol, sending until the sidecar is gone."""

    def __init__(self, sidecar: SidecarProcess) -> None:
        self.acknowledged: list[str] = []
        self._sidecar = sidecar
        self._exporters: list[SpanExporter] = [
            # No time for a retry: a failed export is no obligation, and comes no second time.
            *(GrpcExporter(endpoint=f"http://{sidecar.grpc}", insecure=True, timeout=0.3) for _ in range(2)),
            *(HttpExporter(endpoint=f"{sidecar.http}/v1/traces", timeout=0.3) for _ in range(2)),
        ]
        self._threads = [threading.Thread(target=self._send, args=(one,)) for one in self._exporters]

    def _send(self, exporter: SpanExporter) -> None:
        while self._sidecar.process.poll() is None:
            name = f"span {next(NUMBERS)}"
            context = trace.SpanContext(0xA1, 0xB2, is_remote=False)
            span = ReadableSpan(name, context=context, start_time=1, end_time=2)
            if exporter.export([span]) is SpanExportResult.SUCCESS:
                self.acknowledged.append(name)
        exporter.shutdown()

    def run(self) -> list[str]:
        for thread in self._threads:
            thread.start()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()
        return self.acknowledged


def until_killed(data_dir: Path, sink: Sink, fault: str) -> list[str]:
    """Start with a fault, send until it strikes; what was acknowledged."""
    with SidecarProcess(data_dir, fault=fault, otlp_endpoint=sink.grpc_endpoint) as sidecar:
        sidecar.ready_or_gone()  # recovery too comes by some of the points
        acknowledged = Clients(sidecar).run() if sidecar.ports else []
        assert sidecar.wait() == KILLED, sidecar.lines
    return acknowledged


def recover(data_dir: Path, sink: Sink) -> None:
    """A start without faults delivers what is left, and ends in order."""
    with SidecarProcess(data_dir, otlp_endpoint=sink.grpc_endpoint) as sidecar:
        assert sidecar.ready().terminate() == 0, sidecar.lines


@contextmanager
def quiet() -> Iterator[None]:
    """The exporters say each failure; here these are the point."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def kill_and_recover(
    data_dir: Path, faults: Iterable[str], *, backend: bool
) -> tuple[list[str], Counter[str]]:
    """One journal, many kills; what was acknowledged, and how often each span arrived in the end."""
    obligations: list[str] = []
    with Sink() as sink:
        if not backend:
            sink.answer_with(DOWN)
        for fault in faults:
            obligations += until_killed(data_dir, sink, fault)
        assert backend or names(sink) == {}
        sink.answer_with()
        recover(data_dir, sink)
        return obligations, names(sink)


def check(obligations: list[str], arrived: Counter[str], *, twice: bool) -> None:
    assert [name for name in obligations if not arrived[name]] == []
    assert bool([name for name, count in arrived.items() if count > 1]) == twice


@pytest.mark.timeout(120)
def test_twenty_kills_lose_nothing(tmp_path: Path) -> None:
    written = ["after_write:1", "after_write:2", "after_write:9", "after_write:30", "after_write:5"]
    synced = ["after_fsync:1", "after_fsync:2", "after_fsync:9", "after_fsync:30", "after_fsync:5"]
    # The lanes of a backend that is down wait longer and longer: arrivals are few.
    unsent = ["before_send:2", "before_send:1", "before_send:4", "before_send:3", "before_send:5"]
    sent = ["after_send:1", "after_send:2", "after_send:3", "after_send:5", "after_send:8"]
    with quiet(), ThreadPoolExecutor(2) as pool:
        a = pool.submit(kill_and_recover, tmp_path / "a", [*written[:3], *synced[:3], *unsent], backend=False)
        b = pool.submit(kill_and_recover, tmp_path / "b", [*written[3:], *synced[3:], *sent], backend=True)
        before_sending, anywhere = a.result(), b.result()
    check(*before_sending, twice=False)
    check(*anywhere, twice=True)  # sent and not settled: sent again
    assert min(len(before_sending[0]), len(anywhere[0])) > 50, "there was something to lose"


@pytest.mark.timeout(60)
def test_without_a_journal_the_same_check_fails(tmp_path: Path, sink: Sink) -> None:
    with quiet():
        sink.answer_with(DOWN)
        acknowledged = until_killed(tmp_path, sink, "no_journal,before_send:4")
        sink.answer_with()
        recover(tmp_path, sink)
    assert acknowledged
    assert set(acknowledged) - set(names(sink))
