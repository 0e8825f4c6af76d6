"""A failed call that no tap saw, from the exception that it left: its request, its answer, its chain.

SDKs keep both on their exceptions, so that model, status, headers and the number of tries are known
with no instrumentation at all. Duck-typed: any member may be missing, raise or lie.
"""

from __future__ import annotations

import time
import uuid
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from typing import Any, Final

from otel_triage.capture.calls import Call, names_a_model
from otel_triage.capture.reading import facts_of
from otel_triage.facts.answers import Reading
from otel_triage.facts.evidence import names_llm
from otel_triage.facts.exceptions import MISTAKES, chain, type_name
from otel_triage.facts.live import facts_of_exception
from otel_triage.facts.providers import endpoint_of
from otel_triage.facts.wire import FACT_NAMES
from otel_triage.model import LLMError, Outcome

# Written by SDKs of this generator (openai, anthropic, groq): how often the request was sent before.
_RESENT: Final = "x-stainless-retry-count"


def foreign(exc: BaseException) -> BaseException | None:
    """Where the failure of an exception ends: the first one of its chain that is another failure.

    Python makes the exception that is being handled the context of whatever fails meanwhile. That names
    the same failure where an `except` block raises it anew, and another one where its fallback fails.
    """
    for outer, inner in pairwise(chain(exc)):
        named = outer.__cause__ is inner or isinstance(outer, BaseExceptionGroup)
        if not named and not _raised_for(outer, inner):
            return inner
    return None


def _raised_for(outer: BaseException, inner: BaseException) -> bool:
    """Whether `outer` was raised by the very `except` block that caught `inner`, or by a client library."""
    if names_llm((type_name(outer),), (), ()):
        return True
    if isinstance(outer, MISTAKES):
        return False
    trace = outer.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    caught = inner.__traceback__
    return trace is not None and caught is not None and trace.tb_frame is caught.tb_frame


def facts_afterwards(exc: BaseException, until: BaseException | None) -> tuple[LLMError, bool]:
    """All facts that a live exception gives, with a fresh `error_id`, and whether its request asked a model.

    Args:
        exc: The outermost exception.
        until: Where its chain ends; see `foreign`.
    """
    found = facts_of_exception(exc, now=time.time(), until=until)
    # The innermost one: a client that wraps another rewrites what it says.
    calls = [call for link in chain(exc, until=until) if (call := _call(link, until)) is not None]
    if not calls:
        return replace(found, error_id=uuid.uuid4().hex, outcome=Outcome.FAILED), False
    call = calls[-1]
    told = facts_of(call, exc, Reading(), Outcome.FAILED)
    request = call.attempts[-1].request
    resent = str(request.headers.get(_RESENT, ""))
    told = replace(
        told,
        call_id=None,  # it joins nothing: it was made up here
        attempts=int(resent) + 1 if resent.isdecimal() else None,
        attempt_statuses=None,
    )
    more = {
        name: getattr(found, name)
        for name in FACT_NAMES
        if getattr(told, name) is None and getattr(found, name) is not None
    }
    return replace(told, **more), True


def _call(link: BaseException, until: BaseException | None) -> Call | None:
    """The call that an exception's request and answer tell of, if it is one of a model."""
    request = response = None
    with suppress(Exception):  # httpx raises on `request` where there is none
        request = getattr(link, "request", None)
    with suppress(Exception):
        response = getattr(link, "response", None)
    host, path = _place(request)
    endpoint = endpoint_of(host, path) if host else None
    if endpoint is None or not (endpoint.known or names_a_model(request)):
        return None
    call = Call(endpoint=endpoint, host=host, on_end=lambda _call, _exc: None, past=True)
    call.handled = until
    attempt = call.begin_attempt(request)
    status = getattr(response, "status_code", None)
    if isinstance(status, int) and hasattr(response, "headers"):
        attempt.response, attempt.status = response, status
    else:
        attempt.exception = link
    return call


def _place(request: Any) -> tuple[str, str]:
    url = getattr(request, "url", None)
    host, path = getattr(url, "host", None), getattr(url, "path", None)
    return (host, path) if isinstance(host, str) and isinstance(path, str) else ("", "")
