"""Who is called, by host and path or by name: reads `providers.toml`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any, Final

_BETWEEN: Final = re.compile(r"[\s/_-]+")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What a request's address says. `known` is whether the host itself is a provider's."""

    provider: str | None
    operation: str | None
    api: str | None
    known: bool


@dataclass(frozen=True, slots=True)
class _Host:
    name: str
    pattern: re.Pattern[str]
    only_paths: re.Pattern[str] | None


@dataclass(frozen=True, slots=True)
class _Shape:
    path: re.Pattern[str]
    operation: str
    api: str
    provider: str


def _host_pattern(host: str) -> str:
    return re.escape(host).replace(r"\*", r"[a-z0-9.-]+")


@cache
def _data() -> dict[str, Any]:
    return tomllib.loads(files("otel_triage.facts").joinpath("providers.toml").read_text("utf-8"))


@cache
def _names() -> dict[str, str]:
    table: dict[str, list[str]] = _data()["names"]
    return {name: known for known, aliases in table.items() for name in (known, *aliases)}


def _folded(name: str) -> str:
    return _BETWEEN.sub("_", name.strip().lower())


@lru_cache(maxsize=256)
def provider_of_name(name: str) -> str | None:
    """The provider that is met under this name, or None: "Azure OpenAI" is `azure.ai.openai`."""
    return _names().get(_folded(name))


@lru_cache(maxsize=256)
def canonical(provider: str | None) -> str:
    """A provider's name as rules have it; empty if unknown.

    A name that the table lacks stays, in lower case and with "_" between words.
    """
    return provider_of_name(provider) or _folded(provider) if provider else ""


@cache
def _tables() -> tuple[tuple[_Host, ...], tuple[_Shape, ...]]:
    data = _data()
    hosts = tuple(
        _Host(
            name=row["name"],
            pattern=re.compile("|".join(map(_host_pattern, row["hosts"]))),
            only_paths=re.compile(row["only_paths"]) if "only_paths" in row else None,
        )
        for row in data["provider"]
    )
    shapes = tuple(
        _Shape(re.compile(row["path"]), row["operation"], row["api"], row["provider"])
        for row in data["endpoint"]
    )
    return hosts, shapes


@lru_cache(maxsize=512)
def provider_of_host(host: str, path: str | None = None) -> str | None:
    """The provider that serves models at this host, or None.

    Args:
        host: Host name without port, in any case.
        path: Path of the request, for hosts that serve much else besides; without it those
            hosts are not taken for a provider's.
    """
    host = host.lower().rstrip(".")
    for row in _tables()[0]:
        if row.pattern.fullmatch(host) and (
            row.only_paths is None or (path is not None and row.only_paths.search(path))
        ):
            return row.name
    return None


@lru_cache(maxsize=1024)
def endpoint_of(host: str, path: str) -> Endpoint | None:
    """What is asked of whom, or None where neither host nor path says LLM.

    The shape of a path alone is no evidence: a caller must see a POST and a `model` in the
    body before it believes an `Endpoint` that is not `known`.
    """
    path = path.partition("?")[0].rstrip("/")
    provider = provider_of_host(host, path)
    shape = next((row for row in _tables()[1] if row.path.search(path)), None)
    if provider is None and shape is None:
        return None
    return Endpoint(
        provider=provider or (shape.provider if shape else None),
        operation=shape.operation if shape else None,
        api=shape.api if shape else None,
        known=provider is not None,
    )


def is_listed(host: str, hosts: Collection[str]) -> bool:
    """Whether the application named this host as one of its own LLM endpoints."""
    return host.lower() in hosts
