"""A large file is worked on by all processors, and its answers are those of one, in its order."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
from itertools import count, islice
from pathlib import Path

import pytest

from otel_triage.cli.workers import in_order

COMMAND = [sys.executable, "-m", "otel_triage.cli.main", "classify", "--offline"]
TIMEOUT_S = 120


def test_results_come_in_the_order_of_the_items() -> None:
    assert list(in_order(abs, range(-1001, 0))) == list(range(1001, 0, -1))
    assert list(in_order(abs, [])) == []


def test_an_endless_source_is_not_read_to_its_end() -> None:
    taken = count()
    results = in_order(str, taken)
    assert list(islice(results, 300)) == [str(number) for number in range(300)]
    results.close()  # type: ignore[attr-defined]
    assert next(taken) < 10_000
    for child in multiprocessing.active_children():
        child.join(TIMEOUT_S)
    assert multiprocessing.active_children() == []


def test_an_error_of_the_work_reaches_the_caller() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        list(in_order(int, ["1", "x"]))


def test_a_large_file_is_answered_as_a_small_one(tmp_path: Path) -> None:
    records = [
        {"id": n, "error_message": f"prompt is too long: {n} tokens > 9", "pad": "x" * 999}
        for n in range(1200)
    ]
    lines = [json.dumps(record) for record in records]
    lines[700] = "broken"
    source = tmp_path / "in.jsonl"
    source.write_text("\n".join(lines), encoding="utf-8")
    assert source.stat().st_size > 1 << 20
    by_many = subprocess.run([*COMMAND, str(source)], capture_output=True, timeout=TIMEOUT_S, check=True)
    by_one = subprocess.run(
        [*COMMAND, "-"], input=source.read_bytes(), capture_output=True, timeout=TIMEOUT_S, check=True
    )
    assert by_many.stdout == by_one.stdout
    answers = [json.loads(line) for line in by_many.stdout.splitlines()]
    assert [answer.get("id") for answer in answers] == [*range(700), None, *range(701, 1200)]
    assert answers[700]["line"] == 701
    assert b"1 of 1200 lines were no error records" in by_many.stderr
