"""Searching for a rule's pattern: of its alternatives only those whose words stand in the text.

A rule's pattern is mostly a long list of wordings, `no credits left|balance (?:is )?exhausted|…`. To try
them all at each place of a text takes ten times as long as to ask first for a word of each. They are also
compiled one by one, when first needed: most never are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Final, NamedTuple

from otel_triage.facts.lazy import compiled
from otel_triage.verdict.grams import gram_of

_PART: Final = re.compile(
    r"(?P<set>\[\^?\]?(?:\\.|[^\]\\])*\])|(?P<escaped>\\(?:x..|u.{4}|.))|(?P<open>\((?:\?(?:[:=!>]|<[=!]))?)|(?P<special>[)|.^$])|.",
    re.DOTALL,
)
_REPEAT: Final = re.compile(r"(?P<optional>[*?]|\{0?,\d*\}|\{0\})[+?]?|(?:\+|\{\d[\d,]*\})[+?]?")
_LONG: Final = 5  # bytes, from which a word is rare enough


def _close(pattern: str, at: int) -> int:
    """Where the group ends that is open at this place."""
    depth = 1
    for part in _PART.finditer(pattern, at):
        depth += (part["open"] is not None) - (part[0] == ")")
        if not depth:
            return part.start()
    raise ValueError(f"{pattern!r} lacks a closing bracket")


def _split(pattern: str) -> Iterator[str]:
    """The alternatives at the top of a pattern."""
    depth = start = 0
    for part in _PART.finditer(pattern):
        depth += (part["open"] is not None) - (part[0] == ")")
        if part[0] == "|" and not depth:
            yield pattern[start : part.start()]
            start = part.end()
    yield pattern[start:]


def _worth(words: tuple[str, ...]) -> tuple[int, int, int]:
    """How well words tell apart: long ones, few of them."""
    shortest = min(len(word.encode()) for word in words)
    return min(shortest, _LONG), -len(words), shortest


def _needed(pattern: str) -> list[tuple[str, ...]]:
    """Choices of words, the rarest first: one of each stands in all that the alternative matches."""
    choices: list[tuple[str, ...]] = [("",), ("",)]
    run = ""
    at = 0
    while at < len(pattern):
        part = _PART.match(pattern, at)
        assert part is not None  # the last choice takes any character
        group: tuple[str, ...] = ("",)
        letter = ""
        at = part.end()
        if part["open"]:
            end = _close(pattern, at)
            if part["open"] in ("(", "(?:", "(?>"):
                parts = [_needed(one)[0] for one in _split(pattern[at:end])]
                group = tuple(dict.fromkeys(word for part in parts for word in part))
            at = end + 1
        elif part["escaped"]:
            letter = part[0][1] if len(part[0]) == 2 and not part[0][1].isalnum() else ""
        elif not part["set"] and not part["special"]:
            letter = part[0]
        repeat = _REPEAT.match(pattern, at)
        if repeat:
            at = repeat.end()
            if repeat["optional"]:
                letter, group = "", ("",)
        run += letter
        if not letter or repeat:
            choices += [(run,), group]
            run = ""
    return sorted([*choices, (run,)], key=_worth, reverse=True)


class _Row(NamedTuple):
    """A word of which an alternative needs one, and grams of which it needs one as well."""

    gram: int
    word: str
    others: frozenset[int]
    alternative: str


@cache
def _rows(pattern: str) -> tuple[_Row, ...]:
    return tuple(
        _Row(gram_of(word), word, frozenset(map(gram_of, others)), alternative)
        for alternative in _split(pattern)
        for words, others, *_ in (_needed(alternative),)
        for word in words
    )


def _found(pattern: str, text: str, grams: set[int]) -> Iterator[re.Match[str]]:
    """The first match of each alternative, in their order."""
    tried = ""
    for gram, word, others, alternative in _rows(pattern):
        if gram in grams and alternative is not tried and word in text and not grams.isdisjoint(others):
            tried = alternative
            if found := compiled(alternative).search(text):
                yield found


def search(pattern: str, text: str, grams: set[int]) -> str | None:
    """What `re.search` finds of a pattern in a text, or None.

    Args:
        pattern: has no flags and names no group.
        text: to look in.
        grams: of that text; more of them do no harm.
    """
    first = min(_found(pattern, text, grams), key=re.Match.start, default=None)
    return first[0] if first else None


def occurs(pattern: str, text: str, grams: set[int]) -> bool:
    """Whether `search` finds anything."""
    return next(_found(pattern, text, grams), None) is not None
