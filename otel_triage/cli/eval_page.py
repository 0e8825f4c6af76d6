"""An evaluation as one page that needs nothing else: no script, no other host. Needs Jinja2 (extra `cli`).

What the errors say is hostile text: Jinja2 escapes it, and the page's own policy allows neither
scripts nor loads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from otel_triage.cli.eval_figures import counts, decimal, groups, percent, plain, worth_showing
from otel_triage.cli.evaluate import BINS, Calibration, Case, Evaluation, Share
from otel_triage.facts.scrub import scrub
from otel_triage.verdict.classify import version

_MESSAGE: Final = 200  # characters of a message that are shown
_NAME: Final = 60
_STRONG: Final = 0.75  # share of a row
_SIDE: Final = 320  # of the square that holds the curve, in SVG units
_BARS: Final = 60  # height of the highest bar of counts


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of the confusion matrix: its count, and its share of the row from 0 to 1."""

    count: int
    share: float
    right: bool

    @property
    def classes(self) -> str:
        """How it looks; a dark shade wants light text."""
        return " ".join(
            ("some", "hit" if self.right else "miss", *(["strong"] if self.share >= _STRONG else []))
        )


@dataclass(frozen=True, slots=True)
class Point:
    """A bin of the calibration curve, in SVG units; `radius` grows with the count."""

    x: float
    y: float
    radius: float
    count: int
    told: str


@dataclass(frozen=True, slots=True)
class Bar:
    """How many verdicts a bin holds, in SVG units."""

    x: float
    height: float
    count: int


@dataclass(frozen=True, slots=True)
class Row:
    """One error that was judged otherwise than its label says, scrubbed."""

    line: int
    name: str
    expected: str
    got: str
    confidence: str
    explain: str
    message: str


def page(evaluation: Evaluation, file: str, left_out: Sequence[tuple[int, str]]) -> bytes:
    """The page as UTF-8.

    Args:
        evaluation: what was measured.
        file: the name of the file that it was measured on.
        left_out: lines that were not measured, and why.
    """
    wrong = [case for case in evaluation.cases if not case.right]
    shown: dict[str, Any] = {
        "file": file,
        "version": version(),
        "total": len(evaluation.cases),
        "groups": groups(evaluation),
        "names": [plain(score.name) for score in evaluation.categories],
        "matrix": _matrix(evaluation),
        "side": _SIDE,
        "bars_height": _BARS,
        "bins": BINS,
        "curves": [
            ("both", "category and reason right", _points(evaluation.calibration)),
            ("category", "category right", _points(evaluation.calibration_category)),
        ],
        "bars": _bars(evaluation.calibration),
        "scores": [
            ("By category", worth_showing(evaluation.categories)),
            ("By reason", worth_showing(evaluation.reasons)),
        ],
        "lists": [
            ("Wrong verdicts", _rows(case for case in wrong if case.answered)),
            ("Abstained", _rows(case for case in wrong if not case.answered)),
        ],
        "left_out": left_out,
    }
    environment = Environment(
        loader=PackageLoader("otel_triage.cli"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "decimal": decimal, "plain": plain}
    text = environment.get_template("eval.html").render(shown)
    return text.encode("utf-8", "replace")  # half of a surrogate pair is no UTF-8


def _matrix(evaluation: Evaluation) -> list[tuple[str, list[Cell]]]:
    rows = []
    for score in worth_showing(evaluation.categories):
        cells = []
        for other in evaluation.categories:
            count = evaluation.confusion.get((score.name, other.name), 0)
            cells.append(Cell(count, count / max(score.support, 1), score.name == other.name))
        rows.append((plain(score.name), cells))
    return rows


def _points(calibration: Calibration) -> list[Point]:
    most = max(one.count for one in calibration.bins)
    return [
        Point(
            x=round(one.confidence * _SIDE, 1),
            y=round((1 - one.accuracy) * _SIDE, 1),
            radius=round(3 + 6 * sqrt(one.count / most), 1),
            count=one.count,
            told=f"confidence {decimal(one.confidence)}: {counts(Share(one.right, one.count))} right, "
            f"{percent(one.accuracy)}",
        )
        for one in calibration.bins
        if one.count
    ]


def _bars(calibration: Calibration) -> list[Bar]:
    most = max(max(one.count for one in calibration.bins), 1)
    return [
        Bar(x=number * _SIDE / BINS, height=round(one.count / most * _BARS, 1), count=one.count)
        for number, one in enumerate(calibration.bins)
    ]


def _rows(cases: Any) -> list[Row]:
    """The most confident first: they are the worst."""
    return [_row(case) for case in sorted(cases, key=lambda case: -case.verdict.confidence)]


def _row(case: Case) -> Row:
    name = case.record.get("id")
    return Row(
        line=case.line,
        name=scrub(str(name))[:_NAME] if isinstance(name, (str, int)) else "",
        expected=f"{case.labels.category}/{case.labels.reason}",
        got=f"{case.verdict.category}/{case.verdict.reason}",
        confidence=f"{case.verdict.confidence:.2f}",
        explain=scrub(case.verdict.explain),
        message=scrub(str(case.record.get("error_message") or ""))[:_MESSAGE],
    )
