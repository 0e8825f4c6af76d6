"""`otel-triage eval`: labelled errors in; tables on the terminal and one HTML page out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from rich.console import Console

from otel_triage.cli.classify import (
    WRONG,
    BadFile,
    BadRecord,
    lines_of,
    open_input,
    read_record,
    run_safely,
    verdict_of,
    ways,
    writing,
)
from otel_triage.cli.eval_page import page
from otel_triage.cli.eval_table import show
from otel_triage.cli.evaluate import BadLabel, Case, evaluate, read_labels

_SHOWN: Final = 20  # lines that were left out


@dataclass(frozen=True, slots=True)
class Options:
    """Arguments of the command: `file` is a path or `-`, `html` a path."""

    file: str
    offline: bool = False
    html: str | None = None


class LeftOut(NamedTuple):
    """A line that was not measured, and why; whether its labels are to blame."""

    line: int
    why: str
    mislabelled: bool


def read_cases(source: BinaryIO) -> tuple[list[Case], list[LeftOut]]:
    """Every labelled record with its verdict, and the lines that hold none."""
    cases: list[Case] = []
    left: list[LeftOut] = []
    for number, line in lines_of(source):
        try:
            record = read_record(line)
            labels = read_labels(record)
        except (BadRecord, BadLabel) as error:
            left.append(LeftOut(number, _printable(str(error)), isinstance(error, BadLabel)))
        else:
            cases.append(Case(number, record, labels, verdict_of(record)))
    return cases, left


def _printable(text: str) -> str:
    """Names of foreign origin must not steer a terminal."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _say(text: str) -> None:
    print(f"otel-triage eval: {text}", file=sys.stderr)


def _tell(left: Sequence[LeftOut]) -> None:
    for line, why, _ in left[:_SHOWN]:
        _say(f"line {line}: {why}")
    if len(left) > _SHOWN:
        _say(f"… and {len(left) - _SHOWN:,} more lines like these")
    if left:
        _say(f"left out {len(left):,} lines")


def _run(options: Options) -> int:
    source = open_input(options.file)
    with source if options.file != "-" else nullcontext():
        if options.html is not None:
            with writing(Path(options.html), source, "--html"):
                Path(options.html).open("ab").close()  # told now, not when all the work is done
        cases, left = read_cases(source)
    _tell(left)
    if not cases:
        raise BadFile(f"{options.file}: no line with an error and its labels: category, reason, retryable")
    evaluation = evaluate(cases)
    show(evaluation, Console())
    if options.html is not None:
        name = "standard input" if options.file == "-" else Path(options.file).name
        Path(options.html).write_bytes(page(evaluation, name, [(line, why) for line, why, _ in left]))
    return WRONG if any(one.mislabelled for one in left) else 0


def run(options: Options) -> int:
    """Runs the command; returns its exit code: 2 where a label is wrong, though the rest is measured."""
    _say(ways(offline=options.offline))
    return run_safely("eval", lambda: _run(options), lambda: "")
