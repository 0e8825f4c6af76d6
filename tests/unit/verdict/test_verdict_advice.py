"""Texts for the person on call: in three languages, for every reason, filled from facts only, short."""

# ruff: noqa: E501, RUF001 - texts as they are; Japanese and Chinese punctuation is meant
from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_triage.facts.providers import _data as providers
from otel_triage.model import BrokeAt, Cause, LLMError, Retryable
from otel_triage.verdict import advice, build, data
from otel_triage.verdict.advice import for_people, languages, texts
from otel_triage.verdict.classify import classify
from otel_triage.verdict.taxonomy import all_reasons

TABLES = build.advice()
LANGUAGES = ("en", "ja", "zh")
REASONS = [key for key in TABLES["en"] if "/" in key]
DEFAULTS = {found.key: found.retryable for found in all_reasons()}
ALWAYS = {"provider", "model"}
FACTS = ALWAYS | {
    "status", "code", "wait", "attempts", "where", "host", "chunks", "exception", "finish_reason",
    "output_tokens", "max_tokens", "known_model", "context_limit", "requested_tokens", "excess",
    "limit", "used", "requested", "over", "size", "size_limit", "parameter", "given", "allowed",
}  # fmt: skip

# The longest that is plausible: a Bedrock model, Azure's name, numbers of nine digits.
RICH: dict[str, Any] = {
    "provider": "azure.ai.openai",
    "model": "anthropic.claude-3-5-sonnet-20241022-v2:0",
    "status": 429,
    "code": "invalid_request_error",
    "param": "messages.125.content.1.tool_use",
    "context_limit": 1_048_576,
    "requested_tokens": 2_845_475,
    "max_tokens": 128_000,
    "output_tokens": 128_000,
    "attempts": 10,
    "stream_chunks": 1_204,
    "broke_at": BrokeAt.STREAM,
    "server_address": "my-resource-eastus2.openai.azure.com",
    "finish_reasons": ("MALFORMED_FUNCTION_CALL",),
    "causes": (Cause("openai._exceptions.APIResponseValidationError"),),
}
WORDS = {
    "rate_limit": "tokens per min (TPM): Limit 30,000,000, Used 30,000,000, Requested 130,000,000",
    "payload_too_large": "Maximum content size limit (26214400) exceeded (222592852 bytes read)",
    "invalid_parameter": "expected a value <= 128,000, but got 1,048,576 instead",
}


def fill(key: str, facts: dict[str, Any], language: str, wait_s: float | None = None) -> tuple[str, str]:
    """The texts of a table's key, with the retryability that it is for."""
    reason, _, retryable = key.partition(":")
    if facts:
        category, name = reason.split("/")
        facts = facts | {"message": WORDS.get(name) or WORDS.get(category)}
    return texts(
        LLMError(**facts), reason, Retryable(retryable or DEFAULTS[reason]), wait_s, language=language
    )


def places(template: str) -> set[str]:
    return set(re.findall(r"\{(\w+)\}", template))


def test_the_languages() -> None:
    assert languages() == LANGUAGES
    assert set(TABLES) == {*LANGUAGES, "names"}


def test_every_reason_has_texts_and_every_text_a_reason() -> None:
    assert {key.partition(":")[0] for key in REASONS} == set(DEFAULTS)
    assert all(key.partition(":")[2] in ("", *Retryable) for key in REASONS)
    assert all(
        Retryable(kind) is not DEFAULTS[r] for r, _, kind in (k.partition(":") for k in REASONS) if kind
    )


@pytest.mark.parametrize("language", ["ja", "zh"])
def test_every_language_has_the_same_texts_with_the_same_facts(language: str) -> None:
    english, other = TABLES["en"], TABLES[language]
    assert list(other) == list(english)
    for table in ("words", "units", "where"):
        assert other[table].keys() == english[table].keys()
    for key in REASONS:
        for part in ("cause", "action"):
            # The provider and the model may be named in one language and meant in another.
            assert places(other[key][part]) - ALWAYS == places(english[key][part]) - ALWAYS, (key, part)


