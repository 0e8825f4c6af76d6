"""Texts for the person on call: present for every reason, filled from facts only, short."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_triage.model import LLMError, Retryable
from otel_triage.verdict import build
from otel_triage.verdict.advice import cut, for_people, texts, wait_in
from otel_triage.verdict.taxonomy import all_reasons

TABLE = build.advice()["en"]
ALWAYS = {"provider", "model"}
FACTS = ALWAYS | {
    "status",
    "code",
    "wait",
    "context_limit",
    "requested_tokens",
    "max_tokens",
    "requests_limit",
    "tokens_limit",
}
RICH = {
    "provider": "some-very-long-provider-name-of-a-gateway",
    "model": "organisation/some-long-model-name-70b-instruct-2025-01-01",
    "status": 429, "code": "some_code", "context_limit": 1_000_000, "requested_tokens": 1_200_000,
    "max_tokens": 128_000, "requests_limit": 10_000, "tokens_limit": 30_000_000,
}  # fmt: skip


def test_every_reason_has_texts_and_every_text_a_reason():
    known = {r.key for r in all_reasons()}
    assert {key.partition(":")[0] for key in TABLE if key != "words"} == known
    assert all(key.partition(":")[2] in ("", *Retryable) for key in TABLE if key != "words")


@pytest.mark.parametrize("key", [key for key in TABLE if key != "words"])
def test_places_of_a_template(key):
    for template in TABLE[key].values():
        assert set(re.findall(r"\{(\w+)\}", template)) <= FACTS
        bare = re.sub(r"\[[^\]]*\]", "", template)
        assert set(re.findall(r"\{(\w+)\}", bare)) <= ALWAYS, "a fact that may be unknown needs [ ]"


@pytest.mark.parametrize("key", [key for key in TABLE if key != "words"])
@pytest.mark.parametrize("facts", [{}, RICH], ids=["bare", "rich"])
def test_filled_texts_read_well(key, facts):
    reason, _, retryable = key.partition(":")
    for text in texts(LLMError(**facts), reason, Retryable(retryable or "yes"), 38.0 if facts else None):
        assert len(text) <= 200
        assert not re.search(r"[{}\[\]]|  | [.,;:]|\(\)", text), text
        assert text[0].isupper() or text.startswith(
            (str(facts.get("provider", " ")), str(facts.get("model", " ")))
        ), text
        assert text.endswith(".") or (facts and text.endswith("\u2026")), text
        assert facts or not text.endswith("\u2026"), "the template itself is too long"


def test_a_long_text_is_cut_between_words():
    assert cut("word " * 39 + "words") == "word " * 39 + "words"
    assert cut("word " * 39 + "wordss") == " ".join(["word"] * 39) + "\u2026"
    assert cut("one, " * 60) == " ".join(["one,"] * 38) + " one\u2026"


@given(st.text(st.characters(categories=["L", "N", "P", "S", "Z"]), min_size=12, max_size=80))
def test_the_message_is_never_echoed(message):
    for found in all_reasons():
        for text in texts(LLMError(message=message), found.key, found.retryable):
            assert message not in text


@pytest.mark.parametrize(
    "name", ["<!channel>", "http://evil.example/x", "a b\nc", "{wait}", "[x]", "x" * 200, "<script>"]
)
def test_a_name_that_could_be_markup_is_not_used(name):
    cause, action = texts(LLMError(provider=name, model=name), "provider_error/overloaded", Retryable.YES)
    expected = "The provider has too little capacity for the model at the moment. "
    assert cause == expected + "Your own limits are not the cause."
    assert action == "Retry with growing pauses. If it goes on: fail over to another model or region."


def test_a_name_keeps_its_case_at_the_beginning_of_a_sentence():
    named, _ = texts(LLMError(model="gpt-4o-mini"), "prompt_issue/empty_output", Retryable.YES)
    assert named == "gpt-4o-mini answered successfully, but without any content."
    unnamed, _ = texts(LLMError(), "prompt_issue/empty_output", Retryable.YES)
    assert unnamed == "The model answered successfully, but without any content."


def test_a_missing_language_gives_english():
    error = LLMError(provider="openai")
    assert texts(error, "timeout/read", Retryable.YES, language="eo") == texts(
        error, "timeout/read", Retryable.YES
    )


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Please try again in 18.642s.", 18.642),
        ("Please try again in 6m0s. Visit", 360.0),
        ("try again in 1h2m3.5s", 3723.5),
        ("Please try again in 20ms.", 0.02),
        ("Please retry after 86400 seconds.", 86400.0),
        ("try again after 1 seconds", 1.0),
        ("Please retry in 36.4s", 36.4),
        ("Your quota will reset after 12h34m16s", 45256.0),
        ('"retryDelay": "36s"', 36.0),
        ("please wait 2 minutes", 120.0),
        ("Please try again later.", None),
        ("Retry the request with 5 messages", None),
        ("after 30s", None),
        (None, None),
    ],
)
def test_waits_in_words(message, expected):
    assert wait_in(message) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.02, "1 s"), (18.6, "19 s"), (360, "6 min"), (86400, "24 h"), (45256, "13 h")]
)
def test_waits_for_people(seconds, text):
    assert for_people(seconds) == text
