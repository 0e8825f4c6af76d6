"""The parameter that a provider names, as a condition of rules."""

from __future__ import annotations

import pytest

from otel_triage.facts.records import facts_of_text
from otel_triage.verdict.classify import classify
from otel_triage.verdict.names import param_names


@pytest.mark.parametrize(
    ("param", "names"),
    [
        ("messages", {"messages"}),
        ("messages[0].content", {"messages", "messages[0].content"}),
        ("body.messages.0.role", {"messages", "messages.0.role"}),
        ("Temperature ", {"temperature"}),
        ("0", {"0"}),
    ],
)
def test_a_parameter_is_known_by_its_path_and_its_first_name(param: str, names: set[str]) -> None:
    assert param_names(param) == names


@pytest.mark.parametrize(
    ("param", "reason"),
    [
        ("messages[2].content", "malformed_messages"),
        ("response_format", "invalid_schema"),
        ("model", "model_not_found"),
        ("top_p", "invalid_parameter"),
        ("something", "unspecified"),
    ],
)
def test_the_parameter_decides_where_the_words_say_nothing(param: str, reason: str) -> None:
    body = f'{{"error": {{"message": "No.", "type": "invalid_request_error", "param": "{param}"}}}}'
    verdict = classify(facts_of_text("BadRequestError", f"Error code: 400 - {body}"))
    assert (verdict.category, verdict.reason) == ("invalid_request", reason)
