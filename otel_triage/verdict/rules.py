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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, overload

from otel_triage.facts.providers import canonical
from otel_triage.model import LLMError
from otel_triage.verdict import data
from otel_triage.verdict.index import ALWAYS, FOREIGN, Index, index_of
from otel_triage.verdict.names import (
    LOCAL,
    NO_STATUS,
    SPOKEN_CODE,
    class_in,
    families,
    named_classes,
    param_names,
    plain,
    short,
    statuses,
)
from otel_triage.verdict.rule import Rule, Tier, read_rule

_STACK: Final = 1200
_WORD: Final = re.compile(r"[a-z0-9]+")


Rank = tuple[Tier, int, int, float]


@dataclass(frozen=True, slots=True)
class Match:
    """The rule that won, how it ranked, and the facts that it rests on (`name=value`).

    `agreed` is whether another rule that matched says the same; `rival` the best one that says
    something else, `contested` whether that one has the same tier and depth.
    """

    rule: Rule
    rank: Rank
    facts: tuple[str, ...]
    agreed: bool = False
    rival: Rule | None = None
    contested: bool = False

    @property
    def strength(self) -> str:
        """How well it is supported, as `calibration.toml` names it: `said agreed`, `kind contested`."""
        support = "contested" if self.contested else "agreed" if self.agreed else "alone"
        return f"{self.rank[0].name.lower()} {support}"

    @property
    def settled(self) -> bool:
        """Whether nobody else need be asked: a provider's own words, and rules agree."""
        return self.rank[0] is Tier.TOLD or self.strength == "said agreed"


class Facts:
    """An error as rules see it: codes in lower case, classes with their depth, plain texts."""

    __slots__ = (
        "broke_at",
        "classes",
        "codes",
        "finish",
        "outcome",
        "outermost",
        "params",
        "provider",
        "stack",
        "status",
        "texts",
    )

    def __init__(self, error: LLMError) -> None:
        self.provider = canonical(error.provider)
        self.codes = {code.strip().lower() for code in (error.code, error.type) if code}
        self.finish = {reason.lower() for reason in error.finish_reasons or ()}
        self.broke_at = error.broke_at
        self.outcome = error.outcome
        self.params = param_names(error.param) if error.param else frozenset()
        self.classes: dict[str, int] = {}
        names = [error.error_type or "", *(cause.type for cause in error.causes)]
        for depth, name in enumerate(names):
            if name:
                for one in (name, short(name), *families(name)):
                    self.classes[one] = depth
        outer = names[0] or (names[1] if len(names) > 1 else "")
        self.outermost = {outer, short(outer)}
        told = named_classes(error.message or "")
        for name in told:
            self.classes.setdefault(name, 0)
            for one in families(name):
                self.classes.setdefault(one, 0)
        for word in (error.code, error.type):  # logs and servers print a class as the type
            if word and (name := class_in(word)):
                self.classes.setdefault(name, 0)
        known = statuses()
        self.status = error.status or next(
            (known[name] for name in (short(outer), *told) if name in known), NO_STATUS
        )
        if self.status == LOCAL and self.codes:
            self.status = NO_STATUS
        self.stack = (error.stacktrace or "")[-_STACK:].lower()
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
        or (rule.param and rule.param.isdisjoint(facts.params))
    ):
        return None
    if rule.stack and not _compiled(rule.stack).search(facts.stack):
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
    # A class of statuses is too wide to count, and "none" only keeps a rule away from answers.
    exact = len(rule.status) in range(1, 100) and NO_STATUS not in rule.status
    conditions = (
        rule.provider, exact, rule.code, rule.error_type, rule.cause, rule.finish_reason, rule.broke_at,
        rule.outcome, rule.param, rule.keywords, rule.stack,
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
    if rule.param:
        told.append(f"param={min(rule.param & facts.params)}")
    if rule.keywords and (where := facts.found(rule)):
        told.append(f"{'cause text' if where[0] else 'message'}~{where[1][:60]!r}")
    return tuple(told)


class _Packaged(Sequence[Rule]):
    """The packaged rules, each read when it is first asked for: most never are."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self._rows = rows
        self._read: dict[int, Rule] = {}

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, number: int) -> Rule: ...
    @overload
    def __getitem__(self, number: slice) -> tuple[Rule, ...]: ...
    def __getitem__(self, number: int | slice) -> Rule | tuple[Rule, ...]:
        """The rule of that number, or those of that slice."""
        if isinstance(number, slice):
            return tuple(self[one] for one in range(*number.indices(len(self))))
        if number not in self._read:
            self._read[number] = read_rule(self._rows[number])
        return self._read[number]


def _by_rank(one: tuple[Rank, str, Rule]) -> tuple[Rank, str]:
    return one[0], one[1]


class RuleSet:
    """Rules, indexed by the first condition of each that an error can be looked up by."""

    def __init__(self, rules: Iterable[Rule], index: Index | None = None) -> None:
        self.rules: Sequence[Rule] = rules if isinstance(rules, Sequence) else tuple(rules)
        self._index = index or index_of(
            (rule.code, rule.error_type or rule.cause, rule.finish_reason, rule.status, rule.keywords)
            for rule in self.rules
        )
        self._spoken = {code for code in self._index["code"] if SPOKEN_CODE.fullmatch(code)}

    def _facts(self, error: LLMError) -> Facts:
        """The facts of an error, with the codes that its texts name."""
        facts = Facts(error)
        for text in facts.texts:
            facts.codes |= self._spoken.intersection(SPOKEN_CODE.findall(text))
        return facts

    def _candidates(self, facts: Facts) -> set[int]:
        """The numbers of the rules that could match."""
        index = self._index
        found = set(index["status"].get(str(facts.status), ()))
        for kind, names in (("code", facts.codes), ("class", facts.classes), ("finish", facts.finish)):
            for name in names:
                found.update(index[kind].get(name, ()))
        text = "\n".join(facts.texts)
        words = set(_WORD.findall(text))
        words.add(ALWAYS)
        if not text.isascii():
            words.add(FOREIGN)
        by_word = index["word"]
        for word in words & by_word.keys():
            for keyword, numbers in by_word[word].items():
                if keyword in text:
                    found.update(numbers)
        return found

    def decide(self, error: LLMError) -> Match | None:
        """The best rule for an error; None where none matches."""
        facts = self._facts(error)
        found: list[tuple[Rank, str, Rule]] = []
        for number in self._candidates(facts):
            rule = self.rules[number]
            if rank := _rank(rule, facts):
                found.append((rank, rule.id, rule))
        if not found:
            return None
        # Equal ranks are settled by name, so that the order of files never decides.
        found.sort(key=_by_rank, reverse=True)
        rank, _, best = found[0]
        others = [one for one in found if one[2].verdict != best.verdict]
        rival_rank, _, rival = others[0] if others else (None, "", None)
        return Match(
            best,
            rank,
            _told(best, facts),
            agreed=len(others) < len(found) - 1,
            rival=rival,
            contested=rival_rank is not None and rival_rank[:2] == rank[:2],
        )

    def matches(self, rule_id: str, error: LLMError) -> bool:
        """Whether one rule, by itself, matches an error.

        Raises:
            KeyError: there is no rule of that name.
        """
        for rule in self.rules:
            if rule.id == rule_id:
                return _rank(rule, self._facts(error)) is not None
        raise KeyError(rule_id)


@cache
def rule_set() -> RuleSet:
    """The packaged rules."""
    return RuleSet(_Packaged(data.load()["rules"]), data.load()["index"])
