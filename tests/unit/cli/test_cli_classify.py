"""`otel-triage classify` as a process of its own: what a shell, a pipe and a broken file see of it."""

# ruff: noqa: E501 - texts as they are printed

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import otel_triage
from otel_triage.cli.classify import LINE_LIMIT

COMMAND = [sys.executable, "-m", "otel_triage.cli.main", "classify"]
RULES_ONLY = "otel-triage classify: rules and the local text model; no LLM is configured\n"
OFFLINE = "otel-triage classify: rules and the local text model\n"
TIMEOUT_S = 50

# The contract (design, "records"): the members of a verdict, in this order.
VERDICT = [
    "category", "reason", "severity", "retryable", "retry_after_s", "owner", "root_cause", "suggested_action",
    "confidence", "source", "fingerprint", "version", "alternative",
]  # fmt: skip

# https://help.openai.com/en/articles/6891839-api-error-codes, printed by openai 2.x
QUOTA = {
    "error_type": "RateLimitError",
    "error_message": "Error code: 429 - {'error': {'message': 'You exceeded your current quota, please check your "
    "plan and billing details.', 'type': 'insufficient_quota', 'param': None, 'code': 'insufficient_quota'}}",
    "stacktrace": "",
    "tags": {"provider": "openai", "model": "gpt-4o", "http_status": "429"},
    "timestamp": "2026-01-19T00:00:00Z",
}
# https://platform.openai.com/docs/guides/rate-limits
TPM = {
    "error_type": "RateLimitError",
    "error_message": "Rate limit reached for gpt-4o on tokens per min (TPM): Limit 30000, Used 29000, Requested "
    "2000. Please try again in 18.642s.",
    "tags": {"provider": "openai", "http_status": 429},
}


