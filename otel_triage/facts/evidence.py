"""Is this an LLM error at all? What says so stands in `dialects.toml`, under `evidence` and `cancelled`.

Asked in capture and sidecar only: `classify()` and the command line always answer.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Container, Iterable, Mapping
from enum import StrEnum
from functools import cache, lru_cache
from typing import Any, Final
from urllib.parse import urlsplit

from otel_triage.facts.dialects import Role, table
from otel_triage.facts.otlp import Read
from otel_triage.facts.providers import provider_of_host
from otel_triage.facts.stacktrace import Trace, read_stacktrace
from otel_triage.facts.wire import FACT_NAMES
from otel_triage.model import LLMError, Outcome

SERVER: Final = 2
CLIENT: Final = 3
CONSUMER: Final = 5
"""`SpanKind` of OTLP."""

_CALL_ID: Final = FACT_NAMES["call_id"]
_SEPARATORS: Final = (".", "/", ":", "$")
NOT_FAILED: Final = frozenset({Outcome.OK, Outcome.ABSORBED, Outcome.RECOVERED, Outcome.CANCELLED})
_METHODS: Final = ("http.request.method", "http.method")
_URLS: Final = ("url.full", "http.url", "url.path", "http.target")


class Evidence(StrEnum):
    """What a failed span or log record has to do with a model call."""

    CALL = "call"  # it is the call, told by its instrumentation or by the tap
    EXCEPTION = "exception"  # something around a call: the exception that passed through tells
    HOST = "host"  # one HTTP or gRPC attempt at an LLM host
    NONE = "none"  # nothing says LLM, or nothing failed


@cache
def _paths(kind: str) -> frozenset[str]:
    return frozenset(table()["evidence"][kind])


@lru_cache(maxsize=4096)
def _below(path: str, kind: str) -> bool:
    """Whether a full module path is one of the known ones, or lies below one."""
    known = _paths(kind)
    if path in known:
        return True
    ends = (index for index, char in enumerate(path) if index and char in _SEPARATORS)
    return any(path[:end] in known for end in ends)


def is_llm_exception(error: LLMError, stacktrace: str = "") -> bool:
    """Whether a chain or its frames name an LLM client library or framework by full module path.

    Args:
        error: The facts, with the chain.
        stacktrace: The printed stack trace, where `error` does not hold it.
    """
    text = stacktrace or error.stacktrace
    trace = read_stacktrace(text) if text else Trace()
    types = {cause.type for cause in (*error.causes, *trace.causes)}
    if error.error_type:
        types.add(error.error_type)
    return names_llm(types, trace.frames, trace.raised)


def names_llm(types: Collection[str], frames: Iterable[str], raised: Iterable[str]) -> bool:
    """Whether exceptions or their frames name an LLM client library or framework.

    Args:
        types: Classes of the chain, by full module path.
        frames: Modules of all frames.
        raised: Of each exception of the chain the module that raised it.
    """
    return (
        not _paths("classes").isdisjoint(types)
        or _any_below(types, "clients")
        or _any_below(types, "frameworks")
        or _any_below(frames, "clients")
        or _any_below(raised, "frameworks")
    )


def _any_below(paths: Iterable[str], kind: str) -> bool:
    return any(_below(path, kind) for path in paths)


def is_sdk_module(path: str) -> bool:
    """Whether a module, by its full path, is of an LLM client library or framework."""
    return _below(path, "clients") or _below(path, "frameworks")


def is_cancelled(error: LLMError) -> bool:
    """Whether the caller gave up on purpose, which is no error."""
    known = table()["cancelled"]
    outermost = error.causes[0].type if error.causes else error.error_type
    return (
        error.outcome is Outcome.CANCELLED
        or outermost in known["types"]
        or error.message in known["messages"]
        or error.status in known["statuses"]
    )


@cache
def _rpc() -> re.Pattern[str]:
    return re.compile("|".join(table()["evidence"]["rpc"]))


def _is_llm_host(attributes: Mapping[str, Any], error: LLMError) -> bool:
    """Whether a client span is a POST (or a gRPC or AWS call, which is one) to an LLM host."""
    if "rpc.system" in attributes or "rpc.system.name" in attributes:
        if _rpc().search(f"{attributes.get('rpc.service')}/{attributes.get('rpc.method')}"):
            return True
    elif not any(attributes.get(name) == "POST" for name in _METHODS):
        return False
    if not error.server_address:
        return False
    url = next((value for name in _URLS if isinstance(value := attributes.get(name), str)), "")
    try:
        path = urlsplit(url).path
    except ValueError:
        path = ""
    return provider_of_host(error.server_address, path or None) is not None


def evidence_of_span(read: Read, kind: int, error: LLMError | None = None) -> Evidence:
    """What a failed span (or one that the tap says failed) has to do with a model call.

    Args:
        read: The span, read.
        kind: OTLP's `SpanKind` as a number.
        error: Its facts, if more is known than was read.
    """
    error = error or read.error
    if error.outcome in NOT_FAILED or is_cancelled(error):
        return Evidence.NONE
    if error.error_id:
        return Evidence.CALL
    if kind in (SERVER, CONSUMER):
        return Evidence.NONE  # it only carries the error up
    if read.role is Role.CALL:
        return Evidence.CALL
    if _CALL_ID in read.attributes:
        return Evidence.NONE  # an attempt of a call that the tap watches
    if is_llm_exception(error, read.stacktrace):
        return Evidence.EXCEPTION
    if kind == CLIENT and _is_llm_host(read.attributes, error):
        return Evidence.HOST
    return Evidence.NONE


def evidence_of_record(read: Read, event_name: str, known_events: Container[str]) -> Evidence:
    """What a log record that tells of an exception has to do with a model call.

    Args:
        read: The log record, read.
        event_name: The record's event name, or "".
        known_events: Names of the events that tell of one failed call.
    """
    if read.error.outcome in NOT_FAILED or is_cancelled(read.error):
        return Evidence.NONE
    if event_name in known_events:
        return Evidence.CALL
    if read.role is Role.CALL or is_llm_exception(read.error, read.stacktrace):
        return Evidence.EXCEPTION
    return Evidence.NONE
