"""`otel-triage eval` as a process, its figures against counts made by hand, and its page."""

# ruff: noqa: E501 - texts as they are printed

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from otel_triage.cli import evaluate as measuring
from otel_triage.cli.eval_page import page
from otel_triage.cli.evaluate import (
    BadLabel,
    Bin,
    Case,
    Labels,
    Score,
    Share,
    evaluate,
    latency,
    percentile,
    read_labels,
)
from otel_triage.facts import records, stacktrace
from otel_triage.model import LLMError, Retryable
from otel_triage.verdict.classify import classify

COMMAND = [sys.executable, "-m", "otel_triage.cli.main", "eval"]
TIMEOUT_S = 50
OFFLINE = "otel-triage eval: rules and the local text model\n"

# https://help.openai.com/en/articles/6891839-api-error-codes
QUOTA = {
    "id": "q",
    "error_type": "RateLimitError",
    "error_message": "You exceeded your current quota, please check your plan and billing details.",
    "tags": {"provider": "openai", "http_status": "429", "error_code": "insufficient_quota"},
    "category": "rate_limit",
    "reason": "quota_exhausted",
    "retryable": "no",
}
UNKNOWN = {
    "error_message": "the frobnicator is sad",
    "category": "code_bug",
    "reason": "other",
    "retryable": "no",
}
BASE = classify(LLMError(status=503))


def case(label: str, verdict: str, confidence: float, *, labelled: str | None, advised: str = "no") -> Case:
    """A case with a given label and verdict (`category/reason`) and retry advice."""
    category, _, reason = label.partition("/")
    given, _, why = verdict.partition("/")
    return Case(
        1,
        {"error_message": "x"},
        Labels(category, reason, Retryable(labelled) if labelled else None),
        replace(
            BASE, category=given, reason=why, confidence=confidence, retryable=Retryable(advised), explain="r"
        ),
    )


UNANSWERED = "unclassified/unknown"
CASES = (
    case("rate_limit/quota_exhausted", "rate_limit/quota_exhausted", 0.95, labelled="no"),
    case("rate_limit/quota_exhausted", "rate_limit/requests", 0.9, labelled="no", advised="yes"),
    case("rate_limit/quota_exhausted", UNANSWERED, 0.0, labelled="no"),
    case("rate_limit/daily_limit", "rate_limit/daily_limit", 0.88, labelled="later", advised="later"),
    case("timeout/read", "timeout/read", 1.0, labelled="yes", advised="yes"),
    case("timeout/read", "code_bug/other", 0.5, labelled="yes", advised="no"),
    case("timeout/read", "timeout/connect", 0.5, labelled="yes", advised="later"),
    case("timeout/read", UNANSWERED, 0.0, labelled="yes"),
    case("code_bug/other", "code_bug/other", 0.7, labelled=None),
    case(UNANSWERED, UNANSWERED, 0.0, labelled=None),
)


