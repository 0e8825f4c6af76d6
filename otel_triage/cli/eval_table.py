"""An evaluation as tables on a terminal. Needs rich (extra `cli`)."""

from __future__ import annotations

from collections.abc import Iterable
from string import ascii_uppercase

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from otel_triage.cli.eval_figures import counts, decimal, groups, percent, plain, worth_showing
from otel_triage.cli.evaluate import BINS, Evaluation, Score, Share


def show(evaluation: Evaluation, console: Console) -> None:
    """Prints every table."""
    for group in groups(evaluation):
        table = _table(group.name, "", "")
        for figure in group.figures:
            table.add_row(*figure)
        console.print(table)
    console.print(_scores("By category", evaluation.categories))
    console.print(_confusion(evaluation))
    console.print(_scores("By reason", evaluation.reasons))
    console.print(_calibration(evaluation))


def _table(title: str, *columns: str) -> Table:
    """A table whose first column is text, and the others are numbers."""
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    table.show_header = any(columns)
    table.add_column("" if not any(columns) else columns[0], overflow="fold")
    for column in columns[1:] if any(columns) else columns:
        table.add_column(column, justify="right")
    return table


def _scores(title: str, scores: Iterable[Score]) -> Table:
    table = _table(title, "", "support", "precision", "recall", "F1")
    for score in worth_showing(scores):
        table.add_row(
            plain(score.name),
            f"{score.support:,}",
            percent(score.precision),
            percent(score.recall),
            decimal(score.f1),
        )
    return table


def _confusion(evaluation: Evaluation) -> Table:
    names = [score.name for score in evaluation.categories]
    letters = dict(zip(names, ascii_uppercase, strict=False))
    table = _table("Confusion: label down, verdict across", "", *letters.values())
    for label in (score.name for score in worth_showing(evaluation.categories)):
        cells = []
        for verdict in names:
            count = evaluation.confusion.get((label, verdict), 0)
            style = "green" if label == verdict else "red"
            cells.append(f"[{style}]{count:,}[/]" if count else "·")
        table.add_row(f"{letters[label]} {plain(label)}", *cells)
    return table


def _calibration(evaluation: Evaluation) -> Table:
    table = _table(
        "Calibration: stated confidence and what came true", "confidence", "mean", "right", "category right"
    )
    pairs = zip(evaluation.calibration.bins, evaluation.calibration_category.bins, strict=True)
    for number, (both, category) in enumerate(pairs):
        if both.count:
            table.add_row(
                f"{number / BINS:.1f}-{(number + 1) / BINS:.1f}",
                decimal(both.confidence),
                f"{decimal(both.accuracy)}  {counts(Share(both.right, both.count))}",
                decimal(category.accuracy),
            )
    return table
