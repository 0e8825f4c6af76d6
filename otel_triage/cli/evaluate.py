"""Verdicts measured against labels: how often right, how sure, how fast.

A verdict is right if category and reason are both right. An abstention (`unclassified`) is no
verdict: it is counted apart, and right only where the label says `unclassified` as well.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, Final

from otel_triage.cli.classify import verdict_of
from otel_triage.model import UNCLASSIFIED, Retryable, Verdict
from otel_triage.verdict import taxonomy

ABSTAINED: Final = UNCLASSIFIED
CONFIDENT: Final = 0.9
BINS: Final = 10
_QUOTA: Final = ("rate_limit", "quota_exhausted")
_TIMINGS: Final = 1000  # at least: the 99th percentile of a few is chance


class BadLabel(ValueError):
    """A label is missing or outside the taxonomy; the text says what is wrong and what would be right."""


@dataclass(frozen=True, slots=True)
class Labels:
    """What an error is, as a person says. `retryable` is None where nobody said."""

    category: str
    reason: str
    retryable: Retryable | None = None


def read_labels(record: Mapping[str, Any]) -> Labels:
    """The labels of a record.

    Raises:
        BadLabel: one is missing or not of the taxonomy.
    """
    reasons: dict[str, list[str]] = {}
    for known in taxonomy.all_reasons():
        reasons.setdefault(known.category, []).append(known.reason)
    category = _label(record, "category", reasons)
    reason = _label(record, "reason", reasons[category], f" of {category}")
    retryable = None
    if record.get("retryable") is not None:
        retryable = Retryable(_label(record, "retryable", [*Retryable]))
    return Labels(category, reason, retryable)


def _label(record: Mapping[str, Any], name: str, known: Iterable[str], of: str = "") -> str:
    value = record.get(name)
    if isinstance(value, str) and value in known:
        return value
    wrong = "is missing" if value is None else f"{str(value)[:40]!r} is none{of}"
    raise BadLabel(f"label {name} {wrong}: one of {', '.join(known)}")


@dataclass(frozen=True, slots=True)
class Case:
    """One labelled error, and the verdict on it. `line` is its number in the file, from 1."""

    line: int
    record: Mapping[str, Any]
    labels: Labels
    verdict: Verdict

    @property
    def answered(self) -> bool:
        """Whether there is a verdict at all."""
        return self.verdict.category != ABSTAINED

    @property
    def category_right(self) -> bool:
        """Whether the category is the label's."""
        return self.verdict.category == self.labels.category

    @property
    def right(self) -> bool:
        """Whether category and reason are the label's."""
        return self.category_right and self.verdict.reason == self.labels.reason


@dataclass(frozen=True, slots=True)
class Share:
    """So many of so many."""

    part: int
    of: int

    @property
    def ratio(self) -> float | None:
        """From 0 to 1; None of nothing."""
        return self.part / self.of if self.of else None


@dataclass(frozen=True, slots=True)
class Score:
    """How well one category or reason (`category/reason`) is told.

    `support` counts the labels, `given` the verdicts, `hits` those that agree.
    """

    name: str
    support: int
    given: int
    hits: int

    @property
    def precision(self) -> float | None:
        """Of those given, how many are right; None if none was given."""
        return Share(self.hits, self.given).ratio

    @property
    def recall(self) -> float | None:
        """Of those labelled so, how many were found; None if there is none."""
        return Share(self.hits, self.support).ratio

    @property
    def f1(self) -> float:
        """The harmonic mean of both; 0 without a hit."""
        return 2 * self.hits / (self.support + self.given) if self.hits else 0.0


@dataclass(frozen=True, slots=True)
class Bin:
    """The verdicts of one tenth of confidence: how many, their mean confidence, how many are right."""

    count: int
    confidence: float
    right: int

    @property
    def accuracy(self) -> float:
        """The share of right ones; 0 of none."""
        return self.right / self.count if self.count else 0.0


@dataclass(frozen=True, slots=True)
class Calibration:
    """Stated confidence beside what came true, in ten bins of equal width, over the answered ones."""

    bins: tuple[Bin, ...]

    @property
    def ece(self) -> float | None:
        """Expected calibration error: the mean distance of the two, weighted by counts; None of nothing."""
        total = sum(one.count for one in self.bins)
        if not total:
            return None
        return sum(one.count * abs(one.accuracy - one.confidence) for one in self.bins) / total


