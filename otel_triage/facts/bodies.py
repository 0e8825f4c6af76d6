"""Error bodies of providers: code, type, parameter and message, wherever they sit.

The forms, by their sources:
- OpenAI and compatible ones: `{"error": {"message", "type", "param", "code"}}`;
  in a Responses stream `{"type": "error", "code", "message", "param"}` and
  `{"type": "response.failed", "response": {"error": {"code", "message"}}}`.
- Anthropic: `{"type": "error", "error": {"type", "message"}, "request_id"}`.
- Google: `{"error": {"code": 429, "message", "status": "RESOURCE_EXHAUSTED"}}`.
- Others: `{"message", "code"}`, `{"error": "text"}`, `{"detail": "text"}`.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

_DEPTH: Final = 6
_MESSAGE_LIMIT: Final = 4000
_OPENING = re.compile(r"[{\[]")
_TITLE = re.compile(r"<title[^>]{0,200}+>(?P<title>[^<]{1,500}+)</title>", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """What a provider said. `code` and `type` are its own words; a number of an HTTP status is `status`."""

    code: str | None = None
    status: int | None = None
    type: str | None = None
    param: str | None = None
    message: str | None = None
    request_id: str | None = None

    @property
    def empty(self) -> bool:
        """Whether it says nothing at all."""
        return self.code is None and self.type is None and self.message is None


_NOTHING: Final = ErrorBody()
_WRAPPERS: Final = ("error", "response", "body", "detail", "data")
_NO_CODES: Final = frozenset({"error", "response.failed"})  # they name the envelope, not the error


def _text(value: object) -> str | None:
    if isinstance(value, str) and value.strip():
        return value.strip()[:_MESSAGE_LIMIT]
    return None


def _code(value: object) -> str | None:
    """A code is a word, or a number that is no HTTP status (Zhipu's 1302, MiniMax's 2013)."""
    if isinstance(value, bool) or _status(value) is not None:
        return None
    if isinstance(value, int):
        return str(value)
    return value.strip()[:200] or None if isinstance(value, str) else None


def _status(value: object) -> int | None:
    number = int(value) if isinstance(value, str) and value.isdecimal() else value
    return number if isinstance(number, int) and 100 <= number <= 599 else None


def read_error_body(data: object, *, depth: int = _DEPTH) -> ErrorBody:
    """Reads a decoded error body (or exception body) of any of the known forms.

    The innermost object that holds an error wins; what it lacks is taken from around it.
    """
    if depth <= 0:
        return _NOTHING
    if isinstance(data, str):
        return ErrorBody(message=_text(data))
    if isinstance(data, list):
        return read_error_body(data[0], depth=depth - 1) if data else _NOTHING
    if not isinstance(data, Mapping):
        return _NOTHING
    inner = _NOTHING
    for key in _WRAPPERS:
        if data.get(key):
            inner = read_error_body(data[key], depth=depth - 1)
            if not inner.empty:
                break
    kind = _code(data.get("type"))
    return ErrorBody(
        code=inner.code or _code(data.get("code")) or _code(data.get("status")),
        status=inner.status or _status(data.get("code")) or _status(data.get("status")),
        type=inner.type or (None if kind in _NO_CODES else kind),
        param=inner.param or _text(data.get("param")),
        message=inner.message or _text(data.get("message")) or _text(data.get("error_description")),
        request_id=inner.request_id or _text(data.get("request_id")),
    )


def _decode(text: str) -> Any:
    """The first JSON object or Python dict display in a text, or None."""
    for start in _OPENING.finditer(text):
        try:
            return json.JSONDecoder().raw_decode(text, start.start())[0]
        except RecursionError:
            return None
        except ValueError:
            end = text.rfind("}" if start.group() == "{" else "]")
            if end <= start.start():
                return None
            try:
                return ast.literal_eval(text[start.start() : end + 1])
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                continue
    return None


def read_error_text(text: str) -> ErrorBody:
    """Reads an error body that stands inside a text, as exceptions print it.

    `Error code: 429 - {'error': {'message': …}}` is openai 2.x; a bare JSON body is what
    an HTTP client prints; of an HTML page its title says what there is to say. Where no body
    stands in it, the text itself is the message.
    """
    text = text[:20_000]
    if page := _TITLE.search(text):
        return ErrorBody(message=_text(page["title"]))
    data = _decode(text) if "{" in text else None
    if isinstance(data, (Mapping, list)):
        body = read_error_body(data)
        if not body.empty:
            return body
    return ErrorBody(message=_text(text))


_LIMITS: Final = (
    # OpenAI: "maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens"
    # "… you requested 9000 tokens (…)": https://platform.openai.com/docs/guides/error-codes
    re.compile(
        r"maximum context length (?:is|of) (?P<limit>[\d,]{1,15}).{0,80}?(?P<asked>[\d,]{1,15}+) tokens", re.S
    ),
    re.compile(r"maximum context length (?:is|of) (?P<limit>[\d,]{1,15})"),
    # Anthropic: "prompt is too long: 210000 tokens > 200000 maximum"
    re.compile(r"(?P<asked>[\d,]{1,15}+) tokens > (?P<limit>[\d,]{1,15}) maximum"),
)


def token_limits(message: str) -> tuple[int | None, int | None]:
    """The model's context limit and the tokens asked for, where the provider names them."""
    for pattern in _LIMITS:
        if found := pattern.search(message):
            groups = found.groupdict()
            asked = groups.get("asked")
            return _count(groups["limit"]), _count(asked) if asked else None
    return None, None


def _count(digits: str) -> int:
    return int(digits.replace(",", "") or 0)
