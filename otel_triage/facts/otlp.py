"""OTLP spans and log records -> attributes and facts. Protobuf messages are read by their fields alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_triage.facts.bodies import ErrorBody, read_error_text
from otel_triage.facts.dialects import Role, names_of_one, read_attributes, read_names
from otel_triage.facts.records import changed as changed
from otel_triage.facts.records import read_exception
from otel_triage.model import BrokeAt, LLMError

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


@dataclass(frozen=True, slots=True)
class Printed:
    """What an exception's text says: a status that stands in it, and the provider's words."""

    status: int | None
    body: ErrorBody


def read_exception_text(text: str) -> Printed:
    """Takes status, code, type, parameter and message out of an exception's printed text."""
    body = read_error_text(text)
    return Printed(body.status, body)


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


def complete(facts: LLMError, exception: Mapping[str, Any], description: str = "") -> LLMError:
    """Facts of the attributes, completed by those of an exception and a status description.

    What the tap or a dialect knows stays; the rest is read from the printed texts.

    Args:
        facts: What the attributes say.
        exception: Attributes of the exception event (or of a log record): `exception.*`.
        description: The span's status description, used where no exception tells a message.
    """
    found = read_exception(
        _text(exception.get(_TYPE)),
        _text(exception.get(_MESSAGE)),
        _text(exception.get(_STACKTRACE)),
        description,
    )
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
