"""Changes members of a JSON object in its text, and leaves every other byte as it came.

To parse and to write again would change numbers (1.10, 1E400), escapes and doubled keys of a user's
own data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from json.decoder import JSONDecodeError, scanstring  # type: ignore[attr-defined]
from typing import Any, Final

_BLANK: Final = " \t\n\r"
_DECODER: Final = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class Member:
    """One member of an object in a text: from `begin` to `end`, its value from `value` on."""

    begin: int
    value: int
    end: int
    data: Any


class Remove:
    """What stands for a member that is to go."""


def members(text: str, at: int = 0) -> dict[str, Member]:
    """The members of the object that begins at `at`; of a key that stands twice the last one counts.

    Raises:
        ValueError: If there is no object.
        RecursionError: If a value is nested too deeply.
    """
    at = _skip(text, at)
    if text[at : at + 1] != "{":
        raise JSONDecodeError("an object is due", text, at)
    found: dict[str, Member] = {}
    at = _skip(text, at + 1)
    while text[at : at + 1] != "}":
        begin = at
        if text[at : at + 1] != '"':
            raise JSONDecodeError("a key is due", text, at)
        key, at = scanstring(text, at + 1, True)
        at = _skip(text, at)
        if text[at : at + 1] != ":":
            raise JSONDecodeError("a colon is due", text, at)
        value = _skip(text, at + 1)
        data, end = _DECODER.raw_decode(text, value)
        found[key] = Member(begin, value, end, data)
        at = _skip(text, end)
        if text[at : at + 1] == ",":
            at = _skip(text, at + 1)
            if text[at : at + 1] == "}":
                raise JSONDecodeError("a key is due", text, at)
        elif text[at : at + 1] != "}":
            raise JSONDecodeError("a comma is due", text, at)
    return found


def spliced(text: str, changes: Mapping[str, Any], at: int = 0) -> str:
    """The text with these members of the object at `at` set to other texts of JSON, added, or removed.

    Args:
        text: Holds the object.
        changes: Key -> the JSON text of its new value, or `Remove`.
        at: Where the object begins.

    Raises:
        ValueError: If there is no object.
    """
    there = members(text, at)
    edits: list[tuple[int, int, str]] = []
    opened = text.index("{", at) + 1
    left = len(there)
    for key, value in changes.items():
        member = there.get(key)
        if value is Remove:
            if member is not None:
                edits.append((*_with_comma(text, member), ""))
                left -= 1
        elif member is not None:
            edits.append((member.value, member.end, value))
    added = ",".join(
        f"{json.dumps(key)}:{value}"
        for key, value in changes.items()
        if value is not Remove and key not in there
    )
    for begin, end, new in sorted(edits, reverse=True):
        text = text[:begin] + new + text[end:]
    if added:
        text = f"{text[:opened]}{added}{',' if left else ''}{text[opened:]}"
    return text


def _with_comma(text: str, member: Member) -> tuple[int, int]:
    """A member and the comma that goes with it: the one behind, else the one in front."""
    end = _skip(text, member.end)
    if text[end] == ",":
        return member.begin, _skip(text, end + 1)
    begin = member.begin
    while text[begin - 1] in _BLANK:
        begin -= 1
    return (begin - 1 if text[begin - 1] == "," else member.begin), member.end


def _skip(text: str, at: int) -> int:
    while text[at : at + 1] and text[at] in _BLANK:
        at += 1
    return at
