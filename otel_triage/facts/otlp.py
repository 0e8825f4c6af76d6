"""OTLP spans and log records -> attributes and facts. Protobuf messages are read by their fields alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_triage.facts.bodies import ErrorBody, read_error_text
from otel_triage.facts.dialects import Role, names_of_one, read_attributes, read_names
from otel_triage.facts.stacktrace import read_stacktrace
from otel_triage.model import BrokeAt, Cause, LLMError

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
    from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

FAILED: Final = 2
"""`STATUS_CODE_ERROR` of OTLP."""

EXCEPTION_EVENT: Final = "exception"
_TYPE: Final = "exception.type"
_MESSAGE: Final = "exception.message"
_STACKTRACE: Final = "exception.stacktrace"
_EXCEPTION: Final = (_TYPE, _MESSAGE, _STACKTRACE)
_MESSAGE_LIMIT: Final = 4000

_FIELDS: Final = tuple(field.name for field in fields(LLMError))
_GET_ALL: Final = attrgetter(*_FIELDS)

# How clients print a status or a code in front of the provider's words, by their sources. What
# follows is `rest`; where nothing does, the whole text is the message.
_PRINTED: Final = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        # openai, anthropic (_base_client.py): "Error code: 429 - {…}" or "… - Rate limit reached …"
        r"^(?:\w+: )?Error code: (?P<status>\d{3})(?: - (?P<rest>.+))?$",
        # pydantic-ai (exceptions.py): "status_code: 429, model_name: gpt-4o, body: {…}"
        r"^status_code: (?P<status>\d{3}), model_name: [^,]+, body: (?P<rest>.+)$",
        # botocore (exceptions.py): "An error occurred (Code) when calling the X operation (reached …): …"
        r"^An error occurred \((?P<code>\w+)\) when calling the \w+ operation"
        r"(?: \(reached [^)]*\))?: (?P<rest>.+)$",
        # anthropic-sdk-go: 'POST "https://…": 529  {…}'
        r'^[A-Z]+ "[^"]*": (?P<status>\d{3}) (?:[A-Za-z ]*? ?)(?:\(Request-ID: [^)]*\) )?(?P<rest>\{.+)$',
        # httpx: "Client error '429 Too Many Requests' for url …"; requests: "429 Client Error: … for url"
        r"^(?:Client|Server) error '(?P<status>\d{3}) [^']*' for url",
        r"^(?P<status>\d{3}) (?:Client|Server) Error: ",
        # openai-go 3: "OpenAI API error: 429 Too Many Requests"
        r"^OpenAI API error: (?P<status>\d{3})\b",
        # openai 0.x: "HTTP code 502 from API (<!DOCTYPE html>…)"
        r"^HTTP code (?P<status>\d{3}) from API \((?P<rest>.+)\)?$",
        # openai and @anthropic-ai/sdk (npm): "429 Rate limit …"; the Java SDKs: "429: Rate limit …"
        r"^(?P<status>[45]\d{2}):? (?P<rest>.+)$",
    )
)


@dataclass(frozen=True, slots=True)
class Printed:
    """What an exception's text says: a status that stands in it, and the provider's words."""

    status: int | None
    body: ErrorBody


@lru_cache(maxsize=1024)
def read_exception_text(text: str) -> Printed:
    """Takes status, code, type, parameter and message out of an exception's printed text."""
    text = text[:_MESSAGE_LIMIT]
    for pattern in _PRINTED:
        if found := pattern.search(text):
            groups = found.groupdict()
            body = read_error_text(groups.get("rest") or text)
            if groups.get("code"):
                body = replace(body, code=groups["code"])
            status = groups.get("status")
            return Printed(int(status) if status else None, body)
    return Printed(None, read_error_text(text))


def read_value(value: AnyValue) -> Any:
    """An attribute's value as plain Python; None for an empty one."""
    text = value.string_value
    if text:  # most are, and this is the quickest way to know
        return text
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return tuple(read_value(item) for item in value.array_value.values)
    if kind == "kvlist_value":
        return {item.key: read_value(item.value) for item in value.kvlist_value.values}
    return getattr(value, kind)


