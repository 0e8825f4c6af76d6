"""Sentry's rate limits: read from the upstream's answers, obeyed for what waits, told to SDKs.

Source: https://develop.sentry.dev/sdk/expected-features/rate-limiting/. A header on any status:
`X-Sentry-Rate-Limits: retry_after:categories:scope:reason:namespaces, …`; no categories means all; a
429 without it means `Retry-After`, else 60 s, for all. Of two limits the longer one holds.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from typing import Final

from otel_triage.sidecar.envelopes import CATEGORIES, EVENT

HEADER: Final = "x-sentry-rate-limits"
ERROR: Final = CATEGORIES[EVENT]

_ALL: Final = ""
_DEFAULT_S: Final = 60.0
_LONGEST_S: Final = 7 * 86_400.0
_KEYS: Final = 1000
_FREE: Final = frozenset({"internal"})  # reports of what was dropped: never limited
# Told in place of a limit of everything. What an error may consist of or come with is not among them.
_TOLD: Final = tuple(
    dict.fromkeys(
        category
        for category in CATEGORIES.values()
        if category not in {ERROR, "attachment", "feedback", "security", *_FREE}
    )
)


class RateLimits:
    """What the upstream does not take for now, by DSN key. For the event loop alone."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin without limits; `clock` in seconds."""
        self._clock = clock
        self._until: OrderedDict[str, dict[str, float]] = OrderedDict()

    def update(self, key: str, status: int, headers: Mapping[str, str]) -> None:
        """Read an answer of the upstream to `key`; `headers` are looked up in lower case."""
        found = headers.get(HEADER)
        if found is not None:
            for part in found.split(","):
                self._limit(key, part)
        elif status == 429:
            self._hold(key, _ALL, _seconds(headers.get("retry-after")))

    def wait_s(self, key: str, categories: Collection[str]) -> float:
        """How long an envelope of these categories has to wait.

        One with an error in it waits for errors to be taken: sent before, it would be answered with
        success and its error dropped. Any other goes as soon as one of its categories is taken.
        """
        counted = set(categories) - _FREE
        if ERROR in counted:
            return self._left_s(key, ERROR)
        return min((self._left_s(key, category) for category in counted), default=0.0)

    def header(self, key: str, *, errors: bool = False) -> str | None:
        """The header for an SDK, or None.

        Args:
            key: Its DSN key.
            errors: Whether limits of errors are told too: never while they can be kept here,
                because JavaScript and Go would drop them.
        """
        known = self._until.get(key, {})
        names = dict.fromkeys(name for name in known if name != _ALL)
        if self._rest_s(key, _ALL) > 0:
            names |= dict.fromkeys((*_TOLD, ERROR))
        told = [
            f"{math.ceil(left)}:{name}:key"
            for name in names
            if (errors or name != ERROR) and (left := self._left_s(key, name)) > 0
        ]
        return ", ".join(told) or None

    def _limit(self, key: str, text: str) -> None:
        after, _, rest = text.strip().partition(":")
        fields = rest.split(":")
        if not after or (len(fields) > 3 and fields[3]):
            return  # limits of single namespaces of metrics are none of a whole category
        for category in fields[0].split(";"):
            self._hold(key, category.strip().lower(), _seconds(after))

    def _hold(self, key: str, category: str, seconds: float) -> None:
        limits = self._until.setdefault(key, {})
        self._until.move_to_end(key)
        if len(self._until) > _KEYS:
            self._until.popitem(last=False)
        now = self._clock()
        for old in [name for name, until in limits.items() if until <= now]:
            del limits[old]
        limits[category] = max(limits.get(category, 0.0), now + seconds)

    def _rest_s(self, key: str, category: str) -> float:
        return max(0.0, self._until.get(key, {}).get(category, 0.0) - self._clock())

    def _left_s(self, key: str, category: str) -> float:
        return max(self._rest_s(key, category), self._rest_s(key, _ALL))


def _seconds(text: str | None) -> float:
    try:
        seconds = float(text or "")
    except ValueError:
        return _DEFAULT_S
    return min(max(0.0, seconds), _LONGEST_S) if math.isfinite(seconds) else _DEFAULT_S
