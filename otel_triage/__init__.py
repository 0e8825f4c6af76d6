"""Error triage for AI applications.

`init()` captures failed and silently wrong LLM calls in this process; `TriageSpanProcessor` puts
verdicts on spans before they are exported; `otel-triage sidecar` does the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from otel_triage.capture.processor import TriageSpanProcessor
    from otel_triage.capture.retry import retry_after, should_retry
    from otel_triage.capture.start import Handle, init
    from otel_triage.model import LLMError, Verdict

__all__ = ["Handle", "LLMError", "TriageSpanProcessor", "Verdict", "init", "retry_after", "should_retry"]

_WHERE = {
    "Handle": "otel_triage.capture.start",
    "LLMError": "otel_triage.model",
    "TriageSpanProcessor": "otel_triage.capture.processor",
    "Verdict": "otel_triage.model",
    "init": "otel_triage.capture.start",
    "retry_after": "otel_triage.capture.retry",
    "should_retry": "otel_triage.capture.retry",
}


def __getattr__(name: str) -> Any:
    """Loads a public name when it is first used: the sidecar and the CLI need no tap."""
    if name in _WHERE:
        from importlib import import_module

        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
