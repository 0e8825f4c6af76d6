"""The one engine for all rules: which rule explains this error best?

The rules are data: `rules/*.toml`, whose format is described in `docs/rules.md`. A rule
matches if all its conditions hold. Of all that match the best wins by
`(tier, depth, specificity, confidence)`:

- tier: what kind of fact the rule rests on (`Tier`), as the taxonomy's rule of precedence says;
- depth: how far inside the exception chain it was found, since the inner cause beats the wrapper;
- specificity: how many conditions the rule has (a whole class of statuses, as "5xx", is none);
- confidence: how sure its author is.

Only rules that could match are tried: they are indexed by code, class, finish reason, word
or status, so that a thousand of them cost no more than a hundred.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from typing import Any, Final

from otel_triage.model import LLMError, Retryable
from otel_triage.verdict import data

NO_STATUS: Final = 0
"""How a rule's `status = ["none"]` and an error without a status are kept."""

_HEAD: Final = 4000
_TAIL: Final = 1000
_ALWAYS: Final = ("always", "")
_WORD: Final = re.compile(r"[a-z0-9]+")


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
    keywords: tuple[str, ...] = ()
    pattern: str = ""
    veto: str = ""


Rank = tuple[Tier, int, int, float]


@dataclass(frozen=True, slots=True)
class Match:
    """The rule that won, how it ranked, and the facts that it rests on (`name=value`)."""

    rule: Rule
    rank: Rank
    facts: tuple[str, ...]


def plain(text: str) -> str:
    """The form of a text that keywords and patterns see: lower case, single spaces, no escapes.

    Of a long text the first 4000 and the last 1000 characters count.
    """
    if len(text) > _HEAD + _TAIL:
        text = f"{text[:_HEAD]} {text[-_TAIL:]}"
    if "\\" in text:
        text = text.replace("\\n", " ").replace("\\", "")
    return " ".join(text.replace("\u2019", "'").lower().split())


def _short(name: str) -> str:
    return name.rpartition(".")[2]


class Facts:
    """An error as rules see it: codes in lower case, classes with their depth, plain texts."""

    __slots__ = (
        "broke_at",
        "classes",
        "codes",
        "finish",
        "outcome",
        "outermost",
        "provider",
        "status",
        "texts",
    )

    def __init__(self, error: LLMError) -> None:
        self.provider = error.provider.lower() if error.provider else ""
        self.codes = {code.strip().lower() for code in (error.code, error.type) if code}
        self.finish = {reason.lower() for reason in error.finish_reasons or ()}
        self.broke_at = error.broke_at
        self.outcome = error.outcome
        self.classes: dict[str, int] = {}
        names = [error.error_type or "", *(cause.type for cause in error.causes)]
        for depth, name in enumerate(names):
            if name:
                self.classes[name] = self.classes[_short(name)] = depth
        outer = names[0] or (names[1] if len(names) > 1 else "")
        self.outermost = {outer, _short(outer)}
        self.status = error.status or _statuses().get(_short(outer), NO_STATUS)
        self.texts = [plain(error.message or "")]
        self.texts += [plain(cause.message) for cause in error.causes]

    def found(self, rule: Rule) -> tuple[int, str] | None:
        """Where a text of the error says what the rule looks for: depth (0: the message) and the words."""
        for depth in (0, *range(len(self.texts) - 1, 0, -1)):
            text = self.texts[depth]
            hit = _said(rule, text)
            if hit is not None:
                vetoed = rule.veto and any(_compiled(rule.veto).search(other) for other in self.texts)
                return None if vetoed else (depth, hit)
        return None


def _said(rule: Rule, text: str) -> str | None:
    """The words of a text that the rule looks for."""
    for word in rule.keywords:
        if word in text:
            if not rule.pattern:
                return word
            hit = _compiled(rule.pattern).search(text)
            return hit[0] if hit else None
    return None


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


@cache
def _statuses() -> dict[str, int]:
    found: dict[str, int] = data.load()["statuses"]
    return found


def _rank(rule: Rule, facts: Facts) -> Rank | None:
    """How the rule ranks for these facts; None if it does not match."""
    if (
        (rule.provider and facts.provider not in rule.provider)
        or (rule.status and facts.status not in rule.status)
        or (rule.code and rule.code.isdisjoint(facts.codes))
        or (rule.error_type and rule.error_type.isdisjoint(facts.outermost))
        or (rule.finish_reason and rule.finish_reason.isdisjoint(facts.finish))
        or (rule.broke_at and facts.broke_at not in rule.broke_at)
        or (rule.outcome and facts.outcome not in rule.outcome)
    ):
        return None
    depth = 0
    if rule.cause:
        depth = max((facts.classes[name] for name in rule.cause if name in facts.classes), default=-1)
        if depth < 0:
            return None
    said = bool(rule.code)
    if rule.keywords:
        where = facts.found(rule)
        if where is None:
            return None
        said = said or where[0] == 0
        depth = max(depth, where[0])
    return _tier(rule, said), depth, _specificity(rule), rule.confidence


