"""What a provider's good answer says, whole or as a stream: usage, finish reasons, what is wrong with it.

One `Reading` is filled from one JSON body or from the events of a stream. Formats by their sources:
OpenAI chat completions, Responses and embeddings (platform.openai.com/docs/api-reference), Anthropic
messages (docs.anthropic.com/en/api/messages, …/messages-streaming).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from otel_triage.facts.bodies import ErrorBody, read_error_body

SOFT_REASONS: Final = frozenset(
    {
        "length",  # OpenAI chat: the output hit max_tokens
        "max_tokens",  # Anthropic
        "max_output_tokens",  # Responses, incomplete_details.reason
        "model_context_window_exceeded",  # Anthropic
        "content_filter",  # OpenAI, Azure
        "refusal",  # Anthropic
    }
)
"""Finish reasons of an answer that is not what was asked for (taxonomy.md, prompt_issue)."""

EMPTY: Final = "empty_output"
REFUSED: Final = "refusal"
BAD: Final = "bad_response"

_LINE_LIMIT: Final = 32 << 20  # an image in one event; the SDK holds the line as well


@dataclass(slots=True)
class Reading:
    """What has been read so far. `ended`: the answer's own end marker was seen."""

    response_model: str | None = None
    response_id: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    finish_reasons: list[str] = field(default_factory=list)
    content: bool = False
    refusal: bool = False
    ended: bool = False
    bad: bool = False
    error: ErrorBody | None = None

    @property
    def soft_code(self) -> str | None:
        """What is wrong with an answer that no finish reason tells of, as a code of ours."""
        if self.bad:
            return BAD
        if self.refusal:
            return REFUSED
        return EMPTY if self.ended and not self.content and not self.soft_reasons else None

    @property
    def soft_reasons(self) -> list[str]:
        """The finish reasons that make this answer a soft failure."""
        return [reason for reason in self.finish_reasons if reason in SOFT_REASONS]

    def finish(self, reason: object) -> None:
        """Notes a finish reason."""
        if isinstance(reason, str) and reason:
            self.finish_reasons.append(reason)


def _objects(value: object) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _usage(reading: Reading, usage: object, taken: str, given: str) -> None:
    counts = _object(usage)
    if isinstance(counts.get(taken), int):
        reading.input_tokens = counts[taken]
    if isinstance(counts.get(given), int):
        reading.output_tokens = counts[given]


def _about(reading: Reading, data: Mapping[str, Any]) -> None:
    if isinstance(data.get("model"), str):
        reading.response_model = data["model"]
    if isinstance(data.get("id"), str):
        reading.response_id = data["id"]


# What a message of a chat completion holds besides its answer; anything else is one (text, tool calls,
# audio, images, annotations, reasoning: providers add more).
_NO_ANSWER: Final = frozenset({"role", "refusal"})


def _chat(reading: Reading, data: Mapping[str, Any], *, streamed: bool) -> None:
    _about(reading, data)
    _usage(reading, data.get("usage"), "prompt_tokens", "completion_tokens")
    if not streamed and not isinstance(data.get("choices"), list):
        reading.bad = True
    for choice in _objects(data.get("choices")):
        part = _object(choice.get("delta") or choice.get("message"))
        if choice.get("text") or any(value for name, value in part.items() if name not in _NO_ANSWER):
            reading.content = True
        if part.get("refusal"):
            reading.refusal = True
        reading.finish(choice.get("finish_reason"))
    if reading.finish_reasons or not streamed:
        reading.ended = True


def _response(reading: Reading, data: Mapping[str, Any]) -> None:
    """A whole `Response` object, also the payload of the events that end a stream."""
    _about(reading, data)
    _usage(reading, data.get("usage"), "input_tokens", "output_tokens")
    status = data.get("status")
    if data.get("error"):
        reading.error = read_error_body(data["error"])
    elif status == "failed":
        reading.error = ErrorBody()
    if status is None and "output" not in data:
        reading.bad = True
    reading.finish(_object(data.get("incomplete_details")).get("reason"))
    for item in _objects(data.get("output")):
        for part in _objects(item.get("content")):
            reading.refusal = reading.refusal or part.get("type") == "refusal"
            reading.content = reading.content or bool(part.get("text"))
        reading.content = reading.content or item.get("type") not in ("message", "reasoning")
    # queued and in_progress: a background response, whose answer is fetched later
    if status in ("queued", "in_progress"):
        reading.content = True
    reading.ended = True


