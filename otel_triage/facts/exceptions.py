"""What Python itself knows of a live exception: its class, text, chain and traceback."""

from __future__ import annotations

import builtins
import traceback
from collections.abc import Iterator
from typing import Final

from otel_triage.facts.scrub import scrub
from otel_triage.model import BrokeAt, Cause

_DEPTH: Final = 8
_MESSAGE_LIMIT: Final = 2000
_STACK_LIMIT: Final = 8000

CANCELLATIONS: Final = frozenset(
    {
        "asyncio.exceptions.CancelledError",
        "trio.Cancelled",
        "GeneratorExit",
        "KeyboardInterrupt",
        "SystemExit",
    }
)

MISTAKES: Final = (AttributeError, LookupError, NameError, TypeError, AssertionError, ArithmeticError)
"""What code raises by mistake. In an `except` block it is a failure of its own, not another name of the one
that is being handled, though Python makes that its context."""

MISTAKE_NAMES: Final = frozenset(
    name for name, cls in vars(builtins).items() if isinstance(cls, type) and issubclass(cls, MISTAKES)
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
