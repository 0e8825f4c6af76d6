from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_triage.demo.sink import Sink

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "sidecar"))  # sidecar_tools


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as made:
        yield made
