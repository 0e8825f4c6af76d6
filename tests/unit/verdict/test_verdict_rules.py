"""Every rule against its own examples, and the engine against the order of decision."""

from __future__ import annotations

import re
import time
from copy import deepcopy
from dataclasses import replace

import pytest

from otel_triage.model import BrokeAt, Cause, LLMError, Outcome
from otel_triage.verdict import build, data
from otel_triage.verdict.classify import classify
from otel_triage.verdict.index import anchor
from otel_triage.verdict.names import plain
from otel_triage.verdict.rule import Rule
from otel_triage.verdict.rules import Facts, RuleSet, rule_set

ROWS = build.rule_rows()
POSITIVES = [
    pytest.param(row, record, id=f"{row['id']}-{n}")
    for row in ROWS
    for n, record in enumerate(row["true_positives"])
]
NEGATIVES = [
    pytest.param(row, record, id=f"{row['id']}-{n}")
    for row in ROWS
    for n, record in enumerate(row.get("false_positives", ()))
]


@pytest.mark.parametrize(("row", "record"), POSITIVES)
def test_true_positive(row, record):
    error = build.error_of(record)
    verdict = classify(error)
    assert f"{verdict.category}/{verdict.reason}" == row["verdict"], verdict.explain
    assert rule_set().matches(row["id"], error), "the rule itself does not match its example"
    if "retryable" in row:
        assert verdict.retryable == row["retryable"]


@pytest.mark.parametrize(("row", "record"), NEGATIVES)
def test_false_positive(row, record):
    assert not rule_set().matches(row["id"], build.error_of(record)), record["why"]


@pytest.mark.parametrize(("row", "record"), POSITIVES)
def test_no_verdict_hangs_on_the_name_of_a_rule(row, record):
    """Two rules of equal rank and different verdicts would be settled by their names."""
    error = build.error_of(record)
    best = rule_set().decide(error)
    assert best is not None
    for rule in rule_set().rules:
        alone = RuleSet([rule]).decide(error)
        if alone and alone.rank == best.rank:
            assert (rule.category, rule.reason, rule.retryable) == (
                best.rule.category, best.rule.reason, best.rule.retryable,
            ), f"{rule.id} and {best.rule.id} rank alike"  # fmt: skip


BOILERPLATE = (
    "Visit https://example.com/docs/support for help.",
    "Please contact support@example.com with the request id req_1 if the error persists.",
    "(request id: 20250101, model: some-model, key: sk-***)",
    "For more information, see the API reference on parameters, models and content policy.",
)


@pytest.mark.parametrize(
    ("row", "record"),
    [
        pytest.param(row, record, id=f"{row['id']}-{n}")
        for row in ROWS
        # A pattern that is anchored wants the whole text.
        if row.get("keywords") and not re.search(r"\^|\$", row.get("pattern", ""))
        for n, record in enumerate(row["true_positives"])
        if record.get("message")
    ],
)
def test_what_services_write_around_a_message_changes_nothing(row, record):
    error = build.error_of(record)
    for words in BOILERPLATE:
        verdict = classify(replace(error, message=f"{error.message} {words}"))
        assert f"{verdict.category}/{verdict.reason}" == row["verdict"], f"{words} {verdict.explain}"


def test_the_packaged_data_is_what_the_files_say():
    packaged = (build.HERE / data.FILE).read_bytes()
    assert packaged == build.build(), "run: python -m otel_triage.verdict.build"


GOOD = {
    "id": "common/x", "verdict": "timeout/read", "confidence": 0.9, "source": "https://example.com",
    "keywords": ["slow"], "true_positives": [{"message": "slow"}],
}  # fmt: skip


def test_a_good_rule_has_nothing_wrong():
    assert list(build.check(GOOD, "common", {"timeout/read"})) == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"source": ""}, "no source"),
        ({"true_positives": []}, "no true positive"),
        ({"verdict": "timeout/never"}, "not in taxonomy.toml"),
        ({"id": "other/x"}, "the id must be common/some-name"),
        ({"confidence": 2}, "confidence must be a number from 0 to 1"),
        ({"keywords": []}, "no condition"),
        ({"keywords": "slow"}, "keywords must be a list"),
        ({"keywords": ["Slow"]}, "must be lower case"),
        ({"pattern": "(slow"}, "does not compile"),
        ({"pattern": "Slow"}, "must be lower case"),
        ({"pattern": "slow.*down"}, "unbounded repeat"),
        ({"keywords": [], "status": [400], "pattern": "slow"}, "needs keywords"),
        ({"status": ["teapot"]}, 'must be a number, "5xx", "none" or "local"'),
        ({"broke_at": ["road"]}, "broke_at is one of connect, headers, body, stream"),
        ({"retryable": "maybe"}, "retryable is yes, no or later"),
        ({"colour": "red"}, "unknown key colour"),
        ({"true_positives": [{"text": "slow"}]}, "text is not a field of LLMError"),
        ({"false_positives": [{"message": "slow"}]}, "every false positive needs a why"),
    ],
)
def test_a_wrong_rule_is_named(change, complaint):
    found = list(build.check(deepcopy(GOOD) | change, "common", {"timeout/read"}))
    assert any(complaint in text for text in found), found


