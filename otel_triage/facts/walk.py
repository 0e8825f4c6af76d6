"""One walk through decoded error data: status, codes, message, request id and wait, wherever they sit.

The walk goes down through the members that hold errors. What an inner object says counts more than
what is said around it, which fills in what the inner one lacks. Forms, by their sources:

- OpenAI and compatible ones: `{"error": {"message", "type", "param", "code"}}`; in a Responses stream
  `{"type": "error", "code", "message"}` and `{"type": "response.failed", "response": {"error": {…}}}`.
- Anthropic: `{"type": "error", "error": {"type", "message"}, "request_id"}`.
- Google (cloud.google.com/apis/design/errors): `{"error": {"code": 429, "message", "status", "details"}}`.
- Azure (github.com/microsoft/api-guidelines): `error.innererror.code`.
- OpenRouter (openrouter.ai/docs/api/reference/errors-and-debugging): `error.metadata.raw`.
- AWS: `{"Error": {"Code", "Message"}, "ResponseMetadata": {…}}`, `{"__type", "message"}`.
- MiniMax: `{"base_resp": {"status_code", "status_msg"}}`; Cloudflare and watsonx: `{"errors": [{…}]}`.
- FastAPI: `{"detail": "text"}` or `[{"loc", "msg", "type"}]`; RFC 9457: `{"title", "detail", "status"}`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from otel_triage.facts.headers import duration_s, retry_after_s
from otel_triage.facts.members import roles
from otel_triage.facts.printed import printed_objects
from otel_triage.facts.values import (
    ENVELOPES,
    code_of,
    seconds_of,
    seconds_until,
    status_of,
    status_of_phrase,
    text_of_value,
)

TEXT_LIMIT: Final = 20_000
_DEPTH: Final = 10
_SIZE: Final = 400  # objects and lists that are looked at
_MEMBERS_READ: Final = 100  # of one object


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """What a provider said. `code` and `type` are its own words; a number of an HTTP status is `status`.

    `retry_after_s` is the wait that the body or text names, in seconds.
    """

    code: str | None = None
    status: int | None = None
    type: str | None = None
    param: str | None = None
    message: str | None = None
    request_id: str | None = None
    retry_after_s: float | None = None

    @property
    def empty(self) -> bool:
        """Whether it says nothing at all."""
        return self.code is None and self.type is None and self.message is None


_SAYING: Final = frozenset({"message", "status", "word"})  # where a reason phrase may stand
_ENVELOPE_RANK: Final = 4  # children up to here hold errors only

# google.rpc.Code: https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto
_GRPC: Final = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE",
    "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
# Google's status; ElevenLabs' and others' words. What a response or a run is in the middle of is no error.
_CANONICAL: Final = re.compile(
    r"[A-Z][A-Z_]{2,40}|(?!in_progress|requires_action|not_started)[a-z]{2,20}(?:_[a-z]{2,20}){1,5}"
)
_WORD: Final = re.compile(r"[A-Za-z][\w.-]{2,80}")
_DAY: Final = re.compile(r"20\d\d-\d\d-\d\d[\dT:.Z+ -]{0,24}\Z")


@dataclass(slots=True)
class Facts:
    """What has been found so far, to be filled in."""

    code: str | None = None
    status: int | None = None
    type: str | None = None
    param: str | None = None
    message: str | None = None
    request_id: str | None = None
    wait: float | None = None
    quotas: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # what else belongs to the message: warnings, when a limit resets
    enveloped: bool = False  # it came out of a member that holds errors only

    @property
    def weight(self) -> int:
        """How much it says: words and codes more than a status."""
        said = 2 * bool(self.message) + 2 * bool(self.code or self.type) + bool(self.status)
        return said + 2 * self.enveloped if said else 0

    def fill(self, around: Facts) -> None:
        """Takes what is missing from what is said around it."""
        if self.code is None:
            self.code = around.code
        elif self.type is None and around.type is None and around.code != self.code:
            self.type = around.code  # the less specific of two codes: INVALID_ARGUMENT of API_KEY_INVALID
        self.type = self.type or around.type
        self.status = self.status or around.status
        words = around.message if around.message and around.message[0] not in "{[" else None
        if self.message is None or (words and _is_poor(self.message)):
            self.message = words  # a body that was printed into a message is no words
        self.param = self.param or around.param
        self.add(around)

    def add(self, other: Facts) -> None:
        """Takes what does not depend on which object it stands in."""
        self.request_id = self.request_id or other.request_id
        if self.wait is None:
            self.wait = other.wait
        self.quotas += tuple(quota for quota in other.quotas if quota not in self.quotas)
        self.notes += tuple(note for note in other.notes if note not in self.notes)

    def body(self) -> ErrorBody:
        """The finished record; a day's quota before a minute's, since it is the one that lasts."""
        quotas = sorted(self.quotas, key=lambda quota: "PerDay" not in quota)
        message = self.message
        if quotas and message and quotas[0] not in message:
            message = f"{message} [{', '.join(quotas[:3])}]"
        for note in self.notes[:3]:
            if message and note not in message and not (note.startswith("resets") and "reset" in message):
                message = f"{message} ({note})"
        return ErrorBody(
            code=self.code,
            status=self.status,
            type=self.type,
            param=self.param or (quotas[0] if quotas else None),
            message=message,
            request_id=self.request_id,
            retry_after_s=self.wait,
        )


def _is_poor(message: str) -> bool:
    """A bare word ("ERROR") explains less than the sentence around it."""
    return len(message) < 12 and " " not in message


def _google_detail(data: Mapping[Any, Any], facts: Facts) -> None:
    """One of google.rpc's error details: RetryInfo, QuotaFailure, ErrorInfo, BadRequest.

    https://github.com/googleapis/googleapis/blob/master/google/rpc/error_details.proto
    """
    for violation in _mappings(data.get("violations")):
        quota = violation.get("quotaId") or violation.get("quota_id")
        if isinstance(quota, str) and quota not in facts.quotas:
            facts.quotas += (quota[:200],)
    for violation in _mappings(data.get("fieldViolations") or data.get("field_violations")):
        facts.param = facts.param or text_of_value(violation.get("field"))
    more = data.get("metadata")
    if isinstance(more, Mapping) and facts.wait is None:  # ErrorInfo of Code Assist
        facts.wait = seconds_of(more.get("quotaResetDelay"))


def _mappings(value: object) -> Iterable[Mapping[Any, Any]]:
    return (
        [item for item in value[:50] if isinstance(item, Mapping)] if isinstance(value, (list, tuple)) else ()
    )


class Walk:
    """One walk: bounded in depth and size, so that cycles end as well."""

    def __init__(self, now: float | None = None) -> None:
        self._now = now
        self._left = _SIZE

    def read(self, data: object, depth: int = _DEPTH) -> Facts:
        """What some decoded data says of an error; nothing if it says nothing."""
        self._left -= 1
        if depth <= 0 or self._left < 0:
            return Facts()
        if isinstance(data, str):
            return self._text(data, depth)
        if isinstance(data, (list, tuple)):
            found = [self.read(item, depth - 1) for item in data[:20] if not isinstance(item, (int, float))]
            best = max(found, key=lambda facts: facts.weight, default=Facts())
            for other in found:
                best.add(other)
            return best
        return self._mapping(data, depth) if isinstance(data, Mapping) else Facts()

    def _text(self, text: str, depth: int) -> Facts:
        """A message, or an error that was printed into a text."""
        if "{" in text:
            found = self.printed(text, depth)
            if found is not None:
                return found[0]
        status = status_of_phrase(text)
        return Facts(status=status) if status else Facts(message=text_of_value(text))

    def printed(self, text: str, depth: int = _DEPTH) -> tuple[Facts, int] | None:
        """The error object that is printed in a text, and where it begins; None where none is one.

        An object that says little may be anything: the echo of a prompt, the model's own output.
        So it counts only where it was in an error's envelope, or ends the text.
        """
        text = text[:TEXT_LIMIT]
        best: tuple[Facts, int] | None = None
        others: list[Facts] = []
        for found in printed_objects(text):
            if not isinstance(found.data, dict) or _ECHO.search(text, max(0, found.start - 40), found.start):
                continue  # {'name'} is a set of names
            facts = self.read(found.data, depth - 1)
            others.append(facts)
            said = facts.weight >= 3 and (facts.enveloped or bool(facts.message))
            ends = (facts.message or facts.status) and len(text) - found.end < 4
            if (said or ends) and (best is None or facts.weight > best[0].weight):
                best = (facts, found.start)
        if best is None and any(facts.quotas or facts.wait is not None for facts in others):
            best = (Facts(), text.find("{"))
        if best is not None:
            for other in others:
                best[0].add(other)
        return best

    def _mapping(self, data: Mapping[Any, Any], depth: int) -> Facts:
        best: dict[str, tuple[int, Any]] = {}
        children: list[tuple[int, Any]] = []
        for count, (name, value) in enumerate(data.items()):
            if count >= _MEMBERS_READ:
                break
            if value is None or value == "" or not isinstance(name, str):
                continue
            if name == "error" and isinstance(value, str) and ("level" in data or "severity" in data):
                name = "err"  # a log line, whose message says what was tried
            for role, rank in roles(name):
                if role == "child":
                    if isinstance(value, (dict, list, tuple, Mapping)) or (
                        isinstance(value, str) and "{" in value
                    ):
                        children.append((rank, value))
                elif role not in best or rank < best[role][0]:
                    if role in _SAYING and isinstance(value, str) and (status := status_of_phrase(value)):
                        best.setdefault("phrase", (rank, status))
                    elif (read := self._value(role, value)) is not None:
                        best[role] = (rank, read)
        own = self._facts(data, {role: value for role, (_, value) in best.items()})
        if not children:
            return own
        found = Facts()
        for rank, value in sorted(children, key=lambda child: child[0]):
            inner = self.read(value, depth - 1)
            inner.enveloped = inner.enveloped or (rank < _ENVELOPE_RANK and inner.weight > 0)
            if not found.weight:
                inner.add(found)
                found = inner
            else:
                found.add(inner)
                found.status = found.status or inner.status
        found.fill(own)
        return found

    def _value(self, role: str, value: Any) -> Any:
        if isinstance(value, list) and len(value) == 1 and role != "notes":  # Rust: Some("x")
            value = value[0]
        if role in ("message", "request_id"):
            return text_of_value(value)
        if role == "code":
            return code_of(value)
        if role == "canonical":  # "failed" is the state of a response and no code
            return value if isinstance(value, str) and _CANONICAL.fullmatch(value) else None
        if role == "number":  # MiniMax
            return None if isinstance(value, str) and not value.isdecimal() else code_of(value)
        if role in ("type", "word"):
            kind = value.strip() if isinstance(value, str) else ""
            return kind if kind not in ENVELOPES and _WORD.fullmatch(kind) else None
        if role == "status":
            return status_of(value)
        if role == "param":
            if isinstance(value, (list, tuple)):
                return ".".join(str(part)[:50] for part in value[:10]) or None
            return text_of_value(value)
        if role == "headers":
            return value if isinstance(value, Mapping) else None
        if role == "until":
            return seconds_until(value, self._now)
        if role == "date":
            return (f"resets at {value}",) if isinstance(value, str) and _DAY.match(value) else None
        if role == "notes":
            return (
                tuple(note[:300] for note in value[:3] if isinstance(note, str))
                if isinstance(value, list)
                else None
            )
        seconds = seconds_of(value)
        return seconds / 1000 if seconds is not None and role == "wait_ms" else seconds

    def _facts(self, data: Mapping[Any, Any], best: dict[str, Any]) -> Facts:
        """The members of one object, weighed against each other."""
        code = best.get("code") or best.get("canonical") or best.get("number")
        message, word = best.get("message"), best.get("word")
        if word is not None and (message != word or "_" in word):
            code = code or word  # OAuth: {"error": "invalid_grant", "error_description": "…"}
        if code is not None and code.isdecimal() and int(code) < len(_GRPC) and _is_grpc(data):
            code = _GRPC[int(code)]
        if code is not None and "#" in code:  # AWS: com.amazonaws.bedrock#ThrottlingException
            code = code.rpartition("#")[2].partition(":")[0]
        if code in ("success", "Success", "OK", "ok"):
            return Facts()
        facts = Facts(
            code=code,
            status=best.get("status", best.get("phrase")),
            type=best.get("type"),
            param=best.get("param"),
            message=message,
            request_id=best.get("request_id"),
            wait=best.get("wait", best.get("wait_ms", best.get("until"))),
            notes=best.get("notes", ()) + best.get("date", ()),
        )
        if (
            facts.param and facts.message and facts.param.count(" ") > 2
        ):  # Xiaomi MiMo: the reason stands there
            facts.notes += (facts.param[:300],)
        if "headers" in best:
            self._headers(best["headers"], facts)
        if "@type" in data or "violations" in data or "fieldViolations" in data:
            _google_detail(data, facts)
            facts.message = None  # a Help link's description is no message
        return facts

    def _headers(self, headers: Mapping[Any, Any], facts: Facts) -> None:
        lower = {
            name.lower(): value
            for name, value in list(headers.items())[:100]
            if isinstance(name, str) and isinstance(value, str)
        }
        if facts.wait is None:
            facts.wait = retry_after_s(lower, self._now or 0.0) if self._now or _is_span(lower) else None
        if facts.wait is None:  # OpenRouter: error.metadata.headers, Unix milliseconds
            facts.wait = seconds_until(lower.get("x-ratelimit-reset"), self._now)
        facts.request_id = facts.request_id or text_of_value(lower.get("x-request-id"))


def _is_span(headers: Mapping[str, str]) -> bool:
    """Whether the wait is a duration, which needs no clock."""
    return duration_s(headers.get("retry-after-ms") or headers.get("retry-after") or "x") is not None


def _is_grpc(data: Mapping[Any, Any]) -> bool:
    return "details" in data or "grpcCode" in data


# What comes behind these words is the application's or the model's, not the provider's.
_ECHO: Final = re.compile(
    r"(?:completion|output|arguments|generation|content|input_value|inputs?|prompt|messages|args|kwargs"
    r"|received|expected|got|variables|keys)[\"'`]?\s?[:=]?\s{0,3}[\"'`]?$",
    re.IGNORECASE,
)
