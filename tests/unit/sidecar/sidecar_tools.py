"""The sidecar as a process of its own, and requests with unique ids."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_triage.demo.sink import Sink
from otel_triage.sidecar.process import Sidecar
from otel_triage.sidecar.settings import load
from otel_triage.sidecar.signals import WIRE, ExportRequest, Signal
from otel_triage.sidecar.stages import Stage, Triaged

T = TypeVar("T")


def traces(*names: str) -> bytes:
    """An encoded request of one span for each name; the name is the span's identity."""
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for name in names:
        span = scope.spans.add(trace_id=b"\1" * 16, span_id=b"\2" * 8, name=name)
        span.start_time_unix_nano, span.end_time_unix_nano = (
            1_700_000_000_000_000_000,
            1_700_000_001_000_000_000,
        )
    return request.SerializeToString()


def logs(*texts: str) -> bytes:
    """An encoded request of one log record for each text."""
    request = ExportLogsServiceRequest()
    scope = request.resource_logs.add().scope_logs.add()
    for text in texts:
        scope.log_records.add(time_unix_nano=1_700_000_000_000_000_000).body.string_value = text
    return request.SerializeToString()


def names(sink: Sink) -> Counter[str]:
    """How often each span arrived at the sink, by name."""
    return Counter(span["name"] for span in sink.spans())


def names_of(body: bytes) -> Iterator[str]:
    """The names of all spans of an encoded request."""
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield span.name


class SidecarProcess:
    """`python -m otel_triage.sidecar` on free ports."""

    def __init__(
        self, data_dir: Path, *, prefix: Iterable[str] = (), args: Iterable[str] = (), **settings: object
    ) -> None:
        """Start it; `settings` are names without the prefix, in lower case. See `ready`."""
        given = {"grpc_listen": "127.0.0.1:0", "http_listen": "127.0.0.1:0", "admin_listen": "127.0.0.1:0"}
        given |= {"data_dir": data_dir, **settings}
        env = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
        env |= {
            f"OTEL_TRIAGE_{name.upper()}": str(value) for name, value in given.items() if value is not None
        }
        self.lines: list[str] = []
        self.ports: dict[str, int] = {}
        self._ready = threading.Event()
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "otel_triage.sidecar", *args],
            env=env,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            for line in stream:
                self.lines.append(line.rstrip("\n"))
                if line.startswith("listening "):
                    self.ports = {name: int(port) for name, port in re.findall(r"(\w+)=\S+:(\d+)", line)}
                    self._ready.set()
        self._ready.set()

    def ready_or_gone(self, timeout: float = 20) -> None:
        """Wait until it listens, or is dead."""
        assert self._ready.wait(timeout), "not ready in time"

    def ready(self, timeout: float = 20) -> SidecarProcess:
        """Wait until it listens."""
        self.ready_or_gone(timeout)
        assert self.ports, self.lines
        return self

    def wait(self, timeout: float = 20) -> int:
        """Wait for its end; its exit code."""
        code = self.process.wait(timeout)
        self._reader.join(timeout)
        return code

    def terminate(self, timeout: float = 20) -> int:
        """SIGTERM and wait."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait(timeout)

    def __enter__(self) -> SidecarProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.wait()

    @property
    def grpc(self) -> str:
        return f"127.0.0.1:{self.ports['grpc']}"

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.ports['http']}"

    @property
    def admin(self) -> str:
        return f"http://127.0.0.1:{self.ports['admin']}"


@contextmanager
def grpc_client(address: str) -> Iterator[Callable[..., bytes]]:
    """A raw export call for traces: bytes in, bytes out."""
    with grpc.insecure_channel(address) as channel:
        yield channel.unary_unary(WIRE[Signal.TRACES].method)


async def until(true: Callable[[], object]) -> None:
    """Wait for something that has no event; fails after 10 s."""
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.01)


def pass_through(signal: Signal, body: bytes, message: ExportRequest) -> Triaged:
    """Triage nothing."""
    return Triaged(body)


def build(data_dir: Path, stage: Stage | None = None, **settings: object) -> Sidecar:
    """A sidecar of this process and loop, on free ports; without a stage it triages nothing."""
    given = {"grpc_listen": "127.0.0.1:0", "http_listen": "127.0.0.1:0", "admin_listen": "127.0.0.1:0"}
    given |= {"data_dir": str(data_dir)} | {name: str(value) for name, value in settings.items()}
    loaded, _ = load(None, {f"OTEL_TRIAGE_{name.upper()}": value for name, value in given.items()})
    return Sidecar(loaded, lambda settings, metrics: stage or Stage(pass_through))


@asynccontextmanager
async def running(data_dir: Path, stage: Stage | None = None, **settings: object) -> AsyncIterator[Sidecar]:
    """`build`, started; closed at once in the end, as in a crash, but for the journal's last commit."""
    sidecar = build(data_dir, stage, **settings)
    await sidecar.start()
    try:
        yield sidecar
    finally:
        await sidecar.close()


def metric(sidecar: Sidecar, name: str, **labels: str) -> float:
    """One sample of the sidecar's own metrics; 0 if there is none yet."""
    return sidecar.metrics.registry.get_sample_value(f"otel_triage_{name}", labels) or 0.0


async def in_thread(call: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """A blocking client beside the loop that serves it."""
    return await asyncio.wait_for(asyncio.to_thread(call, *args, **kwargs), 20)
