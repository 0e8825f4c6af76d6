"""Classes that nobody has listed, known by the word that they end in."""

from __future__ import annotations

import pytest

from otel_triage.model import Cause, LLMError
from otel_triage.verdict.classify import classify
from otel_triage.verdict.names import families


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("acme.LlmConfigurationError", ("*LlmConfiguration", "*Configuration")),
        ("com.acme.ModelTimeoutException", ("*ModelTimeout", "*Timeout")),
        ("LangChainDeprecationWarning", ("*LangChainDeprecation", "*ChainDeprecation", "*Deprecation")),
        ("RubyLLM::ContextLengthExceededError", ("*ContextLengthExceeded", "*LengthExceeded", "*Exceeded")),
        ("MaxTurnsExceeded", ("*MaxTurnsExceeded", "*TurnsExceeded", "*Exceeded")),
        ("ValidationError", ("*Validation",)),
        ("Error", ()),
        ("APIError", ("*API",)),
        ("TimeoutExpired", ()),
    ],
)
def test_families_are_the_last_words_before_error(name: str, expected: tuple[str, ...]) -> None:
    assert families(name) == expected


def test_an_unlisted_class_is_known_by_its_family_wherever_it_stands_in_the_chain() -> None:
    alone = classify(LLMError(error_type="acme.BotSettingsError", message="nothing that is known"))
    inner = classify(
        LLMError(
            error_type="acme.RunFailed",
            message="it failed",
            causes=(Cause("acme.RunFailed", "it failed"), Cause("acme.BotSettingsError", "it failed")),
        )
    )
    assert {(v.category, v.reason) for v in (alone, inner)} == {("code_bug", "configuration")}


def test_a_status_beats_a_family() -> None:
    verdict = classify(LLMError(error_type="acme.BotSettingsError", status=503, message="it failed"))
    assert verdict.category == "provider_error"
