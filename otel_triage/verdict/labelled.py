"""Files of labelled errors, which the text model and the calibration are measured on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def labelled(path: Path) -> list[dict[str, Any]]:
    """The labelled errors of a file but those that are no error's verdict.

    Raises:
        ValueError: a line is no JSON object with `category` and `reason`, or there is none; the text names
            file and line.
    """
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: no JSON: {error}") from error
        if not isinstance(record, dict) or not {"category", "reason"} <= record.keys():
            raise ValueError(f"{path}, line {number}: an object with category and reason is needed")
        if record["category"] != "unclassified":
            found.append(record)
    if not found:
        raise ValueError(f"{path}: no labelled error")
    return found
