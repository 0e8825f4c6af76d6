"""An exception that was told as texts (type, message, stack trace, tags) -> facts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice
from operator import attrgetter
from typing import Any, Final

from otel_triage.facts.bodies import token_limits
from otel_triage.facts.dialects import read_role
from otel_triage.facts.printed import printed_objects
from otel_triage.facts.providers import provider_of_host
from otel_triage.facts.stacktrace import Trace, read_stacktrace
from otel_triage.facts.text import Told, finish, read_text
from otel_triage.facts.values import MESSAGE_LIMIT, status_of_phrase
from otel_triage.facts.walk import ErrorBody, Walk
from otel_triage.facts.wire import FACT_NAMES
from otel_triage.model import Cause, LLMError

_TEXT_KEPT: Final = 4096  # characters of a text that is worth remembering

# Short names of tags -> the attribute that they mean; all names that `dialects.toml` knows count as well.
_TAGS: Final = {
    "provider": "gen_ai.provider.name",
    "llm_provider": "gen_ai.provider.name",
    "vendor": "gen_ai.provider.name",
    "system": "gen_ai.provider.name",
    "model": "gen_ai.request.model",
    "llm_model": "gen_ai.request.model",
    "model_name": "gen_ai.request.model",
    "deployment": "gen_ai.request.model",
    "operation": "gen_ai.operation.name",
    "http_status": FACT_NAMES["status"],
    "status": FACT_NAMES["status"],
    "status_code": FACT_NAMES["status"],
    "http_status_code": FACT_NAMES["status"],
    "host": "server.address",
    "server": "server.address",
    "base_url": "url.full",
    "url": "url.full",
    "request_id": FACT_NAMES["request_id"],
    "error_code": FACT_NAMES["code"],
    "code": FACT_NAMES["code"],
    "param": FACT_NAMES["param"],
    "finish_reason": FACT_NAMES["finish_reasons"],
    "stop_reason": FACT_NAMES["finish_reasons"],
    "retry_after": FACT_NAMES["retry_after_s"],
    "retry_after_s": FACT_NAMES["retry_after_s"],
    "max_tokens": FACT_NAMES["max_tokens"],
    "stream": FACT_NAMES["stream"],
    "outcome": FACT_NAMES["outcome"],
}
_BOOLEANS: Final = {"true": True, "false": False, "1": True, "0": False}
# Classes that say nothing of what failed: what a text names behind them says more.
_WRAPPERS: Final = frozenset(
    {"", "Error", "Exception", "RuntimeError", "RetryError", "AI_RetryError", "Throwable", "RuntimeException"}
)
# Where JavaScript's recordException finds a code, it writes that in place of the class.
_CODE_AS_TYPE: Final = re.compile(r"[a-z]+(?:_[a-z]+)+")
# A stack trace that stands in the text of an error.
_PRINTED_TRACE: Final = re.compile(
    r"Traceback \(most recent call last\)|\n[ \t]{1,8}at \S|\nStack trace:\n#0 "
    r"|\\n(?:\\+t|[ ]{1,8})at \S"
)
# A cause that stands in the text of what wraps it: Spring, .NET, Java and Node.
_INLINE: Final = re.compile(
    r"(?:; nested exception is | ---> |\bCaused by: |\[cause\]: )"
    r"(?P<class>(?:[A-Za-z_]\w{0,60}[.:\\]{1,2}){0,10}[A-Z]\w{2,80}) ?(?:\(\d{1,10}\))?"
    r"(?:: (?P<message>[^\n]{1,1000}))?"
)
# FastAPI's answer to its own client (starlette/exceptions.py): no status of a provider.
_OWN_STATUS: Final = "500: "
_INLINE_HINTS: Final = ("nested exception is ", " ---> ", "Caused by: ", "[cause]: ")
_ADDRESS: Final = re.compile(
    r"(?:https?://|host=')(?P<host>[\w.-]{4,100})(?::\d+)?(?P<path>/[^\s'\"?]{0,200})?"
)


_FIELDS: Final = tuple(field.name for field in fields(LLMError))
_GET_ALL: Final = attrgetter(*_FIELDS)


def changed(error: LLMError, changes: Mapping[str, Any]) -> LLMError:
    """`dataclasses.replace`, a third of its cost: it is done for each failure, on 36 fields."""
    copy = object.__new__(LLMError)
    for name, value in zip(_FIELDS, _GET_ALL(error), strict=True):
        object.__setattr__(copy, name, changes.get(name, value))
    return copy


def _short(name: str) -> str:
    return name.rpartition(".")[2]


def causes_told(name: str, message: str, trace: Trace) -> tuple[Cause, ...]:
    """The chain, outermost first: the exception as told, then what its stack trace prints below."""
    if not name:
        return trace.causes
    first = Cause(name, message[:MESSAGE_LIMIT])
    if trace.causes and _short(trace.causes[0].type) == _short(name):
        return (replace(first, type=max(name, trace.causes[0].type, key=len)), *trace.causes[1:])
    return (first, *trace.causes)


def _causes_inside(text: str) -> tuple[Cause, ...]:
    """The causes that a wrapper's text names, outermost first."""
    if not any(hint in text for hint in _INLINE_HINTS):
        return ()
    found = islice(_INLINE.finditer(text[:MESSAGE_LIMIT]), 6)
    return tuple(Cause(one["class"], (one["message"] or "").strip()) for one in found)


