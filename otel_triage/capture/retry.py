"""Whether to try again, and when: predicates for tenacity, stamina and one's own loops.

They decide by the verdict and not by the status: a 429 may be a limit that passes, or a purse that is empty.
"""

from __future__ import annotations

import time

from otel_triage.capture.calls import names_a_model
from otel_triage.capture.guard import never_raises
from otel_triage.capture.telling import verdict_of
from otel_triage.facts.evidence import is_llm_exception
from otel_triage.facts.exceptions import chain, is_cancellation
from otel_triage.facts.live import facts_of_exception
from otel_triage.facts.providers import endpoint_of
from otel_triage.model import Retryable, Verdict
from otel_triage.verdict.classify import classify


def should_retry(exc: BaseException) -> bool:
    """Whether the same request, sent again soon, may succeed.

    False for what a retry cannot help (`no`), for what comes back only later than five minutes
    (`later`), for a cancellation, and for any error that is not of an LLM call: what is not ours
    is not ours to retry. Never raises.
    """
    verdict = _judge(exc)
    return verdict is not None and verdict.retryable is Retryable.YES


def retry_after(exc: BaseException) -> float | None:
    """Seconds to wait before the next try, where the provider named them; else None. Never raises."""
    verdict = _judge(exc)
    return verdict.retry_after_s if verdict is not None else None


@never_raises
def _judge(exc: BaseException) -> Verdict | None:
    """The verdict on an exception: that which was told of it, else one from its own facts."""
    if is_cancellation(exc):
        return None
    if (told := verdict_of(exc)) is not None:
        return told
    error = facts_of_exception(exc, now=time.time())
    return classify(error) if is_llm_exception(error) or _asked_a_model(exc) else None


def _asked_a_model(exc: BaseException) -> bool:
    """Whether an HTTP client's exception holds the request of a model call."""
    for link in chain(exc):
        request = getattr(link, "_request", None)  # httpx raises on `request` where there is none
        if request is not None and (endpoint := endpoint_of(request.url.host, request.url.path)):
            return endpoint.known or names_a_model(request)
    return False
