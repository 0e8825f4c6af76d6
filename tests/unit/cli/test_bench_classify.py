"""The tables and the corpus of `benchmarks/classify.py`."""

from __future__ import annotations

import json

import pytest

from benchmarks import classify as bench
from otel_triage.cli.classify import read_record, verdict_of
from otel_triage.cli.evaluate import read_labels
from otel_triage.verdict import taxonomy


@pytest.mark.parametrize("table", [bench.BY_STATUS, bench.BY_CLASS, bench.BY_CODE])
def test_what_others_say_is_in_the_taxonomy(table: dict[object, str]) -> None:
    assert set(table.values()) <= {reason.key for reason in taxonomy.all_reasons()}


def test_the_status_rule() -> None:
    records = [{"tags": {"http_status": status}} for status in ("429", "418", "599", "200")] + [{}]
    assert bench.status_rule(records).answers == [
        bench.Answer("rate_limit/unspecified", True),
        bench.Answer("invalid_request/unspecified", False),
        bench.Answer("provider_error/internal", True),
        bench.Answer(None, False),
        bench.Answer(None, None),
    ]


def test_our_own_examples_are_labelled_records() -> None:
    records = bench.own_examples()
    assert len(records) > 500
    for record in records:
        read_labels(read_record(json.dumps(record).encode()))
    # Little is lost between an example, which is facts, and the record made of it.
    right = sum(verdict_of(one).category == one["category"] for one in records)
    assert right / len(records) > 0.95


def test_figures_by_hand() -> None:
    records = [
        {"category": "timeout", "reason": "read", "retryable": "yes"},
        {"category": "timeout", "reason": "read", "retryable": "later"},
        {"category": "code_bug", "reason": "other"},
        {"category": "code_bug", "reason": "other", "retryable": "no"},
    ]
    answers = [
        bench.Answer("timeout/read", True),
        bench.Answer("timeout/connect", False),
        bench.Answer("code_bug/other", False),
        bench.Answer(None, None),
    ]
    found = bench.figures(bench.Result("x", answers, [1.0, 2.0, 3.0]), records)
    assert found[:4] == (3 / 4, 2 / 4, 2 / 3, 2.0)
