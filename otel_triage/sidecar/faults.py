"""Fault points: named places on a record's way where the tests break the sidecar.

The environment variable `OTEL_TRIAGE_FAULT` holds a comma-separated list. `POINT` or
`POINT:N` kills this process with SIGKILL when it comes to that point for the N-th time:

* `after_write`: rows written, not committed
* `after_fsync`: committed, not acknowledged
* `before_send`: acknowledged, not sent downstream
* `after_send`: accepted downstream, not settled in the journal

The negative controls of the same tests: `no_journal` (the journal says "committed" and has
written nothing) and `no_fsync` (`synchronous=OFF`). Where the variable is not set, `reach`
does nothing.
"""

from __future__ import annotations

import os
import signal
from typing import Final

VARIABLE: Final = "OTEL_TRIAGE_FAULT"

_left: Final[dict[str, int]] = {
    point: int(count or 1)
    for point, _, count in (part.strip().partition(":") for part in os.environ.get(VARIABLE, "").split(","))
    if point
}


def active(name: str) -> bool:
    """Whether the fault `name` was asked for."""
    return name in _left


def _count_down(point: str) -> None:
    if point in _left:
        _left[point] -= 1
        if _left[point] == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def _nothing(point: str) -> None:
    pass


reach: Final = _count_down if _left else _nothing
