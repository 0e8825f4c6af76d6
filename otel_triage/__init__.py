"""Error triage for AI applications.

`init()` captures failed and silently wrong LLM calls in this process; `TriageSpanProcessor` puts
verdicts on spans before they are exported; `otel-triage sidecar` does the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_triage.capture.processor import TriageSpanProcessor
    from otel_triage.capture.retry import retry_after, should_retry
    from otel_triage.capture.sentry_integration import TriageIntegration
    from otel_triage.capture.sentry_transport import TriageTransport
    from otel_triage.capture.start import Handle, init
    from otel_triage.model import LLMError, Verdict

__all__ = [
    "Handle",
    "LLMError",
    "TriageIntegration",
    "TriageSpanProcessor",
    "TriageTransport",
    "Verdict",
    "classify",
    "init",
    "retry_after",
    "should_retry",
]

_WHERE = {
    "Handle": "otel_triage.capture.start",
    "LLMError": "otel_triage.model",
    "TriageIntegration": "otel_triage.capture.sentry_integration",
    "TriageSpanProcessor": "otel_triage.capture.processor",
    "TriageTransport": "otel_triage.capture.sentry_transport",
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


def classify(error: BaseException | Mapping[str, Any] | LLMError) -> Verdict:
    """What an error means, by rules alone. It always answers: the caller says that it is an LLM error.

    Args:
        error: an exception (where `init()` watched its call, the verdict that was told of it), an
            error record as `otel-triage classify` reads it (`error_type`, `error_message`,
            `stacktrace`, `tags`, `timestamp`; all optional), or the facts themselves.

    Raises:
        TypeError: it is none of these.
    """
    from collections.abc import Mapping
    from time import time

    from otel_triage.model import LLMError
    from otel_triage.verdict.classify import classify as decide

    if isinstance(error, LLMError):
        return decide(error)
    if isinstance(error, BaseException):
        from otel_triage.capture.telling import verdict_of
        from otel_triage.facts.live import facts_of_exception

        return verdict_of(error) or decide(facts_of_exception(error, now=time()))
    if isinstance(error, Mapping):
        from otel_triage.facts.records import facts_of_record

        return decide(facts_of_record(error))
    raise TypeError(
        f"classify() takes an exception, an error record or an LLMError, not {type(error).__name__}"
    )
