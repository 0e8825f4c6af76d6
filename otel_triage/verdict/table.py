"""The table of known errors, `facts.tsv`: rules for its codes, and the errors that its rows stand for.

A row says what one provider, client or framework reports and what it means. Where all rows of
a provider agree on a code, the code is a rule by itself; where they do not, the wordings
decide, and those are in `rules/*.toml`. So a provider's list of codes is entered here and
nowhere else. In a pattern `N`, `***`, `…` and `5xx` stand for anything of that kind. The column
`decides` is empty where the code decides if it can; `words` where the code says too little;
`status` where the pattern is prose that describes what a status means with this provider.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from otel_triage.verdict.names import SPOKEN_CODE

FILE: Final = Path(__file__).parent / "facts.tsv"
COLUMNS: Final = (
    "provider", "http_status", "code_or_type", "message_pattern", "category", "reason", "retryable",
    "source_url", "decides",
)  # fmt: skip

# Reasons that name only the kind: a wording of the message says more.
_BROAD: Final = frozenset(
    {
        "unspecified", "invalid_parameter", "internal", "unavailable", "invalid_key", "permission_denied",
        "model_not_found", "bad_response", "other",
    }
)  # fmt: skip
_NO_PROVIDER: Final = re.compile(r"client:|framework:|google_api$|one_api$|provider$|litellm$")
_CODE: Final = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*")
_CLASS: Final = re.compile(
    r"(?:[a-z]\w*\.)?((?:AI_)?[A-Z][A-Za-z0-9]*(?:Error|Exception|Exceeded|Triggered|Behavior))"
)
_FINISH: Final = re.compile(
    r"(?:finishReason|finish_reason|stop_reason|stopReason|promptFeedback\.blockReason)=(\w+)", re.IGNORECASE
)
_NUMBER: Final = re.compile(r"\d{4,}")
# What stands for anything of its kind in a pattern, and a plausible thing of that kind.
_PLACES: Final = (
    (r"\bN(?= seconds\b)", "7"),
    (r"\*\*\*", "sk-abc"),
    (r"\bN\b", "4096"),
    (r"\$?\{(?:number|rpm)\}|\bxxx\b", "5"),
    (r"\$?\{\w+\}", "some_field"),
    (r"\bDATE\b", "2026-01-02"),
    (r"\b[XY]\b", "some-name"),
    (r"\b(call|rs|fc)_X\b", r"\1_1a2b"),
    (r"\s?(?:\.\.\.|\u2026)", " something"),
)
# Names that say nothing without their place: Python's own, and classes that stand for a status.
_COMMON_CLASSES: Final = frozenset(
    {"ValueError", "TypeError", "RuntimeError", "OpenAIError", "ValidationError", "ClientError",
     "ServerError", "UserError", "ModelError", "SSLError", "OAuthError"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table; `line` is its number in the file."""

    line: int
    provider: str
    status: str
    code: str
    pattern: str
    verdict: str
    retryable: str
    source: str
    decides: str

    @property
    def called(self) -> str | None:
        """The provider that is called; None for a client library or framework."""
        return None if _NO_PROVIDER.match(self.provider) else self.provider

    @property
    def codes(self) -> tuple[str, ...]:
        """The exact codes that the row names; none where it describes the case in words."""
        parts = self.code.split(" / ")
        return tuple(part for part in parts if _CODE.fullmatch(part)) if self.code else ()

    @property
    def exception(self) -> str | None:
        """The exception class that the row names in place of a code, without its module."""
        found = _CLASS.fullmatch(self.code)
        return found[1] if found else None

    @property
    def finish_reason(self) -> str | None:
        """The reason why the model stopped, as the provider writes it."""
        found = _FINISH.match(self.code)
        return found[1] if found else None


def filled(pattern: str) -> str:
    """A plausible message of a row's pattern."""
    for place, value in _PLACES:
        pattern = re.sub(place, value, pattern)
    return pattern


def rows() -> list[Row]:
    """All rows of `facts.tsv`."""
    with FILE.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        if tuple(next(reader)) != COLUMNS:
            raise ValueError(f"facts.tsv: the columns must be {', '.join(COLUMNS)}")
        found = []
        for number, row in enumerate(reader, start=2):
            if len(row) != len(COLUMNS):
                raise ValueError(f"facts.tsv: line {number} has {len(row)} columns, not {len(COLUMNS)}")
            provider, status, code, pattern, category, reason, retryable, source, decides = row
            found.append(
                Row(
                    number,
                    provider,
                    status,
                    code,
                    pattern,
                    f"{category}/{reason}",
                    retryable,
                    source,
                    decides,
                )
            )
    return found


@dataclass(frozen=True, slots=True)
class _Meaning:
    verdict: str
    retryable: str

    @property
    def broad(self) -> bool:
        return self.verdict.partition("/")[2] in _BROAD


