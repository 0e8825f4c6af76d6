"""Live exceptions -> facts. Duck-typed: no SDK is imported, any attribute may be missing or lie."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from typing import Any, Final

from otel_triage.facts import headers
from otel_triage.facts.bodies import ErrorBody, read_error_body, read_error_text
from otel_triage.facts.scrub import scrub
from otel_triage.model import BrokeAt, Cause, LLMError

_DEPTH: Final = 8
_MESSAGE_LIMIT: Final = 2000
_STACK_LIMIT: Final = 8000
_BODY_LIMIT: Final = 65_536

CANCELLATIONS: Final = frozenset(
    {
        "asyncio.exceptions.CancelledError",
        "trio.Cancelled",
        "GeneratorExit",
        "KeyboardInterrupt",
        "SystemExit",
    }
)


def type_name(exc: BaseException) -> str:
    """Full module path of an exception's class; built-in ones by their bare name."""
    cls = type(exc)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def text_of(exc: BaseException) -> str:
    """An exception's text; empty where its own `__str__` fails."""
    try:
        return str(exc)
    except Exception:  # noqa: BLE001 - foreign code, whatever it raises
        return ""


def is_cancellation(exc: BaseException) -> bool:
    """Whether the caller gave up on purpose: that is no error."""
    return type_name(exc) in CANCELLATIONS


def chain(exc: BaseException, *, until: BaseException | None = None) -> Iterator[BaseException]:
    """The exception and its causes, outermost first: cause before context, a group's first member.

    Args:
        exc: The outermost exception.
        until: Where to stop: an exception that was being handled before all this began, which Python
            makes the context of whatever fails meanwhile, is no cause of it.
    """
    seen: set[int] = set()
    current: BaseException | None = exc
    while current is not None and current is not until and id(current) not in seen and len(seen) < _DEPTH:
        seen.add(id(current))
        yield current
        if isinstance(current, BaseExceptionGroup) and current.exceptions:
            current = current.exceptions[0]
        elif current.__cause__ is not None:
            current = current.__cause__
        else:
            current = None if current.__suppress_context__ else current.__context__


def causes_of(exc: BaseException, *, until: BaseException | None = None) -> tuple[Cause, ...]:
    """The chain as facts, scrubbed.

    A cancellation inside it is how anyio and asyncio make a time-out, and no cause.
    """
    return tuple(
        Cause(type_name(link), scrub(text_of(link)[:_MESSAGE_LIMIT]))
        for link in chain(exc, until=until)
        if not is_cancellation(link)
    )


def stacktrace_of(exc: BaseException, *, until: BaseException | None = None) -> str:
    """The printed traceback with all causes, scrubbed, its oldest frames cut off beyond 8,000 characters."""
    try:
        alone = until is not None and until in (exc.__context__, *chain(exc))
        text = "".join(traceback.format_exception(exc, chain=not alone))
    except Exception:  # noqa: BLE001 - a foreign __str__ or __repr__ may raise anything
        text = "".join(traceback.format_tb(exc.__traceback__)) + type_name(exc)
    text = scrub(text)
    return text if len(text) <= _STACK_LIMIT else f"[cut]\n{text[-_STACK_LIMIT:]}"


# Names of transport exceptions, the same in httpx, httpx2 and httpcore.
_BEFORE_CONNECTED: Final = frozenset(
    {
        "ConnectError",
        "ConnectTimeout",
        "PoolTimeout",
        "ProxyError",
        "UnsupportedProtocol",
        "LocalProtocolError",
    }
)


def broke_at(exc: BaseException) -> BrokeAt:
    """At which stage a send that raised broke: the class tells, or whether the body was being read."""
    names = {cls.__name__ for cls in type(exc).__mro__}
    if names & _BEFORE_CONNECTED:
        return BrokeAt.CONNECT
    frame = exc.__traceback__
    while frame is not None:
        code = frame.tb_frame.f_code
        if code.co_name in ("read", "aread") and code.co_filename.endswith("_models.py"):
            return BrokeAt.BODY
        frame = frame.tb_next
    return BrokeAt.HEADERS


def _attribute(exc: BaseException, name: str, kind: type) -> Any:
    try:
        value = getattr(exc, name, None)
    except Exception:  # noqa: BLE001 - a property of foreign code
        return None
    return value if isinstance(value, kind) and not isinstance(value, bool) else None


def _status_of(exc: BaseException) -> int | None:
    """HTTP status of an SDK's exception, or of an HTTP client's that carries the response."""
    status = _attribute(exc, "status_code", int)
    if status is None:
        status = getattr(getattr(exc, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def body_of(exc: BaseException) -> ErrorBody:
    """The provider's error body that an exception carries: an SDK's `body`, else that of its response."""
    body = _attribute(exc, "body", Mapping)
    content = getattr(getattr(exc, "response", None), "_content", None)
    if body is None and isinstance(content, bytes):
        found = read_error_text(content[:_BODY_LIMIT].decode("utf-8", "replace"))
    else:
        found = read_error_body(body) if body is not None else ErrorBody()
    return ErrorBody(
        code=found.code or _attribute(exc, "code", str),
        type=found.type or _attribute(exc, "type", str),
        param=found.param or _attribute(exc, "param", str),
        message=found.message,
        request_id=found.request_id or _attribute(exc, "request_id", str),
    )


def facts_of_exception(exc: BaseException, *, now: float, until: BaseException | None = None) -> LLMError:
    """What a live exception alone tells, where no tap saw the call.

    Args:
        exc: The outermost exception; the first of its chain with an HTTP status is the provider's.
        now: Unix time in seconds.
        until: Where its chain ends; see `chain`.
    """
    told = next((link for link in chain(exc, until=until) if _status_of(link)), exc)
    body = body_of(told)
    response = getattr(told, "response", None)
    found = getattr(response, "headers", None)
    answered = found if isinstance(found, Mapping) else {}
    message = body.message or text_of(told)
    return LLMError(
        status=_status_of(told),
        error_type=type_name(told),
        code=body.code,
        type=body.type,
        param=body.param,
        request_id=body.request_id or headers.request_id(answered),
        retry_after_s=headers.retry_after_s(answered, now),
        message=scrub(message[:_MESSAGE_LIMIT]) or None,
        stacktrace=stacktrace_of(exc, until=until),
        causes=causes_of(exc, until=until),
        **headers.rate_limits(answered, now),
    )