def run(
    *arguments: str, data: bytes | None = None, code: int = 0, err: str | None = None
) -> list[dict[str, Any]]:
    """Runs the command; its answers as objects, its exit code and what it said asserted."""
    done = subprocess.run(
        [*COMMAND, *arguments], input=data, capture_output=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == code, done.stderr
    if err is not None:
        assert done.stderr.decode() == err
    return [json.loads(line) for line in done.stdout.decode().splitlines()]


def jsonl(*records: Any) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def file(path: Path, *records: Any) -> str:
    path.write_bytes(jsonl(*records))
    return str(path)


def test_a_record_and_its_verdict() -> None:
    [found] = run("-", data=jsonl(QUOTA), err=RULES_ONLY)
    assert list(found) == VERDICT
    told = {
        name: found[name] for name in VERDICT if name not in ("root_cause", "suggested_action", "version")
    }
    assert 0.5 < told.pop("confidence") <= 1
    assert told.pop("fingerprint").startswith("f:")
    assert told == {
        "category": "rate_limit",
        "reason": "quota_exhausted",
        "severity": "high",
        "retryable": "no",
        "retry_after_s": None,
        "owner": "account",
        "source": "rules",
        "alternative": None,
    }


def test_in_order_with_other_members_passed_through() -> None:
    records = [{"id": n, "labels": {"team": "日本"}, **(QUOTA if n % 2 else TPM)} for n in range(40)]
    found = run("--offline", data=jsonl(*records), err=OFFLINE)
    assert [one["id"] for one in found] == list(range(40))
    assert {one["labels"]["team"] for one in found} == {"日本"}
    assert [one["retry_after_s"] for one in found[:2]] == [18.642, None]
    assert list(found[0]) == ["id", "labels", *VERDICT]


def test_a_label_of_the_input_never_stands_for_the_verdict() -> None:
    [found] = run("--offline", data=jsonl({**QUOTA, "category": "timeout", "source": "a forum", "why": "x"}))
    assert (found["category"], found["source"], found["why"]) == ("rate_limit", "rules", "x")


def test_explain_names_rule_and_source() -> None:
    [found] = run("--offline", "--explain", data=jsonl(QUOTA))
    assert list(found) == [*VERDICT, "explain"]
    assert found["explain"].startswith("rule ")
    assert "source http" in found["explain"]


def test_it_answers_what_nothing_is_known_of() -> None:
    [found] = run("--offline", data=jsonl({"error_message": "the frobnicator is sad"}))
    assert (found["category"], found["reason"], found["confidence"]) == ("unclassified", "unknown", 0.0)


EXAMPLE = '{"error_type": "RateLimitError", "error_message": "…", "tags": {"provider": "openai"}}'
BROKEN = {
    b"nope": f"not JSON: Expecting value at character 1; one JSON object a line, as {EXAMPLE}",
    b'{"error_message": "x"': "not JSON: Expecting ',' delimiter at character 23; "
    f"one JSON object a line, as {EXAMPLE}",
    b"[1]": f"a list where an object is due, as {EXAMPLE}",
    b"null": f"null where an object is due, as {EXAMPLE}",
    b'{"error_message": 5}': "error_message must be a string or null, not a number",
    b'{"error_message": "x", "tags": ["a"]}': "tags must be an object of strings or null, not a list",
    b'{"error_message": "x", "tags": {"a": {}}}': "tags.a must be a string, not an object",
    b'{"error_message": "x", "timestamp": []}': "timestamp must be RFC 3339 text or Unix seconds, not a list",
    b'{"error_message": "x", "n": NaN}': "NaN is no JSON: write null, or a number",
    b'{"error_message": "x", "n": 1e999}': "a number is too large for JSON: write it as a string",
    b'{"error_message": "\xff"}': "not UTF-8 at byte 20: save the input as UTF-8",
    b"[" * 100_000: "nested too deeply: an error record holds strings and one object of tags",
    b'{"id": 1, "tags": {}}': "nothing to classify: error_type, error_message, stacktrace and tags are all empty or "
    f"missing; give one of them, as {EXAMPLE}",
}


@pytest.mark.parametrize("line", BROKEN, ids=lambda line: line[:30].decode("latin-1"))
def test_a_broken_line_gets_its_number_and_the_rest_goes_on(line: bytes) -> None:
    data = jsonl(QUOTA) + b"\n" + line + b"\n" + jsonl(TPM)
    said = OFFLINE + "otel-triage classify: 1 of 3 lines were no error records\n"
    first, broken, last = run("--offline", data=data, err=said)
    assert broken == {"line": 3, "error": BROKEN[line]}
    assert (first["reason"], last["reason"]) == ("quota_exhausted", "tokens")


def test_a_line_without_end_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    with path.open("wb") as out:
        out.write(b'{"error_message": "')
        for _ in range(3 * LINE_LIMIT >> 20):
            out.write(b"x" * (1 << 20))
        out.write(b'"}\n' + jsonl(QUOTA))
    long, good = run("--offline", str(path))
    assert long == {"line": 1, "error": "longer than 16 MiB: shorten the stack trace"}
    assert good["reason"] == "quota_exhausted"


def test_odd_text_comes_out_as_valid_json() -> None:
    record = b'\xef\xbb\xbf{"error_message": "\\ud83d \\u0000", "id": "\\udc00", "big": 12345678901234567890123}\r\n'
    [found] = run("--offline", data=record)
    assert (found["id"], found["big"]) == ("\udc00", 12345678901234567890123)


def test_an_empty_input_has_no_answers(tmp_path: Path) -> None:
    assert run("--offline", file(tmp_path / "empty.jsonl"), err=OFFLINE) == []
    assert run("--offline", data=b"\n\n", err=OFFLINE) == []


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    name = "otel-triage classify: "
    missing = tmp_path / "no.jsonl"
    hint = "no such file; give a file of JSON lines, or - for standard input"
    run("--offline", str(missing), code=2, err=f"{OFFLINE}{name}{missing}: {hint}\n")
    hint = "is a directory; give a file of JSON lines in it"
    run("--offline", str(tmp_path), code=2, err=f"{OFFLINE}{name}{tmp_path} {hint}\n")
    records = file(tmp_path / "in.jsonl", QUOTA)
    hint = "is the input as well; name another file with -o"
    run("--offline", records, "-o", records, code=2, err=f"{OFFLINE}{name}{records} {hint}\n")
    assert Path(records).read_bytes() == jsonl(QUOTA)
    hint = "is a directory; name a file in it with -o"
    run("--offline", records, "-o", str(tmp_path), code=2, err=f"{OFFLINE}{name}{tmp_path} {hint}\n")
    out = tmp_path / "none" / "out.jsonl"
    hint = f"there is no directory {out.parent}; make it first"
    run("--offline", records, "-o", str(out), code=2, err=f"{OFFLINE}{name}{out}: {hint}\n")
    hint = "--resume continues a file: name it with -o OUT"
    run("--offline", records, "--resume", code=2, err=f"{OFFLINE}{name}{hint}\n")


def test_arguments_that_are_wrong() -> None:
    done = subprocess.run(
        [*COMMAND, "--concurrency", "0"], capture_output=True, timeout=TIMEOUT_S, text=True, check=False
    )
    assert done.returncode == 2
    assert "argument --concurrency: 0 is no number of calls; give 1 or more" in done.stderr


def test_resume_goes_on_behind_what_is_whole(tmp_path: Path) -> None:
    records = [{"id": n, **QUOTA} for n in range(10)]
    source = tmp_path / "in.jsonl"
    source.write_bytes(jsonl(*records[:5]) + b"broken\n\n" + jsonl(*records[5:]))
    whole = tmp_path / "whole.jsonl"
    run("--offline", str(source), "-o", str(whole))
    lines = whole.read_bytes().splitlines(keepends=True)
    assert json.loads(lines[5])["line"] == 6
    for cut in (0, 1, 6, 7, 11):
        out = tmp_path / f"{cut}.jsonl"
        out.write_bytes(b"".join(lines[:cut]) + (lines[cut][:20] if cut < 11 else b""))
        run("--offline", str(source), "-o", str(out), "--resume")
        assert out.read_bytes() == whole.read_bytes()


def test_resume_refuses_the_answers_to_another_input(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_bytes(b"{}\n" * 3)
    source = file(tmp_path / "in.jsonl", QUOTA)
    said = f"{OFFLINE}otel-triage classify: {out} holds 3 answers and {source} only 1 records: it belongs to "
    run(
        "--offline",
        source,
        "-o",
        str(out),
        "--resume",
        code=2,
        err=said + "another input; name the right one with -o\n",
    )
    assert out.read_bytes() == b"{}\n" * 3


def test_an_interrupt_keeps_what_is_done(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    process = subprocess.Popen(
        [*COMMAND, "--offline", "-", "-o", str(out)], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin
    process.stdin.write(jsonl(QUOTA, TPM))
    process.stdin.flush()
    deadline = time.monotonic() + TIMEOUT_S
    while not (out.exists() and out.read_bytes().count(b"\n") == 2):  # answered as it comes, not at the end
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130
    assert err.decode() == OFFLINE + "otel-triage classify: interrupted after 2 records; --resume continues\n"
    run("--offline", "-", "-o", str(out), "--resume", data=jsonl(QUOTA, TPM, QUOTA))
    assert [json.loads(line)["reason"] for line in out.read_text().splitlines()] == [
        "quota_exhausted",
        "tokens",
        "quota_exhausted",
    ]


def test_a_reader_that_goes_away_ends_it_without_a_word(tmp_path: Path) -> None:
    source = file(tmp_path / "in.jsonl", *[QUOTA] * 2000)  # more than a pipe holds
    process = subprocess.Popen(
        [*COMMAND, "--offline", source], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout
    assert process.stderr
    assert json.loads(process.stdout.readline())["reason"] == "quota_exhausted"
    process.stdout.close()
    assert process.stderr.read().decode() == OFFLINE
    assert process.wait(timeout=TIMEOUT_S) == 141


def test_a_full_disk_is_told() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    said = OFFLINE + "otel-triage classify: output: No space left on device\n"
    run("--offline", "-", "-o", "/dev/full", data=jsonl(QUOTA), code=2, err=said)


def test_memory_does_not_grow_with_the_input(tmp_path: Path) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("no /proc here")
    script = (
        "import re, sys\nfrom otel_triage.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\nfinally:\n"
        "    print(re.search('VmHWM:.*?([0-9]+)', open('/proc/self/status').read())[1], file=sys.stderr)\n"
    )
    peaks = []
    for count in (1500, 4500):  # what is remembered of texts is bounded, and full with the first
        records = [{**TPM, "error_message": f"{n} {TPM['error_message']}" + "x" * 3900} for n in range(count)]
        arguments = [
            "classify",
            "--offline",
            file(tmp_path / "in.jsonl", *records),
            "-o",
            str(tmp_path / "out"),
        ]
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            capture_output=True,
            timeout=TIMEOUT_S,
            text=True,
            check=True,
        )
        peaks.append(int(done.stderr.splitlines()[-1]))
    assert peaks[1] - peaks[0] < 4 << 10, peaks  # KiB; the second input is 12 MB longer


def test_a_terminal_shows_progress(tmp_path: Path) -> None:
    pytest.importorskip("rich")
    ours, theirs = os.openpty()
    source, out = file(tmp_path / "in.jsonl", *[QUOTA] * 1000), tmp_path / "out.jsonl"
    process = subprocess.Popen(
        [*COMMAND, "--offline", source, "-o", str(out)], stderr=theirs, env={**os.environ, "TERM": "xterm"}
    )
    os.close(theirs)
    seen = b""
    try:
        while block := os.read(ours, 4096):
            seen += block
    except OSError:  # Linux: the other side is closed
        pass
    os.close(ours)
    assert process.wait(timeout=TIMEOUT_S) == 0
    assert b" errors" in seen
    assert out.read_bytes().count(b"\n") == 1000


def test_it_runs_without_any_extra() -> None:
    # The base install has opentelemetry-api, -sdk and wrapt; nothing else of ours may be imported.
    script = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('rich', 'typer', 'numpy', 'httpx', 'pydantic', 'grpc', 'google'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "from otel_triage.cli.main import main\nmain(['classify', '--offline'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], input=jsonl(QUOTA), capture_output=True, timeout=TIMEOUT_S, check=True,
        env={**os.environ, "PYTHONNOUSERSITE": "1"},
    )  # fmt: skip
    assert json.loads(done.stdout)["reason"] == "quota_exhausted"


def test_classify_takes_an_exception_a_record_and_facts() -> None:
    import openai

    exc = openai.OpenAIError(QUOTA["error_message"])
    facts = otel_triage.LLMError(provider="openai", status=429, code="insufficient_quota")
    for error in (exc, QUOTA, facts):
        assert otel_triage.classify(error).reason == "quota_exhausted"
    with pytest.raises(TypeError, match="takes an exception, an error record or an LLMError, not str"):
        otel_triage.classify("429")  # type: ignore[arg-type]
