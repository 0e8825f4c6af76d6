"""For all tests: the report behind the table at the end of `make test`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

_seen: dict[str, dict[str, str]] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or report.outcome != "passed":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        _seen[report.nodeid] = {"id": report.nodeid, "outcome": report.outcome, "reason": reason}


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.outcome == "skipped":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        _seen[report.nodeid] = {"id": report.nodeid, "outcome": "skipped", "reason": reason}


def pytest_sessionfinish() -> None:
    if file := os.environ.get("REPORT"):
        Path(file).write_text(json.dumps(list(_seen.values())), "utf-8")