@dataclass(frozen=True, slots=True)
class Latency:
    """Microseconds from a record to its verdict with fingerprint, over so many timings."""

    median_us: float
    p99_us: float
    timings: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All figures. Shares are of all errors, unless a comment says of which.

    `confusion` counts (label, verdict) by category.
    """

    cases: tuple[Case, ...]
    answered: Share
    category: Share
    category_answered: Share  # of those answered
    reason: Share
    reason_answered: Share  # of those answered
    macro_f1: float
    categories: tuple[Score, ...]
    reasons: tuple[Score, ...]
    confusion: Mapping[tuple[str, str], int]
    calibration: Calibration
    calibration_category: Calibration
    confident: Share
    confident_right: Share  # of the confident
    retryable: Share  # of those answered whose label says it
    quota_retried: Share  # exhausted quotas called `yes`, of those answered
    quota_abstained: Share
    transient_refused: Share  # label `yes`, called `no`, of those answered
    transient_abstained: Share
    latency: Latency


def evaluate(cases: Sequence[Case]) -> Evaluation:
    """Every figure over at least one case. Times each record anew, cold."""
    answered = [case for case in cases if case.answered]
    confident = [case for case in cases if case.verdict.confidence >= CONFIDENT]
    told = [case for case in answered if case.labels.retryable]
    quota = [case for case in cases if (case.labels.category, case.labels.reason) == _QUOTA]
    transient = [case for case in cases if case.labels.retryable is Retryable.YES]
    categories = _scores((case.labels.category, case.verdict.category) for case in cases)
    labelled = [score.f1 for score in categories if score.support]
    return Evaluation(
        cases=tuple(cases),
        answered=_share(cases, lambda case: case.answered),
        category=_share(cases, lambda case: case.category_right),
        category_answered=_share(answered, lambda case: case.category_right),
        reason=_share(cases, lambda case: case.right),
        reason_answered=_share(answered, lambda case: case.right),
        macro_f1=sum(labelled) / len(labelled),
        categories=categories,
        reasons=_scores(
            (f"{one.labels.category}/{one.labels.reason}", f"{one.verdict.category}/{one.verdict.reason}")
            for one in cases
        ),
        confusion=Counter((case.labels.category, case.verdict.category) for case in cases),
        calibration=_calibration((case.verdict.confidence, case.right) for case in answered),
        calibration_category=_calibration(
            (case.verdict.confidence, case.category_right) for case in answered
        ),
        confident=Share(len(confident), len(cases)),
        confident_right=_share(confident, lambda case: case.right),
        retryable=_share(told, lambda case: case.verdict.retryable is case.labels.retryable),
        quota_retried=_share(
            [case for case in quota if case.answered], lambda case: case.verdict.retryable is Retryable.YES
        ),
        quota_abstained=_share(quota, lambda case: not case.answered),
        transient_refused=_share(
            [case for case in transient if case.answered], lambda case: case.verdict.retryable is Retryable.NO
        ),
        transient_abstained=_share(transient, lambda case: not case.answered),
        latency=latency([case.record for case in cases]),
    )


def _share(cases: Sequence[Case], which: Callable[[Case], bool]) -> Share:
    return Share(sum(map(which, cases)), len(cases))


def _scores(pairs: Iterable[tuple[str, str]]) -> tuple[Score, ...]:
    """One score a name that occurs as label or verdict, in the taxonomy's order."""
    both = list(pairs)
    support, given = Counter(label for label, _ in both), Counter(verdict for _, verdict in both)
    hits = Counter(label for label, verdict in both if label == verdict)
    order = dict.fromkeys(
        name for known in taxonomy.all_reasons() for name in (known.category, known.key)
    )  # fmt: skip
    return tuple(
        Score(name, support[name], given[name], hits[name]) for name in order if support[name] or given[name]
    )


def _calibration(verdicts: Iterable[tuple[float, bool]]) -> Calibration:
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(BINS)]
    for confidence, right in verdicts:
        bins[min(int(confidence * BINS), BINS - 1)].append((confidence, right))
    return Calibration(
        tuple(
            Bin(
                len(one),
                sum(confidence for confidence, _ in one) / len(one) if one else 0.0,
                sum(right for _, right in one),
            )
            for one in bins
        )
    )


def latency(records: Sequence[Mapping[str, Any]]) -> Latency:
    """Median and 99th percentile over `timings_us`; a small file is gone through until there are enough."""
    times = sorted(timings_us(records, rounds=ceil(_TIMINGS / len(records))))
    return Latency(percentile(times, 50), percentile(times, 99), len(times))


def timings_us(records: Sequence[Mapping[str, Any]], *, rounds: int) -> list[float]:
    """Microseconds from each record to its verdict, with nothing remembered of earlier ones.

    What is remembered of an error's texts and names (every bounded `lru_cache` of ours) is forgotten
    before each timing. What is loaded of our own data stays: the caller has had a verdict on every
    record.
    """
    memos = _memos()
    times = []
    for _ in range(rounds):
        for record in records:
            for forget in memos:
                forget()
            start = time.perf_counter_ns()
            verdict_of(record)
            times.append((time.perf_counter_ns() - start) / 1000)
    return times


def _memos() -> list[Callable[[], None]]:
    found: dict[int, Callable[[], None]] = {}
    for name, module in list(sys.modules.items()):
        if name.startswith("otel_triage."):
            for value in vars(module).values():
                parameters = getattr(value, "cache_parameters", None)
                if parameters and parameters()["maxsize"] is not None:
                    found[id(value)] = value.cache_clear
    return list(found.values())


def percentile(ordered: Sequence[float], percent: int) -> float:
    """The smallest value that `percent` of the ordered values do not exceed (nearest rank)."""
    return ordered[ceil(len(ordered) * percent / 100) - 1]
