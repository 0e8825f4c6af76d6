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

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, overload

from otel_triage.facts.providers import canonical
from otel_triage.model import LLMError
from otel_triage.verdict import data, pattern
from otel_triage.verdict.grams import grams_of
from otel_triage.verdict.index import Index, index_of, words_of
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
_FIRM: Final = 0.92  # the author's confidence: a provider's own code or exact words

Rank = tuple[Tier, int, int, float]
Found = tuple[int, str] | None
"""Where a text of the error says what a rule looks for: depth (0: the message) and the words."""


@dataclass(frozen=True, slots=True)
class Match:
    """The rule that won, how it ranked, and the facts that it rests on (`name=value`).

    `agreed` is whether another rule that matched, no weak one, says the same; `rival` the best one that
    says something else (where all is settled, none of the weak rules), `contested` whether that one has
    the same tier and depth.
    """

    rule: Rule
    rank: Rank
    facts: tuple[str, ...]
    agreed: bool = False
    rival: Rule | None = None
    contested: bool = False

    @property
    def strength(self) -> str:
        """How well it is supported, as `calibration.toml` names it: `said agreed, firm`, `kind contested`."""
        support = "contested" if self.contested else "agreed" if self.agreed else "alone"
        firm = ", firm" if self.rule.confidence >= _FIRM else ""
        return f"{self.rank[0].name.lower()} {support}{firm}"

    @property
    def settled(self) -> bool:
        """Whether nobody else need be asked: a provider's own words, and rules agree."""
        return self.rank[0] is Tier.TOLD or (self.rank[0] is Tier.SAID and self.agreed and not self.contested)


