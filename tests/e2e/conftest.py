"""Real processes: an application, a sidecar, an OTLP sink; the provider is a thread of the test."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from bugsink_server import Bugsink, bugsink_in
from collector_tools import Collector, collector_in

from otel_triage.demo.provider import DemoProvider
from otel_triage.demo.show import Process, running

REPOSITORY = Path(__file__).parents[2]
WAIT_S = 20.0


class SinkProcess:
    """An OTLP sink in a process of its own, read through the file that it writes."""

    def __init__(self, process: Process, file: Path) -> None:
        self.grpc = process.line(r"grpc=(\S+)")[1]
        self._file = file

    def records(self, kind: str) -> list[dict[str, Any]]:
        lines = self._file.read_text("utf-8").splitlines(keepends=True)
        found = [json.loads(line) for line in lines if line.endswith("\n")]
        return [record for record in found if record["kind"] == kind]

    def wait_for(self, condition: Callable[[], Any]) -> Any:
        """Waits until a condition holds; the file is another process's, so it is looked at."""
        end = time.monotonic() + WAIT_S
        while not (found := condition()):
            assert time.monotonic() < end, f"did not arrive: {self._file.read_text('utf-8')[-3000:]}"
            time.sleep(0.02)
        return found

    def spans(self) -> list[dict[str, Any]]:
        return self.records("span")

    def events(self) -> list[dict[str, Any]]:
        return self.records("log")

    def calls(self) -> dict[str, int]:
        """`triage.llm.calls` by outcome: the last value of each series, of each process."""
        last: dict[str, dict[str, int]] = {}
        for point in self.records("metric"):
            if point["name"] == "triage.llm.calls":
                outcome = point["attributes"]["triage.outcome"]
                series = json.dumps([point["attributes"], point["resource"]], sort_keys=True)
                last.setdefault(outcome, {})[series] = int(point["value"])
        return {outcome: sum(series.values()) for outcome, series in last.items()}


class World:
    """Starts what a test needs, and ends it all."""

    def __init__(self, folder: Path, stack: ExitStack, provider: DemoProvider) -> None:
        self.folder, self.provider = folder, provider
        self._stack = stack

    def start(self, name: str, args: list[str], env: Mapping[str, str]) -> Process:
        return self._stack.enter_context(running(name, args, env, self.folder))

    def sink(self) -> SinkProcess:
        file = self.folder / "sink.jsonl"
        file.touch()
        return SinkProcess(self.start("sink", ["-m", "otel_triage.demo.sink", "--file", str(file)], {}), file)

    def collector(self, configuration: str, name: str = "collector", **env: str) -> Collector:
        """The Collector with one of the shipped configurations, unchanged; `env` is what it reads."""
        return self._stack.enter_context(collector_in(self.folder, configuration, env, name))

    def sidecar(self, name: str = "sidecar", **settings: str) -> tuple[Process, str]:
        """A sidecar and the base URL of its HTTP listener."""
        env = {
            "OTEL_TRIAGE_GRPC_LISTEN": "127.0.0.1:0",
            "OTEL_TRIAGE_HTTP_LISTEN": "127.0.0.1:0",
            "OTEL_TRIAGE_ADMIN_LISTEN": "127.0.0.1:0",
            "OTEL_TRIAGE_DATA_DIR": str(self.folder / f"{name}-data"),
            **{f"OTEL_TRIAGE_{setting.upper()}": value for setting, value in settings.items()},
        }
        process = self.start(name, ["-m", "otel_triage.cli.main", "sidecar"], env)
        return process, f"http://{process.line(r'listening grpc=(?:[^ ]+) http=([^ ]+)')[1]}"

    def metrics(self, sidecar: Process) -> str:
        """A sidecar's own metrics, as Prometheus reads them."""
        admin = sidecar.line(r"listening grpc=\S+ http=\S+ admin=(\S+)")[1]
        return httpx.get(f"http://{admin}/metrics", trust_env=False, timeout=20).raise_for_status().text

    def app(self, folder: Path, sidecar: str, **env: str) -> tuple[Process, httpx.Client]:
        """A FastAPI application `app:app` and a client of it."""
        url = self.provider.url
        env = {
            "OTEL_SERVICE_NAME": "chat",
            "OTEL_EXPORTER_OTLP_ENDPOINT": sidecar,
            "OTEL_TRIAGE_SIDECAR": sidecar,
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            "OPENAI_BASE_URL": f"{url}/v1",
            "OPENAI_API_KEY": "sk-demo-0123456789abcdef",
            "ANTHROPIC_BASE_URL": url,
            "ANTHROPIC_API_KEY": "sk-ant-demo-0123456789",
            "LLM_TIMEOUT_S": "1.5",
            "LLM_MAX_RETRIES": "0",
            **env,
        }
        args = ["-m", "uvicorn", "--app-dir", str(folder), "--port", "0", "app:app"]
        process = self.start("app", args, env)
        base = process.line(r"running on (http://\S+)")[1]
        return process, self._stack.enter_context(httpx.Client(base_url=base, timeout=30))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        provider = stack.enter_context(DemoProvider())
        yield World(tmp_path, stack, provider)


@pytest.fixture(scope="session")
def bugsink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bugsink]:
    """One server for all tests, each with a project of its own."""
    with bugsink_in(tmp_path_factory.mktemp("bugsink")) as server:
        yield server
