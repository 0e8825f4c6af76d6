"""A Sentry error event -> facts, evidence and what joins it to other views of the failure.

Pure, and read by both halves: the application's integration and the sidecar. An event is data that
anyone wrote: any member may be missing or of another kind, and nothing here raises for it.

Source of the format: https://develop.sentry.dev/sdk/data-model/event-payloads/, and what the SDKs
of other languages send (a bare list as `exception` in Go, `message` as an object in Java).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

from otel_triage.facts.bodies import token_limits
from otel_triage.facts.dialects import Role, read_attributes
from otel_triage.facts.evidence import NOT_FAILED, Evidence, is_cancelled, is_sdk_module, names_llm
from otel_triage.facts.exceptions import MISTAKE_NAMES
from otel_triage.facts.records import best_of, changed, provider_in, told_by, unix_seconds
from otel_triage.facts.text import finish
from otel_triage.facts.values import MESSAGE_LIMIT
from otel_triage.facts.walk import ErrorBody, Walk
from otel_triage.facts.wire import FACT_NAMES, VERDICT_NAMES, read_facts
from otel_triage.model import Cause, LLMError

CONTEXT: Final = "triage"
"""Our entry in an event's `contexts`."""

CONTEXT_KEYS: Final = {
    attribute.removeprefix("triage."): attribute
    for attribute in (*VERDICT_NAMES.values(), *FACT_NAMES.values())
}
"""Key in our context -> attribute: the prefix that the context has already is left out."""

