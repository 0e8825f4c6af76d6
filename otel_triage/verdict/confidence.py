"""How sure a verdict is: the share of verdicts with the same support that were right, measured.

`calibration.toml` holds the counts. They come from labelled errors that no author of a rule has read;
`python -m otel_triage.verdict.calibrate` makes them. Right means category and reason.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from otel_triage.model import Candidate
from otel_triage.verdict import data
from otel_triage.verdict.rules import Match

_SURE: Final = 0.7  # the model's own probability
_ENOUGH: Final = 8  # errors, below which a coarser row is asked
_STEPS: Final = (0.5, 0.7, 0.85)


def support(match: Match, found: tuple[Candidate, ...]) -> str:
    """What speaks for a rule's verdict: its strength and, where the model was asked, what that says."""
    if not found:
        return match.strength
    best = found[0]
    if best.verdict == match.rule.verdict:
        agreement = "same, sure" if best.confidence >= _SURE else "same"
    else:
        agreement = "akin" if best.category == match.rule.category else "other"
    return f"{match.strength}, model {agreement}"


def step(probability: float) -> str:
    """The row for a model's own probability."""
    return f"model {max((one for one in _STEPS if one <= probability), default=0.0)}"


def laplace(right: int, errors: int) -> float:
    """The expected share of right ones, with one more of each kind than was counted."""
    return round((right + 1) / (errors + 2), 3)


@cache
def _counts() -> dict[str, Any]:
    found: dict[str, Any] = data.load()["calibration"]
    return found


def _share(row: str) -> float | None:
    right, errors = _counts()["rows"].get(row, (0, 0))
    return laplace(right, errors) if errors >= _ENOUGH else None


def of_rule(match: Match, found: tuple[Candidate, ...]) -> float:
    """The confidence of a rule's verdict; a support that was never met counts as its tier does."""
    tier = match.rank[0].name.lower()
    rows = (support(match, found), match.strength, tier)
    return next((share for row in rows if (share := _share(row)) is not None), match.rule.confidence)


def of_model(probability: float) -> float:
    """The confidence of a verdict that the model alone gives."""
    return _share(step(probability)) or probability


def of_rival(match: Match) -> float:
    """How likely the next best rule is right where the verdict is contested."""
    return _share(f"{match.strength}, rival") or 0.0
