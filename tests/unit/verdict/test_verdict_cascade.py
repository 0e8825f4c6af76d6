"""Rules first, then a second opinion where they know little; confidence is what was measured."""

from __future__ import annotations

import json

import pytest

from otel_triage.model import Candidate, LLMError, Source
from otel_triage.verdict import confidence, rules
from otel_triage.verdict.calibrate import count
from otel_triage.verdict.classify import Second, classify

UNHEARD = LLMError(message="the flux capacitor is not aligned")
SAID = LLMError(provider="openai", status=429, code="insufficient_quota")
VAGUE = LLMError(status=400, error_type="openai.BadRequestError", message="")


def opinion(*said: tuple[str, float]) -> Second:
    found = tuple(
        Candidate(category=name.split("/")[0], reason=name.split("/")[1], confidence=share)
        for name, share in said
    )
    return lambda error: found


def test_where_no_rule_matches_the_second_opinion_answers() -> None:
    verdict = classify(UNHEARD, second=opinion(("timeout/read", 0.9), ("timeout/connect", 0.05)))
    assert (verdict.category, verdict.reason, verdict.source) == ("timeout", "read", Source.MODEL)
    assert verdict.confidence == confidence.of_model(0.9) < 0.9
    assert verdict.explain == "text model: 0.90 for timeout/read"


def test_where_nobody_knows_nobody_guesses() -> None:
    for second in (None, opinion(("timeout/read", 0.39)), opinion()):
        verdict = classify(UNHEARD, second=second)
        assert (verdict.category, verdict.reason) == ("unclassified", "unknown")
        assert (verdict.confidence, verdict.source, verdict.alternative) == (0.0, Source.RULES, None)


def test_a_providers_own_words_are_not_overruled() -> None:
    verdict = classify(SAID, second=opinion(("timeout/read", 1.0)))
    assert (verdict.reason, verdict.source) == ("quota_exhausted", Source.RULES)


@pytest.mark.parametrize(("share", "reason"), [(0.61, "context_length"), (0.59, "unspecified")])
def test_a_status_alone_yields_to_a_sure_opinion(share: float, reason: str) -> None:
    verdict = classify(VAGUE, second=opinion(("invalid_request/context_length", share)))
    assert (verdict.category, verdict.reason) == ("invalid_request", reason)


def test_an_unsure_verdict_names_the_next_best() -> None:
    verdict = classify(
        UNHEARD, second=opinion(("rate_limit/requests", 0.5), ("rate_limit/quota_exhausted", 0.4))
    )
    assert verdict.alternative == Candidate(category="rate_limit", reason="quota_exhausted", confidence=0.4)


def test_the_settled_are_not_asked_about() -> None:
    def asked(error: LLMError) -> tuple[Candidate, ...]:
        raise AssertionError("asked")

    match = rules.rule_set().decide(LLMError(outcome="cancelled"))  # type: ignore[arg-type]
    assert match is not None
    assert match.settled
    assert classify(LLMError(outcome="cancelled"), second=asked).reason == "cancelled"  # type: ignore[arg-type]


def test_counts_of_what_was_right() -> None:
    """Two of three are right; the support of each is counted under its names."""
    records = [
        {"error_message": "", "tags": {"provider": "openai", "http_status": "429", "error_code": code}}
        | dict(zip(("category", "reason"), label.split("/"), strict=True))
        for code, label in (
            ("insufficient_quota", "rate_limit/quota_exhausted"),
            ("insufficient_quota", "rate_limit/tokens"),
            ("rate_limit_exceeded", "rate_limit/unspecified"),
        )
    ]
    found = count(records)
    assert found["said"] == (1, 2)
    assert json.loads(json.dumps(found)) == {name: list(row) for name, row in found.items()}


def test_laplace() -> None:
    assert confidence.laplace(0, 0) == 0.5
    assert confidence.laplace(98, 98) == 0.99
