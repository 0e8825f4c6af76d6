"""The SDK -> sidecar -> Bugsink: what a real Sentry-compatible server holds in the end, by its own API.

The application knows nothing of this package. It calls the demo provider by the openai SDK, with
Sentry's own integration for it on.
"""

from __future__ import annotations

import copy
import json
import socket
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from bugsink_server import Bugsink, Project
from conftest import World

pytestmark = pytest.mark.timeout(120)  # starts four processes, and makes a database

WAIT_S = 30.0
# Prints each event that was answered with 200, as it was sent.
APP = """
import itertools, sys
import openai, sentry_sdk
from sentry_sdk.integrations.openai import OpenAIIntegration
from sentry_sdk.transport import HttpTransport

class Transport(HttpTransport):
    def _handle_response(self, response, envelope=None):
        if response.status == 200:
            for item in envelope.items:
                if item.type == "event":
                    print("ACKNOWLEDGED", item.payload.get_bytes().decode(), flush=True)
        super()._handle_response(response=response, envelope=envelope)

# What else is installed here is not looked for: its imports take seconds.
sentry_sdk.init(
    dsn=sys.argv[1], transport=Transport, auto_enabling_integrations=False, integrations=[OpenAIIntegration()]
)
client = openai.OpenAI(max_retries=0)

def answer(scenario):
    client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": "hello"}],
        extra_headers={"x-demo-scenario": scenario},
    )

def summary(scenario):
    client.responses.create(model="gpt-4.1", input="hello", extra_headers={"x-demo-scenario": scenario})

def lookup(scenario):
    {}[scenario]

def run(name, scenario):
    with sentry_sdk.isolation_scope() as scope:
        scope.set_transaction_name(name)
        scope.set_tag("step", f"{name}:{scenario}")
        try:
            globals()[name](scenario)
        except Exception as error:
            sentry_sdk.capture_exception(error)

steps = [step.split(":") for step in sys.argv[3:]]
for name, scenario in itertools.cycle(steps) if sys.argv[2] == "forever" else steps:
    run(name, scenario)
    sentry_sdk.flush(5)
"""
QUOTA, CONTEXT_LENGTH = "openai.chat.insufficient_quota", "openai.chat.context_length"
# One cause in two places, in OpenAI's two wordings.
SAME_CAUSE = ["answer:openai.chat.server_error", "summary:openai.responses.server_error"]
# For each step the tags and the facts that it must have; None: is no error of a model call.
EXPECTED: dict[str, tuple[list[str], dict[str, Any]] | None] = {
    **{
        step: (
            ["provider_error", "internal", "medium", "yes", "provider"],
            {"http.response.status_code": 500},
        )
        for step in SAME_CAUSE
    },
    f"answer:{QUOTA}": (
        ["rate_limit", "quota_exhausted", "high", "no", "account"],
        {"http.response.status_code": 429},
    ),
    f"answer:{CONTEXT_LENGTH}": (
        ["invalid_request", "context_length", "medium", "no", "application"],
        {"http.response.status_code": 400, "context_limit": 128000, "requested_tokens": 204308},
    ),
    "lookup:no such key": None,
}
TAGS = ["category", "reason", "severity", "retryable", "owner"]


class App:
    """The application, and what it was told."""

    def __init__(self, world: World, dsn: str, mode: str, *steps: str) -> None:
        script = world.folder / "app.py"
        script.write_text(APP, "utf-8")
        self._log = world.folder / "app.log"
        env = {"OPENAI_BASE_URL": f"{world.provider.url}/v1", "OPENAI_API_KEY": "sk-demo-0123456789abcdef"}
        self.process = world.start("app", [str(script), dsn, mode, *steps], env)

    def acknowledged(self) -> dict[str, dict[str, Any]]:
        """The events that were answered with 200, by id."""
        lines = self._log.read_text("utf-8").splitlines(keepends=True)
        found = [line.removeprefix("ACKNOWLEDGED ") for line in lines if line.endswith("\n")]
        events = [json.loads(line) for line in found if line.startswith("{")]
        return {event["event_id"]: event for event in events}


