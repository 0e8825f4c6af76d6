"""The nouns that every room speaks: the facts of one failed call, and the verdict on it.

Nothing here does anything. `LLMError` is what happened; `Verdict` is what it means. The
names that a fact or a verdict has on the wire (an attribute of a span or of a log record)
stand beside the field, and nowhere else; `otel_triage.facts.wire` reads them from here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

ATTRIBUTE = "attribute"
"""Key of the field metadata that holds the name on the wire."""

ERROR_EVENT = "gen_ai.client.operation.exception"
"""Name of the OTLP log record of one failed call (OpenTelemetry GenAI conventions)."""

SOFT_EVENT = "triage.soft_failure"
"""Name of the OTLP log record of a call that was answered, and unusably."""

UNCLASSIFIED = "unclassified"
"""Category of a verdict that nobody could give."""

CALLS_METRIC = "triage.llm.calls"
"""Name of the counter of all calls, by provider, model, operation and outcome."""


class Outcome(StrEnum):
    """How a call ended, as far as the one who says so can know. Never guessed."""

    OK = "ok"
    FAILED = "failed"
    ABSORBED = "absorbed"  # a later attempt of the call succeeded
    RECOVERED = "recovered"  # another call under the same parent succeeded soon after
    SOFT = "soft"  # an answer came and is unusable
    CANCELLED = "cancelled"  # by the caller
    UNKNOWN = "unknown"


class BrokeAt(StrEnum):
    """The stage of an HTTP exchange at which it broke."""

    CONNECT = "connect"
    HEADERS = "headers"
    BODY = "body"
    STREAM = "stream"


class Retryable(StrEnum):
    """Whether the same request, sent again, may succeed."""

    YES = "yes"
    NO = "no"
    LATER = "later"


class Severity(StrEnum):
    """How soon a person must act."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class Owner(StrEnum):
    """Who has to act."""

    ACCOUNT = "account"
    PROVIDER = "provider"
    NETWORK = "network"
    APPLICATION = "application"
    PROMPT = "prompt"


class Source(StrEnum):
    """Who gave the verdict."""

    RULES = "rules"
    MEMORY = "memory"
    MODEL = "model"
    LLM = "llm"
    HUMAN = "human"


@dataclass(frozen=True, slots=True)
class Cause:
    """One exception of a chain: its class by full module path where known, and its text."""

    type: str
    message: str = ""


def _wire(name: str) -> Any:
    return field(default=None, metadata={ATTRIBUTE: name})


@dataclass(frozen=True, slots=True, kw_only=True)
class LLMError:
    """The facts of one failed or silently wrong LLM call.

    Every field may be unknown (None or empty). `message` is the provider's own words where
    a body was read, else the exception's text. `causes` is the exception chain, outermost
    first. Times are in seconds, sizes in tokens. `attempt_statuses` holds one HTTP status
    an attempt, 0 where no answer came.
    """

    provider: str | None = _wire("gen_ai.provider.name")
    operation: str | None = _wire("gen_ai.operation.name")
    model: str | None = _wire("gen_ai.request.model")
    response_model: str | None = _wire("gen_ai.response.model")
    max_tokens: int | None = _wire("gen_ai.request.max_tokens")
    stream: bool | None = _wire("gen_ai.request.stream")
    input_tokens: int | None = _wire("gen_ai.usage.input_tokens")
    output_tokens: int | None = _wire("gen_ai.usage.output_tokens")
    finish_reasons: tuple[str, ...] | None = _wire("gen_ai.response.finish_reasons")
    status: int | None = _wire("http.response.status_code")
    error_type: str | None = _wire("error.type")
    server_address: str | None = _wire("server.address")
    code: str | None = _wire("triage.provider.error_code")
    type: str | None = _wire("triage.provider.error_type")
    param: str | None = _wire("triage.provider.error_param")
    request_id: str | None = _wire("triage.provider.request_id")
    retry_after_s: float | None = _wire("triage.retry_after_s")
    requests_limit: int | None = _wire("triage.ratelimit.requests.limit")
    requests_remaining: int | None = _wire("triage.ratelimit.requests.remaining")
    requests_reset_s: float | None = _wire("triage.ratelimit.requests.reset_s")
    tokens_limit: int | None = _wire("triage.ratelimit.tokens.limit")
    tokens_remaining: int | None = _wire("triage.ratelimit.tokens.remaining")
    tokens_reset_s: float | None = _wire("triage.ratelimit.tokens.reset_s")
    input_tokens_estimate: int | None = _wire("triage.input_tokens_estimate")
    context_limit: int | None = _wire("triage.context_limit")
    requested_tokens: int | None = _wire("triage.requested_tokens")
    attempts: int | None = _wire("triage.attempts")
    attempt_statuses: tuple[int, ...] | None = _wire("triage.attempt_statuses")
    stream_chunks: int | None = _wire("triage.stream.chunks")
    broke_at: BrokeAt | None = _wire("triage.broke_at")
    account: str | None = _wire("triage.account")
    call_id: str | None = _wire("triage.call_id")
    error_id: str | None = _wire("triage.error_id")
    outcome: Outcome | None = _wire("triage.outcome")
    message: str | None = _wire("exception.message")
    stacktrace: str | None = _wire("exception.stacktrace")
    causes: tuple[Cause, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What an error may be as well, where its text is truly ambiguous."""

    category: str
    reason: str
    confidence: float

    @property
    def verdict(self) -> tuple[str, str]:
        """Category and reason."""
        return self.category, self.reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What an error means: the vocabulary is `otel_triage/verdict/taxonomy.toml`.

    `confidence` runs from 0 to 1. `root_cause` and `suggested_action` have at most 200
    characters each. `explain` names the rule, its source and the facts that decided; it
    never leaves on the wire.
    """

    category: str = field(metadata={ATTRIBUTE: "triage.category"})
    reason: str = field(metadata={ATTRIBUTE: "triage.reason"})
    severity: Severity = field(metadata={ATTRIBUTE: "triage.severity"})
    retryable: Retryable = field(metadata={ATTRIBUTE: "triage.retryable"})
    owner: Owner = field(metadata={ATTRIBUTE: "triage.owner"})
    confidence: float = field(metadata={ATTRIBUTE: "triage.confidence"})
    source: Source = field(metadata={ATTRIBUTE: "triage.source"})
    root_cause: str = field(metadata={ATTRIBUTE: "triage.root_cause"})
    suggested_action: str = field(metadata={ATTRIBUTE: "triage.suggested_action"})
    fingerprint: str = field(metadata={ATTRIBUTE: "triage.fingerprint"})
    incident_id: str | None = field(default=None, metadata={ATTRIBUTE: "triage.incident_id"})
    version: str = field(metadata={ATTRIBUTE: "triage.version"})
    retry_after_s: float | None = None
    alternative: Candidate | None = None
    explain: str = ""
