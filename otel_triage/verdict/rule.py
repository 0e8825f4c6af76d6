"""One rule, read from its row of data. The format is described in `docs/rules.md`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from otel_triage.model import Retryable
from otel_triage.verdict.names import LOCAL, NO_STATUS


class Tier(IntEnum):
    """What a rule rests on, from the weakest fact to the strongest."""

    STATUS = 0  # the status code, or where the exchange broke
    KIND = 1  # a class, type or text that says what kind of failure, not why (`weak = true`)
    FINISH = 2  # why the model stopped
    CAUSE = 3  # an exception of the chain, or its text
    SAID = 4  # the provider's own code or message
    TOLD = 5  # the outcome that the tap has seen: the caller gave up


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rule:
    """One rule, as `rules.md` describes it. An empty condition is no condition."""

    id: str
    category: str
    reason: str
    confidence: float
    source: str
    retryable: Retryable | None = None
    weak: bool = False
    provider: frozenset[str] = frozenset()
    status: frozenset[int] = frozenset()
    code: frozenset[str] = frozenset()
    error_type: frozenset[str] = frozenset()
    cause: frozenset[str] = frozenset()
    finish_reason: frozenset[str] = frozenset()
    broke_at: frozenset[str] = frozenset()
    outcome: frozenset[str] = frozenset()
    param: frozenset[str] = frozenset()
    keywords: tuple[str, ...] = ()
    pattern: str = ""
    veto: str = ""
    stack: str = ""

    @property
    def verdict(self) -> tuple[str, str]:
        """Category and reason."""
        return self.category, self.reason


def _statuses_of(written: Iterable[int | str]) -> Iterator[int]:
    """`429`, `"5xx"`, `"none"` and `"local"` as numbers."""
    names = {"none": NO_STATUS, "local": LOCAL}
    for one in written:
        if isinstance(one, int):
            yield one
        elif one in names:
            yield names[one]
        else:
            yield from range(int(one[0]) * 100, int(one[0]) * 100 + 100)


def read_rule(row: dict[str, Any]) -> Rule:
    """A rule from its row of data, examples left out."""
    category, _, reason = row["verdict"].partition("/")
    return Rule(
        id=row["id"],
        category=category,
        reason=reason,
        confidence=row["confidence"],
        source=row["source"],
        retryable=Retryable(row["retryable"]) if "retryable" in row else None,
        weak=row.get("weak", False),
        provider=frozenset(row.get("provider", ())),
        status=frozenset(_statuses_of(row.get("status", ()))),
        code=frozenset(code.lower() for code in row.get("code", ())),
        error_type=frozenset(row.get("error_type", ())),
        cause=frozenset(row.get("cause", ())),
        finish_reason=frozenset(row.get("finish_reason", ())),
        broke_at=frozenset(row.get("broke_at", ())),
        outcome=frozenset(row.get("outcome", ())),
        param=frozenset(row.get("param", ())),
        keywords=tuple(row.get("keywords", ())),
        pattern=row.get("pattern", ""),
        veto=row.get("veto", ""),
        stack=row.get("stack", ""),
    )