def run(
    *arguments: str, code: int = 0, data: bytes = b"", env: dict[str, str] | None = None
) -> tuple[str, str]:
    """Runs the command; what it wrote to standard output and error."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        input=data,
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
        env={**os.environ, **(env or {})},
    )
    assert done.returncode == code, done.stderr.decode()
    return done.stdout.decode(), done.stderr.decode()


def jsonl(*rows: Any) -> bytes:
    return b"".join(row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n" for row in rows)


def test_every_figure_by_hand() -> None:
    found = evaluate(CASES)
    assert found.answered == Share(7, 10)
    assert found.category == Share(7, 10)  # six of those answered, and the one that none can know
    assert found.category_answered == Share(6, 7)
    assert found.reason == Share(5, 10)
    assert found.reason_answered == Share(4, 7)
    assert found.confident == Share(3, 10)
    assert found.confident_right == Share(2, 3)
    # Six answered ones have a label: no/no, no/yes, later/later, yes/yes, yes/no, yes/later.
    assert found.retryable == Share(3, 6)
    assert found.quota_retried == Share(1, 2)
    assert found.quota_abstained == Share(1, 3)
    assert found.transient_refused == Share(1, 3)  # `later` is no refusal
    assert found.transient_abstained == Share(1, 4)
    assert found.categories == (
        Score("rate_limit", support=4, given=3, hits=3),
        Score("timeout", support=4, given=2, hits=2),
        Score("code_bug", support=1, given=2, hits=1),
        Score("unclassified", support=1, given=3, hits=1),
    )
    # F1 = 2 hits / (support + given): 6/7, 4/6, 2/3, 2/4
    assert found.macro_f1 == pytest.approx((6 / 7 + 2 / 3 + 2 / 3 + 1 / 2) / 4)
    assert {score.name: (score.support, score.given, score.hits) for score in found.reasons} == {
        "rate_limit/requests": (0, 1, 0),
        "rate_limit/daily_limit": (1, 1, 1),
        "rate_limit/quota_exhausted": (3, 1, 1),
        "timeout/connect": (0, 1, 0),
        "timeout/read": (4, 1, 1),
        "code_bug/other": (1, 2, 1),
        UNANSWERED: (1, 3, 1),
    }
    assert found.confusion == {
        ("rate_limit", "rate_limit"): 3,
        ("rate_limit", "unclassified"): 1,
        ("timeout", "timeout"): 2,
        ("timeout", "code_bug"): 1,
        ("timeout", "unclassified"): 1,
        ("code_bug", "code_bug"): 1,
        ("unclassified", "unclassified"): 1,
    }


def test_calibration_by_hand() -> None:
    found = evaluate(CASES)
    empty = Bin(0, 0.0, 0)
    # 0.5 and 0.7 begin their bins, 1.0 is in the last one; abstentions are in none.
    both = found.calibration.bins
    assert both[:5] == (empty,) * 5
    assert both[5:9] == (Bin(2, 0.5, 0), empty, Bin(1, 0.7, 1), Bin(1, 0.88, 1))
    assert (both[9].count, both[9].right) == (3, 2)
    assert both[9].confidence == pytest.approx(0.95)
    # (2·|0-0.5| + |1-0.7| + |1-0.88| + 3·|2/3-0.95|) / 7, and with the category alone 1/2 and 3/3
    assert found.calibration.ece == pytest.approx((1.0 + 0.3 + 0.12 + 0.85) / 7)
    assert found.calibration_category.ece == pytest.approx((0.0 + 0.3 + 0.12 + 0.15) / 7)


def test_of_nothing_there_is_no_share() -> None:
    found = evaluate([case("timeout/read", UNANSWERED, 0.0, labelled=None)])
    assert (found.calibration.ece, found.reason_answered.ratio, found.retryable.ratio) == (None, None, None)
    assert Score("x", support=0, given=0, hits=0).precision is None
    assert b"<svg" in page(found, "x", [])


def test_percentiles_are_nearest_rank() -> None:
    assert [percentile(range(1, 101), percent) for percent in (50, 99, 100)] == [50, 99, 100]
    assert [percentile([7], percent) for percent in (1, 50, 99)] == [7, 7, 7]
    assert percentile([1, 2, 3], 50) == 2


def test_each_timing_is_cold(monkeypatch: pytest.MonkeyPatch) -> None:
    record = {**QUOTA, "stacktrace": "Traceback (most recent call last):\nValueError: x"}
    real = measuring.verdict_of
    kept = []

    def watched(one: Any) -> Any:
        memos = (records._remembered, stacktrace.read_stacktrace)
        before = [memo.cache_info().currsize for memo in memos]
        found = real(one)
        kept.append((before, [memo.cache_info().currsize for memo in memos]))
        return found

    monkeypatch.setattr(measuring, "verdict_of", watched)
    found = latency([record, QUOTA])
    assert found.timings == len(kept) == 1000
    assert 0 < found.median_us <= found.p99_us
    assert all(before == [0, 0] for before, _ in kept)
    assert kept[0][1][1] == 1  # there is something to forget


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (
            {},
            "label category is missing: one of rate_limit, timeout, invalid_request, authentication_error, ",
        ),
        ({"category": "Timeout"}, "label category 'Timeout' is none: one of rate_limit, timeout, "),
        (
            {"category": "timeout"},
            "label reason is missing: one of connect, read, stream_stall, upstream, pool",
        ),
        (
            {"category": "timeout", "reason": "tokens"},
            "label reason 'tokens' is none of timeout: one of connect, read, stream_stall, upstream, pool",
        ),
        ({"category": ["timeout"]}, "label category \"['timeout']\" is none: one of rate_limit, "),
        (
            {"category": "timeout", "reason": "read", "retryable": True},
            "label retryable 'True' is none: one of yes, no, later",
        ),
    ],
)
def test_labels_outside_the_taxonomy(labels: dict[str, Any], said: str) -> None:
    with pytest.raises(BadLabel) as error:
        read_labels(labels)
    assert str(error.value).startswith(said)


def test_labels_of_the_taxonomy() -> None:
    assert read_labels(QUOTA) == Labels("rate_limit", "quota_exhausted", Retryable.NO)
    assert read_labels({**QUOTA, "retryable": None}).retryable is None


def test_tables_on_the_terminal() -> None:
    out, err = run("-", "--offline", data=jsonl(QUOTA, QUOTA, QUOTA, UNKNOWN))
    assert err == OFFLINE
    lines = [line.split() for line in out.splitlines()]
    for words in (
        "category right 75.0 % 3 of 4 (100.0 % of those answered)",
        "answered 75.0 % 3 of 4",
        "abstained 25.0 % 1 of 4",
        "exhausted quota called retryable 0.0 % 0 of 3",
        "transient called terminal - 0 of 0",
        "rate_limit/quota_exhausted 3 100.0 % 100.0 % 1.000",
        "A rate_limit 3 · ·",
        "B code_bug · · 1",
    ):
        assert words.split() in lines, out
    assert max(map(len, out.splitlines())) <= 80


def test_without_offline_it_says_that_no_llm_is_configured() -> None:
    _, err = run("-", data=jsonl(QUOTA))
    assert err == "otel-triage eval: rules and the local text model; no LLM is configured\n"


def test_a_broken_line_is_told_and_the_rest_goes_on() -> None:
    out, err = run("-", "--offline", data=jsonl(QUOTA, b"nope\n", {**QUOTA, "tags": {"\x1b[2J": {}}}, QUOTA))
    assert err.splitlines() == [
        OFFLINE.strip(),
        "otel-triage eval: line 2: not JSON: Expecting value at character 1; one JSON object a line, as "
        '{"error_type": "RateLimitError", "error_message": "…", "tags": {"provider": "openai"}}',
        "otel-triage eval: line 3: tags.\N{REPLACEMENT CHARACTER}[2J must be a string, not an object",
        "otel-triage eval: left out 2 lines",
    ]
    assert "2 of 2" in out


def test_a_wrong_label_is_an_error_and_the_rest_is_measured() -> None:
    wrong = {**QUOTA, "reason": "quota"}
    out, err = run("-", "--offline", data=jsonl(QUOTA, *[wrong] * 25), code=2)
    lines = err.splitlines()
    assert lines[1] == (
        "otel-triage eval: line 2: label reason 'quota' is none of rate_limit: one of requests, tokens, daily_limit, "
        "quota_exhausted, concurrency, unspecified"
    )
    assert len(lines) == 1 + 20 + 2
    assert lines[-2:] == [
        "otel-triage eval: … and 5 more lines like these",
        "otel-triage eval: left out 25 lines",
    ]
    assert "1 of 1" in out


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    name = OFFLINE + "otel-triage eval: "
    missing = tmp_path / "no.jsonl"
    assert run(str(missing), "--offline", code=2)[1] == (
        f"{name}{missing}: no such file; give a file of JSON lines, or - for standard input\n"
    )
    source = tmp_path / "in.jsonl"
    source.write_bytes(b"")
    assert run(str(source), "--offline", code=2) == (
        "",
        f"{name}{source}: no line with an error and its labels: category, reason, retryable\n",
    )
    source.write_bytes(jsonl(QUOTA))
    hint = "is the input as well; name another file with --html"
    assert run(str(source), "--offline", "--html", str(source), code=2) == ("", f"{name}{source} {hint}\n")
    assert source.read_bytes() == jsonl(QUOTA)
    out = tmp_path / "none" / "page.html"
    hint = f"there is no directory {out.parent}; make it first"
    assert run(str(source), "--offline", "--html", str(out), code=2) == ("", f"{name}{out}: {hint}\n")


def test_without_the_extra_it_says_which_is_missing() -> None:
    script = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == sys.argv[1]:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "from otel_triage.cli.main import main\nmain(['eval', '-'])\n"
    )
    for module in ("rich", "jinja2"):
        done = subprocess.run(
            [sys.executable, "-c", script, module],
            input=b"",
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 2
        said = f"otel-triage eval: {module} is not installed; pip install 'otel-triage[cli]'\n"
        assert done.stderr.decode() == said


class Seen(HTMLParser):
    """What a browser would make of a page: its elements, their attributes, its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


