"""Rows of `state.db`: its tables, and failures to rows and back. What is stored is scrubbed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, Final

from otel_triage.desk.joins import LIFETIME_S, Failure, Origin
from otel_triage.facts.scrub import scrub
from otel_triage.facts.wire import fact_attributes, read_facts
from otel_triage.model import Candidate, Cause, LLMError, Owner, Retryable, Severity, Source, Verdict

SCHEMA_VERSION: Final = 1
COLUMNS: Final = (
    "key", "at", "noted", "service", "environment", "provider", "model", "category", "reason", "severity",
    "retryable", "owner", "confidence", "fingerprint", "trace_id", "span_id", "facts", "verdict",
)  # fmt: skip
SCHEMA: Final = f"""
    CREATE TABLE errors ({", ".join(COLUMNS)}, PRIMARY KEY (key));
    CREATE INDEX errors_noted ON errors (noted);
    CREATE INDEX errors_trace ON errors (trace_id);
    CREATE TABLE joins (key PRIMARY KEY, expires, state);
    CREATE INDEX joins_expires ON joins (expires);
    PRAGMA user_version = {SCHEMA_VERSION};
"""
UPSERT: Final = (
    f"INSERT INTO errors VALUES ({', '.join('?' * len(COLUMNS))}) ON CONFLICT (key) DO UPDATE SET "  # noqa: S608
    + ", ".join(f"{name} = excluded.{name}" for name in COLUMNS[3:])
)
UPSERT_JOIN: Final = (
    "INSERT INTO joins VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET state = excluded.state"
)
SELECT_JOIN: Final = (
    f"SELECT joins.state, {', '.join(f'errors.{name}' for name in COLUMNS)}"  # noqa: S608
    " FROM joins JOIN errors USING (key)"
)
SELECT: Final = f"SELECT {', '.join(COLUMNS)} FROM errors"  # noqa: S608

_LONG: Final = "exception.stacktrace"


@dataclass(frozen=True, slots=True)
class StoredError:
    """One row. Times are Unix seconds: `at` is the failure's own, `noted` when we heard of it."""

    key: str
    at: float
    noted: float
    service: str
    environment: str
    trace_id: str
    span_id: str
    error: LLMError
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A failure as it was when it was noted: the writer thread must not see it change."""

    failure: Failure
    error: LLMError
    verdict: Verdict
    origin: Origin
    began: float
    at: float
    identities: tuple[str, ...]
    reporters: tuple[str, ...]
    parents: tuple[str, ...]


def snapshot(failure: Failure) -> Snapshot:
    """A failure as it is now."""
    return Snapshot(
        failure,
        failure.error,
        failure.verdict,
        failure.origin,
        failure.began,
        failure.at,
        tuple(failure.identities),
        tuple(failure.reporters),
        tuple(failure.parents),
    )


_scrub: Final = lru_cache(maxsize=4096)(scrub)


def _scrubbed(data: Any) -> Any:
    if isinstance(data, str):
        return _scrub(data)
    if isinstance(data, dict):
        return {key: _scrubbed(value) for key, value in data.items()}
    return [_scrubbed(value) for value in data] if isinstance(data, (list, tuple)) else data


def _facts(error: LLMError) -> str:
    facts: dict[str, Any] = dict(fact_attributes(error))
    facts.pop(_LONG, None)
    facts["causes"] = [{"type": cause.type, "message": cause.message} for cause in error.causes]
    return json.dumps(_scrubbed(facts), ensure_ascii=False)


@lru_cache(maxsize=1024)
def _verdict_json(verdict: Verdict) -> str:
    return json.dumps(_scrubbed(asdict(verdict)), ensure_ascii=False)


def row(shot: Snapshot) -> tuple[Any, ...]:
    """The row of `errors`."""
    failure, error, verdict = shot.failure, shot.error, shot.verdict
    return (
        failure.key, shot.at, failure.noted, failure.service, failure.environment,
        error.provider, error.model,
        verdict.category, verdict.reason, str(verdict.severity), str(verdict.retryable), str(verdict.owner),
        verdict.confidence, verdict.fingerprint, failure.trace_id, failure.span_id, _facts(error),
        _verdict_json(verdict),
    )  # fmt: skip


def join_row(shot: Snapshot) -> tuple[Any, ...]:
    """The row of `joins`: what later sightings are joined by, and until when."""
    state = {
        "origin": shot.origin, "began": shot.began, "identities": shot.identities,
        "reporters": shot.reporters, "parents": shot.parents,
    }  # fmt: skip
    return shot.failure.key, shot.failure.noted + LIFETIME_S, json.dumps(state)


def _verdict(data: dict[str, Any]) -> Verdict:
    alternative = data.pop("alternative")
    return Verdict(
        **{
            **data,
            "severity": Severity(data["severity"]),
            "retryable": Retryable(data["retryable"]),
            "owner": Owner(data["owner"]),
            "source": Source(data["source"]),
            "alternative": Candidate(**alternative) if alternative else None,
        }
    )


def stored(values: tuple[Any, ...]) -> StoredError:
    """A row of `errors`, read back."""
    row = dict(zip(COLUMNS, values, strict=True))
    facts = json.loads(row["facts"])
    causes = tuple(Cause(**cause) for cause in facts.pop("causes"))
    error = replace(read_facts(facts), causes=causes)
    own = {
        name: row[name] for name in ("key", "at", "noted", "service", "environment", "trace_id", "span_id")
    }
    return StoredError(**own, error=error, verdict=_verdict(json.loads(row["verdict"])))


def restored(state: str, values: tuple[Any, ...]) -> Failure:
    """A failure from before a restart, from its rows of `joins` and `errors`."""
    known, join = stored(values), json.loads(state)
    return Failure(
        key=known.key,
        origin=Origin(join["origin"]),
        error=known.error,
        verdict=known.verdict,
        service=known.service,
        environment=known.environment,
        trace_id=known.trace_id,
        span_id=known.span_id,
        began=join["began"],
        at=known.at,
        noted=known.noted,
        identities=set(join["identities"]),
        reporters=set(join["reporters"]),
        parents=set(join["parents"]),
        stored=True,
    )
