"""The verdict on an error: by rules, and where they know little by a second opinion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from otel_triage.facts.amounts import rate_amounts
from otel_triage.model import Candidate, LLMError, Retryable, Source, Verdict
from otel_triage.verdict import advice, confidence, data, fingerprint, rules, taxonomy
from otel_triage.verdict.rule import Tier

_UNKNOWN: Final = ("unclassified", "unknown")
_ANSWERS: Final = 0.4
"""The probability from which a second opinion answers where no rule matches."""

_OVERRULES: Final = 0.6
"""The probability from which a second opinion beats a rule that rests on a kind or a status only."""

_AMBIGUOUS: Final = 0.75
"""Below this confidence the next best verdict is named as well."""

Second = Callable[[LLMError], tuple[Candidate, ...]]
"""A second opinion: the likeliest verdicts with their probabilities, best first (`text_model.predict`)."""


def version() -> str:
    """Package version and hash of the rule set, as a verdict carries it: `0.1.0+rules.1a2b3c4d`."""
    return data.version()


@dataclass(frozen=True, slots=True)
class _Decision:
    """Category and reason with all that speaks for and against them."""

    category: str
    reason: str
    confidence: float
    source: Source = Source.RULES
    retryable: Retryable | None = None
    alternative: Candidate | None = None
    explain: str = "no rule matches"


def _by_model(found: tuple[Candidate, ...], match: rules.Match | None) -> _Decision:
    best = found[0]
    alternative = found[1] if len(found) > 1 and best.confidence < _AMBIGUOUS else None
    told = f"text model: {best.confidence:.2f} for {best.category}/{best.reason}"
    return _Decision(
        best.category,
        best.reason,
        confidence.of_model(best.confidence),
        Source.MODEL,
        alternative=alternative,
        explain=f"{told}; {explain(match)}" if match else told,
    )


def _by_rule(match: rules.Match, found: tuple[Candidate, ...]) -> _Decision:
    rule = match.rule
    sure = confidence.of_rule(match, found)
    alternative = None
    if sure < _AMBIGUOUS and match.rival is not None:
        alternative = Candidate(
            category=match.rival.category, reason=match.rival.reason, confidence=confidence.of_rival(match)
        )
    elif sure < _AMBIGUOUS:
        alternative = next((one for one in found if one.verdict != rule.verdict), None)
    return _Decision(
        rule.category,
        rule.reason,
        sure,
        retryable=rule.retryable,
        alternative=alternative,
        explain=explain(match),
    )


def _decide(error: LLMError, second: Second | None) -> _Decision:
    match = rules.rule_set().decide(error)
    asked = second is not None and (match is None or not match.settled)
    found = second(error) if second is not None and asked else ()
    if match is None:
        answers = found and found[0].confidence >= _ANSWERS
        return _by_model(found, None) if answers else _Decision(*_UNKNOWN, 0.0)
    weak = match.rank[0] <= Tier.KIND
    sure = found and found[0].confidence >= _OVERRULES
    if weak and sure and found[0].verdict != match.rule.verdict:
        return _by_model(found, match)
    return _by_rule(match, found)


def _never_fits(error: LLMError) -> bool:
    """Whether the refused call alone is above the limit, so that no wait helps (taxonomy.md, close calls)."""
    stated = rate_amounts(error.message or "")
    return stated.limit is not None and stated.requested is not None and stated.requested > stated.limit


def classify(error: LLMError, *, language: str = "en", second: Second | None = None) -> Verdict:
    """What an error means; `unclassified/unknown` with confidence 0 where nobody knows.

    Pure: no I/O but reading our own data once, no clock.

    Args:
        error: the facts of one failed or silently wrong call. It need not be an LLM error:
            the caller says that it is.
        language: of the texts of cause and action (`en`, `ja`, `zh`).
        second: whom to ask where rules know little; nobody in the application, which runs rules alone.
    """
    decided = _decide(error, second)
    found = taxonomy.reason(decided.category, decided.reason)
    retryable = decided.retryable or found.retryable
    if decided.category == "rate_limit" and _never_fits(error):
        retryable = Retryable.NO
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
        confidence=decided.confidence,
        source=decided.source,
        root_cause=cause,
        suggested_action=action,
        fingerprint=fingerprint.fingerprint(error),
        version=version(),
        retry_after_s=wait_s,
        alternative=decided.alternative,
        explain=decided.explain,
    )


def explain(match: rules.Match) -> str:
    """Which rule decided, on what facts, and what the rule rests on."""
    facts = ", ".join(match.facts)
    return f"rule {match.rule.id} ({match.strength}): {facts}; source {match.rule.source}"
