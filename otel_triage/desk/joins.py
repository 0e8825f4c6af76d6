"""Which sightings are the same failure: what is kept in memory of the last ones; durable by `errors`.

One failure is seen as a span, as the spans around it, as an error event, and again after a
replay. It counts once: joined on `error_id`, else within one trace by fingerprint and time
(design, "Identity").
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from otel_triage.model import UNCLASSIFIED, LLMError, Verdict

LIFETIME_S: Final = 86_400.0
"""How long a failure can be joined: views of it meet within minutes (the design asks for fifteen),
but a journal may be replayed as late as `JOURNAL_HOURS`, and must count nothing twice then."""

SAME_S: Final = 2.0
"""Failures of one trace and one fingerprint are the same if their own times differ by no more."""

_TRACE_LIMIT: Final = 64


class Origin(StrEnum):
    """From where a failure is seen; the facts get poorer from top to bottom."""

    EVENT = "event"  # the error event: all that the tap knows
    SPAN = "span"  # the span of the call
    CAPTURED = "captured"  # the exception, captured by a Sentry SDK wherever it came to
    AROUND = "around"  # a span around the call, one of its HTTP attempts, a logged exception


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """One place where a failure shows.

    `identity` names the place itself: the same one comes again with a replay or a resend.
    `reporter` is who tells (an instrumentation scope): it tells of one failure once only.
    Times are Unix seconds; `began` is when the call began, as far as known. `cause` is what rules
    make of it here: category and reason.
    """

    origin: Origin
    identity: str
    reporter: str
    error: LLMError
    trace_id: str
    span_id: str
    parent_id: str
    fingerprint: str
    cause: tuple[str, str] = ("", "")
    began: float
    at: float


@dataclass(slots=True, kw_only=True)
class Failure:
    """One failure, from all its sightings. `verdict` and `error` are those of the best of them.

    `error` has no stack trace: ten thousand of them would be too much to keep.
    """

    key: str
    origin: Origin
    error: LLMError
    verdict: Verdict
    service: str
    environment: str
    trace_id: str
    span_id: str
    began: float
    at: float
    noted: float
    identities: set[str] = field(default_factory=set)
    reporters: set[str] = field(default_factory=set)
    parents: set[str] = field(default_factory=set)
    stored: bool = False


class Link(StrEnum):
    """What a sighting is to a known failure."""

    AGAIN = "again"  # the very same place, seen again
    SAME = "same"  # another view of the failure
    CARRIED = "carried"  # something around it, which only carries it up


class Joins:
    """The latest failures, and how to find them.

    Args:
        clock: Unix time in seconds.
        limit: Failures kept at most; beyond it the oldest are forgotten, and counted.
    """

    def __init__(self, clock: Callable[[], float], *, limit: int = 10_000) -> None:
        self._clock = clock
        self.limit = limit
        self._failures: OrderedDict[str, Failure] = OrderedDict()
        self._by_key: dict[str, Failure] = {}
        self._by_trace: dict[str, list[Failure]] = {}
        self.forgotten = 0
        """Failures that left memory because there were too many; `Errors.find` asks the file for them."""

    def __len__(self) -> int:
        return len(self._failures)

    def known(self, key: str) -> Failure | None:
        """The failure with this `error_id` or identity, if it is remembered."""
        return self._by_key.get(key)

    def find(self, sighting: Sighting) -> tuple[Failure, Link] | None:
        """The failure that a sighting belongs to, and how; None if it is new."""
        self._expire()
        if failure := self._by_key.get(sighting.identity):
            return failure, Link.AGAIN
        if sighting.error.error_id and (failure := self._by_key.get(sighting.error.error_id)):
            return failure, Link.SAME
        nearest = sorted(
            self._by_trace.get(sighting.trace_id, ()), key=lambda found: abs(found.at - sighting.at)
        )
        for failure in nearest:
            if link := _link(sighting, failure):
                return failure, link
        return None

    def add(self, failure: Failure, sighting: Sighting) -> None:
        """Keeps a failure under all that this sighting of it can be found by."""
        if failure.key not in self._failures:
            self._failures[failure.key] = failure
            if failure.trace_id:
                siblings = self._by_trace.setdefault(failure.trace_id, [])
                siblings.append(failure)
                del siblings[:-_TRACE_LIMIT]
        failure.identities.add(sighting.identity)
        if sighting.error.error_id:
            failure.identities.add(sighting.error.error_id)
        failure.reporters.add(sighting.reporter)
        if sighting.parent_id and sighting.origin is not Origin.EVENT:
            failure.parents.add(sighting.parent_id)
        for key in failure.identities:
            self._by_key[key] = failure
        self._trim()

    def restore(self, failure: Failure) -> None:
        """Takes over a failure that was written down before."""
        if failure.key in self._failures:
            return
        self._failures[failure.key] = failure
        if failure.trace_id:
            self._by_trace.setdefault(failure.trace_id, []).append(failure)
        for key in failure.identities:
            self._by_key[key] = failure
        self._trim()

    def _trim(self) -> None:
        while len(self._failures) > self.limit:
            self.forgotten += 1
            self.forget(next(iter(self._failures)))

    def forget(self, key: str) -> None:
        """Drops a failure: what comes of it later is new again."""
        failure = self._failures.pop(key, None)
        if failure is None:
            return
        for identity in failure.identities:
            self._by_key.pop(identity, None)
        siblings = self._by_trace.get(failure.trace_id, [])
        if failure in siblings:
            siblings.remove(failure)
        if not siblings:
            self._by_trace.pop(failure.trace_id, None)

    def _expire(self) -> None:
        oldest = self._clock() - LIFETIME_S
        while self._failures:
            failure = next(iter(self._failures.values()))
            if failure.noted >= oldest:
                return
            self.forget(failure.key)


def _link(sighting: Sighting, failure: Failure) -> Link | None:
    """What a sighting is to a failure of the same trace."""
    if (
        sighting.error.error_id
        and failure.error.error_id
        and sighting.error.error_id != failure.error.error_id
    ):
        return None
    near = abs(sighting.at - failure.at) <= SAME_S
    if Origin.CAPTURED in (sighting.origin, failure.origin):
        # Without tracing a Sentry SDK puts all that a process does into one trace: the cause must agree.
        if not near or sighting.reporter in failure.reporters:
            return None
        span = Origin.SPAN in (sighting.origin, failure.origin)
        return Link.SAME if _same_cause(sighting, failure, either_unknown=span) else None
    alike = near and failure.verdict.fingerprint == sighting.fingerprint
    if sighting.origin is Origin.AROUND:
        # Whatever surrounds a failed call, or was one of its attempts, tells nothing new.
        if failure.origin is not Origin.AROUND:
            return Link.CARRIED if near or failure.began <= sighting.at <= failure.at else None
        return Link.CARRIED if alike or (near and sighting.span_id in failure.parents) else None
    if failure.origin is Origin.AROUND:
        # The call itself, after something around it was taken for the failure.
        return Link.SAME if near or sighting.began <= failure.at <= sighting.at else None
    if {sighting.origin, failure.origin} == {
        Origin.EVENT,
        Origin.SPAN,
    } and sighting.span_id == failure.span_id:
        return Link.SAME
    if near and sighting.origin is Origin.SPAN and sighting.span_id in failure.parents:
        return Link.CARRIED
    # One reporter tells of one failure once: two equal spans of it are two failures.
    if sighting.reporter in failure.reporters:
        return None
    return Link.SAME if alike or (near and _twins(sighting, failure)) else None


def _same_cause(sighting: Sighting, failure: Failure, *, either_unknown: bool) -> bool:
    """Whether what was captured far from the call is what happened there, as far as facts tell.

    Args:
        sighting: One of the two.
        failure: The other.
        either_unknown: Whether one that tells no cause agrees with any: Sentry's spans say only that a
            call of a provider failed.
    """
    if failure.verdict.fingerprint == sighting.fingerprint:
        return True
    providers = {sighting.error.provider, failure.error.provider} - {None}
    causes = {sighting.cause, (failure.verdict.category, failure.verdict.reason)}
    unknown = either_unknown and any(category == UNCLASSIFIED for category, _ in causes)
    return (len(causes) == 1 or unknown) and len(providers) < 2


def _twins(sighting: Sighting, failure: Failure) -> bool:
    """Whether two instrumentations watched one call: at one time, of one model, to one end."""
    one, other = sighting.error, failure.error
    return (
        sighting.began <= failure.at + SAME_S
        and failure.began <= sighting.at + SAME_S
        and one.provider is not None
        and (one.provider, one.model) == (other.provider, other.model)
        and (one.status is None or other.status is None or one.status == other.status)
    )
