"""Labelled errors to train the text model on: the table of known errors and the rules' own examples.

Each is also met in other clothes: as clients and frameworks print it, as JSON or a Python dict, cut short,
and with or without its status and code. The facts reader reads those, as it does at run time.
Rules' false positives are left out: what they are not is known, what they are is not.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from otel_triage.facts.records import facts_of_text
from otel_triage.model import LLMError
from otel_triage.verdict import build, table
from otel_triage.verdict.fingerprint import mask
from otel_triage.verdict.names import short
from otel_triage.verdict.rules import rule_set

_VARIANTS: Final = 4
_TEMPLATE: Final = 60  # characters of a masked message that make two errors one wording
_STATUS: Final = {"4xx": None, "5xx": 500, "": None}
_PLAIN_CLASSES: Final = ("APIError", "APIStatusError", "Exception", "Error", "RuntimeError")
_MADE_BY: Final = ("OpenAI", "Anthropic", "VertexAI", "Azure", "Bedrock")
# How clients, frameworks and applications print what a service said: {text}, {body}, {status}, {name}.
_PRINTED: Final = (
    "{name}: {text}",
    "litellm.{name}: {maker}Exception - {text}",
    "openai.{name}: {text}",
    "AI_APICallError: {text}",
    "Error: {text}",
    "An error occurred: {text}",
    "LLM call failed: {text}",
    "Failed to generate response: {text}",
    "Unexpected error: {name}: {text}",
    "ERROR app.llm: call failed after 3 retries: {text}",
    "Agent stopped: {text}",
    "{text} (request id: req_1)",
    "{body}",
)
_PRINTED_WITH_STATUS: Final = (
    "Error code: {status} - {body}",
    "{status} {body}",
    "status_code: {status}, body: {body}",
    "HTTP {status}: {text}",
    "Request failed with status code {status}: {text}",
    "[{maker}] API error {status}: {text}",
    "[GoogleGenerativeAI Error]: Error fetching from https://example.com/v1: [{status} ] {text}",
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One error with its verdict. `group`: samples of one wording; `real`: as it is written, no variant."""

    error: LLMError
    verdict: str
    group: str
    real: bool


def _row_errors(row: table.Row) -> Iterator[LLMError]:
    facts: dict[str, Any] = {
        "provider": row.called,
        "status": _STATUS[row.status] if row.status in _STATUS else int(row.status),
        "message": table.filled(row.pattern),
    }
    if row.decides == "status":
        yield LLMError(**facts | {"message": None})
    elif row.finish_reason:
        yield LLMError(**facts, finish_reasons=(row.finish_reason,))
    elif row.exception:
        yield LLMError(**facts, error_type=row.code)
    else:
        for code in row.codes or (row.code or None,):
            yield LLMError(**facts, code=code)


def _written() -> Iterator[tuple[LLMError, str]]:
    for row in table.rows():
        for error in _row_errors(row):
            yield error, row.verdict
    for rule in build.rule_rows():
        for record in rule["true_positives"]:
            yield build.error_of(record), rule["verdict"]


def _keywords() -> Iterator[tuple[LLMError, str]]:
    """Keywords that decide by themselves, in all the languages that rules know; and the taxonomy's words."""
    for rule in build.rule_rows():
        status = next((one for one in rule.get("status", ()) if isinstance(one, int)), None)
        provider = next(iter(rule.get("provider", ())), None)
        for word in rule.get("keywords", ()):
            error = LLMError(message=word, status=status, provider=provider)
            match = rule_set().decide(error)
            if match and f"{match.rule.category}/{match.rule.reason}" == rule["verdict"]:
                yield error, rule["verdict"]
    for category, rows in build.taxonomy().items():
        for reason, row in rows.items():
            yield LLMError(message=row["covers"]), f"{category}/{reason}"


def _group(error: LLMError) -> str:
    """What makes two errors one wording: the begin of the masked message, else the facts beside it."""
    wording = mask(error.message or "")[:_TEMPLATE]
    return wording or f"{error.code} {error.status} {error.error_type}"


def _classes() -> dict[int, list[str]]:
    """The exception classes that stand for a status."""
    found: dict[int, list[str]] = defaultdict(list)
    for name, status in sorted(build.statuses().items()):
        if isinstance(status, int):
            found[status].append(name)
    return found


def _cut(text: str, dice: random.Random) -> str:
    words = text.split()
    third = len(words) // 3
    if third < 2:
        return text
    kept = [word for word in words if dice.random() > 0.2]
    return " ".join(dice.choice([words[: 2 * third], words[third:], kept]))


def _printed(error: LLMError, classes: list[str], dice: random.Random) -> LLMError:
    """The error as some program prints it, read by the facts reader."""
    text = error.message or ""
    if dice.random() < 0.4:
        text = _cut(text, dice)
    body: dict[str, Any] = {"message": text}
    if error.type and dice.random() < 0.7:
        body["type"] = error.type
    if error.code and dice.random() < 0.5:
        body["code"] = error.code
    answered = error.status is not None and error.status >= 400
    name = short(error.error_type or dice.choice(classes))
    message = dice.choice(_PRINTED + _PRINTED_WITH_STATUS if answered else _PRINTED).format(
        name=name,
        maker=dice.choice(_MADE_BY),
        text=text,
        status=error.status,
        body=dice.choice([repr, _json])({"error": body}),
    )
    tags = {"http_status": str(error.status)} if answered and dice.random() < 0.4 else None
    outer = error.error_type if error.error_type and dice.random() < 0.7 else dice.choice(["", "Error", name])
    return facts_of_text(outer, message, "", tags)


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)


def _variants(error: LLMError, classes: dict[int, list[str]], dice: random.Random) -> Iterator[LLMError]:
    if not error.message:
        return
    # The words alone: no provider, status or code.
    yield replace(error, provider=None, status=None, code=None, type=None)
    names = classes.get(error.status or 0, list(_PLAIN_CLASSES))
    for _ in range(_VARIANTS):
        yield _printed(error, names, dice)


def samples() -> list[Sample]:
    """All samples, in a fixed order: the same data files make the same samples."""
    classes = _classes()
    found = []
    for number, (error, verdict) in enumerate(_written()):
        if verdict.startswith("unclassified/"):
            continue
        group = _group(error)
        found.append(Sample(error, verdict, group, real=True))
        dice = random.Random(number)  # noqa: S311 - repeatable, not secret
        found += [Sample(one, verdict, group, real=False) for one in _variants(error, classes, dice)]
    for error, verdict in _keywords():
        if not verdict.startswith("unclassified/"):
            group = _group(error)
            found.append(Sample(error, verdict, group, real=False))
    return found
