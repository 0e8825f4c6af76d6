"""Whole verdicts, written by hand from the taxonomy and the sources of the errors."""

from __future__ import annotations

import re
import time
import tomllib
from dataclasses import replace
from importlib.resources import files

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_triage.model import BrokeAt, Cause, LLMError, Outcome, Owner, Retryable, Severity, Source, Verdict
from otel_triage.verdict.classify import classify, version
from otel_triage.verdict.taxonomy import all_reasons

CALIBRATION = tomllib.loads(files("otel_triage.verdict").joinpath("calibration.toml").read_text("utf-8"))[
    "rows"
]
SUPPORT = {
    "tokens": "said alone, firm",
    "quota_exhausted": "said agreed, firm",
    "overloaded": "said agreed, firm",
    "context_length": "said alone, firm",
}
EXPECTED = [
    (
        # https://docs.llmgateway.io/troubleshooting/openai-429-rate-limit
        LLMError(
            provider="openai", model="gpt-4o", status=429, code="rate_limit_exceeded", type="tokens",
            message="Rate limit reached for gpt-4o in organization org-X on tokens per min (TPM): "
            "Limit 30000, Used 29000, Requested 2000. Please try again in 18.642s.",
        ),
        Verdict(
            category="rate_limit", reason="tokens", severity=Severity.LOW, retryable=Retryable.YES,
            owner=Owner.ACCOUNT, confidence=0.94, source=Source.RULES,
            root_cause="The account's limit of 30,000 tokens per minute at OpenAI is reached: "
            "29,000 used, 2,000 more asked for.",
            suggested_action="Retry after 19 s. If it goes on: shorten prompts, lower max_tokens, "
            "or ask OpenAI for a higher limit.",
            fingerprint="", version="", retry_after_s=18.642,
        ),
    ),
    (
        # https://help.openai.com/en/articles/6891839-api-error-codes
        LLMError(
            provider="openai", status=429, code="insufficient_quota", retry_after_s=5.0,
            message="You exceeded your current quota, please check your plan and billing details.",
        ),
        Verdict(
            category="rate_limit", reason="quota_exhausted", severity=Severity.HIGH, retryable=Retryable.NO,
            owner=Owner.ACCOUNT, confidence=0.97, source=Source.RULES,
            root_cause="The account at OpenAI has no credit left, or its spending cap is reached. "
            "Every call fails until that changes.",
            suggested_action="Do not retry. Add credit or raise the spending cap "
            "in OpenAI's billing settings.",
            fingerprint="", version="", retry_after_s=None,
        ),
    ),
    (
        # https://github.com/anthropics/anthropic-sdk-python/issues/1918
        LLMError(
            provider="anthropic", model="claude-sonnet-4-5", status=200, type="overloaded_error",
            message="Overloaded", broke_at=BrokeAt.STREAM, stream=True, outcome=Outcome.FAILED,
        ),
        Verdict(
            category="provider_error", reason="overloaded", severity=Severity.MEDIUM, retryable=Retryable.YES,
            owner=Owner.PROVIDER, confidence=0.97, source=Source.RULES,
            root_cause="Anthropic has too little capacity for claude-sonnet-4-5 at the moment. "
            "Your own limits are not the cause.",
            suggested_action="Retry with growing pauses. "
            "If it goes on: fail over to another model or region.",
            fingerprint="", version="",
        ),
    ),
    (
        # https://github.com/BerriAI/litellm/blob/main/litellm/litellm_core_utils/exception_mapping_utils.py
        LLMError(
            provider="anthropic", model="claude-sonnet-4-5", status=400, type="invalid_request_error",
            message="prompt is too long: 216319 tokens > 200000 maximum",
            requested_tokens=216319, context_limit=200000,
        ),
        Verdict(
            category="invalid_request", reason="context_length", severity=Severity.MEDIUM,
            retryable=Retryable.NO, owner=Owner.APPLICATION, confidence=0.95, source=Source.RULES,
            root_cause="A request of 216,319 tokens exceeds claude-sonnet-4-5's window of 200,000 tokens.",
            suggested_action="Shorten the prompt or history by at least 16,319 tokens, lower max_tokens, "
            "or use a model with a larger window. A retry cannot work.",
            fingerprint="", version="",
        ),
    ),
    (
        LLMError(message="something nobody has seen"),
        Verdict(
            category="unclassified", reason="unknown", severity=Severity.LOW, retryable=Retryable.NO,
            owner=Owner.APPLICATION, confidence=0.0, source=Source.RULES,
            root_cause="Nothing that is known here explains this error.",
            suggested_action="Read the error itself. If you know what it is, record a correction: "
            "the next one will be recognised.",
            fingerprint="", version="",
        ),
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("error", "expected"), EXPECTED, ids=lambda v: v.reason if isinstance(v, Verdict) else ""
)
def test_whole_verdict(error, expected):
    verdict = classify(error)
    if expected.reason in SUPPORT:  # the share that was counted, anew with each rule set
        right, errors = CALIBRATION[SUPPORT[expected.reason]]
        expected = replace(expected, confidence=round((right + 1) / (errors + 2), 3))
    assert replace(verdict, fingerprint="", version="", explain="") == expected
    assert re.fullmatch(r"[fc]:[0-9a-f]{16}", verdict.fingerprint)
    assert verdict.version == version()
    assert verdict.explain


def test_version_names_package_and_rules():
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*\+rules\.[0-9a-f]{8}", version())


@pytest.mark.parametrize(
    ("facts", "retryable", "wait_s"),
    [
        ({"message": "requests per min. Please try again in 6m0s."}, "later", 360.0),
        ({"message": "requests per min. Please try again in 5m0s."}, "yes", 300.0),
        ({"message": "requests per min. Please try again in 20ms."}, "yes", 0.02),
        ({"message": "requests per min", "retry_after_s": 7.0}, "yes", 7.0),
        ({"message": "requests per min", "retry_after_s": 7.0, "requests_reset_s": 9.0}, "yes", 7.0),
        ({"message": "requests per min", "requests_reset_s": 9.0}, "yes", 9.0),
        ({"message": "requests per min", "tokens_reset_s": 9.0}, "yes", None),
        ({"message": "limited", "tokens_reset_s": 9.0, "tokens_remaining": 0}, "yes", 9.0),
        ({"message": "limited", "tokens_reset_s": 9.0, "tokens_remaining": 4}, "yes", None),
        ({"message": "requests per day (RPD). Please try again in 7m12s."}, "later", 432.0),
        ({"message": "credit balance is too low", "retry_after_s": 7.0}, "no", None),
        ({"message": "Please retry after 86400 seconds. token rate limit"}, "later", 86400.0),
        ({"message": "requests per min", "retry_after_s": -1.0}, "yes", None),
    ],
)
def test_waits(facts, retryable, wait_s):
    verdict = classify(LLMError(status=429, **facts))
    assert (verdict.retryable, verdict.retry_after_s) == (retryable, wait_s)


texts = st.one_of(st.none(), st.text(max_size=300))
numbers = st.one_of(st.none(), st.integers(-5, 10**9))
seconds = st.one_of(st.none(), st.floats(allow_nan=True))
errors = st.builds(
    LLMError,
    provider=texts, model=texts, status=numbers, code=texts, type=texts, error_type=texts, message=texts,
    max_tokens=numbers, context_limit=numbers, requested_tokens=numbers, retry_after_s=seconds,
    requests_reset_s=seconds, tokens_reset_s=seconds, tokens_remaining=numbers,
    finish_reasons=st.one_of(st.none(), st.lists(st.text(max_size=20), max_size=3).map(tuple)),
    broke_at=st.one_of(st.none(), st.sampled_from(BrokeAt)),
    outcome=st.one_of(st.none(), st.sampled_from(Outcome)),
    causes=st.lists(st.builds(Cause, st.text(max_size=40), st.text(max_size=100)), max_size=4).map(tuple),
)  # fmt: skip
KNOWN = {(r.category, r.reason) for r in all_reasons()}


@given(errors)
@settings(deadline=None, max_examples=300)
def test_any_error_gets_a_verdict(error):
    verdict = classify(error)
    assert (verdict.category, verdict.reason) in KNOWN
    assert 0 <= verdict.confidence <= 1
    assert 0 < len(verdict.root_cause) <= 200
    assert 0 < len(verdict.suggested_action) <= 200
    assert verdict.retry_after_s is None or verdict.retry_after_s >= 0
    assert classify(error) == verdict


@pytest.mark.parametrize(
    "piece",
    [
        "'",
        '"content": "',
        "`a",
        "input_value='",
        "retry in 1s ",
        "try again in 9 a 9 ",
        "1",
        "a/",
        "\\\\n",
        "model ",
        "\u3000",
    ],
)
def test_hostile_text_costs_little(piece):
    error = LLMError(message=piece * 100_000, model="m", causes=(Cause("x.Y", piece * 100_000),))
    start = time.process_time()
    classify(error)
    assert time.process_time() - start < 0.5


@pytest.mark.parametrize(
    ("requested", "retryable"), [("2000", Retryable.YES), ("30000", Retryable.YES), ("~30001", Retryable.NO)]
)
def test_a_call_that_alone_is_above_the_limit_is_not_to_be_tried_again(requested: str, retryable: Retryable):
    told = f"Rate limit reached on tokens per minute (TPM): Limit 30000, Used 500, Requested {requested}."
    verdict = classify(LLMError(provider="groq", status=429, code="rate_limit_exceeded", message=told))
    assert (verdict.category, verdict.reason, verdict.retryable) == ("rate_limit", "tokens", retryable)
