"""Whatever fails inside us, the application gets the result or exception that it gets without us.

Each function of the application half in turn is made to raise at its first line, by swapping its code.
"""

from __future__ import annotations

import asyncio
import builtins
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FunctionType
from typing import Any

import httpx
import openai
import pytest
from opentelemetry import trace

import otel_triage
from otel_triage.capture.guard import stats

BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Which harbour towns are there?"}]}

SHELLS = {
    # What stands in the application's own call path: a line or two each, no logic that could fail.
    "otel_triage.capture.guard": {"never_raises", "never_raises.<locals>.guarded"},
    "otel_triage.capture.tap": {
        "_send_wrappers.<locals>.send",
        "_send_wrappers.<locals>.async_send",
        "_request",
        "_async_request",
        "_Scope.__init__",
        "_Scope.__enter__",
        "_Scope.__exit__",
    },
    "otel_triage.capture.watch": {
        f"make_taps.<locals>.{name}"
        for name in (
            "Tap.__init__",
            "Tap.__iter__",
            "Tap.close",
            "Tap.__del__",
            "Tap.__getattr__",
            "AsyncTap.__init__",
            "AsyncTap.__aiter__",
            "AsyncTap.aclose",
            "AsyncTap.__del__",
            "AsyncTap.__getattr__",
        )
    }
    | {"_delegate"},
    "otel_triage.capture.processor": {
        f"{cls}.{name}"
        for cls in ("TriageSpanProcessor", "ObservingProcessor")
        for name in ("__init__", "on_start", "on_end", "shutdown", "force_flush")
    },
    "otel_triage.capture.start": {
        "init",
        "_enabled",
        "Options.__init__",
        "Handle.__init__",
        "Handle.enabled",
    },
}
ROOMS = ("otel_triage.capture", "otel_triage.facts", "otel_triage.verdict", "otel_triage.model")


class Injected(Exception):
    pass


def _raiser(free: tuple[str, ...]) -> CodeType:
    """Code that raises at once, with the free variables of the code that it stands in for."""
    names = "".join(f"    {name} = None\n" for name in free)
    used = "".join(f"        {name}\n" for name in free)
    space: dict[str, Any] = {}
    exec(
        f"def outer():\n{names}    def raiser(*args, **kwargs):\n"
        f"        raise __import__('builtins').otel_triage_injected\n{used}    return raiser\n",
        space,
    )
    return space["outer"]().__code__


@contextmanager
def broken(function: FunctionType) -> Iterator[None]:
    """Makes a function raise at once, also one that closes over variables."""
    builtins.otel_triage_injected = Injected  # type: ignore[attr-defined]
    code = function.__code__
    function.__code__ = _raiser(code.co_freevars)
    try:
        yield
    finally:
        function.__code__ = code


def functions() -> list[FunctionType]:
    found = {}
    for thing in gc.get_objects():
        if isinstance(thing, FunctionType):
            # not __module__ and __qualname__, which a guard copies from what it guards
            module, name = str(thing.__globals__.get("__name__")), thing.__code__.co_qualname
            if module.startswith(ROOMS) and name not in SHELLS.get(module, ()):
                found[module, name] = thing
    return [found[name] for name in sorted(found)]


def outcome(call: Any, *args: Any) -> str:
    try:
        return repr(call(*args))
    except Exception as exc:
        return f"{type(exc).__module__}.{type(exc).__qualname__}: {exc}"


class Application:
    """What an application does, and what it gets. Its clients are made once, as an application's are."""

    def __init__(self, provider: Any) -> None:
        self._url = f"{provider.url}/v1/chat/completions"
        self._client = httpx.Client()
        self._loop = asyncio.new_event_loop()
        self._async_client = httpx.AsyncClient()
        self._sdk = openai.OpenAI(base_url=f"{provider.url}/v1", api_key="k", max_retries=0)

    def close(self) -> None:
        self._client.close()
        self._sdk.close()
        self._loop.run_until_complete(self._async_client.aclose())
        self._loop.close()

    def run(self) -> list[str]:
        """The results and exceptions of a dozen calls, as texts."""
        results = []
        with trace.get_tracer("app").start_as_current_span("handle"):
            results += [outcome(self._ask, name) for name in ("ok", "insufficient_quota", "length", "drop")]
            results += [outcome(self._stream, name) for name in ("ok", "cut_stream", "stream_error")]
            results += [outcome(self._ask_async, name) for name in ("ok", "server_error")]
            results += [outcome(self._ask_sdk, name) for name in ("ok", "context_length")]
        with trace.get_tracer("i").start_as_current_span(
            "chat", attributes={"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o"}
        ):
            results.append(outcome(self._ask, "server_error"))
        return results

    def _ask(self, scenario: str) -> str:
        answer = self._client.post(self._url, json=BODY, headers=wants(scenario)).raise_for_status()
        return answer.json()["choices"][0]["finish_reason"]

    def _stream(self, scenario: str) -> list[str]:
        body = BODY | {"stream": True}
        with self._client.stream("POST", self._url, json=body, headers=wants(scenario)) as answer:
            return [line.partition(":")[0] for line in answer.iter_lines()]

    def _ask_async(self, scenario: str) -> str:
        async def ask() -> str:
            answer = await self._async_client.post(self._url, json=BODY, headers=wants(scenario))
            return answer.raise_for_status().json()["choices"][0]["finish_reason"]

        return self._loop.run_until_complete(ask())

    def _ask_sdk(self, scenario: str) -> str:
        answer = self._sdk.chat.completions.create(extra_headers=wants(scenario), **BODY)
        return answer.choices[0].finish_reason


def wants(scenario: str) -> dict[str, str]:
    return {"x-demo-scenario": f"openai.chat.{scenario}", "authorization": "Bearer sk-demo-0123456789"}


@pytest.fixture(scope="module")
def application(provider: Any) -> Iterator[Application]:
    made = Application(provider)
    yield made
    made.close()


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("shared_telemetry")
def test_every_function_made_to_fail(application: Application) -> None:
    untouched = application.run()
    assert len([result for result in untouched if "Error" in result]) == 6

    otel_triage.init()  # loads every module of the application half
    assert application.run() == untouched
    targets = functions()
    assert len(targets) > 120

    harmed, caught = [], 0
    for function in targets:
        otel_triage.init().shutdown()
        before = sum(count for name, count in stats().items() if name.startswith("error."))
        with broken(function):
            handle = otel_triage.init()
            got = application.run()
            handle.shutdown()
        if got != untouched:
            harmed.append(f"{function.__module__}.{function.__code__.co_qualname}")
        caught += sum(count for name, count in stats().items() if name.startswith("error.")) > before
    assert harmed == []
    # The test itself works: a good part of the functions is reached, and their failure is counted.
    assert caught > 60


@pytest.mark.usefixtures("shared_telemetry")
def test_a_failure_that_is_not_caught_is_seen(application: Application) -> None:
    """The negative control: a shell that fails does harm, and `run` shows it."""
    from otel_triage.capture import tap

    untouched = application.run()
    handle = otel_triage.init()
    with broken(tap._Scope.__enter__):
        assert application.run() != untouched
    handle.shutdown()
