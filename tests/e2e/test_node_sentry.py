"""examples/node_sentry through the sidecar: no Python in the service, and its events have their verdict.

The evidence is the event's own: @sentry/node names the frames in node_modules/openai.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from bugsink_server import Bugsink, executing
from conftest import REPOSITORY, World

from otel_triage.demo.provider_scenarios import CONTROL_PATH
from otel_triage.demo.sentry_sink import SentrySink

pytestmark = pytest.mark.timeout(120)

NODE: Final = REPOSITORY / ".tools" / "node_sentry"
EXAMPLE: Final = REPOSITORY / "examples" / "node_sentry"
KEY: Final = "0123456789abcdef0123456789abcdef"
WAIT_S: Final = 30.0
UNRELATED: Final = "a body that is no JSON"
TAGS: Final = ["category", "reason", "severity", "retryable", "owner"]
# What the provider answers with -> the tags, and facts of the context.
EXPECTED: Final[dict[str, tuple[list[str], dict[str, Any]]]] = {
    "rate_limit_requests": (
        ["rate_limit", "requests", "low", "yes", "account"],
        {"http.response.status_code": 429, "retry_after_s": 0.02},
    ),
    "insufficient_quota": (
        ["rate_limit", "quota_exhausted", "high", "no", "account"],
        {"http.response.status_code": 429},
    ),
    "context_length": (
        ["invalid_request", "context_length", "medium", "no", "application"],
        {"http.response.status_code": 400, "context_limit": 128000, "requested_tokens": 204308},
    ),
    "server_error": (
        ["provider_error", "internal", "medium", "yes", "provider"],
        {"http.response.status_code": 500},
    ),
    "drop": (["network_error", "connection_reset", "low", "yes", "network"], {}),
}


class Service:
    """The example, running, and its user."""

    def __init__(self, world: World, url: str) -> None:
        self._provider = world.provider.url
        self._client = httpx.Client(base_url=url, timeout=20, trust_env=False)

    def fail(self, scenario: str) -> None:
        """One request that ends in an error event."""
        good = scenario != UNRELATED
        if good:
            httpx.put(self._provider + CONTROL_PATH, json=f"openai.chat.{scenario}").raise_for_status()
        answer = self._client.post("/chat", content='{"text": "hello"}' if good else "{")
        assert answer.status_code == 502, answer.text


@pytest.fixture
def sentry() -> Iterator[SentrySink]:
    """Asked for first, it ends last: what the sidecar still has can leave."""
    with SentrySink() as made:
        yield made


@pytest.fixture
def start(world: World) -> Iterator[Any]:
    if not (NODE / ".ok").exists():
        pytest.skip("no Node 22 with @sentry/node and openai (`make test` installs it in .tools/node_sentry)")
    folder = world.folder / "service"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("node_modules"))
    (folder / "node_modules").symlink_to(NODE / "node_modules")

    with ExitStack() as stack:

        def run(dsn: str) -> Service:
            env = {
                "SENTRY_DSN": dsn,
                "PORT": "0",
                "OPENAI_BASE_URL": f"{world.provider.url}/v1",
                "OPENAI_API_KEY": "sk-demo-0123456789abcdef",
                "LLM_MAX_RETRIES": "0",
            }
            node, *files = (
                str(NODE / "bin" / "node"),
                str(folder / "instrument.js"),
                str(folder / "server.js"),
            )
            command = [node, "--import", *files]
            process = stack.enter_context(executing("service", command, env, Path(world.folder)))
            return Service(world, process.line(r"listening on (http://\S+)")[1])

        yield run


def check(event: dict[str, Any], scenario: str) -> None:
    assert event["sdk"]["name"] == "sentry.javascript.node"
    if scenario == UNRELATED:
        assert event["exception"]["values"][-1]["type"] == "SyntaxError"
        assert "triage" not in event["contexts"]
        assert "tags" not in event
        assert "fingerprint" not in event
        return
    values, facts = EXPECTED[scenario]
    expected = {f"triage.{name}": value for name, value in zip(TAGS, values, strict=True)}
    assert event["tags"] == {**expected, "triage.provider": "openai"}
    context = event["contexts"]["triage"]
    assert [context[name] for name in TAGS] == values
    assert {name: context[name] for name in facts} == facts
    assert context["gen_ai.provider.name"] == "openai"
    assert context["source"] == "rules"
    group = ["otel-triage", "openai", *values[:2]]
    assert event.get("fingerprint") == (None if values[-1] == "application" else group)


def test_what_sentry_gets(sentry: SentrySink, world: World, start: Any) -> None:
    _, http = world.sidecar(sentry_upstream=sentry.url, sentry_keys=KEY)
    service = start(f"{http.replace('://', f'://{KEY}@')}/7")
    for count, scenario in enumerate([*EXPECTED, UNRELATED], start=1):
        service.fail(scenario)
        sentry.wait_for(lambda count=count: len(sentry.events()) == count, WAIT_S)
        check(sentry.events()[-1], scenario)
    assert {request.path for request in sentry.kept()} == {"/api/7/envelope/"}


def test_what_bugsink_holds(world: World, bugsink: Bugsink, start: Any) -> None:
    project = bugsink.project()
    _, http = world.sidecar(sentry_upstream=bugsink.url, sentry_keys=project.key)
    service = start(project.dsn(http))
    for scenario in ("insufficient_quota", UNRELATED, "server_error", "insufficient_quota"):
        service.fail(scenario)
    project.wait_for(lambda ids: len(ids) >= 4)
    issues = {issue[0]["exception"]["values"][-1]["value"][:3]: issue for issue in project.issues()}
    assert {name: len(issue) for name, issue in issues.items()} == {"429": 2, "500": 1, "Exp": 1}
    for event in issues["429"]:
        check(event, "insufficient_quota")
    check(issues["500"][0], "server_error")
    check(issues["Exp"][0], UNRELATED)