HOSTILE = {
    "id": "<script>alert(1)</script>\ud83d",
    "error_message": "</td><img src=x onerror=alert(2)>\u202e sk-proj-abcdefghijklmnop0123456789 "
    + "y" * 300,
    "tags": {"provider": '"><svg onload=alert(3)>'},
    "category": "code_bug",
    "reason": "other",
}


def test_the_page_needs_nothing_and_runs_nothing(tmp_path: Path) -> None:
    source, out = tmp_path / "<b>in.jsonl", tmp_path / "page.html"
    wrong = {**QUOTA, "reason": "tokens"}
    source.write_bytes(jsonl(HOSTILE, wrong, QUOTA, b"<i>\n"))
    run(str(source), "--offline", "--html", str(out))
    text = out.read_text("utf-8")
    seen = Seen(text)
    assert not {"script", "link", "img", "iframe", "i", "b", "object", "base"} & set(seen.tags)
    assert seen.tags.count("svg") == 1
    assert not [name for name, _ in seen.attributes if name.startswith("on") or name in ("src", "href")]
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'; style-src 'unsafe-inline'" in text
    assert "<script>alert(1)</script>?" in seen.text
    assert "</td><img src=x onerror=alert(2)>\u202e [secret] yyy" in seen.text
    assert "y" * 160 not in seen.text  # cut at 200 characters
    assert "Wrong verdicts (1)" in seen.text
    assert "; source http" in seen.text  # what decided
    assert "Abstained (1)" in seen.text
    assert "Lines left out (1)" in seen.text


