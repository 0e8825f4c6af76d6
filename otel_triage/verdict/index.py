"""Which rules could match: rules by the first condition of each that an error can be looked up by.

The index of the packaged rules is a part of `data.json`, so that a process does not make it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Any, Final

ALWAYS: Final = " "
"""The word of rules that can be looked up by nothing."""

FOREIGN: Final = ""
"""The word of keywords without an ASCII word: they are tried on texts that are not ASCII."""

Index = dict[str, dict[str, Any]]
"""`code`, `class`, `finish`, `status`: value -> numbers of rules; `word`: word -> keyword -> numbers."""

Conditions = tuple[Collection[str], Collection[str], Collection[str], Collection[int], Collection[str]]
"""Of one rule: codes, classes, finish reasons, statuses, keywords."""

_WORD: Final = re.compile(r"[a-z0-9]+")


def anchor(keyword: str) -> str:
    """The word of a keyword by which it is looked up; it must stand in the text as a whole word.

    The last of several words may be cut short (`rate limit` finds "rate limits"), so it is
    never the anchor. Empty for a keyword without an ASCII word.
    """
    words = _WORD.findall(keyword)
    return max(words[:-1] or words, key=len, default=FOREIGN)


def index_of(rules: Iterable[Conditions]) -> Index:
    """The index of rules, which are numbered in their order."""
    index: Index = {"code": {}, "class": {}, "finish": {}, "status": {}, "word": {}}
    for number, (codes, classes, finish, statuses, keywords) in enumerate(rules):
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
                index["word"].setdefault(anchor(keyword), {}).setdefault(keyword, []).append(number)
        elif statuses:
            for status in sorted(statuses):
                index["status"].setdefault(str(status), []).append(number)
        else:
            index["word"].setdefault(ALWAYS, {}).setdefault("", []).append(number)
    return index
