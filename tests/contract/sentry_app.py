"""An application with Sentry, in a process of its own: `python sentry_app.py DSN PROVIDER STEPS`.

STEPS is a JSON list; each step has a client and a project of its own, from 1. `integration`: options of
TriageIntegration. `init` and `order`: options of otel_triage.init, called `before` or `after`
sentry_sdk.init. `sentry`: options of that. `transport`: whether ours is used. `run`: names of the
scenarios below; each runs in a scope with a tag of its name.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import logging
import sys
import time
from contextlib import suppress
from typing import Any

import httpx2
import openai
from opentelemetry import trace

import otel_triage

MODEL = "gpt-4o"
PROMPT = "".join(("Wombats ", "dig ", "burrows"))  # not as one text in any line of source
KEY = "-".join(("sk", "demo", "0123456789abcdef0123456789"))
QUOTA = "openai.chat.insufficient_quota"
APP = logging.getLogger("app")


def chat(url: str, scenario: str, **more: Any) -> Any:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=more.pop("max_retries", 0))
    messages: Any = [{"role": "user", "content": PROMPT}]
    return client.chat.completions.create(
        model=MODEL, messages=messages, extra_headers={"x-demo-scenario": scenario}, **more
    )


def handled(url: str) -> None:
    """Fails, and the application makes do without an answer."""
    with suppress(openai.RateLimitError):
        chat(url, QUOTA)


def told_often(url: str) -> None:
    """One failure, told by five layers."""
    try:
        try:
            chat(url, QUOTA)
        except openai.RateLimitError as error:
            sentry_sdk.capture_exception(error)
            APP.exception("no answer")
            raise RuntimeError("no answer") from error
    except RuntimeError as error:
        try:
            sentry_sdk.capture_exception(error)
            raise ValueError("not today")
        except ValueError as last:
            sentry_sdk.capture_exception(last)
            group = ExceptionGroup("all failed", [last, error])
            sentry_sdk.capture_exception(group)


def anthropic_call(url: str) -> None:
    import anthropic

    client = anthropic.Anthropic(base_url=url, api_key=KEY, max_retries=0)
    messages: Any = [{"role": "user", "content": PROMPT}]
    try:
        client.messages.create(
            model="claude-sonnet-4-5",
            max_tokens=10,
            messages=messages,
            extra_headers={"x-demo-scenario": "anthropic.messages.overloaded"},
        )
    except anthropic.APIStatusError as error:
        sentry_sdk.capture_exception(error)


def async_call(url: str) -> None:
    async def ask() -> None:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0) as client:
            messages: Any = [{"role": "user", "content": PROMPT}]
            await client.chat.completions.create(
                model=MODEL, messages=messages, extra_headers={"x-demo-scenario": QUOTA}
            )

    try:
        asyncio.run(ask())
    except openai.RateLimitError as error:
        sentry_sdk.capture_exception(error)


def stream_cut(url: str) -> None:
    """Breaks off while it is read: none of Sentry's integrations captures that."""
    try:
        for _ in chat(url, "openai.chat.cut_stream", stream=True):
            pass
    except Exception as error:
        sentry_sdk.capture_exception(error)
        sentry_sdk.capture_exception(error)


def raw_http(url: str) -> None:
    """No SDK, so nobody but the application captures it."""
    try:
        answer = httpx2.post(
            f"{url}/v1/chat/completions",
            json={"model": MODEL, "messages": [{"role": "user", "content": PROMPT}]},
            headers={"x-demo-scenario": QUOTA, "authorization": f"Bearer {KEY}"},
        )
        answer.raise_for_status()
    except httpx2.HTTPStatusError as error:
        sentry_sdk.capture_exception(error)


def no_tap(url: str) -> None:
    """A call that the tap does not see."""
    from opentelemetry.instrumentation.utils import suppress_instrumentation

    with suppress_instrumentation():
        try:
            chat(url, QUOTA, max_retries=1)
        except openai.RateLimitError as error:
            sentry_sdk.capture_exception(error)


def own_fingerprint(url: str) -> None:
    sentry_sdk.get_isolation_scope().fingerprint = ["mine"]
    handled(url)


def own_grouping_adds(url: str) -> None:
    sentry_sdk.get_isolation_scope().fingerprint = ["{{ default }}"]
    handled(url)


def fallback_bug(url: str) -> None:
    """A bug of the application in the fallback that it runs while it handles a failed call."""
    table: dict[str, str] = {}
    try:
        chat(url, QUOTA)
    except openai.RateLimitError:
        try:
            table["fallback"]
        except KeyError as error:
            sentry_sdk.capture_exception(error)