def _meaning(found: list[Row]) -> _Meaning | None:
    """What all these rows mean; of several the one without a known cause; None if they contradict."""
    meanings = {_Meaning(row.verdict, row.retryable) for row in found}
    if len(meanings) > 1:
        meanings = {one for one in meanings if one.verdict.endswith("/unspecified")}
    return meanings.pop() if len(meanings) == 1 else None


def code_rules(statuses: dict[str, int | str], defaults: dict[str, str]) -> Iterator[dict[str, Any]]:
    """The rules that the rows' codes are, in the form of `rules/*.toml`.

    Args:
        statuses: classes that only stand for an HTTP status; they are no codes.
        defaults: retryable of each verdict unless a rule says otherwise.
    """
    by_code: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    by_class: dict[str, list[Row]] = defaultdict(list)
    by_finish: dict[str, list[Row]] = defaultdict(list)
    by_status: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows():
        if row.decides == "words":
            continue
        if row.decides == "status":
            by_status[row.provider, row.status].append(row)
            continue
        if row.exception:
            if row.exception not in _COMMON_CLASSES and row.exception not in statuses:
                by_class[row.exception].append(row)
            if row.called is None or row.exception in statuses:
                continue
        for code in row.codes:
            if code != row.status:
                by_code[code.lower()][row.provider].append(row)
        if row.finish_reason:
            by_finish[row.finish_reason.lower()].append(row)
    for name, found in sorted(by_class.items()):
        if meaning := _meaning(found):
            yield _rule(f"class-{name.lower()}", {"cause": _spellings(name)}, meaning, found, defaults)
    for name, found in sorted(by_finish.items()):
        if meaning := _meaning(found):
            yield _rule(
                f"finish-{name.replace('_', '-')}", {"finish_reason": [name]}, meaning, found, defaults
            )
    for (provider, status), found in sorted(by_status.items()):
        if meaning := _meaning(found):
            conditions = {"provider": [provider], "status": [int(status)]}
            yield _rule(f"{provider}-{status}", conditions, meaning, found, defaults) | {
                "confidence": 0.75,
                "weak": False,
            }
            if codes := sorted({code.lower() for row in found for code in row.codes}):
                coded = {**conditions, "code": codes}
                yield _rule(f"{provider}-{status}-code", coded, meaning, found, defaults) | {"weak": True}
    for code, providers in sorted(by_code.items()):
        yield from _rules_of(code, providers, defaults)


def _spellings(name: str) -> list[str]:
    """The Vercel AI SDK's classes have a name with `AI_` in front and a class without."""
    return [name, name.removeprefix("AI_")] if name.startswith("AI_") else [name]


def _rules_of(
    code: str, providers: dict[str, list[Row]], defaults: dict[str, str]
) -> Iterator[dict[str, Any]]:
    everything = [row for found in providers.values() for row in found]
    slug = re.sub(r"[^a-z0-9.]+", "-", code)
    unanimous = len({row.verdict for row in everything}) == 1
    if unanimous and SPOKEN_CODE.fullmatch(code):
        yield _rule(
            slug,
            {"code": [code]},
            _Meaning(everything[0].verdict, everything[0].retryable),
            everything,
            defaults,
        )
        return
    for provider, found in sorted(providers.items()):
        called = {} if _NO_PROVIDER.match(provider) else {"provider": [provider]}
        if called and unanimous and _NUMBER.fullmatch(code):
            # Such numbers come through OpenAI's SDK with another base URL.
            called = {"provider": [provider, "openai", ""]}
        by_status: dict[str, list[Row]] = defaultdict(list)
        for row in found:
            by_status[row.status].append(row)
        meaning = _meaning(found)
        if meaning:
            yield _rule(f"{provider}-{slug}", {**called, "code": [code]}, meaning, found, defaults)
        for status, of_status in sorted(by_status.items()):
            one = _meaning(of_status)
            if one and one != meaning and status.isdigit() and len({row.verdict for row in of_status}) == 1:
                conditions = {**called, "code": [code], "status": [int(status)]}
                yield _rule(f"{provider}-{slug}-{status}", conditions, one, of_status, defaults)


def _rule(
    name: str, conditions: dict[str, Any], meaning: _Meaning, found: list[Row], defaults: dict[str, str]
) -> dict[str, Any]:
    rule: dict[str, Any] = {
        "id": f"facts/{re.sub('[^a-z0-9.]+', '-', name.lower()).strip('-')}",
        "verdict": meaning.verdict,
        "confidence": 0.85 if meaning.broad else 0.95,
        "source": found[0].source,
        **conditions,
    }
    if meaning.broad:
        rule["weak"] = True
    if meaning.retryable != defaults[meaning.verdict]:
        rule["retryable"] = meaning.retryable
    return rule
