"""A finished call -> how it ended and, where it went wrong, its facts."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from otel_triage.capture.calls import Attempt, Call
from otel_triage.facts import headers as header_facts
from otel_triage.facts.answers import EventReader, Reading, read_answer
from otel_triage.facts.bodies import ErrorBody, read_error_body, read_error_text, token_limits
from otel_triage.facts.exceptions import (
    broke_at,
    causes_of,
    chain,
    is_cancellation,
    stacktrace_of,
    text_of,
    type_name,
)
from otel_triage.facts.live import body_of
from otel_triage.facts.scrub import SECRET, decode_body, drop_echo, prompt_text, scrub, with_escapes
from otel_triage.model import BrokeAt, Cause, LLMError, Outcome

_MESSAGE_LIMIT: Final = 2000
_WHOLE_ANSWER: Final = 1 << 20
_CHARACTERS_A_TOKEN: Final = 4  # the common rule of thumb for English text

_NO_HEADERS: Final[Mapping[str, str]] = {}


def _content(attempt: Attempt) -> bytes | None:
    """The decoded body of an answer, where it was read; a large one only where it is an error."""
    content = getattr(attempt.response, "_content", None)
    if isinstance(content, bytes):
        return content if len(content) <= _WHOLE_ANSWER or (attempt.status or 0) >= 400 else None
    return attempt.watch.body if attempt.watch is not None else None


def reading_of(call: Call) -> Reading:
    """What the last answer of a call says: whole, or as far as its stream was read."""
    attempt = call.attempts[-1] if call.attempts else None
    if attempt is None or attempt.status is None or not 200 <= attempt.status < 300:
        return Reading()
    if attempt.watch is not None and attempt.watch.broken:
        return Reading(bad=True)
    if attempt.watch is not None and attempt.watch.events is not None:
        return attempt.watch.events.reading
    content = _content(attempt)
    if content and attempt.response.headers.get("content-type", "").lower().startswith("text/event-stream"):
        events = EventReader(call.endpoint.api)  # a stream that was read in one piece
        events.feed(content + b"\n")
        return events.reading
    return read_answer(call.endpoint.api, content) if content else Reading()


def _cut(attempt: Attempt | None, reading: Reading) -> bool:
    """Whether a stream of events came to its end without its end marker: cut, and nobody said so."""
    watch = attempt.watch if attempt is not None else None
    return (
        watch is not None
        and watch.complete
        and watch.readable
        and watch.events is not None
        and watch.events.readable
        and not reading.ended
        and reading.error is None
    )


def outcome_of(call: Call, exc: BaseException | None, reading: Reading) -> Outcome:
    """How a call ended, from what was seen of it."""
    if exc is not None:
        return Outcome.CANCELLED if is_cancellation(exc) else Outcome.FAILED
    attempt = call.attempts[-1] if call.attempts else None
    if attempt is None or attempt.status is None:
        return Outcome.UNKNOWN
    if attempt.status >= 400 or reading.error is not None:
        return Outcome.FAILED
    if call.dropped or attempt.status >= 300:
        return Outcome.UNKNOWN
    if attempt.watch is not None and not attempt.watch.broken and not attempt.watch.seen_whole():
        return Outcome.CANCELLED
    if reading.soft_reasons or reading.soft_code or _cut(attempt, reading):
        return Outcome.SOFT
    return Outcome.ABSORBED if len(call.attempts) > 1 else Outcome.OK


def _error_body(call: Call, exc: BaseException | None, reading: Reading) -> ErrorBody:
    """The provider's words: from the stream, from the last answer, else from the exception."""
    if reading.error is not None:
        return reading.error
    attempt = call.attempts[-1] if call.attempts else None
    if attempt is not None and (attempt.status or 0) >= 400 and (content := _content(attempt)):
        data = decode_body(content)
        found = read_error_text(content.decode("utf-8", "replace")) if data is None else read_error_body(data)
        if not found.empty:
            return found
    links = chain(exc, until=call.handled) if exc is not None else ()
    told = next((link for link in links if getattr(link, "body", None)), None)
    return body_of(told, time.time()) if told is not None else ErrorBody()


def _status_inside(call: Call, body: ErrorBody) -> str | None:
    """The status that an error inside a good answer names: a gateway's 200 around its upstream's 502."""
    attempt = call.attempts[-1] if call.attempts else None
    good = attempt is not None and attempt.status is not None and attempt.status < 400
    return str(body.status) if good and body.status else None


def _stage(call: Call, exc: BaseException | None, *, cut: bool) -> BrokeAt | None:
    attempt = call.attempts[-1] if call.attempts else None
    if attempt is None:
        return None
    if cut:
        return BrokeAt.STREAM
    if attempt.exception is None or exc is None:
        return None
    if attempt.response is None:
        return broke_at(attempt.exception)
    streamed = attempt.watch is not None and attempt.watch.events is not None
    return BrokeAt.STREAM if streamed else BrokeAt.BODY