def fallback_call(url: str) -> None:
    """The fallback is a call too, and fails for a reason of its own."""
    try:
        chat(url, QUOTA)
    except openai.RateLimitError:
        try:
            chat(url, "openai.chat.model_not_found")
        except openai.NotFoundError as error:
            sentry_sdk.capture_exception(error)


def not_ours(url: str) -> None:
    try:
        int("forty-two")
    except ValueError as error:
        sentry_sdk.capture_exception(error)
    sentry_sdk.capture_message("openai.RateLimitError: 429", level="error")


def soft(url: str) -> None:
    chat(url, "openai.chat.length")


def absorbed(url: str) -> None:
    chat(url, "openai.chat.rate_limit_requests,openai.chat.ok", max_retries=2)


def in_span(url: str) -> None:
    with trace.get_tracer("app").start_as_current_span("request") as span:
        print("SPAN", f"{span.get_span_context().trace_id:032x}", flush=True)
        handled(url)


def in_transaction(url: str) -> None:
    with sentry_sdk.start_transaction(name="request", op="test"):
        handled(url)
        settle(url)


def unhandled(url: str) -> None:
    chat(url, QUOTA)


def crash(url: str) -> None:
    """Ends the process with a failure that nobody handles."""
    try:
        chat(url, QUOTA)
    except openai.RateLimitError as error:
        raise RuntimeError("no answer") from error


def export(url: str) -> None:
    """Waits until our exporter has given up on a sidecar that is not there, and has said so."""
    otel_triage.init().flush(10)


def burst(url: str) -> None:
    for number in range(5):
        sentry_sdk.capture_message(f"message {number}")


def settle(url: str) -> None:
    """Waits until all is sent that was captured so far, without a flush: in one, less is tried."""
    assert sentry_sdk.get_client().transport._worker._timed_queue_join(20)


def late(url: str) -> None:
    """Nothing: what counts is how the process ends."""


def drop_at_call(event: Any, hint: Any) -> Any:
    """What people write today against double events."""
    mechanisms = [one.get("mechanism", {}).get("type") for one in event["exception"]["values"]]
    return None if "openai" in mechanisms else event


def step(dsn: str, url: str, settings: dict[str, Any]) -> None:
    """One set of options: init, the scenarios, end."""
    if settings.get("order") == "before":
        otel_triage.init(**settings["init"])
    import_sentry()
    options: dict[str, Any] = {"release": "app@1", "environment": "test", "server_name": "host"}
    options["_experiments"] = {"transport_compression_level": 0, "transport_compression_algo": "gzip"}
    options |= settings.get("sentry", {})
    if options.get("before_send"):
        options["before_send"] = globals()[options["before_send"]]
    if settings.get("transport"):
        options["transport"] = otel_triage.TriageTransport
    if (given := settings.get("integration")) is not None:
        options["integrations"] = [otel_triage.TriageIntegration(**given)]
    sentry_sdk.init(dsn=dsn, **options)
    if settings.get("order") == "after":
        otel_triage.init(**settings["init"])
    if settings.get("otel"):
        from opentelemetry.sdk.trace import TracerProvider

        trace.set_tracer_provider(TracerProvider())
    sentry_sdk.get_isolation_scope().start_session(session_mode="application")
    for name in settings["run"]:
        if name in ("crash", "late"):
            ready[:] = [time.monotonic()]
            globals()[name](url)
            return
        with sentry_sdk.isolation_scope() as scope:
            scope.set_tag("scenario", name)
            globals()[name](url)
    sentry_sdk.get_isolation_scope().end_session()
    sentry_sdk.flush(10)
    handle = otel_triage.init()
    print("STATS", json.dumps(handle.stats()), flush=True)
    handle.shutdown()


ready: list[float] = []


def say_exit() -> None:
    """How long all that is done at exit took: registered before all of it, so it runs behind it."""
    if ready:
        print("EXIT", time.monotonic() - ready[0], flush=True)


def import_sentry() -> None:
    global sentry_sdk
    import sentry_sdk


if __name__ == "__main__":
    atexit.register(say_exit)
    assert "sentry_sdk" not in sys.modules, "imported before the application did"
    for number, settings in enumerate(json.loads(sys.argv[3]), start=1):
        step(f"{sys.argv[1]}/{number}", sys.argv[2], settings)