class Facts:
    """An error as rules see it: codes in lower case, classes with their depth, plain texts."""

    __slots__ = (
        "broke_at",
        "classes",
        "codes",
        "finish",
        "grams",
        "keywords",
        "outcome",
        "outermost",
        "params",
        "provider",
        "stack",
        "stack_grams",
        "status",
        "text",
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
        self.text = "\n".join(dict.fromkeys(self.texts))
        self.grams = grams_of(self.text)
        self.stack_grams: set[int] | None = None
        self.keywords: dict[str, Sequence[int]] = {}

    def found(self, rule: Rule) -> Found:
        """Where a text of the error says what the rule looks for."""
        places = _places(rule)
        words = [word for word in self.keywords if word in places]
        if not words:
            return None
        words.sort(key=places.__getitem__)
        for depth in (0, *range(len(self.texts) - 1, 0, -1)):
            text = self.texts[depth]
            for word in words:
                if word in text:
                    hit = pattern.search(rule.pattern, text, self.grams) if rule.pattern else word
                    if hit is not None:
                        return None if self._vetoed(rule) else (depth, hit)
                    break
        return None

    def in_stack(self, wanted: str) -> bool:
        """Whether the end of the stack trace shows a pattern."""
        if not self.stack:
            return False
        if self.stack_grams is None:
            self.stack_grams = grams_of(self.stack)
        return pattern.occurs(wanted, self.stack, self.stack_grams)

    def _vetoed(self, rule: Rule) -> bool:
        return bool(rule.veto) and any(
            pattern.occurs(rule.veto, text, self.grams) for text in dict.fromkeys(self.texts)
        )


def _rank(rule: Rule, facts: Facts) -> tuple[Rank, Found] | None:
    """How the rule ranks for these facts, and where a text says so; None if it does not match."""
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
    if rule.stack and not facts.in_stack(rule.stack):
        return None
    depth = 0
    where: Found = None
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
    return (_tier(rule, said), depth, _specificity(rule), rule.confidence), where


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
def _places(rule: Rule) -> dict[str, int]:
    """The rule's keywords, each with its place among them."""
    return {keyword: place for place, keyword in enumerate(rule.keywords)}


@cache
def _specificity(rule: Rule) -> int:
    # A class of statuses is too wide to count, and "none" only keeps a rule away from answers.
    exact = len(rule.status) in range(1, 100) and NO_STATUS not in rule.status
    conditions = (
        rule.provider, exact, rule.code, rule.error_type, rule.cause, rule.finish_reason, rule.broke_at,
        rule.outcome, rule.param, rule.keywords, rule.stack,
    )  # fmt: skip
    return sum(1 for condition in conditions if condition)


def _told(rule: Rule, facts: Facts, where: Found) -> tuple[str, ...]:
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
    if where:
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


_Ranked = tuple[Rank, str, Rule, Found]


def _by_rank(one: _Ranked) -> tuple[Rank, str]:
    return one[:2]


def _ranked(rules: Iterable[Rule], facts: Facts) -> Iterator[_Ranked]:
    """Those of the rules that match."""
    for rule in rules:
        if ranked := _rank(rule, facts):
            yield ranked[0], rule.id, rule, ranked[1]


def _match(found: list[_Ranked], facts: Facts) -> Match | None:
    """The best of the rules that match."""
    if not found:
        return None
    # Equal ranks are settled by name, so that the order of files never decides.
    found.sort(key=_by_rank, reverse=True)
    rank, _, best, where = found[0]
    others = [one for one in found if one[2].verdict != best.verdict]
    rival_rank, rival = (others[0][0], others[0][2]) if others else (None, None)
    return Match(
        best,
        rank,
        _told(best, facts, where),
        agreed=any(one.verdict == best.verdict and not one.weak for _, _, one, _ in found[1:]),
        rival=rival,
        contested=rival_rank is not None and rival_rank[:2] == rank[:2],
    )


class RuleSet:
    """Rules, indexed by the first condition of each that an error can be looked up by."""

    def __init__(self, rules: Iterable[Rule], index: Index | None = None) -> None:
        self.rules: Sequence[Rule] = rules if isinstance(rules, Sequence) else tuple(rules)
        self._index = index or index_of(
            (rule.code, rule.error_type or rule.cause, rule.finish_reason, rule.status, rule.keywords)
            for rule in self.rules
        )
        self._by_gram: dict[int, list[tuple[str, str, list[int]]]] = {
            int(gram): rows for gram, rows in self._index["keyword"].items()
        }
        self._spoken = frozenset(filter(SPOKEN_CODE.fullmatch, self._index["code"]))

    def _facts(self, error: LLMError) -> Facts:
        """The facts of an error, with the codes and keywords that its texts name."""
        facts = Facts(error)
        text, keywords, by_gram = facts.text, facts.keywords, self._by_gram
        words = words_of(text)
        for gram in by_gram.keys() & facts.grams:
            for keyword, anchor, numbers in by_gram[gram]:
                if keyword in text:
                    keywords[keyword] = numbers if not anchor or anchor in words else ()
        if spoken := keywords.keys() & self._spoken:
            facts.codes |= spoken.intersection(SPOKEN_CODE.findall(text))
        return facts

    def _candidates(self, facts: Facts) -> set[int]:
        """The numbers of the rules that could match."""
        index = self._index
        found = set(index["always"].get("", ()))
        found.update(index["status"].get(str(facts.status), ()))
        for kind, names in (("code", facts.codes), ("class", facts.classes), ("finish", facts.finish)):
            for name in names:
                found.update(index[kind].get(name, ()))
        found.update(*facts.keywords.values())
        return found

    def decide(self, error: LLMError) -> Match | None:
        """The best rule for an error; None where none matches."""
        facts = self._facts(error)
        strong: list[Rule] = []
        weak: list[Rule] = []
        for number in self._candidates(facts):
            rule = self.rules[number]
            (weak if rule.weak else strong).append(rule)
        found = list(_ranked(strong, facts))
        match = _match(found, facts)
        if match is None or not (match.settled and match.agreed):  # else a weak rule could change nothing
            match = _match([*found, *_ranked(weak, facts)], facts)
        return match

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