@pytest.mark.parametrize("rule", [r for r in rule_set().rules if r.pattern or r.veto], ids=lambda r: r.id)
def test_patterns_stay_fast_on_hostile_text(rule: Rule):
    """5000 characters of what the pattern likes best, without a match at the end of it."""
    for keyword in rule.keywords:
        for filler in (
            f"{keyword} ",
            f"{keyword} model: x ",
            f"{keyword}x" * 3,
            "exceed " + keyword + " a" * 40,
        ):
            text = plain((filler * 5000)[:5000])
            for pattern in filter(None, (rule.pattern, rule.veto)):
                start = time.process_time()
                re.compile(pattern).search(text)
                assert time.process_time() - start < 0.1


def chain(*types: str, **facts) -> LLMError:
    return LLMError(error_type=types[0], causes=tuple(Cause(name) for name in types), **facts)


# From the taxonomy's rule of precedence and its close calls; none of these texts is an example of a rule.
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        # the provider's code and message beat the status
        (LLMError(status=429, code="insufficient_quota"), "rate_limit/quota_exhausted"),
        (
            LLMError(status=429, message="That model is overloaded with other requests"),
            "provider_error/overloaded",
        ),
        (LLMError(status=400, code="content_filter"), "prompt_issue/content_filter"),
        (LLMError(status=400, message="Error: credit balance is too low."), "rate_limit/quota_exhausted"),
        (LLMError(status=200, type="overloaded_error", broke_at=BrokeAt.STREAM), "provider_error/overloaded"),
        # ... the message beats a type that names only the kind
        (
            LLMError(status=429, type="rate_limit_error", message="limit of 9 requests per minute"),
            "rate_limit/requests",
        ),
        (
            LLMError(status=400, type="invalid_request_error", message="prompt is too long"),
            "invalid_request/context_length",
        ),
        # ... a type that names the kind beats the status
        (LLMError(status=503, type="rate_limit_error"), "rate_limit/unspecified"),
        # the innermost cause beats the wrapper
        (chain("openai.APIConnectionError", "httpx.ConnectTimeout", "TimeoutError"), "timeout/connect"),
        (chain("openai.APITimeoutError", "httpx.PoolTimeout"), "timeout/pool"),
        (chain("openai.APIConnectionError", "httpx.ConnectError", "socket.gaierror"), "network_error/dns"),
        (chain("httpx.ConnectTimeout", "httpx.ReadTimeout"), "timeout/read"),
        (chain("httpx.ReadTimeout", "httpx.ConnectTimeout"), "timeout/connect"),
        (
            LLMError(
                message="failed",
                causes=(
                    Cause("A", "[Errno 111] Connection refused"),
                    Cause("B", "certificate verify failed"),
                ),
            ),
            "network_error/tls",
        ),
        (
            LLMError(
                message="failed",
                causes=(
                    Cause("B", "certificate verify failed"),
                    Cause("A", "[Errno 111] Connection refused"),
                ),
            ),
            "network_error/connection_refused",
        ),
        (chain("tenacity.RetryError", "openai.APITimeoutError"), "timeout/read"),
        # ... also where only its class says anything
        (
            chain("openai.APIConnectionError", "httpx.ReadError", message="Connection error."),
            "network_error/connection_reset",
        ),
        # a stated finish reason beats the tap's "nothing in it", and is beaten by a cause
        (
            LLMError(status=200, code="empty_output", finish_reasons=("length",)),
            "prompt_issue/output_truncated",
        ),
        (LLMError(status=200, code="empty_output", finish_reasons=("stop",)), "prompt_issue/empty_output"),
        (chain("httpx.ReadTimeout", finish_reasons=("length",)), "timeout/read"),
        # a text that begins with a class, and tenacity's last attempt
        (LLMError(message="litellm.RateLimitError: limited"), "rate_limit/unspecified"),
        (
            LLMError(
                error_type="tenacity.RetryError",
                message="RetryError[<Future at 0x7f state=finished raised APITimeoutError>]",
            ),
            "timeout/read",
        ),
        # whose data was missing: the last lines of the stack tell
        (
            LLMError(
                error_type="IndexError",
                message="list index out of range",
                stacktrace="    text = answer.choices[0].message",
            ),
            "provider_error/bad_response",
        ),
        (
            LLMError(
                error_type="IndexError", message="list index out of range", stacktrace="    row = rows[0]"
            ),
            "code_bug/lookup_error",
        ),
        # the status decides where nothing else is known
        (LLMError(status=418), "invalid_request/unspecified"),
        (LLMError(status=503, message="upstream said no"), "provider_error/unavailable"),
        (LLMError(error_type="openai.RateLimitError"), "rate_limit/unspecified"),
        (LLMError(error_type="openai.InternalServerError", status=503), "provider_error/unavailable"),
        # had a response begun?
        (chain("httpx.ReadError", broke_at=BrokeAt.HEADERS), "network_error/connection_reset"),
        (chain("httpx.ReadError", broke_at=BrokeAt.STREAM), "network_error/stream_interrupted"),
        (chain("httpx.ReadTimeout", broke_at=BrokeAt.STREAM), "timeout/stream_stall"),
        # the caller gave up: whatever else broke
        (chain("httpx.ReadTimeout", outcome=Outcome.CANCELLED), "unclassified/cancelled"),
        # asyncio turns its own cancellation into a time-out
        (chain("TimeoutError", "asyncio.exceptions.CancelledError"), "timeout/read"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_order_of_decision(error, expected):
    verdict = classify(error)
    assert f"{verdict.category}/{verdict.reason}" == expected, verdict.explain


def test_what_texts_look_like_to_rules():
    assert (
        plain('{\\"message\\":\\n \\"Too\u2019  MANY\\nrequests\\"}') == '{"message": "too\' many requests"}'
    )
    assert len(plain("x" * 90_000)) == 5001


@pytest.mark.parametrize(
    ("keyword", "word"),
    [
        ("rate limit", "rate"),
        ("tpm", "tpm"),
        ("must be a member", "must"),
        ("errno 111", "errno"),
        ("\u4f59\u989d", ""),
    ],
)
def test_anchor(keyword, word):
    assert anchor(keyword) == word


def test_a_keyword_without_ascii_words_is_always_tried():
    rule = Rule(
        id="a/b",
        category="rate_limit",
        reason="quota_exhausted",
        confidence=0.9,
        source="test",
        keywords=("\u4f59\u989d\u4e0d\u8db3",),
    )
    assert RuleSet([rule]).decide(LLMError(message="\u8d26\u6237\u4f59\u989d\u4e0d\u8db3")) is not None
    assert RuleSet([rule]).decide(LLMError(message="\u8d26\u6237")) is None


def test_explain_names_rule_source_and_facts():
    verdict = classify(LLMError(provider="openai", status=403, code="model_not_found"))
    assert verdict.explain == (
        "rule common/model-access-403 (said contested, firm): status=403, code=model_not_found; "
        "source https://github.com/Aider-AI/aider/issues/1903"
    )
    assert classify(LLMError(message="something new")).explain == "no rule matches"


def test_a_thousand_rules_cost_little_more():
    """Rules that cannot match are not even looked at."""
    more = [
        Rule(
            id=f"a/{n}",
            category="timeout",
            reason="read",
            confidence=0.5,
            source="test",
            keywords=(f"word{n} of rule",),
        )
        for n in range(1000)
    ]
    error = LLMError(
        status=429, message="Rate limit reached for gpt-4o on tokens per min (TPM): Limit 1, Used 1. " * 2
    )
    few, many = RuleSet(rule_set().rules), RuleSet([*rule_set().rules, *more])

    def cost(rules: RuleSet) -> float:
        best = 1.0
        for _ in range(5):
            start = time.process_time()
            for _ in range(100):
                rules.decide(error)
            best = min(best, time.process_time() - start)
        return best

    assert cost(many) < 2 * cost(few)


def test_the_facts_of_a_chain():
    facts = Facts(chain("openai.APIConnectionError", "httpx.ConnectError", "ssl.SSLError"))
    assert facts.classes["SSLError"] == facts.classes["ssl.SSLError"] == 3
    assert facts.outermost == {"openai.APIConnectionError", "APIConnectionError"}
