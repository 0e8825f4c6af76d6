"""The figures of an evaluation in words, for the terminal and the page alike."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from otel_triage.cli.evaluate import ABSTAINED, CONFIDENT, Evaluation, Score, Share

NONE: Final = "-"


class Figure(NamedTuple):
    """A figure as it is shown: what, how much, and of how many."""

    name: str
    value: str
    detail: str


class Group(NamedTuple):
    """Figures that belong together."""

    name: str
    figures: tuple[Figure, ...]


def percent(ratio: float | None) -> str:
    """`97.4 %`, or a dash of nothing."""
    return NONE if ratio is None else f"{ratio:.1%}".replace("%", " %")


def decimal(ratio: float | None) -> str:
    """`0.974`, or a dash of nothing."""
    return NONE if ratio is None else f"{ratio:.3f}"


def counts(share: Share) -> str:
    """`3 of 40`."""
    return f"{share.part:,} of {share.of:,}"


def plain(name: str) -> str:
    """A category as it is shown."""
    return "abstained" if name == ABSTAINED else name


def worth_showing(scores: Iterable[Score]) -> list[Score]:
    """Without abstentions, unless a label asks for them: they are shown apart."""
    return [one for one in scores if one.support or not one.name.startswith(ABSTAINED)]


def groups(evaluation: Evaluation) -> tuple[Group, ...]:
    """Every single figure, in order."""
    of = evaluation
    unanswered = Share(of.answered.of - of.answered.part, of.answered.of)
    return (
        Group(
            "Verdicts",
            (
                _among("category right", of.category, of.category_answered),
                _among("category and reason right", of.reason, of.reason_answered),
                Figure("macro-F1", decimal(of.macro_f1), "mean over the labelled categories"),
                _share("answered", of.answered),
                _share("abstained", unanswered),
            ),
        ),
        Group(
            "Confidence, of those answered",
            (
                Figure("ECE", decimal(of.calibration.ece), "right: category and reason"),
                Figure("ECE of the category", decimal(of.calibration_category.ece), "right: category"),
                _share(f"at {CONFIDENT} or more, of all", of.confident),
                _share(f"right at {CONFIDENT} or more", of.confident_right),
            ),
        ),
        Group(
            "Retry advice, of those answered",
            (
                _share("advice right", of.retryable),
                _share("exhausted quota called retryable", of.quota_retried, _apart(of.quota_abstained)),
                _share("transient called terminal", of.transient_refused, _apart(of.transient_abstained)),
            ),
        ),
        Group(
            "From record to verdict and fingerprint, cold",
            (
                Figure("median", f"{of.latency.median_us:,.0f} µs", f"{of.latency.timings:,} timings"),
                Figure("99th percentile", f"{of.latency.p99_us:,.0f} µs", f"{of.latency.timings:,} timings"),
            ),
        ),
    )


def _share(name: str, share: Share, more: str = "") -> Figure:
    return Figure(name, percent(share.ratio), " ".join(part for part in (counts(share), more) if part))


def _among(name: str, of_all: Share, of_answered: Share) -> Figure:
    return _share(name, of_all, f"({percent(of_answered.ratio)} of those answered)")


def _apart(abstained: Share) -> str:
    return f"({abstained.part:,} more abstained)" if abstained.part else ""
