"""Which rules could match: rules by the first condition of each that an error can be looked up by.

The index of the packaged rules is a part of `data.json`, so that a process does not make it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any, Final

from otel_triage.verdict.grams import gram_of, grams_of
from otel_triage.verdict.names import SPOKEN_CODE

Index = dict[str, dict[str, Any]]
"""`code`, `class`, `finish`, `status`: value -> numbers of rules. `always`: those of rules that can be
looked up by nothing. `keyword`: four bytes of it -> keywords, each with its anchor and the numbers of
the rules that are looked up by it; spoken codes stand there too, with no rule."""

Conditions = tuple[Collection[str], Collection[str], Collection[str], Collection[int], Collection[str]]
"""Of one rule: codes, classes, finish reasons, statuses, keywords."""

_WORD: Final = re.compile(r"[a-z0-9]+")


def words_of(text: str) -> set[str]:
    """The ASCII words of a text."""
    return set(_WORD.findall(text))


def anchor(keyword: str) -> str:
    """The word of a keyword that must stand in the text as a whole word.

    The last of several words may be cut short (`rate limit` finds "rate limits"), so it is
    never the anchor. Empty for a keyword without an ASCII word.
    """
    words = _WORD.findall(keyword)
    return max(words[:-1] or words, key=len, default="")


def index_of(rules: Iterable[Conditions], texts: Iterable[str] = ()) -> Index:
    """The index of rules, which are numbered in their order.

    Args:
        rules: their conditions.
        texts: of errors; a keyword is looked up by what is rare in them.
    """
    index: Index = {"code": {}, "class": {}, "finish": {}, "status": {}, "always": {}, "keyword": {}}
    by_keyword: dict[str, list[int]] = {}
    for number, (codes, classes, finish, statuses, keywords) in enumerate(rules):
        for word in (*keywords, *filter(SPOKEN_CODE.fullmatch, sorted(codes))):
            by_keyword.setdefault(word, [])
        exact = next(
            (
                (kind, names)
                for kind, names in (("code", codes), ("class", classes), ("finish", finish))
                if names
            ),
            None,
        )
        if exact:
            for name in sorted(exact[1]):
                index[exact[0]].setdefault(name, []).append(number)
        elif keywords:
            for keyword in keywords:
                by_keyword[keyword].append(number)
        elif statuses:
            for status in sorted(statuses):
                index["status"].setdefault(str(status), []).append(number)
        else:
            index["always"].setdefault("", []).append(number)
    counts = Counter(gram for text in texts for gram in grams_of(text))
    for keyword, numbers in by_keyword.items():
        row = (keyword, anchor(keyword), numbers)
        index["keyword"].setdefault(str(gram_of(keyword, counts.__getitem__)), []).append(row)
    return index