_CHAIN: Final = 8
_FRAMES: Final = 250
_STACK_LINES: Final = 60
_OP: Final = "gen_ai."
_OPERATION: Final = FACT_NAMES["operation"]
_DECIDED: Final = tuple(VERDICT_NAMES[name] for name in ("category", "reason", "source"))
_BODY: Final = ("status", "code", "type", "param", "request_id", "retry_after_s")
_NODE_PACKAGE: Final = re.compile(r".*node_modules/([^():?]+)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class SentryEvent:
    """An event, read.

    Attributes:
        evidence: Whether it tells of a model call; `NONE` for what must pass untouched.
        error: The facts. `stacktrace` is made of the frames, for the rules alone; it is not to be written.
        ours: What our own context holds, as attributes: the facts and the verdict of the application half.
        reporter: Who captured it: the SDK and `mechanism.type`.
        mechanism: The outermost exception's `mechanism.type`, or "".
        event_id: 32 hex digits, or "".
        trace_id: Of the span that was current, as is `span_id`; "" where the event has none.
        at: Unix time in seconds, or None.
    """

    evidence: Evidence
    error: LLMError
    ours: Mapping[str, Any]
    reporter: str
    mechanism: str
    event_id: str
    trace_id: str
    span_id: str
    parent_id: str
    at: float | None
    environment: str


@dataclass(frozen=True, slots=True)
class _Chain:
    """The exceptions of an event, outermost first, and the modules of their frames."""

    causes: tuple[Cause, ...]
    frames: tuple[str, ...]
    raised: tuple[str, ...]
    mechanism: str
    stack: str


def is_error_event(event: Mapping[str, Any]) -> bool:
    """Whether an event is an error event; transactions, feedback and others have a `type` of their own."""
    return event.get("type") in (None, "", "error", "default")


def read_event(event: Mapping[str, Any]) -> SentryEvent:
    """What an event says, and whether it has to do with a model call at all.

    Evidence is asked of our own context, of the integration that captured it, of the gen_ai span that
    was current, and of the exception chain with its frames. Breadcrumbs, tags and the message are none:
    they tell of whatever happened before.
    """
    contexts = _mapping(event.get("contexts"))
    trace = _mapping(contexts.get("trace"))
    at = unix_seconds(event.get("timestamp"))
    ours = own_attributes(event)
    chain = _chain(event)
    role, spoken = _gen_ai(event, trace)
    error = _facts(chain, contexts, ours, spoken, at)
    return SentryEvent(
        evidence=_evidence(event, error, ours, chain, role),
        error=error,
        ours=ours,
        reporter=f"sentry:{_text(_mapping(event.get('sdk')).get('name'))}:{chain.mechanism}",
        mechanism=chain.mechanism,
        event_id=_hex(event.get("event_id")),
        trace_id=_hex(trace.get("trace_id")),
        span_id=_hex(trace.get("span_id")),
        parent_id=_hex(trace.get("parent_span_id")),
        at=at,
        environment=_text(event.get("environment")),
    )


def captured_at_call(mechanism: str) -> bool:
    """Whether an integration of this `mechanism.type` captures a failed call before its caller has it.

    It cannot know whether the caller handles the failure, and says that nobody does.
    """
    return _watched(mechanism, "mechanisms") is not None or _watched(mechanism, "frameworks") is not None


def _watched(mechanism: str, kind: str) -> str | None:
    """The provider of the library that an integration watches, "" for many; None if it is none of these."""
    for name, provider in _table()[kind].items():
        if mechanism == name or mechanism.startswith(f"{name}."):
            return provider
    return None


def passes_prompts(module: str) -> bool:
    """Whether locals of a module's functions may hold prompts and keys of a call that goes through it."""
    return is_sdk_module(module) or any(
        module == top or module.startswith(f"{top}.") for top in _table()["carriers"]
    )


def own_attributes(event: Mapping[str, Any]) -> dict[str, Any]:
    """What `contexts["triage"]` holds of ours, under the names that spans and records use."""
    context = _mapping(_mapping(event.get("contexts")).get(CONTEXT))
    return {CONTEXT_KEYS[key]: value for key, value in context.items() if key in CONTEXT_KEYS}


@cache
def _table() -> Mapping[str, Mapping[str, str]]:
    return tomllib.loads(files("otel_triage.facts").joinpath("sentry.toml").read_text("utf-8"))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else ()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _hex(value: Any) -> str:
    """An id as OpenTelemetry writes it: Sentry takes UUIDs with dashes as well."""
    return _text(value).replace("-", "").lower()[:32]


def _exceptions(event: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The chain as the event has it: innermost first."""
    found = event.get("exception")
    if isinstance(found, Mapping):
        found = found.get("values", [found])
    return [one for one in _list(found) if isinstance(one, Mapping)]


def _chain(event: Mapping[str, Any]) -> _Chain:
    causes: list[Cause] = []
    frames: list[str] = []
    raised: list[str] = []
    mechanism = ""
    lines: list[str] = []
    for one in reversed(_exceptions(event)[-_CHAIN:]):
        causes.append(Cause(_class(one), _text(one.get("value"))[:MESSAGE_LIMIT]))
        mechanism = mechanism or _text(_mapping(one.get("mechanism")).get("type"))
        known = [
            frame
            for frame in _list(_mapping(one.get("stacktrace")).get("frames"))[-_FRAMES:]
            if isinstance(frame, Mapping)
        ]
        # The application's own modules may have a library's name.
        modules = [("" if frame.get("in_app") is True else _module(frame)) for frame in known]
        frames += filter(None, modules)
        if modules and modules[-1]:
            raised.append(modules[-1])
        lines += (_printed(frame) for frame in known[-_STACK_LINES:])
        if _by_mistake(event, one, modules):
            break
    return _Chain(tuple(causes), tuple(frames), tuple(raised), mechanism, "\n".join(lines))


def _by_mistake(event: Mapping[str, Any], exception: Mapping[str, Any], modules: Sequence[str]) -> bool:
    """Whether an exception is a bug in the handling of those below it, which it then does not tell of.

    sentry_sdk lists the context of an exception like a cause. Members of a group say that they are.
    """
    return (
        event.get("platform") == "python"
        and _class(exception) in MISTAKE_NAMES
        and "parent_id" not in _mapping(exception.get("mechanism"))
        and not names_llm((), modules, ())
    )


def _class(exception: Mapping[str, Any]) -> str:
    """An exception's class by full module path, where the language has one."""
    name, module = _text(exception.get("type")), _text(exception.get("module"))
    if not name or not module or module in ("builtins", "__builtins__") or not name.isidentifier():
        return name
    return f"{module}.{name}"


def _module(frame: Mapping[str, Any]) -> str:
    """The module of a frame as `dialects.toml` writes it."""
    file = (_text(frame.get("abs_path")) or _text(frame.get("filename"))).replace("\\", "/")
    if found := _NODE_PACKAGE.match(file):
        return found[1]
    module = _text(frame.get("module"))
    # Node: `@anthropic-ai.sdk:client`, a path with dots for slashes.
    return module.replace(".", "/") if ":" in module and "::" not in module else module


def _printed(frame: Mapping[str, Any]) -> str:
    """A frame as Python prints it, which is how rules look for what stands in a stack trace."""
    file = _text(frame.get("abs_path")) or _text(frame.get("filename"))
    line = f'  File "{file}", line {frame.get("lineno")}, in {_text(frame.get("function"))}'
    return f"{line}\n    {_text(frame.get('context_line')).strip()[:200]}"


def _gen_ai(event: Mapping[str, Any], trace: Mapping[str, Any]) -> tuple[Role, LLMError]:
    """What the current span was, by its data, and the facts in it and in the event's tags."""
    spoken = {name: value for name, value in _mapping(trace.get("data")).items() if isinstance(name, str)}
    operation = _text(trace.get("op"))
    if operation.startswith(_OP):
        spoken.setdefault(_OPERATION, operation.removeprefix(_OP))
    reading = read_attributes(spoken)
    tagged = {name: value for name, value in _tags(event) if name.startswith(_OP) and name not in spoken}
    # The status and host of a span's data are those of the application's own server span.
    facts = read_attributes({**tagged, **spoken}).facts if tagged else reading.facts
    if reading.role is not Role.CALL:
        facts = changed(facts, {"status": None, "server_address": None, "error_type": None})
    return reading.role, facts


def _tags(event: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    tags = event.get("tags")
    pairs = tags.items() if isinstance(tags, Mapping) else _list(tags)
    for pair in pairs:
        if isinstance(pair, (list, tuple)) and len(pair) == 2 and isinstance(pair[0], str):
            yield pair[0], pair[1]


def _facts(
    chain: _Chain, contexts: Mapping[str, Any], ours: Mapping[str, Any], spoken: LLMError, at: float | None
) -> LLMError:
    """All facts; what the tap told stands first, then what the span says, then what is printed."""
    known = read_facts(ours)
    facts = changed(
        known,
        {
            name: value
            for name in FACT_NAMES
            if getattr(known, name) is None and (value := getattr(spoken, name)) is not None
        },
    )
    found = _printed_facts(chain, contexts, at)
    if known.error_id and known.message:
        found["message"] = known.message
    limit, asked = token_limits(found.get("message") or "")
    found |= {"context_limit": limit, "requested_tokens": asked, "provider": _provider(chain)}
    kept = {
        name: value
        for name, value in found.items()
        if name == "message" or (value is not None and getattr(facts, name) is None)
    }
    return changed(facts, {**kept, "causes": chain.causes, "stacktrace": chain.stack or None})


def _printed_facts(chain: _Chain, contexts: Mapping[str, Any], at: float | None) -> dict[str, Any]:
    """What the texts of the chain say, and the members that JavaScript's SDK adds as a context."""
    if not chain.causes:
        return {}
    bodies: list[ErrorBody] = []
    for cause in chain.causes:
        if cause.message:
            bodies.append(told_by(cause.message, at).body)
        # extraErrorData names its context after the exception's type
        if members := _mapping(contexts.get(cause.type.rpartition(".")[2])):
            bodies.append(finish(Walk(at).read(dict(members)), at))
    found: dict[str, Any] = {"error_type": chain.causes[0].type or None}
    body = best_of(bodies) or (bodies[0] if bodies else None)
    if body is not None:
        found |= {name: getattr(body, name) for name in _BODY}
    words = body.message if body is not None else None
    found["message"] = (words or chain.causes[0].message).strip()[:MESSAGE_LIMIT] or None
    return found


def _provider(chain: _Chain) -> str | None:
    """Whose answer it was: by an address in the texts, by who captured it, by the client library."""
    for cause in chain.causes:
        if provider := provider_in(cause.message):
            return provider
    if provider := _watched(chain.mechanism, "mechanisms"):
        return provider
    for pattern, provider in _table()["values"].items():
        if any(re.match(pattern, cause.message) for cause in chain.causes):
            return provider
    for name in (*(cause.type for cause in chain.causes), *reversed(chain.frames)):
        for top, provider in _table()["clients"].items():
            if name.startswith(top) and name[len(top) : len(top) + 1] in ("", ".", "/", ":", "$"):
                return provider
    return None


def _evidence(
    event: Mapping[str, Any], error: LLMError, ours: Mapping[str, Any], chain: _Chain, role: Role
) -> Evidence:
    if not is_error_event(event) or error.outcome in NOT_FAILED or is_cancelled(error):
        return Evidence.NONE
    if all(isinstance(ours.get(name), str) for name in _DECIDED):
        return Evidence.CALL
    if not chain.causes:
        return Evidence.NONE
    if role is Role.CALL or _watched(chain.mechanism, "mechanisms") is not None:
        return Evidence.CALL
    types = [cause.type for cause in chain.causes]
    if names_llm(types, chain.frames, chain.raised):
        return Evidence.EXCEPTION
    for cause in chain.causes:
        if provider_in(cause.message) or any(re.match(p, cause.message) for p in _table()["values"]):
            return Evidence.HOST
    return Evidence.NONE
