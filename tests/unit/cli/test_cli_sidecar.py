"""`otel-triage sidecar` takes its options from the command line of the whole program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "otel_triage.cli.main", "sidecar", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize(("mib", "code"), [(64, 0), (-1, 2)])
def test_check_reads_the_file_and_stops(tmp_path: Path, mib: int, code: int) -> None:
    config = tmp_path / "sidecar.toml"
    config.write_text(f'journal_mib = {mib}\ndata_dir = "{tmp_path}"\n', encoding="utf-8")
    done = run("--config", str(config), "--check")
    assert done.returncode == code, done.stderr
    assert "listening" not in done.stderr
    assert ("OTEL_TRIAGE_JOURNAL_MIB" in done.stderr.upper() or "journal_mib" in done.stderr) == bool(code)


def test_an_unknown_option_is_refused() -> None:
    done = run("--chek")
    assert done.returncode == 2
    assert "unrecognized arguments: --chek" in done.stderr
