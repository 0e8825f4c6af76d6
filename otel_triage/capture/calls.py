"""A call and its attempts: what is seen of them while they run, and the one moment at which a call ends.

An attempt is one HTTP exchange. A call is what the application asked an SDK for: it ends when the
SDK's own request method returns or raises, or when its stream ends. Where there is no SDK (bare
httpx) the exchange is the call.
"""

from __future__ import annotations

import json
import re
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, Final
from weakref import WeakValueDictionary

from opentelemetry import context as otel_context
from opentelemetry import trace

from otel_triage.capture.guard import never_raises
from otel_triage.capture.watch import Watch
from otel_triage.facts.providers import Endpoint
from otel_triage.facts.scrub import decode_body
from otel_triage.model import LLMError, Verdict

current_call: ContextVar[Call | None] = ContextVar("otel_triage_call", default=None)
"""The SDK call that is running in this context."""

current_attempt: ContextVar[Attempt | None] = ContextVar("otel_triage_attempt", default=None)
"""The HTTP exchange that is running in this context: spans that start inside it are its attempts."""

open_calls: WeakValueDictionary[int, Call] = WeakValueDictionary()
"""Calls that have not ended, by the id of the span that was the current one when they began."""

dropped: deque[Attempt] = deque(maxlen=1000)
"""Streams that were thrown away unread: told of when the next call begins or ends."""


def end_dropped() -> None:
    """Tells of streams that the garbage collector found."""
    while dropped:
        with suppress(IndexError):  # another thread was faster
            dropped.popleft().end_dropped()


_PARSED_BODY: Final = 64 * 1024
_EDGE: Final = 4096
_MODEL = re.compile(rb'"model"\s*:\s*"((?:[^"\\]|\\.)*)"')


class Attempt:
    """One HTTP exchange. Its methods are told what happens, and never raise."""

    def __init__(self, call: Call, request: Any) -> None:
        self.call = call
        self.request = request
        self.response: Any = None
        self.status: int | None = None
        self.watch: Watch | None = None
        self.exception: BaseException | None = None
        self.sending = True

    def release(self) -> None:
        """Lets go of the application's objects: nothing of it lives longer because we looked at it."""
        self.request = self.response = self.exception = self.watch = None

    @property
    def streaming(self) -> bool:
        """Whether the body is still passing through us."""
        return self.watch is not None and not self._ended

    _ended = False

    @never_raises
    def raised(self, exc: BaseException) -> None:
        """The send itself raised."""
        self.sending = False
        self.exception = exc
        self.call.attempt_over(exc)

    @never_raises
    def answered(self, response: Any, tap: Callable[[Any, Attempt], Any] | None) -> None:
        """A response came: whole (`tap` is None), or with a body that has yet to be read."""
        self.sending = False
        self.response = response
        self.status = int(response.status_code)
        if tap is None or response.is_closed:
            self.call.attempt_over(None)
            return
        self.watch = Watch(
            api=self.call.endpoint.api,
            status=response.status_code,
            headers=response.headers,
            stream=self.call.asked.get("stream") is True,
        )
        response.stream = tap(response.stream, self)

    @never_raises
    def saw(self, data: bytes) -> None:
        """Raw bytes of the body are on their way to the application."""
        if self.watch is not None:
            self.watch.feed(data)

    @never_raises
    def body_ended(self) -> None:
        """The body came to its own end."""
        if self.watch is not None:
            self.watch.complete = True
        self._end(None)

    @never_raises
    def body_broke(self, exc: BaseException) -> None:
        """Reading the body raised."""
        self.exception = exc
        self._end(exc)

    @never_raises
    def body_closed(self) -> None:
        """The reader closed the response: done with it, or giving up on it.

        An SDK closes after an error that it read in the stream; its exception is in flight then.
        """
        exc = sys.exc_info()[1]
        said_error = (
            self.watch is not None and self.watch.events is not None and self.watch.events.reading.error
        )
        self._end(exc if said_error else None)

    def body_dropped(self) -> None:
        """The response was thrown away unread and unclosed: its end is told later, from elsewhere.

        This runs in the garbage collector, at any allocation, perhaps while this thread holds a lock
        of the SDK's. So it takes none: appending to a deque needs none.
        """
        if self.streaming:
            self.request = self.response = None
            dropped.append(self)

    @never_raises
    def end_dropped(self) -> None:
        """Tells the end of a dropped response."""
        self.call.dropped = True
        self._end(None)

    def _end(self, exc: BaseException | None) -> None:
        if not self._ended:
            self._ended = True
            self.call.attempt_over(exc)