def read_key_values(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    """Attributes as a dict; of a name that stands twice the first one counts."""
    found: dict[str, Any] = {}
    for pair in pairs:
        if pair.key not in found:
            found[pair.key] = read_value(pair.value)
    return found


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _causes(exception: Mapping[str, Any]) -> tuple[Cause, ...]:
    """The chain, outermost first: the exception as told, then what its stack trace prints below."""
    name, message = _text(exception.get(_TYPE)), _text(exception.get(_MESSAGE))
    printed = read_stacktrace(stack).causes if (stack := _text(exception.get(_STACKTRACE))) else ()
    if not name:
        return printed
    first = Cause(name, message[:_MESSAGE_LIMIT])
    if printed and printed[0].type.rpartition(".")[2] == name.rpartition(".")[2]:
        full = max(name, printed[0].type, key=len)
        return (replace(first, type=full), *printed[1:])
    return (first, *printed)


def _told(texts: Iterator[str]) -> Printed | None:
    """The first of some texts, outermost first, in which a provider says more than words."""
    first: Printed | None = None
    for text in texts:
        if not text:
            continue
        printed = read_exception_text(text)
        if printed.status is not None or printed.body.code or printed.body.type:
            return printed
        first = first or printed
    return first


def changed(error: LLMError, changes: Mapping[str, Any]) -> LLMError:
    """`dataclasses.replace`, a third of its cost: it is done for each failure, on 36 fields."""
    copy = object.__new__(LLMError)
    for name, value in zip(_FIELDS, _GET_ALL(error), strict=True):
        object.__setattr__(copy, name, changes.get(name, value))
    return copy


def complete(facts: LLMError, exception: Mapping[str, Any], description: str = "") -> LLMError:
    """Facts of the attributes, completed by those of an exception and a status description.

    What the tap or a dialect knows stays; the rest is read from the printed texts.

    Args:
        facts: What the attributes say.
        exception: Attributes of the exception event (or of a log record): `exception.*`.
        description: The span's status description, used where no exception tells a message.
    """
    causes = _causes(exception)
    own = _text(exception.get(_MESSAGE)) or ("" if causes else description)
    found: dict[str, Any] = {"causes": causes}
    printed = _told(text for text in (own, *(cause.message for cause in causes[1:]), description))
    # A code that JavaScript's recordException wrote in place of the class: rate_limit_exceeded.
    if causes and re.fullmatch(r"[a-z]+(?:_[a-z]+)+", causes[0].type):
        found["code"] = causes[0].type
    if printed is not None:
        body = printed.body
        for name, value in (
            ("status", printed.status),
            ("code", body.code),
            ("type", body.type),
            ("param", body.param),
            ("request_id", body.request_id),
        ):
            if value is not None:
                found[name] = value
        found["message"] = body.message or own or description
    # What the tap told is nearer to the provider than what was printed.
    if facts.error_id and facts.message:
        found["message"] = facts.message
    kept = {
        name: value for name, value in found.items() if name in _PRINTED_WINS or getattr(facts, name) is None
    }
    return changed(facts, kept)


_PRINTED_WINS: Final = frozenset({"causes", "message"})


def _read(
    attributes: Mapping[str, Any], exception: Mapping[str, Any], text: str, scope: str, *, failed: bool
) -> tuple[Role, LLMError]:
    reading = read_attributes(attributes, scope=scope)
    error = changed(complete(reading.facts, exception, text), {"stacktrace": None})
    if failed and error.stream and reading.facts.status == 200 and error.broke_at is None:
        error = replace(error, broke_at=BrokeAt.STREAM)  # it failed, and the headers had come
    return reading.role, error


Pairs = tuple[tuple[str, Any], ...]


@lru_cache(maxsize=1024)
def _read_again(
    attributes: Pairs, exception: Pairs, text: str, scope: str, failed: bool
) -> tuple[Role, LLMError]:
    return _read(dict(attributes), dict(exception), text, scope, failed=failed)


def _remembered(
    attributes: Mapping[str, Any], exception: Mapping[str, Any], text: str, scope: str, *, failed: bool
) -> tuple[Role, LLMError]:
    """`_read`, once for all failures that differ in their ids and in what is no fact only.

    An outage is the same failure a thousand times, and reading one takes some 100 µs.
    """
    known, of_one = read_names(), names_of_one()
    decisive: list[tuple[str, Any]] = []
    own: dict[str, Any] = {}
    other = False
    for name, value in attributes.items():
        if name in of_one:
            if isinstance(value, str) and value:
                own.setdefault(of_one[name], value)
                decisive.append((name, "?"))
        elif name in known:
            decisive.append((name, value))
        else:
            other = other or name.startswith("gen_ai.")
    if other:
        decisive.append(("gen_ai.", True))
    told = tuple((name, exception[name]) for name in _EXCEPTION if name in exception)
    try:
        role, error = _read_again(tuple(decisive), told, text, scope, failed)
    except TypeError:  # a value that cannot be hashed
        return _read(attributes, exception, text, scope, failed=failed)
    return role, changed(error, own) if own else error


class Read(NamedTuple):
    """A span or log record, read.

    `error` has the causes that its stack trace names, and not the text: that is `stacktrace`.
    """

    attributes: dict[str, Any]
    role: Role
    error: LLMError
    stacktrace: str


def read_span(span: Span, scope: str = "") -> Read:
    """A span: its attributes, what it is by them, and its facts with those of its last exception event."""
    attributes = read_key_values(span.attributes)
    exception: dict[str, Any] = {}
    for event in span.events:
        if event.name == EXCEPTION_EVENT:
            exception = read_key_values(event.attributes)
    status = span.status
    role, error = _remembered(attributes, exception, status.message, scope, failed=status.code == FAILED)
    return Read(attributes, role, error, _text(exception.get(_STACKTRACE)))


def read_record(record: LogRecord, scope: str = "") -> Read:
    """A log record: its attributes, what it is by them, and its facts."""
    attributes = read_key_values(record.attributes)
    body = read_value(record.body) if record.HasField("body") else None
    role, error = _remembered(attributes, attributes, _text(body), scope, failed=False)
    return Read(attributes, role, error, _text(attributes.get(_STACKTRACE)))


def failed_at(span: Span) -> float:
    """When a span failed, in Unix seconds: its last exception event, else its end."""
    at = span.end_time_unix_nano
    for event in span.events:
        if event.name == EXCEPTION_EVENT and event.time_unix_nano:
            at = event.time_unix_nano
    return at / 1e9


def told_at(record: LogRecord) -> float:
    """When a log record says that it happened, in Unix seconds."""
    return (record.time_unix_nano or record.observed_time_unix_nano) / 1e9


def event_name(record: LogRecord, attributes: Mapping[str, Any]) -> str:
    """A log record's event name; older SDKs wrote it as an attribute."""
    return record.event_name or _text(attributes.get("event.name"))