def wait_for(condition: Callable[[], Any]) -> Any:
    """Waits until a condition holds; it asks other processes, so it is polled."""
    end = time.monotonic() + WAIT_S
    while not (found := condition()):
        assert time.monotonic() < end, "did not come true"
        time.sleep(0.05)
    return found


def step(event: dict[str, Any]) -> str:
    return str(event["tags"]["step"])


def steps_by_issue(project: Project) -> list[list[str]]:
    return sorted(sorted(step(event) for event in issue) for issue in project.issues())


def check(event: dict[str, Any], sent: dict[str, Any]) -> None:
    """The event as Bugsink holds it: what is expected of ours, and the rest as it was sent."""
    rest = copy.deepcopy(event)
    if (expected := EXPECTED[step(event)]) is not None:
        values, facts = expected
        tags, context = rest["tags"], rest["contexts"].pop("triage")
        assert [tags.pop(f"triage.{name}") for name in TAGS] == values
        assert tags.pop("triage.provider") == "openai"
        assert [context[name] for name in TAGS] == values
        assert {name: context[name] for name in facts} == facts
        assert context["source"] == "rules"
        assert context["root_cause"]
        assert context["suggested_action"]
        if values[-1] in ("account", "provider"):
            assert rest.pop("fingerprint") == ["otel-triage", "openai", *values[:2]]
    assert rest == sent


def test_verdict_and_grouping(world: World, bugsink: Bugsink) -> None:
    project = bugsink.project()
    _, http = world.sidecar(sentry_upstream=bugsink.url, sentry_keys=project.key)
    app = App(world, project.dsn(http), "once", *EXPECTED)
    assert app.process.popen.wait(60) == 0
    sent = app.acknowledged()
    assert [step(event) for event in sent.values()] == list(EXPECTED)
    project.wait_for(lambda ids: len(ids) >= len(sent))

    events = [event for issue in project.issues() for event in issue]
    assert sorted(event["event_id"] for event in events) == sorted(sent)
    for event in events:
        check(event, sent[event["event_id"]])
    assert steps_by_issue(project) == sorted(
        [SAME_CAUSE, *([name] for name in EXPECTED if name not in SAME_CAUSE)]
    )

    # The same events with grouping off: one issue a text, so that one for a cause is our doing.
    ungrouped = bugsink.project()
    _, http = world.sidecar(
        sentry_upstream=bugsink.url, grouping="off", data_dir=str(world.folder / "data of another")
    )
    for event_id, event in sent.items():
        envelope = "\n".join(map(json.dumps, [{"event_id": event_id}, {"type": "event"}, event]))
        url = f"{http}/api/{ungrouped.id}/envelope/?sentry_key={ungrouped.key}"
        assert httpx.post(url, content=envelope).status_code == 200
    ungrouped.wait_for(lambda ids: len(ids) >= len(sent))
    assert steps_by_issue(ungrouped) == sorted([name] for name in EXPECTED)


def test_kill_loses_nothing_acknowledged(world: World, bugsink: Bugsink) -> None:
    project = bugsink.project()
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen: Bugsink is away
        sidecar, http = world.sidecar(sentry_upstream=f"http://127.0.0.1:{nobody.getsockname()[1]}")
        app = App(world, project.dsn(http), "forever", f"answer:{QUOTA}", "lookup:no such key")
        obligations = []
        for _ in range(2):
            before = len(app.acknowledged())
            wait_for(lambda before=before: len(app.acknowledged()) >= before + 20)
            sidecar.popen.kill()
            sidecar.popen.wait()
            obligations.append(len(app.acknowledged()))
            if len(obligations) == 1:
                assert project.stored() == []
            sidecar, _ = world.sidecar(sentry_upstream=bugsink.url, http_listen=http.removeprefix("http://"))
        wait_for(lambda: len(app.acknowledged()) >= obligations[-1] + 20)
    app.process.end()
    sent = app.acknowledged()

    project.wait_for(lambda ids: set(ids) >= set(sent))
    events = {event["event_id"]: event for issue in project.issues() for event in issue}
    assert len(project.ids()) == len(events)  # what was sent twice had the same id
    for event_id in sent:
        check(events[event_id], sent[event_id])
