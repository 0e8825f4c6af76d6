"""Objects as programs print them inside of a text -> data.

JSON is read by the standard library. What is not quite JSON is read by one tolerant reader: Python's
`repr`, Node's `util.inspect`, Ruby's hashes (`"a"=>1`), Rust's `Debug`, a body that was escaped once
or more, and one that was cut off. All of it is linear in the text and bounded in depth and size.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

_OBJECTS: Final = 8  # looked at in one text
_DEPTH: Final = 40
_TOKENS: Final = 4000
_ESCAPED: Final = 3  # times that a text may have been escaped

# An opening brace with a key behind it, quoted, escaped or bare; prose in braces is mostly none.
_START: Final = re.compile(r"""\{(?=(?:[ \t\r\n]|\\++[nrt])*+(?:\\*+["']|[A-Za-z_$][\w$]*+[ ]?:(?!:)|\}))""")
_IS_ESCAPED: Final = re.compile(r"""\{(?:[ \t\r\n]|\\+[nrt])*\\+["'nrt]""")
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_WHITE: Final = {"n": "\n", "r": "\r", "t": "\t", "u": "\\u"}

_TOKEN: Final = re.compile(
    r"""\s*+(?:
    (?P<quoted>[bru]?"(?:[^"\\]|\\.)*+(?:"|\Z) | [bru]?'(?:[^'\\]|\\.)*+(?:'|\Z) | `(?:[^`\\]|\\.)*+(?:`|\Z))
    | (?P<open>[{\[(])
    | (?P<close>[}\])])
    | (?P<colon>=>|[:=])
    | (?P<comma>[,;])
    | (?P<word>(?:[^\s"'`{}\[\](),:;=\\]|\\.|["'`])++)
    )""",
    re.VERBOSE | re.DOTALL,
)
_STRING_ESCAPE: Final = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_WORDS: Final[dict[str, Any]] = {
    "null": None,
    "None": None,
    "nil": None,
    "undefined": None,
    "true": True,
    "True": True,
    "false": False,
    "False": False,
}
_PYTHON_WORDS: Final = {"None": "null", "True": "true", "False": "false"}
_PYTHON_WORD: Final = re.compile(r"(?<=: )(?:None|True|False)(?=[,}\]])")
_NUMBER: Final = re.compile(r"-?\d{1,18}(\.\d{1,18})?(?:[eE][+-]?\d{1,2})?")
_JSON: Final = json.JSONDecoder(strict=False)
_MISSING: Final = object()


@dataclass(frozen=True, slots=True)
class Printed:
    """An object that stands in a text from `start` to `end`."""

    data: Any
    start: int
    end: int


@dataclass(slots=True)
class _Open:
    """A container that is being read: `(`, `[` and `{` alike may hold items and fields."""

    fields: dict[str, Any] = field(default_factory=dict)
    items: list[Any] = field(default_factory=list)
    key: str | None = None
    value: Any = _MISSING
    joins: bool = False  # a `+` between two strings (Node)

    def put(self, value: Any, *, word: bool) -> None:
        """A value; the later one of two counts (`Some("x")`, `[Object] {…}`), words are joined."""
        before = self.value
        if isinstance(before, str) and isinstance(value, str) and (word or self.joins):
            value = before + value if self.joins else f"{before} {value}"
        self.joins = False
        self.value = value

    def name(self) -> None:
        """What was read last is the key of what comes."""
        if self.key is None and self.value is not _MISSING:
            self.key, self.value = str(self.value), _MISSING

    def settle(self) -> None:
        """A comma or the end: what was read is a field or an item."""
        if self.key is not None:
            self.fields.setdefault(self.key, None if self.value is _MISSING else self.value)
        elif self.value is not _MISSING:
            self.items.append(self.value)
        self.key, self.value, self.joins = None, _MISSING, False

    def close(self) -> Any:
        """The finished container."""
        self.settle()
        return self.fields or self.items


def _escaped(found: re.Match[str]) -> str:
    code = found[1] or found[2]
    if code:
        return chr(int(code, 16))
    return _WHITE.get(found[3], found[3]) if found[3] != "u" else "u"


def _string(token: str) -> str:
    quote = token.lstrip("bru")
    text = quote[1:-1] if len(quote) > 1 and quote[-1] == quote[0] else quote[1:]
    if "\\" not in text:
        return text
    text = _STRING_ESCAPE.sub(_escaped, text)
    # Two halves of a character beyond the 16 bits of \u become one.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _word(token: str) -> Any:
    if token in _WORDS:
        return _WORDS[token]
    number = _NUMBER.fullmatch(token)
    if number is None:
        return token
    return float(token) if number[1] or "e" in token.lower() else int(token)


def _tolerant(text: str, start: int) -> tuple[Any, int]:
    """Reads a printed object from its brace on; what is cut off ends where the text ends."""
    stack: list[_Open] = []
    end = start
    for count, token in enumerate(_TOKEN.finditer(text, start)):
        if count > _TOKENS or len(stack) > _DEPTH:
            break
        kind, end = token.lastgroup, token.end()
        if kind == "open":
            stack.append(_Open())
        elif kind == "close":
            data = stack.pop().close()
            if not stack:
                return data, end
            stack[-1].put(data, word=False)
        elif kind == "quoted":
            stack[-1].put(_string(token["quoted"]), word=False)
        elif kind == "colon":
            stack[-1].name()
        elif kind == "comma":
            stack[-1].settle()
        elif token["word"] == "+":
            stack[-1].joins = True
        elif token["word"] != ">":  # the end of Python's <Response [429]>
            stack[-1].put(_word(token["word"]), word=True)
    data = None
    while stack:
        top = stack.pop()
        data = top.close()
        if stack:
            stack[-1].put(data, word=False)
    return data, end


def _decode(text: str, start: int) -> tuple[Any, int]:
    python = text.startswith("{'", start)
    if not python:
        try:
            return _JSON.raw_decode(text, start)
        except (ValueError, RecursionError):
            pass
    elif not ('"' in text or "\\" in text):
        # Python's repr at its simplest, by far the most common case: four times as fast.
        as_json = _PYTHON_WORD.sub(lambda found: _PYTHON_WORDS[found[0]], text.replace("'", '"'))
        try:
            return _JSON.raw_decode(as_json, start)  # no word changes its length
        except (ValueError, RecursionError):
            pass
    return _tolerant(text, start)


def _read(text: str, start: int) -> Printed | None:
    data, end = _decode(text, start)
    return Printed(data, start, end) if isinstance(data, (dict, list)) and data else None


def printed_objects(text: str) -> Iterator[Printed]:
    """The objects that are printed in a text, in order; those inside of another are not listed.

    Args:
        text: any text; the caller bounds its length.
    """
    at = 0
    for _ in range(_OBJECTS):
        start = _START.search(text, at)
        if start is None:
            return
        for _ in range(_ESCAPED):
            if not _IS_ESCAPED.match(text, start.start()):
                break
            text = text[: start.start()] + _ESCAPE.sub(
                lambda found: _WHITE.get(found[1], found[1]), text[start.start() :]
            )
        found = _read(text, start.start())
        if found is not None:
            yield found
        at = found.end if found is not None else start.end()