@pytest.mark.parametrize("language", LANGUAGES)
def test_stages_and_units(language: str) -> None:
    assert TABLES[language]["where"].keys() == set(BrokeAt)
    assert all(text.count("{}") == 1 for text in TABLES[language]["units"].values())


def test_every_known_provider_has_a_name() -> None:
    known = {row["name"] for row in providers()["provider"]} | set(providers()["names"])
    assert known <= set(TABLES["names"])


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("key", REASONS)
def test_places_of_a_template(key: str, language: str) -> None:
    assert set(TABLES[language][key]) == {"cause", "action"}
    for template in TABLES[language][key].values():
        assert places(template) <= FACTS
        bare = re.sub(r"\[[^\]|]*\|?([^\]]*)\]", r"\1", template)
        assert places(bare) <= ALWAYS, "a fact that may be unknown needs [ ]"
        assert re.sub(r"\[[^\[\]]*\]", "", template).count("[") == 0, "nested or open"


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("key", REASONS)
@pytest.mark.parametrize("facts", [{}, RICH], ids=["bare", "rich"])
def test_filled_texts_read_well(key: str, facts: dict[str, Any], language: str) -> None:
    for text in fill(key, facts, language, 2_592_000.0 if facts else None):
        assert 2 <= len(text) <= 200
        assert not re.search(r"  | [.,;:，。、；：（）]|\(\)|（）|[{}|]| $|^ |[，。、]{2}", text), text
        assert text.endswith("." if language == "en" else "。"), text
        assert not re.match(r"[a-z]", text) or text.startswith((RICH["model"], "my-")), text


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("key", REASONS)
def test_no_plausible_fact_is_too_long(key: str, language: str) -> None:
    """The longest plausible facts all fit, so that nothing is left out of a real text."""
    reason = key.partition(":")[0]
    words = WORDS.get(reason.split("/")[1]) or WORDS.get(reason.split("/")[0])
    facts = advice._facts(LLMError(**RICH, message=words), reason, 2_592_000.0, language)
    for template in TABLES[language][key].values():
        whole = advice._render(template, TABLES[language]["words"], facts, 99)
        assert len(whole) <= 200, f"{len(whole)}: {whole}"


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("key", REASONS)
def test_the_longest_names_leave_whole_sentences(key: str, language: str) -> None:
    longest = RICH | {"provider": "p" * 60, "model": "m" * 60, "server_address": "h" * 80, "code": "c" * 40}
    for text in fill(key, longest, language, 38.0):
        assert len(text) <= 200
        assert text.endswith("." if language == "en" else "。"), text


def test_what_is_too_long_loses_its_optional_parts() -> None:
    error = LLMError(provider="p" * 60, model="m" * 60, status=403)
    cause, _ = texts(error, "authentication_error/permission_denied", Retryable.NO)
    assert cause == (
        f"The key is valid, but {'p' * 60} does not allow this use: a role, scope, plan or model access is missing."
    )


# How each language tells to retry, and how it says that a retry is of no use.
RETRY = {"en": "etry|retrying", "ja": "再試行", "zh": "重试"}
TOLD = {
    "en": r"(?:^|\. |then |and )[Rr]etry\b",
    "ja": r"再試行してください",
    "zh": r"请(?:以递增的间隔)?重试|然后重试|，重试。",
}
USELESS = {"en": "retry cannot|retry will not", "ja": "再試行しても", "zh": "重试不会"}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("key", REASONS)
def test_the_action_says_what_the_verdict_says_of_a_retry(key: str, language: str) -> None:
    reason, _, kind = key.partition(":")
    action = fill(key, {}, language)[1]
    match Retryable(kind or DEFAULTS[reason]):
        case Retryable.YES:
            assert re.search(TOLD[language], action), action
            assert not re.search(USELESS[language], action), action
        case Retryable.LATER:
            assert re.search(RETRY[language], action), action
            assert not re.search(USELESS[language], action), action
        case Retryable.NO:
            assert not re.search(TOLD[language], action), action


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("key", [key for key in REASONS if not key.startswith("rate_limit/quota_exhausted")])
def test_a_stated_wait_is_told(key: str, language: str) -> None:
    reason, _, kind = key.partition(":")
    if Retryable(kind or DEFAULTS[reason]) is not Retryable.NO:
        action = fill(key, {}, language, 38.0)[1]
        assert {"en": "38 s", "ja": "38秒", "zh": "38 秒"}[language] in action