@lru_cache(maxsize=1024)
def _remembered(text: str) -> Told:
    return read_text(text)


def told_by(text: str, now: float | None = None) -> Told:
    """`read_text`, once for all equal texts whose reading needs no clock."""
    return _remembered(text) if now is None and len(text) <= _TEXT_KEPT else read_text(text, now)


def best_of(bodies: Iterable[ErrorBody]) -> ErrorBody | None:
    """Of what the links of a chain say, outermost first, that which a provider said.

    The first one with a code or type; else the first with a status, unless a cause below it has
    another one: then a wrapper answered for what happened inside. Waits and request ids are taken
    from wherever they stand. None where all of it is words.
    """
    known = list(bodies)
    best = next((body for body in known if body.code or body.type), None)
    if best is None:
        answers = [body for body in known if body.status]
        best = next((body for body in answers if body.status == answers[-1].status), None)
    if best is None:
        return None
    missing: dict[str, Any] = {}
    for field in ("status", "request_id", "retry_after_s"):
        if getattr(best, field) is None:
            value = next((v for body in known if (v := getattr(body, field)) is not None), None)
            if value is not None:
                missing[field] = value
    return replace(best, **missing) if missing else best


def _members(properties: str, now: float | None) -> ErrorBody | None:
    """What Node prints of an error's own members behind its stack."""
    printed = next(printed_objects(properties), None) if properties else None
    return finish(Walk(now).read(printed.data), now) if printed else None


def read_exception(
    name: str, message: str, stacktrace: str, description: str = "", *, now: float | None = None
) -> dict[str, Any]:
    """What an exception that was told as texts says, as fields of `LLMError`; unknown ones left out.

    Args:
        name: Its class.
        message: Its text.
        stacktrace: The printed stack trace.
        description: What else is told, such as a span's status; read where no exception says more.
        now: Unix time in seconds, for waits that are told as a point in time.
    """
    printed = stacktrace or (message if _PRINTED_TRACE.search(message) else "")
    trace = read_stacktrace(printed) if printed else Trace()
    causes = causes_told(name, message, trace)
    if len(causes) < 2 and (inside := _causes_inside(message)):
        causes = (*(causes or [Cause(one) for one in told_by(message, now).classes[:1]]), *inside)
    own = message or (causes[0].message if causes else description)
    if own.startswith(_OWN_STATUS) and _short(name) == "HTTPException" and not status_of_phrase(own[5:]):
        own = own[5:]
    texts = [text for text in (own, *(cause.message for cause in causes[1:]), description) if text]
    told = [told_by(text, now) for text in texts]
    bodies = [one.body for one in told]
    if (members := _members(trace.properties, now)) is not None:
        bodies.insert(1, members)
    found: dict[str, Any] = {}
    if causes and _CODE_AS_TYPE.fullmatch(causes[0].type):
        found["code"] = causes[0].type
    body = best_of(bodies) or (bodies[0] if bodies else None)
    if body is not None:
        for field in ("status", "code", "type", "param", "request_id", "retry_after_s"):
            if (value := getattr(body, field)) is not None:
                found[field] = value
        words = body.message or (bodies[0].message if bodies else None)
        found["message"] = (words or own or description).strip()[:MESSAGE_LIMIT]
    if len(causes) < 2 and told and (not causes or _short(causes[0].type) in _WRAPPERS):
        known = {_short(cause.type) for cause in causes}
        causes += tuple(Cause(one) for one in told[0].classes if _short(one) not in known)[:4]
    found["causes"] = causes
    return found


