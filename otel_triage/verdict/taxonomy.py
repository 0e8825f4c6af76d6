"""The categories and reasons of a verdict, and what holds for each by default (`taxonomy.toml`)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from otel_triage.model import Owner, Retryable, Severity
from otel_triage.verdict import data


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One reason: its defaults, and what it covers.

    `severity` is the base of a single error; what has been seen lately raises it elsewhere.
    """

    category: str
    reason: str
    retryable: Retryable
    owner: Owner
    severity: Severity
    covers: str

    @property
    def key(self) -> str:
        """`category/reason`, as rules and texts name it."""
        return f"{self.category}/{self.reason}"


@cache
def _table() -> dict[tuple[str, str], Reason]:
    return {
        (category, name): Reason(
            category=category,
            reason=name,
            retryable=Retryable(row["retryable"]),
            owner=Owner(row["owner"]),
            severity=Severity(row["severity"]),
            covers=row["covers"],
        )
        for category, rows in data.load()["taxonomy"].items()
        for name, row in rows.items()
    }


def reason(category: str, name: str) -> Reason:
    """The reason `name` of `category`.

    Raises:
        ValueError: there is no such pair; the message names the reasons of that category.
    """
    found = _table().get((category, name))
    if found is None:
        names = [known.reason for known in all_reasons() if known.category == category]
        hint = f"{category} has {', '.join(names)}" if names else "no such category"
        raise ValueError(f"unknown verdict {category}/{name}: {hint}")
    return found


def all_reasons() -> tuple[Reason, ...]:
    """Every reason, in the order of `taxonomy.toml`."""
    return tuple(_table().values())
