"""Runs an application with Sentry in a process of its own, and what a recording Sentry got of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from otel_triage.demo.sentry_sink import SentryRequest, SentrySink

FOLDER = Path(__file__).parent
QUIET = ("OTEL_", "SENTRY_", "OPENAI_", "ANTHROPIC_")


@dataclass(frozen=True, slots=True)
class Run:
    """What Sentry got of one step, and the counts at its end."""

    requests: list[SentryRequest]
    stats: dict[str, int]
    stdout: str
    stderr: str

    def payloads(self, kind: str) -> list[dict[str, Any]]:
        return [
            json.loads(body)
            for request in self.requests
            for header, body in request.items()
            if header["type"] == kind
        ]

    def events(self, scenario: str) -> list[dict[str, Any]]:
        return [
            event for event in self.payloads("event") if event.get("tags", {}).get("scenario") == scenario
        ]

    def event(self, scenario: str) -> dict[str, Any]:
        """The one event of a scenario."""
        found = self.events(scenario)
        assert len(found) == 1, [event.get("exception") or event.get("logentry") for event in found]
        return found[0]


def start(app: str, *arguments: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """The application, started."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(QUIET)}
    return subprocess.Popen(
        [sys.executable, str(FOLDER / app), *arguments],
        env={**clean, "ANTHROPIC_OPEN_TELEMETRY": "false", **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(
    provider_url: str,
    *steps: dict[str, Any],
    app: str = "sentry_app.py",
    env: dict[str, str] | None = None,
    code: int = 0,
) -> list[Run]:
    """The application, run to its end: what Sentry got, a step. No error of our own may happen in it."""
    with SentrySink() as sentry:
        base = sentry.dsn().rpartition("/")[0]
        process = start(app, base, provider_url, json.dumps(steps), env=env)
        stdout, stderr = process.communicate(timeout=50)
        assert process.returncode == code, stderr
        requests = sentry.requests()
    assert "otel-triage failed in" not in stderr, stderr
    said = [json.loads(line[6:]) for line in stdout.splitlines() if line.startswith("STATS ")]
    return [
        Run(
            [request for request in requests if request.path == f"/api/{number + 1}/envelope/"],
            said[number] if number < len(said) else {},
            stdout,
            stderr,
        )
        for number in range(len(steps))
    ]