class _Cleaner:
    """Takes secrets and the application's own words out of texts; one request, many texts."""

    def __init__(self, call: Call) -> None:
        content = call.request_body()
        body = decode_body(content)
        said = prompt_text(body) if body is not None else content[:_WHOLE_ANSWER].decode("utf-8", "ignore")
        self.prompt = said
        self._prompt = with_escapes(said)
        self._keys = header_facts.credentials(call.attempts[-1].request.headers) if call.attempts else ()
        self._done: dict[str, str] = {}

    def __call__(self, text: str) -> str:
        text = text[:_MESSAGE_LIMIT]
        if text not in self._done:
            cleaned = text
            for key in self._keys:
                cleaned = cleaned.replace(key, SECRET)
            self._done[text] = scrub(drop_echo(cleaned, self._prompt))
        return self._done[text]

    def maybe(self, text: str | None) -> str | None:
        return self(text) if text else None

    def stacktrace(self, exc: BaseException, until: BaseException | None) -> str:
        """A printed stack, in which all but code is cleaned: messages of any length, notes, group members."""
        lines = []
        code = False
        for line in stacktrace_of(exc, until=until).splitlines():
            bare = line.lstrip(" |+-")
            code = bare.startswith('File "') or (code and line.lstrip("| ") != line and "    " in line)
            lines.append(line if code or not bare else self(line))
        return "\n".join(lines) + "\n"


def _about_exception(
    exc: BaseException | None, clean: _Cleaner, until: BaseException | None
) -> dict[str, Any]:
    if exc is None:
        return {}
    return {
        "error_type": type_name(exc),
        "stacktrace": clean.stacktrace(exc, until),
        "causes": tuple(Cause(cause.type, clean(cause.message)) for cause in causes_of(exc, until=until)),
    }


def _about_answers(call: Call) -> dict[str, Any]:
    """Status, headers and attempts: what the HTTP exchanges say."""
    attempts = call.attempts
    if not attempts:
        return {}
    last = attempts[-1]
    asked: Mapping[str, str] = last.request.headers
    answered: Mapping[str, str] = last.response.headers if last.response is not None else _NO_HEADERS
    now = time.time()
    return {
        "status": last.status,
        "request_id": header_facts.request_id(answered),
        "retry_after_s": header_facts.retry_after_s(answered, now),
        "account": header_facts.account(asked, answered),
        "attempts": len(attempts),
        "attempt_statuses": tuple(attempt.status or 0 for attempt in attempts),
        "stream_chunks": last.watch.chunks if last.watch is not None else None,
        **header_facts.rate_limits(answered, now),
    }


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def model_of(call: Call) -> str | None:
    """The model that was asked for."""
    model = call.asked.get("model")
    return model[:200] if isinstance(model, str) and model else None


def facts_of(call: Call, exc: BaseException | None, reading: Reading, outcome: Outcome) -> LLMError:
    """All facts of a failed or soft call, scrubbed, with a fresh `error_id`."""
    attempt = call.attempts[-1] if call.attempts else None
    body = _error_body(call, exc, reading)
    cut = _cut(attempt, reading)
    clean = _Cleaner(call)
    message = body.message or (text_of(exc) if exc is not None else None)
    limit, asked_for = token_limits(message or "")
    asked = call.asked
    exact = reading.input_tokens is not None
    facts = LLMError(
        provider=call.endpoint.provider,
        operation=call.endpoint.operation,
        model=model_of(call),
        response_model=reading.response_model,
        max_tokens=next(
            (
                n
                for name in ("max_completion_tokens", "max_output_tokens", "max_tokens")
                if (n := _integer(asked.get(name))) is not None
            ),
            None,
        ),
        stream=asked.get("stream") is True or None,
        input_tokens=reading.input_tokens,
        output_tokens=reading.output_tokens,
        finish_reasons=tuple(reading.finish_reasons) or None,
        server_address=call.host,
        code=clean.maybe(body.code) or _status_inside(call, body) or (None if cut else reading.soft_code),
        type=clean.maybe(body.type),
        param=clean.maybe(body.param),
        input_tokens_estimate=None if exact else len(clean.prompt) // _CHARACTERS_A_TOKEN or None,
        context_limit=limit,
        requested_tokens=asked_for,
        broke_at=_stage(call, exc, cut=cut),
        call_id=call.call_id,
        error_id=uuid.uuid4().hex,
        outcome=outcome,
        message=clean(message) if message else None,
        **_about_answers(call),
        **_about_exception(exc, clean, call.handled),
    )
    if facts.request_id is None and body.request_id:
        facts = replace(facts, request_id=body.request_id)
    if facts.retry_after_s is None and body.retry_after_s is not None:
        facts = replace(facts, retry_after_s=body.retry_after_s)
    if facts.error_type is None and outcome is Outcome.FAILED:
        status = facts.status if (facts.status or 0) >= 400 else None
        facts = replace(facts, error_type=str(status) if status else body.code or body.type or "_OTHER")
    return facts
