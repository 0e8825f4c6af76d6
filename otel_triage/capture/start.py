"""`init`: taps, the span processor and the way out, put together once a process."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from typing import Final

from opentelemetry import trace

from otel_triage.capture import guard
from otel_triage.capture.calls import Call
from otel_triage.capture.outlet import Outlet
from otel_triage.capture.processor import ObservingProcessor, TriageSpanProcessor, reader
from otel_triage.capture.tap import Listener, hooked, listen
from otel_triage.capture.telling import Teller
from otel_triage.facts.dialects import read_attributes
from otel_triage.model import LLMError
from otel_triage.verdict.classify import classify

ENABLED: Final = "OTEL_TRIAGE_ENABLED"
SIDECAR: Final = "OTEL_TRIAGE_SIDECAR"

_FALSE: Final = frozenset({"false", "0", "no", "off"})
_lock: Final = threading.Lock()


class Handle:
    """What `init` returns."""

    def __init__(self, outlet: Outlet | None) -> None:
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
        if self._outlet is not None:
            self._outlet.flush(timeout_s)

    @guard.never_raises
    def shutdown(self) -> None:
        """Stops capturing and sends what waits, for at most half a second. `init` may be called again."""
        global _handle
        with _lock:
            if _handle is self:
                _handle = None
                listen(None)
                reader.teller = None
        if self._outlet is not None:
            self._outlet.close()


_handle: Handle | None = None


def init(*, sidecar: str | None = None, language: str = "en", hosts: Iterable[str] = ()) -> Handle:
    """Starts capturing failed and silently wrong LLM calls in this process. Idempotent.

    Taps httpx and httpx2 (those that the application uses) and attaches to the TracerProvider that is
    set now or later. Sets no global provider, opens no connection by itself, never raises into a call.

    Args:
        sidecar: Base URL of the sidecar's HTTP listener; default `OTEL_TRIAGE_SIDECAR`. Without one
            events and counts go where the application sends its own.
        language: Language of cause and action texts.
        hosts: Host names that serve models besides those of the known providers, such as a gateway.

    Returns:
        A handle with `stats()`, `flush()` and `shutdown()`; one that captures nothing where
        `OTEL_TRIAGE_ENABLED` is false.
    """
    if os.environ.get(ENABLED, "true").strip().lower() in _FALSE:
        return Handle(None)
    return _start(sidecar or os.environ.get(SIDECAR) or None, language, hosts) or Handle(None)


@guard.never_raises
def _start(sidecar: str | None, language: str, hosts: Iterable[str]) -> Handle:
    global _handle
    with _lock:
        if _handle is not None:
            return _handle
        outlet = Outlet(sidecar)
        teller = Teller(outlet, language=language)
        reader.teller, reader.language = teller, language

        def ended(call: Call, exc: BaseException | None) -> None:
            _attach()
            teller.call_ended(call, exc)

        listen(Listener(hosts=frozenset(host.lower() for host in hosts), on_end=ended))
        threading.Thread(target=_warm_up, name="otel-triage-warm-up", daemon=True).start()
        _handle = Handle(outlet)
    _attach()
    return _handle


@guard.never_raises
def _warm_up() -> None:
    """Reads the data files beside the application's own start, so that its first failure need not wait."""
    read_attributes({})
    classify(LLMError())


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
