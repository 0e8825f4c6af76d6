"""litellm and langchain with Sentry integrations for both, and for openai below: one event a failure."""

from __future__ import annotations

from typing import Any

import pytest
from sentry_runs import Run, run


@pytest.fixture(scope="module")
def ran(provider: Any) -> Run:
    step = {"integration": {}, "run": ["litellm_call", "langchain_call"]}
    return run(provider.url, step, app="sentry_frameworks_app.py")[0]


@pytest.mark.parametrize("scenario", ["litellm_call", "langchain_call"])
def test_one_failure_is_one_event(ran: Run, scenario: str) -> None:
    event = ran.event(scenario)
    tags = {name: value for name, value in event["tags"].items() if name.startswith("triage.")}
    # sentry_sdk 2.75 captures nothing of litellm 1.110 at the call: what comes is the application's own.
    at_call = scenario == "langchain_call"
    assert tags == ({"triage.captured": "at_call"} if at_call else {}) | {
        "triage.category": "rate_limit",
        "triage.reason": "quota_exhausted",
        "triage.severity": "high",
        "triage.retryable": "no",
        "triage.owner": "account",
        "triage.provider": "openai",
        "triage.model": "gpt-4o",
        "triage.outcome": "failed",
    }
    assert event["fingerprint"] == ["otel-triage", "openai", "rate_limit", "quota_exhausted"]
    handled = {one["mechanism"].get("handled", "unsaid") for one in event["exception"]["values"]}
    assert handled == ({"unsaid"} if at_call else {True})
    assert event["contexts"]["triage"]["provider.error_code"] == "insufficient_quota"
