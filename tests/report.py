"""Prints what ran and what was skipped, and why, over all environments."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path


def main(folder: Path) -> int:
    rows: Counter[tuple[str, str, str]] = Counter()
    reasons: Counter[str] = Counter()
    for file in sorted(folder.glob("*.json")):
        for test in json.loads(file.read_text("utf-8")):
            # tests/unit/verdict/test_x.py counts under tests/unit/verdict, tests/contract/test_x.py as itself
            group = "/".join(test["id"].partition("::")[0].split("/")[:3]).removesuffix(".py")
            rows[file.stem, group, test["outcome"]] += 1
            if test["outcome"] == "skipped":
                reasons[test["reason"]] += 1
    print(f"\n{'environment':<12} {'tests':<40} {'passed':>7} {'failed':>7} {'skipped':>8}")
    for environment, group in sorted({key[:2] for key in rows}):
        passed, failed, skipped = (
            rows[environment, group, outcome] for outcome in ("passed", "failed", "skipped")
        )
        print(f"{environment:<12} {group:<40} {passed:>7} {failed:>7} {skipped:>8}")
    for reason, count in reasons.most_common():
        print(f"skipped {count}: {reason}")
    ran = {group for _, group, outcome in rows if outcome != "skipped"}
    missing = sorted({str(path.with_suffix("")) for path in Path("tests/contract").glob("test_*.py")} - ran)
    for group in missing:
        print(f"ran in no environment: {group}")
    total = Counter(outcome for *_, outcome in rows.elements())
    print(f"{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped")
    if not total["passed"] or (missing and len(list(folder.glob("*.json"))) > 1):
        return 1
    return 1 if total["skipped"] and os.environ.get("NO_SKIP") else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