def _attributes(tags: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in tags.items():
        attribute = _TAGS.get(name.lower(), name)
        if attribute == FACT_NAMES["stream"] and isinstance(value, str):
            value = _BOOLEANS.get(value.lower())
        if isinstance(value, (str, int, float)) and value != "":
            found.setdefault(attribute, value)
    return found


def provider_in(text: str) -> str | None:
    """The provider whose address a text names."""
    if "://" not in text and "host='" not in text:
        return None
    for found in _ADDRESS.finditer(text[:MESSAGE_LIMIT]):
        if provider := provider_of_host(found["host"], found["path"]):
            return provider
    return None


def facts_of_text(
    error_type: str = "",
    error_message: str = "",
    stacktrace: str = "",
    tags: Mapping[str, Any] | None = None,
    *,
    now: float | None = None,
) -> LLMError:
    """The facts of an error that is known by its texts.

    Args:
        error_type: The exception's class.
        error_message: Its text.
        stacktrace: The printed stack trace, of any language that `stacktrace` knows.
        tags: What else is known: `provider`, `model`, `http_status` and more (`_TAGS`), or any
            attribute that `dialects.toml` knows. What a tag says beats what is read from the texts,
            except a status below 400: an error that came inside of a good answer.
        now: Unix time in seconds when it happened, for waits that are told as a point in time.
    """
    tagged = read_role(_attributes(tags or {}))[1]
    found = read_exception(error_type, error_message, stacktrace, now=now)
    causes: tuple[Cause, ...] = found.get("causes", ())
    limit, asked = token_limits(found.get("message", ""))
    found |= {
        "provider": provider_in(error_message) if tagged.get("provider") is None else None,
        "error_type": causes[0].type if causes else None,
        "context_limit": limit,
        "requested_tokens": asked,
        "stacktrace": stacktrace or None,
    }
    for name, value in found.items():
        inside = name == "status" and (tagged.get("status") or 400) < 400
        if name in ("causes", "message") or tagged.get(name) is None or inside:
            tagged[name] = value
    return LLMError(**tagged)


def unix_seconds(timestamp: object) -> float | None:
    """A record's time as Unix seconds: RFC 3339, or a number of seconds or milliseconds."""
    if isinstance(timestamp, (int, float)) and not isinstance(timestamp, bool):
        return timestamp / 1000 if timestamp > 10**11 else float(timestamp)
    if not isinstance(timestamp, str):
        return None
    try:
        when = datetime.fromisoformat(timestamp)
    except ValueError:
        return None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def _said(record: Mapping[str, Any], name: str) -> str:
    value = record.get(name)
    return value if isinstance(value, str) else ""


def facts_of_record(record: Mapping[str, Any]) -> LLMError:
    """The facts of an error record: `error_type`, `error_message`, `stacktrace`, `tags`, `timestamp`.

    A member of another kind than it should have is taken as unknown.
    """
    tags = record.get("tags")
    return facts_of_text(
        _said(record, "error_type"),
        _said(record, "error_message"),
        _said(record, "stacktrace"),
        {str(name): value for name, value in tags.items()} if isinstance(tags, Mapping) else None,
        now=unix_seconds(record.get("timestamp")),
    )