def test_what_rules_decide_has_words_of_its_own() -> None:
    """A rule whose verdict is retried otherwise than its reason's default needs a text for that."""
    for rule in data.load()["rules"]:
        if rule.get("retryable", DEFAULTS[rule["verdict"]]) != DEFAULTS[rule["verdict"]]:
            assert f"{rule['verdict']}:{rule['retryable']}" in REASONS, rule["id"]


CASES: dict[str, tuple[LLMError, dict[str, tuple[str, str]]]] = {
    "context length": (
        LLMError(
            provider="openai",
            model="gpt-4o",
            status=400,
            code="context_length_exceeded",
            message="This model's maximum context length is 128000 tokens. However, your messages resulted in "
            "131204 tokens.",
        ),
        {
            "en": (
                "A request of 131,204 tokens exceeds gpt-4o's window of 128,000 tokens.",
                "Shorten the prompt or history by at least 3,204 tokens, lower max_tokens, or use a model with a "
                "larger window. A retry cannot work.",
            ),
            "ja": (
                "131,204トークンのリクエストがgpt-4oのコンテキスト長（128,000トークン）を超えています。",
                "プロンプトや履歴を3,204トークン以上短縮するか、max_tokensを下げるか、コンテキスト長の大きいモデルを"
                "使ってください。再試行しても成功しません。",
            ),
            "zh": (
                "131,204 token 的请求超出了 gpt-4o 的上下文窗口（128,000 token）。",
                "请将提示词或历史消息缩短至少 3,204 token、调低 max_tokens，或改用上下文窗口更大的模型。重试不会成功。",
            ),
        },
    ),
    "tokens per minute": (
        LLMError(
            provider="openai",
            model="gpt-4o",
            status=429,
            message="Rate limit reached for gpt-4o on tokens per min (TPM): Limit 30000, Used 14567, Requested 24754. "
            "Please try again in 18.642s.",
        ),
        {
            "en": (
                "The account's limit of 30,000 tokens per minute at OpenAI is reached: 14,567 used, 24,754 more asked "
                "for.",
                "Retry after 19 s. If it goes on: shorten prompts, lower max_tokens, or ask OpenAI for a higher limit.",
            ),
            "zh": (
                "该账户在 OpenAI 的每分钟 token 数已达上限（30,000），已用 14,567，本次请求 24,754。",
                "请在 19 秒后重试。若持续出现，请缩短提示词、调低 max_tokens，或申请提高上限。",
            ),
        },
    ),
    "one request above the limit": (
        LLMError(
            provider="groq",
            status=413,
            message="Request too large for model `llama` on tokens per minute (TPM): Limit 6000, Requested 12328",
        ),
        {
            "en": (
                "This one request of 12,328 tokens is above what the account may use in a minute at Groq: 6,000 "
                "tokens.",
                "Shorten or split the prompt by at least 6,328 tokens, lower max_tokens, or ask for a higher limit. A "
                "retry cannot work.",
            ),
        },
    ),
    "output cap": (
        LLMError(
            provider="anthropic",
            status=400,
            message="max_tokens: 8192 > 4096, which is the maximum allowed number of output tokens for claude-3-haiku",
        ),
        {
            "en": (
                "The parameter max_tokens is 8,192, which Anthropic does not allow; allowed: ≤ 4,096.",
                "Correct max_tokens (allowed: ≤ 4,096) in the code that builds the request. A retry cannot work.",
            ),
        },
    ),
    "nothing listens": (
        LLMError(server_address="localhost", causes=(Cause("ConnectionRefusedError"),)),
        {
            "en": (
                "Nothing answers at localhost.",
                "Check that the server runs and that host and port in the base URL are right, then firewall and "
                "network policy; then retry.",
            ),
        },
    ),
    "an unknown service": (
        LLMError(status=503, message="overloaded"),
        {
            "zh": (
                "服务商目前没有足够的容量运行该模型（HTTP 503），与账户自身的限额无关。",
                "请以递增的间隔重试。若持续出现，请切换到其他模型或区域。",
            ),
        },
    ),
}


