"""A verdict in a Sentry event: whole events as they must look, and what must stay."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import pytest
from verdicts import verdict

from otel_triage.facts.sentry_events import read_event
from otel_triage.model import LLMError, Outcome, Owner, Source, Verdict
from otel_triage.verdict.sentry_events import annotate_event

VERDICT = verdict(
    confidence=0.99,
    root_cause="Too many tokens a minute.",
    suggested_action="Wait 7 s.",
    fingerprint="f:0123456789abcdef",
    version="0.1.0+rules.1a2b3c4d",
    explain="never leaves",
)
ERROR = LLMError(
    provider="openai", model="gpt-4o", status=429, outcome=Outcome.FAILED, message="said", stacktrace="long"
)
TAGS = {
    "triage.category": "rate_limit", "triage.reason": "tokens", "triage.severity": "low",
    "triage.retryable": "yes", "triage.owner": "account", "triage.provider": "openai",
    "triage.model": "gpt-4o", "triage.outcome": "failed",
}  # fmt: skip
CONTEXT = {
    "confidence": 0.99, "severity": "low", "retryable": "yes", "owner": "account", "source": "rules",
    "reason": "tokens", "category": "rate_limit", "outcome": "failed", "http.response.status_code": 429,
    "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o", "fingerprint": "f:0123456789abcdef",
    "version": "0.1.0+rules.1a2b3c4d", "root_cause": "Too many tokens a minute.",
    "suggested_action": "Wait 7 s.",
}  # fmt: skip
GROUP = ["otel-triage", "openai", "rate_limit", "tokens"]


def annotated(
    event: dict[str, Any], error: LLMError = ERROR, verdict: Verdict = VERDICT, **options: Any
) -> Any:
    annotate_event(event, error, verdict, **options)
    return event


def test_whole_event() -> None:
    assert annotated({"event_id": "1", "level": "warning"}) == {
        "event_id": "1",
        "level": "warning",
        "tags": TAGS,
        "contexts": {"triage": CONTEXT},
        "fingerprint": GROUP,
    }


def test_twice_is_once() -> None:
    once = annotated({"tags": {"a": "b"}, "contexts": {"os": {"name": "x"}}})
    assert annotated(copy.deepcopy(once)) == once


def test_a_new_verdict_replaces_the_old_one_whole() -> None:
    event = annotated({})
    other = replace(
        VERDICT, category="code_bug", reason="configuration", owner=Owner.APPLICATION, incident_id="i1"
    )
    annotated(event, LLMError(status=400), other)
    expected = TAGS | {
        "triage.category": "code_bug", "triage.reason": "configuration", "triage.owner": "application"
    }  # fmt: skip
    for gone in ("triage.provider", "triage.model", "triage.outcome"):
        del expected[gone]
    assert event["tags"] == expected
    assert "gen_ai.request.model" not in event["contexts"]["triage"]
    assert event["contexts"]["triage"]["incident_id"] == "i1"
    assert "fingerprint" not in event, "a cause in the application keeps Sentry's own grouping"


def test_what_the_application_wrote_stays() -> None:
    event = {
        "tags": [["user", "tag"], ["triage.category", "old"], ["triage.team", "mine"]],
        "contexts": {"trace": {"op": "x"}, "triage": {"team": "mine", "category": "old"}},
        "fingerprint": ["my-group"],
    }
    annotated(event)
    assert event["tags"] == [
        ["user", "tag"],
        ["triage.team", "mine"],
        *([name, value] for name, value in TAGS.items()),
    ]
    assert event["contexts"] == {"trace": {"op": "x"}, "triage": {"team": "mine", **CONTEXT}}
    assert event["fingerprint"] == ["my-group"]


@pytest.mark.parametrize(
    ("before", "changes", "grouping", "after"),
    [
        (None, {}, "cause", GROUP),
        ([], {}, "cause", GROUP),
        (["{{ default }}"], {}, "cause", GROUP),
        (["{{default}}"], {}, "cause", GROUP),
        (["{{ default }}", "tenant"], {}, "cause", ["{{ default }}", "tenant"]),
        ("text", {}, "cause", "text"),
        (["otel-triage", "old", "x", "y"], {}, "cause", GROUP),
        (None, {"source": Source.HUMAN}, "cause", GROUP),
        (None, {"owner": Owner.NETWORK}, "cause", GROUP),
        (None, {"owner": Owner.PROVIDER}, "cause", GROUP),
        (None, {"owner": Owner.APPLICATION}, "cause", None),
        (None, {"owner": Owner.PROMPT}, "cause", None),
        (None, {"source": Source.MODEL}, "cause", None),
        (None, {"source": Source.LLM}, "cause", None),
        (["otel-triage", "old", "x", "y"], {"source": Source.MODEL}, "cause", None),
        (None, {}, "off", None),
        (["{{ default }}"], {}, "off", ["{{ default }}"]),
        (["otel-triage", "old", "x", "y"], {}, "off", None),
    ],
)
def test_grouping(before: Any, changes: dict[str, Any], grouping: str, after: Any) -> None:
    event = {} if before is None else {"fingerprint": before}
    annotated(event, ERROR, replace(VERDICT, **changes), grouping=grouping)
    assert event.get("fingerprint") == after


def test_an_unknown_provider_has_a_place_in_the_group() -> None:
    assert annotated({}, LLMError())["fingerprint"] == ["otel-triage", "unknown", "rate_limit", "tokens"]


def test_values_that_no_tag_may_have() -> None:
    event = annotated({}, LLMError(model="a\nb " + "x" * 300, provider=" \n"))
    assert event["tags"]["triage.model"] == ("a b " + "x" * 300)[:200]
    assert "triage.provider" not in event["tags"]


def test_the_context_has_a_budget() -> None:
    event = annotated({}, LLMError(error_id="e1", message="m" * 20_000, param="p" * 7000))
    context = event["contexts"]["triage"]
    assert len(json.dumps(context)) < 8000
    assert context["category"] == "rate_limit", "short values first"
    assert "exception.message" not in context


def test_the_message_goes_only_where_the_tap_cleaned_it() -> None:
    assert "exception.message" not in annotated({}, LLMError(message="said"))["contexts"]["triage"]
    told = annotated({}, LLMError(message="key sk-0123456789abcdef", error_id="e1"))["contexts"]["triage"]
    assert told["exception.message"] == "key [secret]"


def test_what_was_written_is_read_back() -> None:
    error = LLMError(
        provider="openai", status=429, error_id="e1", attempts=3, attempt_statuses=(429, 0), message="said"
    )
    event = annotated({"exception": {"values": [{"type": "E", "value": "x"}]}}, error)
    read = read_event(event).error
    names = ("provider", "status", "error_id", "attempts", "message", "attempt_statuses")
    assert [getattr(read, name) for name in names] == ["openai", 429, "e1", 3, "said", (429, 0)]


def test_sentrys_normaliser_has_nothing_to_say() -> None:
    processing = pytest.importorskip("sentry_relay.processing", reason="sentry-relay is not installed")
    normalizer = processing.StoreNormalizer(project_id=1, enable_trimming=True)
    error = LLMError(
        provider="openai", model="m\n" + "x" * 500, error_id="e1", message="m" * 9000, param="p" * 900,
        finish_reasons=("stop",), retry_after_s=2.5, stream=True, attempt_statuses=(0, 429),
    )  # fmt: skip
    event = annotated({"event_id": "a" * 32, "tags": {"own": "tag"}}, error)
    out = normalizer.normalize_event(copy.deepcopy(event))
    assert out.get("errors") is None
    assert out.get("_meta") is None
    assert out["fingerprint"] == GROUP
    assert {**out["contexts"]["triage"], "type": None} == {**event["contexts"]["triage"], "type": None}
    # the control: what we must not write
    assert normalizer.normalize_event({"event_id": "a" * 32, "tags": {"x": "a\nb"}})["errors"]