def test_the_page_shows_every_figure() -> None:
    seen = Seen(page(evaluate(CASES), "cases.jsonl", [(3, "not JSON")]).decode())
    for figure in (
        "70.0 %",
        "7 of 10 (85.7 % of those answered)",
        "1 of 2 (1 more abstained)",
        "cases.jsonl",
    ):
        assert figure in seen.text
    assert seen.tags.count("circle") == 4 + 4 + 2  # bins of both curves, and the key
    assert seen.tags.count("rect") == 10
    assert [value for name, value in seen.attributes if name == "style"] == [
        "--share:0.750", "--share:0.250",
        "--share:0.500", "--share:0.250", "--share:0.250",
        "--share:1.000",
        "--share:1.000",
    ]  # fmt: skip


def test_a_browser_shows_it_without_a_complaint(tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium here")
    hostile = Case(1, HOSTILE, Labels("code_bug", "other"), BASE)
    out = tmp_path / "page.html"
    written = page(evaluate([hostile, *CASES]), "cases.jsonl", [])
    out.write_bytes(written)
    done = subprocess.run(
        [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0",
         f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", out.as_uri()],
        capture_output=True, timeout=TIMEOUT_S, text=True, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr
    shapes = [tag for tag in Seen(done.stdout).tags if tag in ("circle", "rect")]
    assert shapes == [tag for tag in Seen(written.decode()).tags if tag in ("circle", "rect")] != []