@pytest.mark.parametrize(("name", "language"), [(name, lang) for name in CASES for lang in CASES[name][1]])
def test_texts_of_a_case(name: str, language: str) -> None:
    error, expected = CASES[name]
    verdict = classify(error, language=language)
    assert (verdict.root_cause, verdict.suggested_action) == expected[language]


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Z"]), min_size=12, max_size=80))
def test_the_message_is_never_echoed(message: str) -> None:
    for found in all_reasons():
        for text in texts(LLMError(message=message), found.key, found.retryable):
            assert message not in text


HOSTILE = [
    "<!channel>", "http://evil.example/x", "a b\nc", "{wait}", "[x]", "[x|y]", "x" * 200, "<script>", "@here",
    "gpt@here", "x@channel", "gpt-4o\u202e", "`x`", "*x*", "a\u0000b", "x" * 30 + "/" + "y" * 100,
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_could_be_markup_is_not_used(name: str) -> None:
    hostile = LLMError(
        provider=name, model=name, code=name, param=name, server_address=name, finish_reasons=(name,),
        error_type=name, causes=(Cause(name),),
    )  # fmt: skip
    for key in REASONS:
        reason, _, retryable = key.partition(":")
        kind = Retryable(retryable or DEFAULTS[reason])
        for language in LANGUAGES:
            nothing = texts(LLMError(), reason, kind, language=language)
            assert texts(hostile, reason, kind, language=language) == nothing


def test_a_long_path_is_named_by_its_last_part() -> None:
    arn = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-3-5-sonnet-20241022-v2:0"
    named, _ = texts(LLMError(model=arn), "prompt_issue/refusal", Retryable.NO)
    assert named == "us.anthropic.claude-3-5-sonnet-20241022-v2:0 declined to answer."
    versioned, _ = texts(LLMError(model="claude-3-5-sonnet@20240620"), "prompt_issue/refusal", Retryable.NO)
    assert versioned == "claude-3-5-sonnet@20240620 declined to answer."


def test_a_name_keeps_its_case_at_the_beginning_of_a_sentence() -> None:
    named, _ = texts(LLMError(model="gpt-4o-mini"), "prompt_issue/empty_output", Retryable.YES)
    assert named == "gpt-4o-mini answered successfully, but without any content."
    unnamed, _ = texts(LLMError(), "prompt_issue/empty_output", Retryable.YES)
    assert unnamed == "The model answered successfully, but without any content."
    host, _ = texts(LLMError(server_address="localhost"), "network_error/dns", Retryable.YES, language="ja")
    assert host == "localhostを名前解決できませんでした。"


def test_a_missing_language_gives_english() -> None:
    error = LLMError(provider="openai")
    for language in ("eo", "names"):
        assert texts(error, "timeout/read", Retryable.YES, language=language) == texts(
            error, "timeout/read", Retryable.YES
        )


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.02, ("1 s", "1秒", "1 秒")),
        (18.6, ("19 s", "19秒", "19 秒")),
        (360, ("6 min", "6分", "6 分钟")),
        (45256, ("13 h", "13時間", "13 小时")),
        (86400, ("24 h", "24時間", "24 小时")),
        (1036800, ("12 days", "12日", "12 天")),
    ],
)
def test_waits_for_people(seconds: float, told: tuple[str, str, str]) -> None:
    assert tuple(for_people(seconds, language) for language in LANGUAGES) == told