def _responses_event(reading: Reading, data: Mapping[str, Any]) -> None:
    kind = str(data.get("type", ""))
    if kind in ("response.completed", "response.incomplete", "response.failed"):
        _response(reading, _object(data.get("response")))
    elif kind == "error":
        reading.error = read_error_body(data)
    elif kind == "response.created":
        _about(reading, _object(data.get("response")))
    elif kind == "response.refusal.delta":
        reading.refusal = True
    elif kind.endswith(".delta") and data.get("delta"):
        reading.content = True


def _anthropic(reading: Reading, data: Mapping[str, Any]) -> None:
    if data.get("type") == "error":
        reading.error = read_error_body(data)
        return
    if not isinstance(data.get("content"), list):
        reading.bad = True
    _about(reading, data)
    _usage(reading, data.get("usage"), "input_tokens", "output_tokens")
    reading.content = any(
        part.get("type") != "text" or part.get("text") for part in _objects(data.get("content"))
    )
    reading.finish(data.get("stop_reason"))
    reading.ended = True


def _anthropic_event(reading: Reading, data: Mapping[str, Any]) -> None:
    kind = data.get("type")
    if kind == "error":
        reading.error = read_error_body(data)
    elif kind == "message_start":
        message = _object(data.get("message"))
        _about(reading, message)
        _usage(reading, message.get("usage"), "input_tokens", "output_tokens")
    elif kind == "content_block_start":
        block = _object(data.get("content_block"))
        reading.content = reading.content or block.get("type") != "text" or bool(block.get("text"))
    elif kind == "content_block_delta":
        reading.content = True
    elif kind == "message_delta":
        reading.finish(_object(data.get("delta")).get("stop_reason"))
        _usage(reading, data.get("usage"), "input_tokens", "output_tokens")
    elif kind == "message_stop":
        reading.ended = True


def _embeddings(reading: Reading, data: Mapping[str, Any]) -> None:
    _about(reading, data)
    _usage(reading, data.get("usage"), "prompt_tokens", "completion_tokens")
    reading.bad = not isinstance(data.get("data"), list)
    reading.content = reading.ended = True


Reader = Callable[[Reading, Mapping[str, Any]], None]

_WHOLE: Final[dict[str, Reader]] = {
    "openai.chat": lambda reading, data: _chat(reading, data, streamed=False),
    "openai.responses": _response,
    "openai.embeddings": _embeddings,
    "anthropic.messages": _anthropic,
}
_EVENTS: Final[dict[str, Reader]] = {
    "openai.chat": lambda reading, data: _chat(reading, data, streamed=True),
    "openai.responses": _responses_event,
    "anthropic.messages": _anthropic_event,
}


def read_answer(api: str | None, body: bytes) -> Reading:
    """Reads the whole body of a successful answer; formats that we do not know say nothing."""
    reading = Reading()
    read = _WHOLE.get(api or "")
    if read is None:
        return reading
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, Mapping):
        reading.bad = True
    elif data.get("error") and not data.get("choices"):
        reading.error = read_error_body(data)
    else:
        read(reading, data)
    return reading


class EventReader:
    """Reads server-sent events as their bytes come (HTML Living Standard, 9.2.6). Keeps one line at most."""

    def __init__(self, api: str | None) -> None:
        self.reading = Reading()
        self.chunks = 0
        self._read = _EVENTS.get(api or "")
        self._rest = bytearray()
        self._event = b""

    @property
    def readable(self) -> bool:
        """Whether we know the format, and so whether a missing end marker means anything."""
        return self._read is not None

    def feed(self, data: bytes) -> None:
        """Takes the next decoded bytes of the body."""
        if self._read is None:
            return
        if b"\r" in data:  # CRLF and CR end a line too; one CRLF in two pieces is a blank line more
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        first, newline, more = data.partition(b"\n")
        self._rest += first
        if len(self._rest) > _LINE_LIMIT:
            self._read = None
            self._rest.clear()
            return
        if newline:
            lines = more.split(b"\n")
            self._line(bytes(self._rest))
            self._rest = bytearray(lines.pop())
            for line in lines:
                self._line(line)

    def _line(self, line: bytes) -> None:
        line = line.removeprefix(b"\xef\xbb\xbf")
        if line.startswith(b"event:"):
            self._event = line[6:].strip()
        elif line.startswith(b"data:"):
            self.chunks += 1
            self._data(line[5:].strip())
        elif not line:
            self._event = b""

    def _data(self, text: bytes) -> None:
        if text == b"[DONE]":
            self.reading.ended = True
            return
        try:
            data = json.loads(text)
        except (ValueError, RecursionError):
            self.reading.bad = True
            return
        if not isinstance(data, Mapping) or self._read is None:
            return
        if self._event == b"error" or (data.get("error") and "type" not in data):
            self.reading.error = read_error_body(data)
        else:
            self._read(self.reading, data)
