"""A verdict into a Sentry event: tags, our context, grouping. The one writer of both halves.

Sources: https://develop.sentry.dev/sdk/data-model/event-payloads/ (tags: keys up to 32, values up to
200 characters, no line breaks; a context up to 8 kB), and sentry-relay's normaliser, which turns what
does not fit into null with an entry in `errors`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

from otel_triage.facts.scrub import scrub
from otel_triage.facts.sentry_events import CONTEXT, CONTEXT_KEYS
from otel_triage.facts.wire import FACT_NAMES, fact_attributes, verdict_attributes
from otel_triage.model import LLMError, Owner, Source, Verdict

Grouping: TypeAlias = Literal["cause", "off"]

GROUP: Final = "otel-triage"
"""First part of a fingerprint of ours."""

CONTEXT_LIMIT: Final = 7_500
"""Characters of our context as JSON: the normaliser cuts at about 8 kB and nulls what is behind the cut."""

_TAG_LIMIT: Final = 200
_DEFAULT: Final = frozenset({"{{default}}", "{{ default }}"})
_GROUPED_BY: Final = frozenset({Source.RULES, Source.HUMAN})
_GROUPED_FOR: Final = frozenset({Owner.PROVIDER, Owner.ACCOUNT, Owner.NETWORK})
_UNKNOWN: Final = "unknown"
# In the event already, with all that it may quote; the message only where the tap cleaned it.
_IN_EVENT: Final = frozenset({FACT_NAMES["stacktrace"]})
_MESSAGE: Final = FACT_NAMES["message"]
_KEYS: Final = {attribute: key for key, attribute in CONTEXT_KEYS.items()}


def annotate_event(
    event: dict[str, Any], error: LLMError, verdict: Verdict, *, grouping: Grouping = "cause"
) -> None:
    """Puts a verdict and its facts into an error event, in place; twice is once.

    All of ours that stands there is replaced together. Tags, context members and a fingerprint of the
    application's own stay. Level and mechanism are not touched.

    Args:
        event: The event as a decoded JSON object; only `tags`, `contexts["triage"]` and `fingerprint` change.
        error: The facts to show.
        verdict: The verdict to show.
        grouping: `cause` sets the event's fingerprint where the cause lies with provider, account or
            network and rules or a person said so; `off` takes one of ours away.
    """
    event["tags"] = _tags(event.get("tags"), error, verdict)
    contexts = event.get("contexts")
    if contexts is None:
        contexts = event["contexts"] = {}
    if isinstance(contexts, dict):
        contexts[CONTEXT] = _context(contexts.get(CONTEXT), error, verdict)
    _group(event, error, verdict, grouping)


def fingerprint_parts(error: LLMError, verdict: Verdict) -> list[str] | None:
    """What an event is grouped by, or None where Sentry's own grouping stays."""
    if verdict.owner not in _GROUPED_FOR or verdict.source not in _GROUPED_BY:
        return None
    return [GROUP, error.provider or _UNKNOWN, verdict.category, verdict.reason]


def _tags(tags: Any, error: LLMError, verdict: Verdict) -> Any:
    """The tags with ours, in the form that they had: an object, or a list of pairs."""
    values = {
        "category": verdict.category,
        "reason": verdict.reason,
        "severity": verdict.severity,
        "retryable": verdict.retryable,
        "owner": verdict.owner,
        "provider": error.provider,
        "model": error.model,
        "outcome": error.outcome,
    }
    ours = {f"triage.{name}": _tag(value) if value else "" for name, value in values.items()}
    told = {name: value for name, value in ours.items() if value}
    if isinstance(tags, list):
        kept = [pair for pair in tags if not (isinstance(pair, list) and pair and str(pair[0]) in ours)]
        return [*kept, *([name, value] for name, value in told.items())]
    if not isinstance(tags, Mapping):
        tags = {}
    return {**{name: value for name, value in tags.items() if name not in ours}, **told}


def _tag(value: str) -> str:
    return " ".join(scrub(str(value)).split())[:_TAG_LIMIT]


def _context(before: Any, error: LLMError, verdict: Verdict) -> dict[str, Any]:
    """Our context, the shortest values first, so that a cut takes the least."""
    foreign = (
        {key: value for key, value in before.items() if key not in CONTEXT_KEYS}
        if isinstance(before, Mapping)
        else {}
    )
    facts = {name: value for name, value in fact_attributes(error).items() if name not in _IN_EVENT}
    if not error.error_id:
        facts.pop(_MESSAGE, None)
    found: dict[str, Any] = {}
    for attribute, value in {**facts, **verdict_attributes(verdict)}.items():
        if attribute in _KEYS:
            found[_KEYS[attribute]] = _clean(value)
    room = CONTEXT_LIMIT
    for key, value in sorted(found.items(), key=lambda entry: len(json.dumps(entry[1]))):
        room -= len(json.dumps({key: value}))
        if room < 0:
            break
        foreign[key] = value
    return foreign


def _clean(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_clean(item) for item in value]
    return scrub(value) if isinstance(value, str) else value


def _group(event: dict[str, Any], error: LLMError, verdict: Verdict, grouping: Grouping) -> None:
    before = event.get("fingerprint")
    ours = isinstance(before, list) and before[:1] == [GROUP]
    free = not before or (isinstance(before, list) and all(part in _DEFAULT for part in before))
    if not ours and not free:
        return
    parts = fingerprint_parts(error, verdict) if grouping == "cause" else None
    if parts is not None:
        event["fingerprint"] = parts
    elif ours:
        del event["fingerprint"]
