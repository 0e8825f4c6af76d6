"""Counts how often verdicts were right, by what supported them.

`python -m otel_triage.verdict.calibrate FILE...`: the files are labelled error records, JSON a line
(`docs/evaluation.md`). They should be ones that no author of a rule has read: else the confidence
flatters. Writes `calibration.toml`: counts, no texts.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from otel_triage.facts.records import facts_of_record
from otel_triage.verdict import confidence, rules, text_model
from otel_triage.verdict.labelled import labelled
from otel_triage.verdict.rule import Tier

FILE: Final = Path(__file__).parent / "calibration.toml"
_HEAD: Final = """\
# Of errors whose verdict had this support: how many were right (category and reason), of how many.
# Written by `python -m otel_triage.verdict.calibrate` from labelled errors; `confidence.py` reads it.
# said, cause, finish, kind, status, told: the tier of the rule (docs/rules.md). agreed: another rule, no weak
# one, says the same; contested: one of equal rank says something else; firm: the rule's author is sure of it.
# model: what the text model says.
"""


def count(records: Iterable[Mapping[str, Any]]) -> dict[str, tuple[int, int]]:
    """Right ones and all, for each support that `confidence` knows."""
    found: dict[str, list[bool]] = defaultdict(list)
    for record in records:
        expected = (record["category"], record["reason"])
        error = facts_of_record(record)
        match = rules.rule_set().decide(error)
        guesses = text_model.predict(error)
        if guesses and (match is None or match.rank[0] <= Tier.KIND):
            best = guesses[0]
            found[confidence.step(best.confidence)].append(best.verdict == expected)
        if match is None:
            continue
        right = match.rule.verdict == expected
        names = {match.rank[0].name.lower(), match.strength}
        if not match.settled:
            names.add(confidence.support(match, guesses))
        for name in names:
            found[name].append(right)
        if match.rival is not None:
            found[f"{match.strength}, rival"].append(match.rival.verdict == expected)
    return {name: (sum(all_), len(all_)) for name, all_ in sorted(found.items())}


def main(arguments: list[str] | None = None) -> int:
    """Writes `calibration.toml`; returns 1 with the reason on stderr if a file is wrong."""
    parser = argparse.ArgumentParser(prog="python -m otel_triage.verdict.calibrate", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    try:
        records = [record for path in parser.parse_args(arguments).files for record in labelled(path)]
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    rows = [f'"{name}" = [{right}, {errors}]' for name, (right, errors) in count(records).items()]
    text = "\n".join([_HEAD, f"errors = {len(records)}", "", "[rows]", *rows, ""])
    FILE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
