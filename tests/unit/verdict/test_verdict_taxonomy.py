"""The vocabulary, against what the project's taxonomy says; written by hand from its tables."""

from __future__ import annotations

import pytest

from otel_triage.model import Owner, Retryable, Severity
from otel_triage.verdict.taxonomy import Reason, all_reasons, reason

REASONS = {
    "rate_limit": "requests tokens daily_limit quota_exhausted concurrency unspecified",
    "timeout": "connect read stream_stall upstream pool",
    "invalid_request": "context_length payload_too_large unsupported_parameter invalid_parameter "
    "malformed_messages invalid_schema model_not_found invalid_media unspecified",
    "authentication_error": "invalid_key missing_key expired_credentials permission_denied region_blocked",
    "provider_error": "internal overloaded unavailable resource_exhausted bad_response",
    "network_error": "dns connection_refused connection_reset stream_interrupted tls proxy unspecified",
    "code_bug": "type_error lookup_error dependency async_misuse serialization validation "
    "configuration other",
    "prompt_issue": "content_filter refusal output_truncated unparseable_output schema_violation "
    "invalid_tool_call empty_output loop_limit template_error",
    "unclassified": "unknown cancelled",
}
RETRYABLE = {
    "rate_limit": "requests tokens concurrency unspecified",
    "timeout": "connect read stream_stall upstream pool",
    "provider_error": "internal overloaded unavailable resource_exhausted bad_response",
    "network_error": "dns connection_refused connection_reset stream_interrupted unspecified",
    "prompt_issue": "unparseable_output schema_violation invalid_tool_call empty_output",
}
HIGH = {
    "rate_limit": "quota_exhausted",
    "authentication_error": "invalid_key missing_key expired_credentials permission_denied region_blocked",
    "network_error": "tls",
}
MEDIUM = {
    "rate_limit": "daily_limit",
    "network_error": "dns connection_refused proxy",
}
MEDIUM_CATEGORIES = {"provider_error", "code_bug", "invalid_request"}
OWNERS = {
    "rate_limit": "account", "timeout": "provider", "invalid_request": "application",
    "authentication_error": "account", "provider_error": "provider", "network_error": "network",
    "code_bug": "application", "prompt_issue": "prompt", "unclassified": "application",
    "timeout/connect": "network", "timeout/pool": "application",
}  # fmt: skip


def among(table: dict[str, str], found: Reason) -> bool:
    return found.reason in table.get(found.category, "").split()


def test_exactly_these_reasons_exist():
    assert [(r.category, r.reason) for r in all_reasons()] == [
        (category, name) for category, names in REASONS.items() for name in names.split()
    ]


@pytest.mark.parametrize("found", all_reasons(), ids=lambda r: r.key)
def test_defaults(found):
    later = found.key == "rate_limit/daily_limit"
    yes = among(RETRYABLE, found)
    expected = Retryable.LATER if later else Retryable.YES if yes else Retryable.NO
    assert found.retryable is expected
    assert found.owner is Owner(OWNERS.get(found.key, OWNERS[found.category]))
    medium = among(MEDIUM, found) or found.category in MEDIUM_CATEGORIES
    severity = Severity.HIGH if among(HIGH, found) else Severity.MEDIUM if medium else Severity.LOW
    assert found.severity is severity
    assert found.covers


def test_an_unknown_reason_names_the_right_ones():
    with pytest.raises(ValueError, match="timeout/never: timeout has connect, read, stream_stall"):
        reason("timeout", "never")
    with pytest.raises(ValueError, match="weather/rain: no such category"):
        reason("weather", "rain")
