"""The demo: provider, sidecar, application and sink, each a process; prints verdicts as they arrive.

What is printed is read at the sink, behind the sidecar: what a backend would hold.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Thread
from typing import IO, Any, Final

import httpx
from rich.console import Console
from rich.table import Table

from otel_triage.demo.provider_scenarios import CONTROL_PATH
from otel_triage.demo.traffic import CASES, QUESTION, Case
from otel_triage.model import ERROR_EVENT, SOFT_EVENT

_START_S: Final = 30.0
_ARRIVE_S: Final = 20.0
_TIMEOUT_S: Final = "1.5"
_GOOD: Final = ".ok"  # a case whose last attempt is good reports nothing


class DemoError(Exception):
    """The demo cannot go on; the text says why and what to do."""


class Process:
    """A process of the demo: started, awaited by a line that it prints, and ended."""

    def __init__(self, name: str, args: list[str], env: Mapping[str, str], log: Path) -> None:
        self.name = name
        self._log = log
        self._file: IO[bytes] = log.open("wb")
        self.popen = subprocess.Popen(
            [sys.executable, *args],
            env={**os.environ, **env},
            stdin=subprocess.PIPE,
            stdout=self._file,
            stderr=subprocess.STDOUT,
        )

    def line(self, pattern: str) -> re.Match[str]:
        """Waits for a line of its output and returns the match."""
        end = time.monotonic() + _START_S
        while time.monotonic() < end:
            if found := re.search(pattern, self._log.read_text("utf-8", "replace")):
                return found
            if self.popen.poll() is not None:
                break
            time.sleep(0.02)  # the output is a file, so that a full pipe can't stop the process
        raise DemoError(f"{self.name} did not start:\n{self._log.read_text('utf-8', 'replace')[-2000:]}")

    def end(self) -> None:
        """Asks it to end, and makes it after ten seconds."""
        self.popen.terminate()
        try:
            self.popen.wait(10)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        self._file.close()


@contextmanager
def running(name: str, args: list[str], env: Mapping[str, str], folder: Path) -> Iterator[Process]:
    """A Python process with these arguments and this environment added; its output goes to `folder`."""
    process = Process(name, args, env, folder / f"{name}.log")
    try:
        yield process
    finally:
        process.end()


class Arrivals:
    """What the sink has written so far, read as it grows."""

    def __init__(self, file: Path, tell: Callable[[dict[str, Any]], None]) -> None:
        self.events: list[dict[str, Any]] = []
        self.spans: list[dict[str, Any]] = []
        self._file = file
        self._tell = tell
        self._done = False
        self._thread = Thread(target=self._follow, name="arrivals", daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        with self._file.open(encoding="utf-8") as lines:
            rest = ""
            while not self._done:
                rest += lines.readline()
                if rest.endswith("\n"):
                    self._take(json.loads(rest))
                    rest = ""
                else:
                    time.sleep(0.02)

    def _take(self, record: dict[str, Any]) -> None:
        if record["kind"] == "log" and record["event_name"] in (ERROR_EVENT, SOFT_EVENT):
            self.events.append(record)
            self._tell(record)
        elif record["kind"] == "span" and "triage.category" in record["attributes"]:
            self.spans.append(record)

    def wait(self, count: int) -> None:
        """Waits until so many events and spans have come."""
        end = time.monotonic() + _ARRIVE_S
        while min(len(self.events), len(self.spans)) < count and time.monotonic() < end:
            time.sleep(0.05)

    def close(self) -> None:
        """Stops reading."""
        self._done = True
        self._thread.join(5)


def show(*, app: Path | None, keep: bool) -> int:
    """Runs the demo.

    Args:
        app: Folder of a FastAPI application `app:app` to send traffic through; without one the calls
            are made by a small process of the package's own.
        keep: Leave it running until Ctrl-C.

    Returns:
        0 if every case was reported as it should be, else 1.
    """
    console = Console(highlight=False, soft_wrap=True)
    try:
        with tempfile.TemporaryDirectory(prefix="otel-triage-demo-") as folder, ExitStack() as stack:
            return _show(console, Path(folder), stack, app=app, keep=keep)
    except DemoError as error:
        console.print(str(error), style="red", markup=False)
        return 1
    except KeyboardInterrupt:
        return 0


def _show(console: Console, folder: Path, stack: ExitStack, *, app: Path | None, keep: bool) -> int:
    began = time.monotonic()

    def start(name: str, args: list[str], env: Mapping[str, str]) -> Process:
        return stack.enter_context(running(name, args, env, folder))

    records = folder / "sink.jsonl"
    records.touch()
    provider = start("provider", ["-m", "otel_triage.demo.provider"], {})
    sink = start("sink", ["-m", "otel_triage.demo.sink", "--file", str(records)], {})
    provider_url = provider.line(r"listening (http://\S+)")[1]
    sink_grpc = sink.line(r"grpc=(\S+)")[1]
    sidecar = start(
        "sidecar",
        ["-m", "otel_triage.cli.main", "sidecar"],
        {
            "OTEL_TRIAGE_GRPC_LISTEN": "127.0.0.1:0",
            "OTEL_TRIAGE_HTTP_LISTEN": "127.0.0.1:0",
            "OTEL_TRIAGE_ADMIN_LISTEN": "127.0.0.1:0",
            "OTEL_TRIAGE_DATA_DIR": str(folder / "data"),
            "OTEL_TRIAGE_OTLP_ENDPOINT": f"http://{sink_grpc}",
        },
    )
    listening = sidecar.line(r"listening grpc=(\S+) http=(\S+) admin=(\S+)")
    env = {
        "OTEL_SERVICE_NAME": "fastapi-chat" if app else "otel-triage-demo",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{listening[2]}",
        "OTEL_TRIAGE_SIDECAR": f"http://{listening[2]}",
        "OTEL_BSP_SCHEDULE_DELAY": "500",
        "OPENAI_BASE_URL": f"{provider_url}/v1",
        "OPENAI_API_KEY": "demo",
        "ANTHROPIC_BASE_URL": provider_url,
        "ANTHROPIC_API_KEY": "demo",
        "DEMO_PROVIDER": provider_url,
        "LLM_TIMEOUT_S": _TIMEOUT_S,
        "LLM_MAX_RETRIES": "1",
    }
    call = _through_app(start, app, env) if app else _directly(start, env)
    console.print(f"provider {provider_url}, sidecar {listening[0]}, sink {sink_grpc}\n")

    arrivals = Arrivals(records, lambda event: _print_event(console, event["attributes"]))
    stack.callback(arrivals.close)
    expected = 0
    for case in CASES:
        httpx.put(provider_url + CONTROL_PATH, json=case.scenario).raise_for_status()
        call(case)
        expected += not case.scenario.endswith(_GOOD)
    arrivals.wait(expected)
    console.print(_summary(arrivals.events))
    told, marked = len(arrivals.events), len(arrivals.spans)
    console.print(
        f"{len(CASES)} calls, {expected} of them failed or silently wrong: {told} error events and {marked} "
        f"annotated spans at the sink, {time.monotonic() - began:.0f} s"
    )
    if keep:
        console.print(f"\nLeft running. Metrics: http://{listening[3]}/metrics  Ctrl-C ends it.")
        _sleep_until_interrupted()
    return 0 if told == marked == expected else 1


def _through_app(start: Callable[..., Process], app: Path, env: Mapping[str, str]) -> Callable[[Case], None]:
    if not (app / "app.py").is_file():
        raise DemoError(f"--app {app}: there is no app.py in it; try --app examples/fastapi_chat")
    server = start("app", ["-m", "uvicorn", "--app-dir", str(app), "--port", "0", "app:app"], env)
    url = server.line(r"running on (http://\S+)")[1]
    client = httpx.Client(base_url=url, timeout=30)

    def call(case: Case) -> None:
        client.post(case.route, json={"text": QUESTION})

    return call


def _directly(start: Callable[..., Process], env: Mapping[str, str]) -> Callable[[Case], None]:
    process = start("traffic", ["-m", "otel_triage.demo.traffic"], env)
    done = 0

    def call(case: Case) -> None:
        nonlocal done
        assert process.popen.stdin is not None
        process.popen.stdin.write(f"{case.route}\n".encode())
        process.popen.stdin.flush()
        done += 1
        process.line(rf"(?:done\s+){{{done}}}")

    return call


def _sleep_until_interrupted() -> None:
    while True:
        time.sleep(3600)


_FACTS: Final = ("gen_ai.provider.name", "gen_ai.request.model", "http.response.status_code")


def _print_event(console: Console, found: Mapping[str, Any]) -> None:
    facts = "  ".join(str(found[name]) for name in _FACTS if name in found)
    verdict = f"{found.get('triage.category')}/{found.get('triage.reason')}"
    console.print(f"{verdict}  {facts}", style="bold", markup=False)
    console.print(
        f"  severity {found.get('triage.severity')}, retry {found.get('triage.retryable')}, "
        f"owner {found.get('triage.owner')}\n"
        f"  {found.get('triage.root_cause')}\n  -> {found.get('triage.suggested_action')}",
        markup=False,
    )


def _summary(events: list[dict[str, Any]]) -> Table:
    table = Table(title="What arrived at the sink", title_justify="left", box=None, pad_edge=False)
    for name in ("provider", "verdict", "severity", "retry", "owner"):
        table.add_column(name, no_wrap=True)
    table.add_column("calls", justify="right")
    rows = Counter(
        (
            str(found.get("gen_ai.provider.name")),
            f"{found.get('triage.category')}/{found.get('triage.reason')}",
            *(str(found.get(f"triage.{name}")) for name in ("severity", "retryable", "owner")),
        )
        for found in (event["attributes"] for event in events)
    )
    for row, count in sorted(rows.items()):
        table.add_row(*row, str(count))
    return table
