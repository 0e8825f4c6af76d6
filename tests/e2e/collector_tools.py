"""The real Collector, as `make otelcol` builds it, with the configurations that ship."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import grpc
import httpx
import pytest
from bugsink_server import executing
from prometheus_client.parser import text_string_to_metric_families

from otel_triage.demo.show import Process
from otel_triage.sidecar.signals import WIRE, Signal

_REPOSITORY: Final = Path(__file__).parents[2]
OTELCOL: Final = _REPOSITORY / ".tools" / "otelcol"
CONFIGURATIONS: Final = _REPOSITORY / "collector-config"
SETTINGS: Final = ("COLLECTOR_GRPC", "COLLECTOR_HTTP", "COLLECTOR_TRIAGED", "COLLECTOR_HEALTH")
needs_otelcol: Final = pytest.mark.skipif(
    not OTELCOL.exists(),
    reason="the Collector is not built: `make otelcol` builds it, in some minutes and 2 GB",
)
# Its own metrics listen on a fixed port otherwise. This stands beside the file, which is run as it ships.
_NO_METRICS: Final = "yaml:service::telemetry::metrics::level: none"


def free_address() -> str:
    """A loopback address to listen on soon: below the ports that the system gives to others meanwhile."""
    while True:
        address = ("127.0.0.1", random.randint(15_000, 32_000))
        with socket.socket() as sock:
            try:
                sock.bind(address)
            except OSError:
                continue
            return f"{address[0]}:{address[1]}"


class Collector:
    """A Collector that runs."""

    def __init__(self, process: Process, env: Mapping[str, str]) -> None:
        self.process = process
        self.grpc, self.triaged = env["COLLECTOR_GRPC"], env["COLLECTOR_TRIAGED"]
        self.http = f"http://{env['COLLECTOR_HTTP']}"

    def kill(self) -> None:
        """SIGKILL."""
        self.process.popen.kill()
        assert self.process.popen.wait(10) == -9


@contextmanager
def collector_in(
    folder: Path, configuration: str, env: Mapping[str, str], name: str = "collector"
) -> Iterator[Collector]:
    """A Collector that is ready; listeners that `env` does not name get free addresses."""
    given = {setting: free_address() for setting in SETTINGS} | {"COLLECTOR_DATA": str(folder / name)}
    given |= env
    config = [f"--config=file:{CONFIGURATIONS / configuration}", f"--config={_NO_METRICS}"]
    with executing(name, [str(OTELCOL), *config], given, folder) as process:
        process.line("Everything is ready")
        yield Collector(process, given)


def validate(configuration: str) -> subprocess.CompletedProcess[str]:
    """`otelcol validate` on a configuration as it ships, with its defaults."""
    env = {
        name: value for name, value in os.environ.items() if not name.startswith(("COLLECTOR_", "SIDECAR"))
    }
    return subprocess.run(
        [OTELCOL, "validate", f"--config=file:{CONFIGURATIONS / configuration}"],
        env=env,
        capture_output=True,
        text=True,
        timeout=30,
    )


def send(address: str, signal: Signal, body: bytes) -> None:
    """One OTLP/gRPC export; returns when it is acknowledged."""
    with grpc.insecure_channel(address) as channel:
        channel.unary_unary(WIRE[signal].method)(body, timeout=10, wait_for_ready=True)


def counted(sidecar: Process, name: str, **labels: str) -> float:
    """One of the sidecar's own metrics, of its requests for traces."""
    admin = sidecar.line(r"admin=(\S+)")[1]
    wanted = {"signal": "traces", **labels}
    return sum(
        sample.value
        for family in text_string_to_metric_families(httpx.get(f"http://{admin}/metrics").text)
        for sample in family.samples
        if sample.name == f"otel_triage_{name}" and sample.labels == wanted
    )


def wait_until(condition: Callable[[], bool], timeout_s: float) -> None:
    """Waits for something in another process, which is asked."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.02)
