"""What we may take of an application's exit: half a second, whatever of ours has something to send."""

from __future__ import annotations

from typing import Final

EXIT_S: Final = 0.45  # what ends a wait takes some milliseconds itself

_spent_s = 0.0


def left_s() -> float:
    """Seconds that we may still take."""
    return max(0.0, EXIT_S - _spent_s)


def spend(seconds: float) -> None:
    """Notes that the application waited for us so long."""
    global _spent_s
    _spent_s += seconds
