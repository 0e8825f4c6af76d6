"""`init`: taps, the span processor and the way out, put together once a process."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final, TypedDict
from urllib.parse import urlsplit

import wrapt
from opentelemetry import trace

from otel_triage.capture import guard
from otel_triage.capture.calls import Call, end_dropped
from otel_triage.capture.outlet import Outlet
from otel_triage.capture.processor import ObservingProcessor, TriageSpanProcessor, reader
from otel_triage.capture.tap import Listener, hooked, listen
from otel_triage.capture.telling import Teller, Told
from otel_triage.facts.dialects import read_attributes
from otel_triage.model import LLMError
from otel_triage.verdict.advice import languages
from otel_triage.verdict.classify import classify
from otel_triage.verdict.sentry_events import Grouping

ENABLED: Final = "OTEL_TRIAGE_ENABLED"
SIDECAR: Final = "OTEL_TRIAGE_SIDECAR"

_TRUE: Final = frozenset({"true", "1", "yes", "on", ""})
_FALSE: Final = frozenset({"false", "0", "no", "off"})

_logger = logging.getLogger("otel_triage")
_lock: Final = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `init` was given; its docstring says what each means."""

    sidecar: str | None
    grouping: Grouping
    language: str
    soft_events: bool
    defer_at_call: bool
    hosts: tuple[str, ...]
    content: bool


class InitOptions(TypedDict, total=False):
    """The arguments of `init`."""

    sidecar: str | None
    grouping: Grouping
    language: str
    soft_events: bool
    defer_at_call: bool
    hosts: Iterable[str]
    content: bool


class Handle:
    """What `init` returns. `options` is None where nothing is captured."""

    def __init__(self, options: Options | None, outlet: Outlet | None) -> None:
        self.options = options
        self._outlet = outlet

    @property
    def enabled(self) -> bool:
        """Whether anything is captured."""
        return self._outlet is not None

    @guard.never_raises
    def stats(self) -> dict[str, int]:
        """Counts of this process: calls by outcome, events sent, what was dropped, errors of our own."""
        return guard.stats() | dict.fromkeys((f"hooked.{name}" for name in hooked() or ()), 1)

    @guard.never_raises
    def flush(self, timeout_s: float = 5.0) -> None:
        """Sends waiting events and counts now, for at most `timeout_s` seconds each."""
        end_dropped()
        if self._outlet is not None:
            self._outlet.flush(timeout_s)

    @guard.never_raises
    def shutdown(self) -> None:
        """Stops capturing and sends what waits, for at most half a second. `init` may be called again."""
        global _handle
        end_dropped()
        with _lock:
            if _handle is self:
                _handle = None
                listen(None)
                reader.teller = None
        if self._outlet is not None:
            self._outlet.close()


_handle: Handle | None = None


def init(
    *,
    sidecar: str | None = None,
    grouping: Grouping = "cause",
    language: str = "en",
    soft_events: bool = False,
    defer_at_call: bool = False,
    hosts: Iterable[str] = (),
    content: bool = False,
) -> Handle:
    """Starts capturing failed and silently wrong LLM calls in this process. Idempotent.

    Taps httpx and httpx2 (those that the application uses) and attaches to the TracerProvider that is
    set, and to the sentry_sdk that is imported, now or later. Sets no global provider, does not call
    `sentry_sdk.init`, opens no connection by itself, never raises: what is wrong with an argument is
    logged, and its default taken.

    Args:
        sidecar: Base URL of the sidecar's HTTP listener; default `OTEL_TRIAGE_SIDECAR`. Without one
            events and counts go where the application sends its own.
        grouping: `cause` groups Sentry events by provider, category and reason, where the cause lies with
            provider, account or network and the event has no fingerprint of its own; `off` never.
        language: Language of cause and action texts.
        soft_events: Whether soft failures send Sentry events, as warnings.
        defer_at_call: Whether events that Sentry's AI integrations capture at the call are dropped, in
            favour of the application's own capture. What it handles then sends no event.
        hosts: Host names that serve models besides those of the known providers, such as a gateway.
        content: Whether content may be captured. Nothing captures any in this version.

    Returns:
        A handle with `stats()`, `flush()` and `shutdown()`; one that captures nothing where
        `OTEL_TRIAGE_ENABLED` is false.
    """
    if _enabled() is False:
        return Handle(None, None)
    started = _start(
        sidecar=sidecar or os.environ.get(SIDECAR) or None,
        grouping=grouping,
        language=language,
        soft_events=soft_events,
        defer_at_call=defer_at_call,
        hosts=hosts,
        content=content,
    )
    return started or Handle(None, None)


