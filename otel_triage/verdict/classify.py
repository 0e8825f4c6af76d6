"""The verdict on an error, by rules alone."""

from __future__ import annotations

from otel_triage.model import LLMError, Retryable, Source, Verdict
from otel_triage.verdict import advice, data, fingerprint, rules, taxonomy

_UNKNOWN = ("unclassified", "unknown")


def version() -> str:
    """Package version and hash of the rule set, as a verdict carries it: `0.1.0+rules.1a2b3c4d`."""
    return data.version()


def classify(error: LLMError, *, language: str = "en") -> Verdict:
    """What an error means, as far as rules know; `unclassified/unknown` with confidence 0 else.

    Pure: no I/O but reading our own data once, no clock.

    Args:
        error: the facts of one failed or silently wrong call. It need not be an LLM error:
            the caller says that it is.
        language: of the texts of cause and action (`en`).
    """
    match = rules.rule_set().decide(error)
    rule = match.rule if match else None
    found = taxonomy.reason(rule.category, rule.reason) if rule else taxonomy.reason(*_UNKNOWN)
    retryable = (rule.retryable if rule else None) or found.retryable
    wait_s = None if retryable is Retryable.NO else advice.stated_wait_s(error, found.key)
    if retryable is Retryable.YES and wait_s is not None and wait_s > advice.LONG_WAIT_S:
        retryable = Retryable.LATER
    cause, action = advice.texts(error, found.key, retryable, wait_s, language=language)
    return Verdict(
        category=found.category,
        reason=found.reason,
        severity=found.severity,
        retryable=retryable,
        owner=found.owner,
        confidence=rule.confidence if rule else 0.0,
        source=Source.RULES,
        root_cause=cause,
        suggested_action=action,
        fingerprint=fingerprint.fingerprint(error),
        version=version(),
        retry_after_s=wait_s,
        explain=explain(match),
    )


def explain(match: rules.Match | None) -> str:
    """Which rule decided, on what facts, and what the rule rests on."""
    if match is None:
        return "no rule matches"
    facts = ", ".join(match.facts)
    return f"rule {match.rule.id} ({match.rank[0].name.lower()}): {facts}; source {match.rule.source}"
