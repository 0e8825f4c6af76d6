"""Texts that were made to be slow or to break a reader: bounded work, no exception."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otel_triage.facts.bodies import ErrorBody, read_error_body, read_error_text
from otel_triage.facts.records import facts_of_record, facts_of_text
from otel_triage.facts.stacktrace import Trace, read_stacktrace
from otel_triage.model import LLMError

MEGABYTE = 1 << 20
# Seconds for a megabyte. A reader that is quadratic in the text takes minutes.
LIMIT_S = 0.5

PIECES = {
    "braces": "{",
    "brackets": "[",
    "objects": '{"error":',
    "lists": "[{",
    "backslashes": "\\",
    "escaped quotes": '\\"',
    "escaped objects": '{\\"error\\": ',
    "newlines": "\n",
    "spaces": " ",
    "escaped newlines": "{\\n",
    "quotes": "'",
    "quoted braces": "{'",
    "bare keys": "{a:",
    "statuses": "429 ",
    "statuses without blanks": "429",
    "digits": "1",
    "words": "a",
    "paths": "a/b.",
    "cues": "try again in ",
    "cues and numbers": "retry 1 ",
    "classes": "a.B::",
    "prefixes": "litellm.RateLimitError: ",
    "last errors": "Last error: ",
    "titles": "<title>",
    "request ids": "request id ",
    "python frames": '  File "a.py", line 1, in f\n',
    "java frames": "\tat a.b.c(A.java:1)\n",
    "node frames": "    at f (/a.js:1:1)\n",
    "java causes": "Caused by: a.b.C: d\n",
    "dotnet causes": " ---> System.A: b\n",
    "php frames": "#0 /a.php(1): f()\n",
    "ruby frames": "a.rb:1:in `b': c (D)\n",
    "go frames": "main.f(0x1)\n\t/a.go:1\n",
    "at": " at ",
    "messages": "a: b\n",
    "chains": "The above exception was the direct cause of the following exception:\n",
    "code points": "\U0001f600",
    "surrogates": "\\ud83d",
}


@pytest.mark.parametrize("name", PIECES)
def test_a_megabyte_is_read_in_bounded_time(name: str) -> None:
    text = PIECES[name] * (MEGABYTE // len(PIECES[name]))
    start = time.perf_counter()
    read_error_text(text)
    read_error_text(f"Error code: 429 - {text}")
    read_stacktrace(text)
    read_stacktrace(f'Traceback (most recent call last):\n  File "a.py", line 1, in f\n{text}\nA: {text}')
    assert time.perf_counter() - start < 4 * LIMIT_S


@pytest.mark.parametrize("frame", ["#0 /a.php(1): f()\n", "\tat a.b.c(A.java:1)\n", "a.rb:1:in `b'\n"])
def test_a_head_of_many_lines_is_read_in_bounded_time(frame: str) -> None:
    text = "a: b in c d\n" * 5000 + frame
    start = time.perf_counter()
    read_stacktrace(text)
    assert time.perf_counter() - start < LIMIT_S


def test_a_cycle_and_a_tower_end() -> None:
    cycle: dict[str, Any] = {"message": "m"}
    cycle["error"] = cycle
    assert read_error_body(cycle).message == "m"
    tower: Any = {"message": "in"}
    for _ in range(100_000):
        tower = {"error": tower}
    assert read_error_body(tower) == ErrorBody()
    wide = {"errors": [{"message": f"m{n}", "cause": cycle} for n in range(10_000)]}
    assert read_error_body(wide).message is not None


# The alphabet is that of error texts, so that most texts get past the first look.
FRAGMENTS = st.sampled_from(
    [
        *PIECES.values(),
        '"',
        "}",
        "]",
        ":",
        ",",
        "message",
        "error",
        "code",
        "null",
        "None",
        "529",
        "quota",
        ")",
    ]
)
TEXTS = st.one_of(st.text(max_size=300), st.lists(FRAGMENTS, max_size=40).map("".join))
NAMES = ["error", "message", "code", "status", "details", "headers", "retryDelay", "@type", "raw", "resetsAt"]
DATA = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["error", "message", "code", "status", "details", "headers", "retryDelay", "@type", "raw"]
            )
            | st.text(max_size=8),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)
SLOWLY = settings(max_examples=300, deadline=2000, suppress_health_check=[HealthCheck.too_slow])


@SLOWLY
@given(TEXTS)
def test_no_text_breaks_a_reader(text: str) -> None:
    body = read_error_text(text, now=1.7e9)
    assert body.status is None or 400 <= body.status <= 599
    assert body.retry_after_s is None or 0 <= body.retry_after_s < 1e10
    assert bool(body.message) == bool(text.strip())
    assert isinstance(read_stacktrace(text), Trace)
    assert isinstance(facts_of_text(text, text, text, {text: text}), LLMError)


@SLOWLY
@given(DATA)
def test_no_data_breaks_the_walk(data: Any) -> None:
    body = read_error_body(data, now=1.7e9)
    for value in (body.code, body.type, body.param, body.message, body.request_id):
        assert value is None or (isinstance(value, str) and value)
    assert isinstance(facts_of_record({"tags": data, "error_message": data, "timestamp": data}), LLMError)