def _switch() -> str:
    return os.environ.get(ENABLED, "true").strip().lower()


@guard.never_raises
def _enabled() -> bool:
    said = _switch()
    if said not in _TRUE | _FALSE:
        _logger.warning("otel-triage: %s=%s is neither true nor false; it stays enabled", ENABLED, said)
    return said not in _FALSE


def options() -> Options | None:
    """The options in force, or None where nothing is captured."""
    return _handle.options if _handle is not None else None


def sidecar() -> str | None:
    """Base URL of the sidecar, by `init` or the environment; None where all is switched off."""
    if _handle is not None:
        return _handle.options.sidecar if _handle.options is not None else None
    return None if _switch() in _FALSE else os.environ.get(SIDECAR) or None


def checked(options: Options) -> Options:
    """The options with each wrong one at its default: said once, in a line that names what would be right."""
    url = urlsplit(options.sidecar or "")
    if options.sidecar and (url.scheme not in ("http", "https") or not url.hostname):
        _logger.warning(
            "otel-triage: sidecar %r is not a base URL such as http://127.0.0.1:4318; "
            "events go where the application sends its own",
            options.sidecar,
        )
        options = replace(options, sidecar=None)
    if options.language not in languages():
        _logger.warning(
            "otel-triage: language %r is not one of %s; texts are English",
            options.language,
            ", ".join(languages()),
        )
        options = replace(options, language="en")
    if options.grouping not in ("cause", "off"):
        _logger.warning("otel-triage: grouping %r is not one of cause, off; it is cause", options.grouping)
        options = replace(options, grouping="cause")
    return options


@guard.never_raises
def _start(*, hosts: Iterable[str], **given: Any) -> Handle:
    global _handle
    with _lock:
        if _handle is not None:
            return _handle
        options = checked(Options(hosts=(hosts,) if isinstance(hosts, str) else tuple(hosts), **given))
        outlet = Outlet(options.sidecar)
        teller = Teller(outlet, language=options.language, on_soft=_soft)
        reader.teller, reader.language = teller, options.language

        def ended(call: Call, exc: BaseException | None) -> None:
            _attach()
            teller.call_ended(call, exc)

        listen(Listener(hosts=frozenset(host.lower() for host in options.hosts), on_end=ended))
        threading.Thread(target=_warm_up, name="otel-triage-warm-up", daemon=True).start()
        _handle = Handle(options, outlet)
    _attach()
    _attach_to_sentry()
    return _handle


@guard.never_raises
def _warm_up() -> None:
    """Reads the data files beside the application's own start, so that its first failure need not wait."""
    read_attributes({})
    classify(LLMError())


@guard.never_raises
def _attach_to_sentry() -> None:
    """Attaches to sentry_sdk once the application imports it: we never do."""
    global _awaited
    if not _awaited:
        _awaited = True
        wrapt.register_post_import_hook(_sentry_imported, "sentry_sdk")


_awaited = False


@guard.never_raises
def _sentry_imported(_module: object) -> None:
    from otel_triage.capture.sentry_integration import attach

    attach()


def _soft(told: Told) -> None:
    module = sys.modules.get("otel_triage.capture.sentry_integration")
    if module is not None:
        module.send_soft(told)


_attached: object | None = None


@guard.never_raises
def _attach() -> None:
    """Attaches to the TracerProvider once one of the SDK's is set: it may come after `init`."""
    global _attached
    provider = trace.get_tracer_provider()
    add = getattr(provider, "add_span_processor", None)
    if provider is _attached or add is None:
        return
    _attached = provider
    if not _has_ours(provider):
        add(ObservingProcessor())


def _has_ours(provider: object) -> bool:
    """Whether a `TriageSpanProcessor` is among a provider's processors already."""
    active = getattr(provider, "_active_span_processor", None)
    found = getattr(active, "_span_processors", ())
    return any(isinstance(processor, (TriageSpanProcessor, ObservingProcessor)) for processor in found)