class Call:
    """One call. `on_end` is called once, when it is over, with the exception that it ended with.

    `handled` is the exception that was being handled when it began: a fallback runs inside an
    `except`, and what fails there has that failure as its context and not as its cause.
    `owner` is the SDK client whose call it is. One that is `past` is over, and known by its exception alone.
    """

    def __init__(
        self,
        *,
        endpoint: Endpoint,
        host: str,
        on_end: Callable[[Call, BaseException | None], None],
        owner: Any = None,
        asked: Mapping[str, Any] | None = None,
        past: bool = False,
    ) -> None:
        self.call_id = uuid.uuid4().hex
        self.endpoint = endpoint
        self.host = host
        self.attempts: list[Attempt] = []
        self.started_ns = time.time_ns()
        self.context = otel_context.get_current()
        self.span = trace.get_current_span()
        self.dropped = False
        self.over = False
        self.handled = sys.exc_info()[1]
        self._asked = asked
        self.owner = id(owner) if owner is not None else None
        self._returned = owner is None
        self._on_end = on_end
        self._once = threading.Lock()
        self.told: tuple[LLMError, Verdict] | None = None
        if not past and (span_id := self.span.get_span_context().span_id):
            open_calls[span_id] = self

    def begin_attempt(self, request: Any) -> Attempt:
        """Notes that an exchange begins. Of those before it only the status still matters."""
        if self.attempts:
            self.attempts[-1].release()
        attempt = Attempt(self, request)
        self.attempts.append(attempt)
        return attempt

    @property
    def asked(self) -> Mapping[str, Any]:
        """The settings that the application asked with: model, max_tokens, stream."""
        if self._asked is None:
            self._asked = _asked_of(self.request_body()) if self.attempts else {}
        return self._asked

    def request_body(self) -> bytes:
        """The body of the last request, empty where it was a stream."""
        content = getattr(self.attempts[-1].request, "_content", None) if self.attempts else None
        return content if isinstance(content, bytes) else b""

    @never_raises
    def raised(self, exc: BaseException) -> None:
        """The SDK's request method raised."""
        self._end(exc)

    @never_raises
    def returned(self) -> None:
        """The SDK's request method returned; a stream goes on."""
        self._returned = True
        if not (self.attempts and self.attempts[-1].streaming):
            self._end(None)

    @never_raises
    def span_ended(self) -> tuple[LLMError, Verdict] | None:
        """The LLM span around this call ended first (as anthropic does): its answer read, the call is over.

        Returns:
            What was told of the call, if it failed.
        """
        attempt = self.attempts[-1] if self.attempts else None
        if attempt is None or attempt.response is None:
            return None
        reading = attempt.watch.events.reading if attempt.watch and attempt.watch.events else None
        if reading is not None and reading.error is not None:
            self._end(sys.exc_info()[1])
        elif not attempt.streaming or (reading is not None and reading.ended):
            self._end(None)
        return self.told

    def attempt_over(self, exc: BaseException | None) -> None:
        """An exchange is over: so is the call, unless an SDK has yet to say what comes of it."""
        if self._returned:
            self._end(exc)

    def _end(self, exc: BaseException | None) -> None:
        if self._once.acquire(blocking=False):
            self.over = True
            open_calls.pop(self.span.get_span_context().span_id, None)
            try:
                self._on_end(self, exc)
            finally:
                self._asked, self.handled = {}, None
                for attempt in self.attempts:
                    attempt.release()


def _asked_of(content: bytes) -> Mapping[str, Any]:
    """The settings in a request body. Of a large one only the model, found without parsing."""
    if len(content) <= _PARSED_BODY:
        data = decode_body(content)
        return data if isinstance(data, dict) else {}
    # Quotes inside a prompt are escaped, so this can only be a key of the request.
    found = _MODEL.search(content[:_EDGE]) or _MODEL.search(content[-_EDGE:]) or _MODEL.search(content)
    return {"model": json.loads(b'"' + found[1] + b'"')} if found else {}


def names_a_model(request: Any) -> bool:
    """Whether a request is a POST with a `model` in its body: what the shape of a path alone cannot say."""
    content = getattr(request, "_content", None)
    return (
        request.method == "POST"
        and isinstance(content, bytes)
        and isinstance(_asked_of(content).get("model"), str)
    )
