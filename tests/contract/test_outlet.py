"""The way out of the application: events and counts to the sidecar, and what happens where there is none."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from otel_triage.demo.sink import Answer, Sink

# An application of its own process: fifty failing calls, then what the test asks for on stdin.
APPLICATION = """
import sys
import httpx
import otel_triage
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry import trace

handle = otel_triage.init()
trace.set_tracer_provider(TracerProvider(resource=Resource.create({"service.name": "late"})))
url = sys.argv[1] + "/v1/chat/completions"
with httpx.Client() as client:
    for _ in range(50):
        answer = client.post(
            url,
            json={"model": "gpt-4o", "messages": []},
            headers={"x-demo-scenario": "openai.chat.server_error"},
        )
        assert answer.status_code == 500
print("calls done", flush=True)
for line in sys.stdin:
    if line.strip() == "stats":
        print(handle.stats(), flush=True)
    elif line.strip() == "shutdown":
        handle.shutdown()
"""


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as running:
        yield running


def application(provider: Any, sidecar: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", APPLICATION, provider.url],
        env={**os.environ, "OTEL_TRIAGE_SIDECAR": sidecar},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_everything_arrives_at_an_orderly_end(provider: Any, sink: Sink) -> None:
    process = application(provider, sink.http_endpoint)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out.strip(), err) == (0, "calls done", "")
    events = sink.logs()
    assert len(events) == 50
    assert {event["event_name"] for event in events} == {"gen_ai.client.operation.exception"}
    assert len({event["attributes"]["triage.error_id"] for event in events}) == 50
    # The provider was set after init(): its resource is taken at the first call.
    assert {event["resource"]["service.name"] for event in events} == {"late"}
    (point,) = sink.points()
    assert (point["name"], point["value"]) == ("triage.llm.calls", 50)
    assert point["attributes"] == {
        "gen_ai.provider.name": "openai",
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "gpt-4o",
        "triage.outcome": "failed",
    }


def test_calls_do_not_wait_for_the_sidecar(provider: Any, sink: Sink) -> None:
    """The sidecar takes events and does not answer: had the application waited, it would not get on."""
    hold = threading.Event()
    sink.answer_with(Answer(times=None, hold=hold))
    process = application(provider, sink.http_endpoint)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "calls done"
    assert not hold.is_set()
    hold.set()
    process.communicate(timeout=60)
    assert len(sink.logs()) == 50


def test_a_sidecar_that_is_not_there(provider: Any) -> None:
    """Refused connections: the application ends as it would, and one line says what was lost."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        process = application(provider, f"http://127.0.0.1:{probe.getsockname()[1]}")
        out, err = process.communicate("shutdown\nstats\n", timeout=60)
    assert process.returncode == 0
    assert "'calls.failed': 50" in out
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) <= 2, err  # one for events, one for counts; not one a retry
    assert all(line.startswith("otel-triage: ") for line in lines)


def test_a_sidecar_that_never_answers_does_not_keep_the_process(provider: Any, tmp_path: Path) -> None:
    """A black hole: connections are accepted by the kernel and nobody reads them."""
    with socket.socket() as hole:
        hole.bind(("127.0.0.1", 0))
        hole.listen(8)
        process = application(provider, f"http://127.0.0.1:{hole.getsockname()[1]}")
        process.communicate(timeout=9)  # the exporter alone would try for ten seconds
    assert process.returncode == 0
