"""The one guard at every boundary to the application: what we do wrong never reaches it."""

from __future__ import annotations

import functools
import logging
import threading
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import ParamSpec, TypeVar

_logger = logging.getLogger("otel_triage")

P = ParamSpec("P")
R = TypeVar("R")

counts: Counter[str] = Counter()
"""What happened inside us: `error.<place>` for each exception of our own, and what was told or dropped."""

_lock = threading.Lock()


def count(name: str) -> None:
    """Adds one to a count that `stats()` shows."""
    with _lock:
        counts[name] += 1


def stats() -> dict[str, int]:
    """All counts so far."""
    with _lock:
        return dict(counts)


def never_raises(function: Callable[P, R]) -> Callable[P, R | None]:
    """Makes a function return None where it would raise: counted, and logged once a place.

    Exceptions that are not `Exception` (cancellation, interrupt) are the application's and pass.
    """

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R | None:
        try:
            return function(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - this is the boundary
            with suppress(Exception):
                _note(function.__qualname__, error)
            return None

    return guarded


def _note(place: str, error: Exception) -> None:
    name = f"error.{place}"
    with _lock:
        counts[name] += 1
        first = counts[name] == 1
    if first:
        # Neither its text nor its context: that may be the application's exception, with a prompt in it.
        where = "".join(traceback.format_tb(error.__traceback__)).rstrip()
        _logger.warning(
            "otel-triage failed in %s with %s; the application is not affected "
            "(logged once, counted in stats())\n%s",
            place,
            type(error).__name__,
            where,
        )
