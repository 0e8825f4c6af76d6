"""Facts and verdicts to attributes and back, by the names that stand in `otel_triage.model`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_args, get_type_hints

from otel_triage.model import ATTRIBUTE, BrokeAt, LLMError, Outcome, Verdict

AttributeValue = str | bool | int | float | tuple[str, ...] | tuple[int, ...]

FACT_NAMES: dict[str, str] = {f.name: f.metadata[ATTRIBUTE] for f in fields(LLMError) if f.metadata}
"""Field of `LLMError` -> attribute."""

VERDICT_NAMES: dict[str, str] = {f.name: f.metadata[ATTRIBUTE] for f in fields(Verdict) if f.metadata}
"""Field of `Verdict` -> attribute."""

# On a span, in this order, behind the verdict (design, "Names on the wire"): the rest is on
# the error event alone, so that a span never carries more than 24 attributes of ours.
_SPAN_FACTS = (
    "error_id", "call_id", "outcome", "code", "type", "request_id",
    "retry_after_s", "attempts", "broke_at", "account",
)  # fmt: skip

SPAN_LIMIT = 24
"""Attributes that we put on one span at most."""


def _types() -> dict[str, type]:
    hints = get_type_hints(LLMError)
    return {name: next(t for t in get_args(hints[name]) if t is not type(None)) for name in FACT_NAMES}


_TYPES = _types()


def plain(value: Any) -> AttributeValue:
    """A value as any encoder takes it: an enum as its text, and a text without half characters.

    JSON may hold half of a surrogate pair (an emoji that was cut); UTF-8 cannot, and one such text
    makes an exporter drop the whole batch, the application's spans included.
    """
    if isinstance(value, str):
        return str(value).encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, tuple):
        return tuple(plain(item) for item in value)  # type: ignore[return-value]
    return value  # type: ignore[no-any-return]


def fact_attributes(error: LLMError) -> dict[str, AttributeValue]:
    """All facts of an error as attributes, unknown ones left out: what the error event carries."""
    found: dict[str, AttributeValue] = {}
    for name, attribute in FACT_NAMES.items():
        value = getattr(error, name)
        if value is not None and value != ():
            found[attribute] = plain(value)
    if error.attempts is not None and error.attempts > 1:
        found["http.request.resend_count"] = error.attempts - 1
    return found


def verdict_attributes(verdict: Verdict) -> dict[str, AttributeValue]:
    """A verdict as attributes, in the order of its fields."""
    return {
        attribute: plain(value)
        for name, attribute in VERDICT_NAMES.items()
        if (value := getattr(verdict, name)) is not None
    }


def span_attributes(error: LLMError, verdict: Verdict) -> dict[str, AttributeValue]:
    """What goes on a span: the verdict, then the few facts that a person looks for there."""
    found = verdict_attributes(verdict)
    for name in _SPAN_FACTS:
        value = getattr(error, name)
        if value is not None:
            found[FACT_NAMES[name]] = plain(value)
    return dict(list(found.items())[:SPAN_LIMIT])


def _read(kind: type, value: Any) -> Any:
    """`value` as `kind`, or None where it is not of that kind: attributes are written by anyone."""
    origin = getattr(kind, "__origin__", kind)
    if origin is tuple:
        of = get_args(kind)[0]
        items = value if isinstance(value, (list, tuple)) else (value,)
        read = tuple(item for item in (_read(of, item) for item in items) if item is not None)
        return read or None
    if kind in (BrokeAt, Outcome):
        return kind(value) if isinstance(value, str) and value in set(kind) else None
    if kind is bool:
        return value if isinstance(value, bool) else None
    if kind is str:
        return value if isinstance(value, str) and value else None
    if isinstance(value, bool):
        return None
    if kind is int and isinstance(value, str) and value.isdecimal():
        return int(value)
    if kind is int:
        return (
            int(value)
            if isinstance(value, int) or (isinstance(value, float) and value.is_integer())
            else None
        )
    return float(value) if isinstance(value, (int, float)) else None


def read_fields(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The facts that `fact_attributes` or a span of ours carries, as fields of `LLMError`."""
    found: dict[str, Any] = {}
    for name, attribute in FACT_NAMES.items():
        if attribute in attributes and (value := _read(_TYPES[name], attributes[attribute])) is not None:
            found[name] = value
    if "attempts" not in found:
        resent = _read(int, attributes.get("http.request.resend_count"))
        if resent is not None:
            found["attempts"] = resent + 1
    return found


def read_facts(attributes: Mapping[str, Any]) -> LLMError:
    """`read_fields` as an `LLMError`."""
    return LLMError(**read_fields(attributes))
