"""Span attributes of each instrumentation -> facts: reads `dialects.toml`, the one table of them."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any, Final
from urllib.parse import urlsplit

from otel_triage.facts.providers import provider_of_host, provider_of_name
from otel_triage.facts.wire import FACT_NAMES, read_fields
from otel_triage.model import LLMError

_RESENT: Final = "http.request.resend_count"
_CANONICAL: Final = frozenset({*FACT_NAMES.values(), _RESENT})
_OPERATION: Final = "gen_ai.operation.name"
_STATUS: Final = "http.response.status_code"
_LISTS: Final = frozenset({"gen_ai.response.finish_reasons"})
_NUMBERS: Final = frozenset({"triage.retry_after_s"})


class Role(StrEnum):
    """What a span is, by its attributes."""

    CALL = "call"  # one call of a model
    CARRIER = "carrier"  # a step around calls: agent, workflow, tool, chain
    OTHER = "other"  # nothing that has to do with models


@dataclass(frozen=True, slots=True)
class Reading:
    """What the attributes of a span or log record say."""

    role: Role
    facts: LLMError


@dataclass(frozen=True, slots=True)
class _Source:
    """One place of one fact: the attribute it is under is the key of the index."""

    fact: str
    rank: int
    member: str | None
    host: bool
    scope: str
    unless: frozenset[Any]


@dataclass(frozen=True, slots=True)
class _Kind:
    calls: Mapping[str, str]
    carriers: frozenset[str]


@cache
def table() -> Mapping[str, Any]:
    """The data file, parsed once."""
    return tomllib.loads(files("otel_triage.facts").joinpath("dialects.toml").read_text("utf-8"))


@cache
def _index() -> tuple[dict[str, list[_Source]], dict[str, _Kind]]:
    sources = {name: [_Source(name, 0, None, False, "", frozenset())] for name in _CANONICAL}
    kinds: dict[str, _Kind] = {}
    rank = 0
    for row in table()["dialect"]:
        if "kind" in row:
            kinds[row["kind"]] = _Kind(row.get("calls", {}), frozenset(row.get("carriers", ())))
        for fact, places in row.get("facts", {}).items():
            for place in places:
                rank += 1
                attribute, _, host = place.partition("@")
                attribute, _, member = attribute.partition("#")
                unless = frozenset(row.get("unless", ()))
                source = _Source(fact, rank, member or None, bool(host), row.get("scope", ""), unless)
                sources.setdefault(attribute, []).append(source)
    return sources, kinds


@cache
def read_names() -> frozenset[str]:
    """All attributes that `read_attributes` looks at, but for the prefix `gen_ai.`."""
    sources, kinds = _index()
    return frozenset(sources) | frozenset(kinds)


@cache
def names_of_one() -> Mapping[str, str]:
    """Attributes that name one failure and say nothing of what it is -> the field of `LLMError`."""
    fields = {FACT_NAMES[field]: field for field in ("error_id", "call_id", "request_id", "account")}
    return {
        attribute: fields[row.fact]
        for attribute, rows in _index()[0].items()
        for row in rows
        if row.fact in fields
    }


@lru_cache(maxsize=1024)
def _members(text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


@lru_cache(maxsize=1024)
def _host(url: str) -> str | None:
    try:
        return urlsplit(url if "//" in url else f"//{url}").hostname
    except ValueError:
        return None


def _list(value: Any) -> Any:
    """A list that was written as JSON (Logfire) as a list."""
    if isinstance(value, str) and value.startswith("["):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _number(value: Any) -> float | None:
    """A number that stands in a list or a text, as captured headers do; None for a date."""
    if isinstance(value, (list, tuple)):
        value = value[0] if value else None
    try:
        return float(value) if isinstance(value, (str, int, float)) else None
    except ValueError:
        return None


def _status(value: Any) -> int | None:
    """An HTTP status, also where it stands in a text; a class name or a gRPC code is none."""
    if isinstance(value, str):
        value = int(value) if len(value) == 3 and value.isdecimal() else None
    return value if isinstance(value, int) and 100 <= value <= 599 else None


def _value(source: _Source, value: Any) -> Any:
    if source.member is not None:
        value = _members(value).get(source.member) if isinstance(value, str) else None
    elif source.host or source.fact == "server.address":
        value = _host(value) if isinstance(value, str) and value else None
    if source.fact in _LISTS:
        value = _list(value)
        return tuple(value) if isinstance(value, list) else value
    if source.fact == _STATUS:
        return _status(value)
    if source.fact in _NUMBERS:
        return _number(value)
    return value


def _role(attributes: Mapping[str, Any], found: Mapping[str, Any]) -> tuple[Role, str | None]:
    """The span's role and its operation, where a dialect has a word for it."""
    for attribute, kind in _index()[1].items():
        word = attributes.get(attribute)
        if isinstance(word, str) and word:
            if word in kind.calls:
                return Role.CALL, kind.calls[word]
            if word in kind.carriers:
                return Role.CARRIER, None
    if "gen_ai.request.model" in found or "gen_ai.provider.name" in found:
        return Role.CALL, None
    return (Role.CARRIER if any(key.startswith("gen_ai.") for key in attributes) else Role.OTHER), None


def _provider(name: str | None, host: str | None) -> str | None:
    """The provider by OpenTelemetry's name; the host decides where an SDK serves any endpoint."""
    if name:
        # Vercel writes the API behind the provider's name: openai.chat, anthropic.messages.
        first = name.split(".")[0]
        known = provider_of_name(name)
        name = known or (first in ("openai", "anthropic", "mistral") and provider_of_name(first)) or name
    if name in (None, "openai") and host:
        return provider_of_host(host) or name
    return name


def read_role(attributes: Mapping[str, Any], *, scope: str = "") -> tuple[Role, dict[str, Any]]:
    """What a span's (or log record's) attributes say: what it is, and fields of `LLMError`.

    Args:
        attributes: Attribute names to plain values.
        scope: Name of the instrumentation scope; some names mean something in one scope only.
    """
    sources = _index()[0]
    found: dict[str, Any] = {}
    ranks: dict[str, int] = {}
    for attribute, value in attributes.items():
        for source in sources.get(attribute, ()):
            if source.scope and not scope.startswith(source.scope):
                continue
            if source.rank >= ranks.get(source.fact, 1 << 30):
                continue
            read = _value(source, value)
            if read is not None and read != "" and read not in source.unless:
                found[source.fact] = read
                ranks[source.fact] = source.rank
    role, operation = _role(attributes, found)
    if operation is not None:
        found[_OPERATION] = operation
    facts = read_fields(found)
    facts["provider"] = _provider(facts.get("provider"), facts.get("server_address"))
    return role, facts


def read_attributes(attributes: Mapping[str, Any], *, scope: str = "") -> Reading:
    """`read_role` as a `Reading`."""
    role, facts = read_role(attributes, scope=scope)
    return Reading(role, LLMError(**facts))