def _tier(rule: Rule, said: bool) -> Tier:
    if rule.outcome:
        return Tier.TOLD
    if rule.weak:
        return Tier.KIND
    if said:
        return Tier.SAID
    if rule.cause or rule.error_type or rule.keywords:
        return Tier.CAUSE
    return Tier.FINISH if rule.finish_reason else Tier.STATUS


@cache
def _specificity(rule: Rule) -> int:
    conditions = (
        rule.provider, len(rule.status) in range(1, 100), rule.code, rule.error_type, rule.cause,
        rule.finish_reason, rule.broke_at, rule.outcome, rule.keywords,
    )  # fmt: skip
    return sum(1 for condition in conditions if condition)


def _told(rule: Rule, facts: Facts) -> tuple[str, ...]:
    """The facts that a matching rule rests on, for a person to read."""
    told = []
    if rule.provider:
        told.append(f"provider={facts.provider}")
    if rule.status:
        told.append(f"status={facts.status or 'none'}")
    if rule.code:
        told.append(f"code={min(rule.code & facts.codes)}")
    if rule.error_type:
        told.append(f"error_type={min(rule.error_type & facts.outermost)}")
    if rule.cause:
        told.append(f"cause={max(rule.cause & facts.classes.keys(), key=facts.classes.__getitem__)}")
    if rule.finish_reason:
        told.append(f"finish_reason={min(rule.finish_reason & facts.finish)}")
    if rule.broke_at:
        told.append(f"broke_at={facts.broke_at}")
    if rule.outcome:
        told.append(f"outcome={facts.outcome}")
    if rule.keywords and (where := facts.found(rule)):
        told.append(f"{'cause text' if where[0] else 'message'}~{where[1][:60]!r}")
    return tuple(told)


def _statuses_of(written: Iterable[int | str]) -> Iterator[int]:
    """`429`, `"5xx"` and `"none"` as numbers."""
    for one in written:
        if isinstance(one, int):
            yield one
        elif one == "none":
            yield NO_STATUS
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
        keywords=tuple(row.get("keywords", ())),
        pattern=row.get("pattern", ""),
        veto=row.get("veto", ""),
    )


def anchor(keyword: str) -> str:
    """The word of a keyword by which it is looked up; it must stand in the text as a whole word.

    The last of several words may be cut short (`rate limit` finds "rate limits"), so it is
    never the anchor. Empty for a keyword without an ASCII word: such a rule is always tried.
    """
    words = _WORD.findall(keyword)
    return max(words[:-1] or words, key=len, default="")


def _keys(rule: Rule) -> set[tuple[str, str | int]]:
    """What a rule is looked up by; nothing where its keywords are the only way."""
    for kind, values in (
        ("code", rule.code), ("class", rule.error_type or rule.cause), ("finish", rule.finish_reason),
    ):  # fmt: skip
        if values:
            return {(kind, value) for value in values}
    if rule.keywords:
        return set()
    return {("status", status) for status in rule.status} or {_ALWAYS}


class RuleSet:
    """Rules, indexed by the first condition of each that an error can be looked up by."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules: tuple[Rule, ...] = tuple(rules)
        self._by_fact: dict[tuple[str, str | int], list[Rule]] = {}
        self._by_word: dict[str, list[tuple[str, Rule]]] = {}
        for rule in self.rules:
            for key in _keys(rule):
                self._by_fact.setdefault(key, []).append(rule)
            if not _keys(rule):
                for keyword in rule.keywords:
                    self._by_word.setdefault(anchor(keyword), []).append((keyword, rule))

    def _candidates(self, facts: Facts) -> Iterator[Rule]:
        """The rules that could match, some of them more than once."""
        yield from self._by_fact.get(_ALWAYS, ())
        yield from self._by_fact.get(("status", facts.status), ())
        for kind, names in (("code", facts.codes), ("class", facts.classes), ("finish", facts.finish)):
            for name in names:
                yield from self._by_fact.get((kind, name), ())
        text = "\n".join(facts.texts)
        for word in {"", *_WORD.findall(text)}:
            for keyword, rule in self._by_word.get(word, ()):
                if keyword in text:
                    yield rule

    def decide(self, error: LLMError) -> Match | None:
        """The best rule for an error; None where none matches."""
        facts = Facts(error)
        best: Rule | None = None
        best_rank: Rank | None = None
        for rule in self._candidates(facts):
            rank = _rank(rule, facts)
            # Equal ranks are settled by name, so that the order of files never decides.
            if rank and (best is None or best_rank is None or (rank, rule.id) > (best_rank, best.id)):
                best, best_rank = rule, rank
        if best is None or best_rank is None:
            return None
        return Match(best, best_rank, _told(best, facts))

    def matches(self, rule_id: str, error: LLMError) -> bool:
        """Whether one rule, by itself, matches an error.

        Raises:
            KeyError: there is no rule of that name.
        """
        for rule in self.rules:
            if rule.id == rule_id:
                return _rank(rule, Facts(error)) is not None
        raise KeyError(rule_id)


@cache
def rule_set() -> RuleSet:
    """The packaged rules."""
    return RuleSet(read_rule(row) for row in data.load()["rules"])
