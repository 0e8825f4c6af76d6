"""Puts our attributes on a span or log record: appended where it has none of ours, else replaced."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from otel_triage.facts.wire import SPAN_LIMIT, VERDICT_NAMES, AttributeValue
from otel_triage.model import Owner, Retryable, Severity, Source, Verdict
from otel_triage.sidecar.views import encode_record_attributes, encode_span_attributes

OURS: Final = "triage."
_NEEDLE: Final = OURS.encode()
_VERDICT: Final = frozenset(VERDICT_NAMES.values())
_ENUMS: Final = {"severity": Severity, "retryable": Retryable, "owner": Owner, "source": Source}
_OPTIONAL: Final = frozenset({"incident_id"})

Pairs = tuple[tuple[str, AttributeValue], ...]
"""Attributes in their order, hashable: the same verdict is encoded once."""


def read_verdict(attributes: Mapping[str, Any]) -> Verdict | None:
    """The verdict that attributes carry, or None where there is none or it is not whole."""
    if VERDICT_NAMES["category"] not in attributes:
        return None
    found: dict[str, Any] = {}
    for name, attribute in VERDICT_NAMES.items():
        value = attributes.get(attribute)
        if name == "confidence":
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                return None
            found[name] = float(value)
        elif not isinstance(value, str):
            if name not in _OPTIONAL:
                return None
        elif name in _ENUMS:
            if value not in set(_ENUMS[name]):
                return None
            found[name] = _ENUMS[name](value)
        else:
            found[name] = value
    return Verdict(**found)


def _value(value: AttributeValue) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, str):
        return AnyValue(string_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    return AnyValue(array_value=ArrayValue(values=[_value(item) for item in value]))


@lru_cache(maxsize=8192, typed=True)  # typed: 1, 1.0 and True are equal and hash alike
def _pair(name: str, value: AttributeValue) -> bytes:
    return KeyValue(key=name, value=_value(value)).SerializeToString()


def _encoded(pairs: Pairs) -> list[bytes]:
    return [_pair(name, value) for name, value in pairs]


@lru_cache(maxsize=2048)
def _verdict_of_span(pairs: Pairs) -> bytes:
    return encode_span_attributes(_encoded(pairs))


@lru_cache(maxsize=2048)
def _verdict_of_record(pairs: Pairs) -> bytes:
    return encode_record_attributes(_encoded(pairs))


def _split(attributes: Mapping[str, AttributeValue]) -> tuple[Pairs, Pairs]:
    """The verdict, which repeats from failure to failure, and the facts, which do not."""
    verdict = tuple((name, value) for name, value in attributes.items() if name in _VERDICT)
    facts = tuple((name, value) for name, value in attributes.items() if name not in _VERDICT)
    return verdict, facts


def _same(item: Span | LogRecord, attributes: Mapping[str, AttributeValue]) -> bool:
    """Whether an item carries exactly these already: then its bytes stay as they are."""
    ours = [pair for pair in item.attributes if pair.key in attributes or pair.key in _VERDICT]
    return len(ours) == len(attributes) and all(
        pair.key in attributes and pair.SerializeToString() == _pair(pair.key, attributes[pair.key])
        for pair in ours
    )


def _strip(item: Span | LogRecord, attributes: Mapping[str, AttributeValue], limit: int | None) -> None:
    """Takes off what is about to be told again: our verdict as a whole, and these facts.

    Other facts of ours (the application half told more) stay, within the limit.
    """
    room = None if limit is None else limit - len(attributes)
    gone: list[int] = []
    for index, pair in enumerate(item.attributes):
        if pair.key in attributes or pair.key in _VERDICT:
            gone.append(index)
        elif room is not None and pair.key.startswith(OURS):
            room -= 1
            if room < 0:
                gone.append(index)
    for index in reversed(gone):
        del item.attributes[index]


def annotate_span(content: bytes, attributes: Mapping[str, AttributeValue]) -> bytes:
    """The bytes of a span with these attributes of ours on it, at most 24; its status is not touched.

    Args:
        content: The encoded `Span`.
        attributes: What `facts.wire.span_attributes` gives: names of ours only.
    """
    if _NEEDLE in content:
        span = Span.FromString(content)
        if _same(span, attributes):
            return content
        _strip(span, attributes, SPAN_LIMIT)
        content = span.SerializeToString()
    verdict, facts = _split(attributes)
    return content + _verdict_of_span(verdict) + encode_span_attributes(_encoded(facts))


def annotate_record(content: bytes, attributes: Mapping[str, AttributeValue]) -> bytes:
    """The bytes of a log record with these attributes of ours on it.

    Args:
        content: The encoded `LogRecord`.
        attributes: What `facts.wire.verdict_attributes` gives.
    """
    if _NEEDLE in content:
        record = LogRecord.FromString(content)
        if _same(record, attributes):
            return content
        _strip(record, attributes, None)
        content = record.SerializeToString()
    verdict, facts = _split(attributes)
    return content + _verdict_of_record(verdict) + encode_record_attributes(_encoded(facts))
