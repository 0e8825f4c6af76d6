"""The configurations that ship: the Collector takes them, and each is short enough to read."""

from __future__ import annotations

import pytest
from collector_tools import CONFIGURATIONS, needs_otelcol, validate

FILES = sorted(path.name for path in CONFIGURATIONS.glob("*.yaml") if path.name != "builder.yaml")
LOAD_BALANCING = "fleet-loadbalancing.yaml"


@needs_otelcol
@pytest.mark.parametrize("name", [name for name in FILES if name != LOAD_BALANCING])
def test_the_collector_takes_it(name: str) -> None:
    done = validate(name)
    assert (done.returncode, done.stderr) == (0, "")


@needs_otelcol
def test_only_the_load_balancing_exporter_is_missing() -> None:
    done = validate(LOAD_BALANCING)
    assert done.returncode == 1
    assert "'exporters' unknown type: \"load_balancing\"" in done.stderr


@pytest.mark.parametrize("name", FILES)
def test_it_is_short(name: str) -> None:
    assert len((CONFIGURATIONS / name).read_text("utf-8").splitlines()) < 60
