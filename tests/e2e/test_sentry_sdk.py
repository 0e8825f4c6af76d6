"""sentry_sdk itself -> sidecar -> a recording Sentry: what the SDK sends arrives, triaged where it should be.

The SDK runs in a process of its own, once against the recorder (these are the bytes as sent) and once
against the sidecar in front of it.
"""

from __future__ import annotations

import copy
import gzip
import json
from collections.abc import Iterator
from typing import Any

import brotli
import httpx
import pytest
from bugsink_server import executing
from conftest import REPOSITORY, World

from otel_triage.demo.sentry_sink import SentryRequest, SentrySink
from otel_triage.demo.show import Process

KEY = "0123456789abcdef0123456789abcdef"
SCRIPT = """
import sys, sentry_sdk, httpx2, openai
from sentry_sdk import crons, logger, metrics
from sentry_sdk.envelope import Envelope, Item, PayloadRef

sentry_sdk.init(
    dsn=sys.argv[1], traces_sample_rate=1.0, profiles_sample_rate=1.0, enable_logs=True, release="app@1",
    environment="test", auto_session_tracking=True,
)
sentry_sdk.get_isolation_scope().start_session()


def call():
    request = httpx2.Request("POST", "https://api.openai.com/v1/chat/completions")
    body = {"message": "You exceeded your current quota", "type": "insufficient_quota"}
    body["code"] = body["type"]
    raise openai.RateLimitError(
        f"Error code: 429 - {{'error': {body}}}", response=httpx2.Response(429, request=request), body=body
    )


with sentry_sdk.start_transaction(name="t", op="test"):
    sum(range(10_000_000))  # long enough for a profile
    with sentry_sdk.start_span(op="db", name="q"):
        logger.error("a line with {x}", x=1)
    metrics.count("requests", 2)
    with sentry_sdk.new_scope() as scope:
        scope.add_attachment(bytes=b"\\x00\\n{\\xff", filename="a.bin")
        scope.set_tag("own", "tag")
        try:
            call()
        except openai.OpenAIError as error:
            print("LLM", sentry_sdk.capture_exception(error), flush=True)
    try:
        {}["no such key"]
    except KeyError as error:
        sentry_sdk.capture_exception(error)
sentry_sdk.capture_message("openai.RateLimitError was said", level="error")
check = crons.capture_checkin(monitor_slug="m", status="in_progress")
crons.capture_checkin(monitor_slug="m", check_in_id=check, status="ok", duration=1.5)
envelope = Envelope()
feedback = {"contexts": {"feedback": {"message": "it said: openai.RateLimitError"}}, "type": "feedback"}
envelope.add_item(Item(PayloadRef(json=feedback), type="feedback"))
envelope.add_item(Item(PayloadRef(bytes=b"\\x01\\n\\n"), type="not_invented_yet", headers={"x": 1}))
sentry_sdk.get_client().transport.capture_envelope(envelope)
sentry_sdk.get_isolation_scope().end_session()
sentry_sdk.flush(10)
"""
ALL = {
    "event", "transaction", "session", "attachment", "check_in", "log", "trace_metric", "feedback",
    "not_invented_yet",
}  # fmt: skip
EXPECTED = {
    "python": ALL | {"profile"},
    "node": (ALL - {"transaction"}) | {"span", "replay_event", "replay_recording"},
}
AGENT = {"python": "python", "node": "javascript.node"}
NODE = REPOSITORY / ".tools" / "node_sentry"
SDK = pytest.mark.parametrize("sdk", EXPECTED)


@pytest.fixture
def sentry() -> Iterator[SentrySink]:
    with SentrySink() as made:
        yield made


def plain(request: SentryRequest) -> bytes:
    """The envelope as the SDK wrote it."""
    coding = request.headers.get("content-encoding")
    if coding == "br":
        return bytes(brotli.decompress(request.body))
    return gzip.decompress(request.body) if coding == "gzip" else request.body


def run_sdk(sdk: str, world: World, dsn: str, name: str) -> str:
    """Run the SDK's script to its end; the id of the LLM error's event."""
    if sdk == "python":
        script = world.folder / "app.py"
        script.write_text(SCRIPT)
        process = world.start(name, [str(script), dsn], {})
        return ended(process)
    if not (NODE / ".ok").exists():
        pytest.skip("no Node 22 with @sentry/node and openai (`make test` installs it in .tools/node_sentry)")
    world.provider.default = "openai.chat.insufficient_quota"
    script = world.folder / "app.mjs"
    script.write_text((REPOSITORY / "tests" / "e2e" / "envelopes.mjs").read_text())
    (modules := world.folder / "node_modules").exists() or modules.symlink_to(NODE / "node_modules")
    env = {"OPENAI_BASE_URL": f"{world.provider.url}/v1", "OPENAI_API_KEY": "sk-demo-0123456789abcdef"}
    with executing(name, [str(NODE / "bin" / "node"), str(script), dsn], env, world.folder) as process:
        return ended(process)


