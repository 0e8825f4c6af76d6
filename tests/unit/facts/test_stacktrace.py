"""Printed stack traces, as the languages' own documentation prints them."""

from __future__ import annotations

from otel_triage.facts.stacktrace import Trace, read_stacktrace
from otel_triage.model import Cause

CHAINED = """Traceback (most recent call last):
  File "/srv/app/.venv/lib/python3.12/site-packages/httpx/_transports/default.py", line 101, in map
    yield
httpx.ConnectTimeout: timed out

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/srv/app/main.py", line 7, in ask
    client.chat.completions.create(
    ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "C:\\\\app\\\\Lib\\\\site-packages\\\\openai\\\\__init__.py", line 12, in create
    return self._post()
openai.APITimeoutError: Request timed out.
See the docs.
""".replace("\\\\", "\\")


def test_python_chain_is_outermost_first() -> None:
    assert read_stacktrace(CHAINED) == Trace(
        causes=(
            Cause("openai.APITimeoutError", "Request timed out.\nSee the docs."),
            Cause("httpx.ConnectTimeout", "timed out"),
        ),
        frames=("/srv/app/main.py", "openai", "httpx._transports.default"),
        raised=("openai", "httpx._transports.default"),
    )


def test_python_context_and_exception_without_message() -> None:
    text = (
        "Traceback (most recent call last):\n"
        '  File "/usr/lib/python3.11/asyncio/tasks.py", line 2, in f\n    x\n'
        "TimeoutError\n\nDuring handling of the above exception, another exception occurred:\n\n"
        "Traceback (most recent call last):\n  File \"/app/a.py\", line 1, in g\n    y\nKeyError: 'choices'\n"
    )
    assert read_stacktrace(text) == Trace(
        causes=(Cause("KeyError", "'choices'"), Cause("TimeoutError", "")),
        frames=("/app/a.py", "asyncio.tasks"),
        raised=("/app/a.py", "asyncio.tasks"),
    )


def test_python_exception_group_names_its_first_member() -> None:
    # Printed by traceback.print_exception of CPython 3.11.
    text = (
        "  + Exception Group Traceback (most recent call last):\n"
        '  |   File "/app/a.py", line 3, in <module>\n'
        "  |     raise ExceptionGroup('two', [a])\n"
        "  | ExceptionGroup: two (1 sub-exception)\n"
        "  +-+---------------- 1 ----------------\n"
        "    | Traceback (most recent call last):\n"
        '    |   File "/v/site-packages/openai/_client.py", line 1, in f\n'
        "    |     raise RateLimitError('x')\n"
        "    | openai.RateLimitError: x\n"
        "    +------------------------------------\n"
    )
    assert "openai._client" in read_stacktrace(text).frames


def test_java_causes() -> None:
    text = (
        "com.openai.errors.OpenAIIoException: Request failed\n"
        "\tat com.openai.client.okhttp.OkHttpClient.execute(OkHttpClient.kt:43)\n"
        "\tat java.base/java.lang.Thread.run(Thread.java:840)\n"
        "Caused by: java.net.ConnectException: Failed to connect to localhost/127.0.0.1:9\n"
        "\tat okhttp3.internal.connection.ConnectPlan.connectSocket(ConnectPlan.kt:278)\n\t... 12 more\n"
    )
    assert read_stacktrace(text) == Trace(
        causes=(
            Cause("com.openai.errors.OpenAIIoException", "Request failed"),
            Cause("java.net.ConnectException", "Failed to connect to localhost/127.0.0.1:9"),
        ),
        frames=(
            "com.openai.client.okhttp.OkHttpClient.execute",
            "java.lang.Thread.run",
            "okhttp3.internal.connection.ConnectPlan.connectSocket",
        ),
        raised=(
            "com.openai.client.okhttp.OkHttpClient.execute",
            "okhttp3.internal.connection.ConnectPlan.connectSocket",
        ),
    )


def test_node_packages_and_cause() -> None:
    text = (
        "RetryError [AI_RetryError]: Failed after 3 attempts. Last error: fetch failed\n"
        "    at _retry (file:///app/node_modules/.pnpm/ai@6.0.1/node_modules/ai/dist/index.mjs:718:13)\n"
        "    at async post (/app/node_modules/@anthropic-ai/sdk/core.js:10:2)\n"
        "    at process.processTicksAndRejections (node:internal/process/task_queues:95:5) {\n"
        "  [cause]: TypeError: fetch failed\n"
    )
    assert read_stacktrace(text) == Trace(
        causes=(
            Cause("AI_RetryError", "Failed after 3 attempts. Last error: fetch failed"),
            Cause("TypeError", "fetch failed"),
        ),
        frames=(
            "ai/dist/index",
            "@anthropic-ai/sdk/core",
            "process.processTicksAndRejections (node:internal/process/task_queues:95:5) {",
        ),
        raised=("ai/dist/index",),
    )


def test_prose_and_huge_texts_are_harmless() -> None:
    assert read_stacktrace("We get a timeout, sometimes.") == Trace()
    assert read_stacktrace("") == Trace()
    huge = read_stacktrace(CHAINED + "x" * 3_000_000)
    assert [cause.type for cause in huge.causes] == ["openai.APITimeoutError", "httpx.ConnectTimeout"]
    assert len(huge.causes[0].message) == 2000
