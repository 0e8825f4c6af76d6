"""A verdict for tests that need one and not what it says."""

from __future__ import annotations

from typing import Any

from otel_triage.model import Owner, Retryable, Severity, Source, Verdict


def verdict(**fields: Any) -> Verdict:
    """Too many tokens a minute, by rules, with these fields in place of its own."""
    told: dict[str, Any] = {
        "category": "rate_limit",
        "reason": "tokens",
        "severity": Severity.LOW,
        "retryable": Retryable.YES,
        "owner": Owner.ACCOUNT,
        "confidence": 0.9,
        "source": Source.RULES,
        "root_cause": "Too many tokens.",
        "suggested_action": "Wait.",
        "fingerprint": "f:1",
        "version": "1",
    }
    return Verdict(**told | fields)
