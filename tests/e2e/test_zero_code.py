"""Zero-code: `opentelemetry-instrument` in front of a command, in the servers that people run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from bugsink_server import executing
from conftest import SinkProcess, World

APP: Final = Path(__file__).parent / "apps" / "zero_code"
BIN: Final = Path(sys.executable).parent
CALLS: Final = 12


class Zero:
    """A sidecar with a sink behind it, and what a service in front of it needs."""

    def __init__(self, world: World) -> None:
        self.sink: SinkProcess = world.sink()
        _, http = world.sidecar(otlp_endpoint=f"http://{self.sink.grpc}")
        self.folder = world.folder
        world.provider.default = "openai.chat.insufficient_quota"
        self.env = {
            "OTEL_SERVICE_NAME": "zero",
            "OTEL_EXPORTER_OTLP_ENDPOINT": http,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_TRIAGE_SIDECAR": http,
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            "OPENAI_BASE_URL": f"{world.provider.url}/v1",
            "OPENAI_API_KEY": "sk-demo-0123456789abcdef",
            "PYTHONPATH": str(APP),
        }

    def run(self, *command: str, **env: str) -> Any:
        """The command under `opentelemetry-instrument`."""
        found = [str(BIN / "opentelemetry-instrument"), str(BIN / command[0]), *command[1:]]
        return executing("app", found, {**self.env, **env}, self.folder)

    def check(self, calls: int) -> None:
        """One event and one annotated span a call."""
        events = self.sink.wait_for(lambda: len(found := self.sink.events()) >= calls and found)
        self.sink.wait_for(lambda: len(self.spans()) >= calls)
        assert len(events) == len(self.spans()) == calls
        ids = {event["attributes"]["triage.error_id"] for event in events}
        assert len(ids) == calls
        assert {span["attributes"]["triage.error_id"] for span in self.spans()} == ids
        assert {event["attributes"]["triage.reason"] for event in events} == {"quota_exhausted"}
        assert {event["resource"]["service.name"] for event in events} == {"zero"}
        self.sink.wait_for(lambda: self.sink.calls() == {"failed": calls})

    def spans(self) -> list[dict[str, Any]]:
        return [span for span in self.sink.spans() if "triage.category" in span["attributes"]]


@pytest.fixture
def zero(world: World) -> Zero:
    return Zero(world)


def call_until_both(url: str) -> int:
    """Calls the service until two of its workers have answered, and often enough; how often."""
    workers: set[str] = set()
    calls = 0
    while len(workers) < 2 or calls < CALLS:
        answer = httpx.get(url, headers={"connection": "close"}, timeout=20, trust_env=False)
        pid, _, error = answer.text.partition(" ")
        assert error == "RateLimitError", answer.text
        workers.add(pid)
        calls += 1
        assert calls < 500, workers
    return calls


def test_a_script(zero: Zero) -> None:
    with zero.run("python", "-m", "service", "3") as process:
        assert process.popen.wait(60) == 0
    zero.check(3)


def test_switched_off(zero: Zero) -> None:
    with zero.run("python", "-m", "service", "3", OTEL_TRIAGE_ENABLED="false") as process:
        assert process.popen.wait(60) == 0
    zero.sink.wait_for(lambda: len(zero.sink.spans()) >= 3)  # the application's own telemetry
    assert zero.sink.events() == []
    assert not [span for span in zero.sink.spans() if "triage.call_id" in span["attributes"]]


GUNICORN: Final = ["--no-control-socket", "--bind", "127.0.0.1:0", "--workers", "2", "service:wsgi"]


@pytest.mark.parametrize(
    "options", [[], ["--preload"], ["--worker-class", "gthread"]], ids=["plain", "preload", "threads"]
)
def test_gunicorn(zero: Zero, options: list[str]) -> None:
    with zero.run("gunicorn", *options, *GUNICORN) as process:
        calls = call_until_both(process.line(r"Listening at: (http://\S+)")[1])
    zero.check(calls)


def test_uvicorn_workers(zero: Zero, unused_tcp_port: int) -> None:
    # Its supervisor kills a worker that is silent for five seconds, which a start on a busy machine takes.
    options = ["--timeout-worker-healthcheck", "60", "--port", str(unused_tcp_port)]
    with zero.run("uvicorn", "--workers", "2", *options, "service:asgi") as process:
        process.line("Application startup complete(?s:.*)Application startup complete")
        calls = call_until_both(f"http://127.0.0.1:{unused_tcp_port}")
    zero.check(calls)


def test_celery(zero: Zero) -> None:
    (folder := zero.folder / "broker").mkdir()
    env = {"BROKER": str(folder)}
    with zero.run(
        "celery", "-A", "tasks", "worker", "--loglevel", "info", "--concurrency", "2", **env
    ) as process:
        process.line(r"celery@\S+ ready")
        send = f"import tasks; [tasks.ask.delay() for _ in range({CALLS})]"
        subprocess.run(
            [sys.executable, "-c", send], env={**os.environ, **zero.env, **env}, check=True, timeout=60
        )
        process.line(rf"(?s)(?:succeeded in .{{1,40}}: '\d+ RateLimitError'.*){{{CALLS}}}")
        workers = set(re.findall(r": '(\d+) RateLimitError'", (zero.folder / "app.log").read_text("utf-8")))
        assert len(workers) == 2
    zero.check(CALLS)


GEVENT: Final = {"OTEL_PYTHON_AUTO_INSTRUMENTATION_EXPERIMENTAL_GEVENT_PATCH": "patch_all"}


@pytest.mark.parametrize("env", [GEVENT, {}], ids=["patched first", "patched by gunicorn"])
def test_gevent(zero: Zero, env: dict[str, str]) -> None:
    with zero.run("gunicorn", "--worker-class", "gevent", *GUNICORN, **env) as process:
        calls = call_until_both(process.line(r"Listening at: (http://\S+)")[1])
    zero.check(calls)
