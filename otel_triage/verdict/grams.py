"""Which of thousands of words may stand in a text: asked by four bytes of each, all at once.

To look for a word takes as long as to look for four bytes in a set; the sets of a text and of all words
are intersected in one step. What that finds may stand in the text, and is then looked for.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import unpack_from
from typing import Final

ANY: Final = 0
"""The gram of what is shorter than four bytes; every text has it."""

_SIZE: Final = 4


def grams_of(text: str) -> set[int]:
    """All that stands in four bytes of a text, as numbers (UTF-8, little-endian), and `ANY`."""
    data = text.encode("utf-8", "replace")
    found = {ANY}
    for at in range(min(_SIZE, len(data))):
        found.update(unpack_from(f"<{(len(data) - at) // _SIZE}I", data, at))
    return found


def gram_of(word: str, worth: Callable[[int], int] | None = None) -> int:
    """The gram that a word is looked up by: the one of the lowest `worth`, else that in the middle."""
    data = word.encode("utf-8", "replace")
    if len(data) < _SIZE:
        return ANY
    if worth is None:
        middle = (len(data) - _SIZE) // 2
        return int.from_bytes(data[middle : middle + _SIZE], "little")
    return min(sorted(grams_of(word) - {ANY}), key=worth)