def ended(process: Process) -> str:
    event_id = process.line(r"LLM (\w{32})")[1]
    assert process.popen.wait(30) == 0
    return event_id


def unmoved(header: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in header.items() if name not in ("sent_at", "dsn")}


@SDK
def test_what_the_sdk_sends_passes_unchanged(sdk: str, world: World, sentry: SentrySink) -> None:
    llm = run_sdk(sdk, world, sentry.dsn(KEY, "7"), "direct")
    sent = sentry.requests()
    assert {item[0]["type"] for request in sent for item in whole(plain(request)).items()} >= EXPECTED[sdk]
    with SentrySink() as upstream:
        _, http = world.sidecar(sentry_upstream=upstream.url)
        for request in sent:
            known = (
                "x-sentry-auth",
                "content-type",
                "content-encoding",
                "user-agent",
            )  # Node: key in the URL
            headers = {name: request.headers[name] for name in known if name in request.headers}
            answer = httpx.post(f"{http}{request.path}", content=request.body, headers=headers)
            assert answer.status_code == 200
        upstream.wait_for(lambda: len(upstream.kept()) == len(sent))
        came = upstream.kept()
    assert {request.path for request in came} == {"/api/7/envelope/"}
    before = {mark(whole(plain(request))): whole(plain(request)) for request in sent}
    changed = 0
    for request in came:
        original = before.pop(mark(request))
        assert unmoved(request.header()) == unmoved(original.header())
        assert request.headers["user-agent"].startswith(f"sentry.{AGENT[sdk]}/")
        for (headers, payload), (first_headers, first) in zip(request.items(), original.items(), strict=True):
            if headers["type"] == "event" and json.loads(first)["event_id"] == llm:
                changed += 1
                check(json.loads(payload), json.loads(first))
                assert {**headers, "length": 0} == {**first_headers, "length": 0}
            else:
                assert (headers, payload) == (first_headers, first)
    assert before == {}
    assert changed == 1


def whole(body: bytes) -> SentryRequest:
    return SentryRequest("", {}, body, 200, 0.0)


def mark(request: SentryRequest) -> bytes:
    """What tells one envelope of the run from the others."""
    others = [
        (headers["type"], payload) for headers, payload in request.items() if headers["type"] != "event"
    ]
    return f"{request.header().get('event_id')} {others}".encode()


def check(after: dict[str, Any], before: dict[str, Any]) -> None:
    """The LLM event: ours added, the rest as it was, and nothing that Sentry's normaliser objects to."""
    context = after["contexts"]["triage"]
    assert (context["category"], context["reason"]) == ("rate_limit", "quota_exhausted")
    assert after["tags"]["own"] == "tag"
    assert after["tags"]["triage.reason"] == "quota_exhausted"
    assert after["fingerprint"] == ["otel-triage", "openai", "rate_limit", "quota_exhausted"]
    rest = copy.deepcopy(after)
    del rest["contexts"]["triage"], rest["fingerprint"]
    rest["tags"] = {name: value for name, value in rest["tags"].items() if not name.startswith("triage.")}
    assert rest == before
    processing = pytest.importorskip("sentry_relay.processing", reason="sentry-relay is not installed")
    out = processing.StoreNormalizer(project_id=7, enable_trimming=True).normalize_event(copy.deepcopy(after))
    assert out.get("errors") is None
    assert [out["contexts"]["triage"][name] for name in context] == list(context.values())


@SDK
def test_the_sdk_through_the_sidecar(sdk: str, world: World, sentry: SentrySink) -> None:
    process, http = world.sidecar(sentry_upstream=sentry.url, sentry_keys=KEY)
    llm = run_sdk(sdk, world, f"{http.replace('://', f'://{KEY}@')}/7", "app")
    sentry.wait_for(lambda: kinds(sentry) >= EXPECTED[sdk] and len(sentry.events()) == 3)
    assert 'otel_triage_triaged_total{kind="failures"} 1.0' in world.metrics(
        process
    )  # Node: of a span and an event
    process.end()
    events = {event["event_id"]: event for event in sentry.events()}
    assert [key for key, event in events.items() if "triage" in event["contexts"]] == [llm]


def kinds(sentry: SentrySink) -> set[str]:
    return {headers["type"] for request in sentry.kept() for headers, _ in request.items()}
