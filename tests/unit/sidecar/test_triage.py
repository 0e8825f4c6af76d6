"""The triage stage on recorded spans, on spans of other trades, and on one failure seen in many places."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from span_dumps import (
    T0,
    dialects,
    load,
    logs,
    make_record,
    make_span,
    ours,
    plain,
    scenarios,
    spans_of,
    traces,
)

from otel_triage.desk.errors import Errors
from otel_triage.sidecar.signals import Signal
from otel_triage.sidecar.stages import Triaged
from otel_triage.sidecar.triage import Triage
from otel_triage.verdict.classify import classify

TOKENS, QUOTA, WINDOW = "rate_limit/tokens", "rate_limit/quota_exhausted", "invalid_request/context_length"
INTERNAL, OVERLOADED, CUT = (
    "provider_error/internal",
    "provider_error/overloaded",
    "network_error/stream_interrupted",
)

# Recorded span names -> verdict, by scenario. "Connection error." alone does not say what broke.
CHAT = "chat gpt-4o"
LOGFIRE = "Chat Completion with {request_data[model]!r}"
ANSWERS = {
    "error_429_rate_limit": TOKENS,
    "error_429_insufficient_quota": QUOTA,
    "error_400_context_length": WINDOW,
    "error_500": INTERNAL,
}
EXPECTED: dict[str, dict[str, dict[str, str]]] = {
    "otel_genai_openai": {name: {CHAT: verdict} for name, verdict in ANSWERS.items()}
    | {"stream_cut": {CHAT: "network_error/unspecified"}, "stream_mid_error_event": {CHAT: INTERNAL}},
    "otel_openai_v2_openai2": {name: {CHAT: verdict} for name, verdict in ANSWERS.items()}
    | {"stream_cut": {CHAT: CUT}, "stream_mid_error_event": {CHAT: INTERNAL}},
    # Its spans of broken streams are OK: only the tap knows.
    "openllmetry": {name: {"openai.chat": verdict} for name, verdict in ANSWERS.items()},
    "openllmetry_openai2": {name: {"openai.chat": verdict} for name, verdict in ANSWERS.items()},
    "openinference": {name: {"ChatCompletion": verdict} for name, verdict in ANSWERS.items()}
    | {"stream_cut": {"ChatCompletion": CUT}, "stream_mid_error_event": {"ChatCompletion": INTERNAL}},
    "logfire": {name: {LOGFIRE: verdict} for name, verdict in ANSWERS.items()},
    "openinference_langchain": {
        "error_429": {"ChatOpenAI": TOKENS},
        "error_400_context": {"ChatOpenAI": WINDOW},
        "error_500": {"ChatOpenAI": INTERNAL},
        "stream_cut": {"ChatOpenAI": CUT},
        "stream_mid_error": {"ChatOpenAI": INTERNAL},
    },
    # The SDK's own span is the failure; OpenInference's around it lends its message.
    "openinference_anthropic": {
        "error_429": {"anthropic.messages.create": TOKENS},
        "error_400_context": {"anthropic.messages.create": WINDOW},
        "error_500": {"anthropic.messages.create": OVERLOADED},
        "stream_cut": {"anthropic.messages.create": CUT},
        "stream_mid_error": {"anthropic.messages.create": OVERLOADED},
    },
    # Two traces that nothing joins: the SDK's own span has no message.
    "openllmetry_anthropic": {
        "error_429": {"anthropic.messages.create": "rate_limit/unspecified", "anthropic.chat": TOKENS},
        "error_400_context": {
            "anthropic.messages.create": "invalid_request/unspecified",
            "anthropic.chat": WINDOW,
        },
        "error_500": {"anthropic.messages.create": OVERLOADED, "anthropic.chat": OVERLOADED},
        "stream_cut": {"anthropic.messages.create": CUT},
        "stream_mid_error": {"anthropic.messages.create": OVERLOADED},
    },
    # `invoke_agent` carries up; where the chat span ended well (a broken stream) it is all there is.
    "pydantic_ai": {
        "error_429": {CHAT: TOKENS},
        "error_400_context": {CHAT: WINDOW},
        "error_500": {CHAT: INTERNAL},
        "stream_cut": {"invoke_agent a": CUT},
        "stream_mid_error": {"invoke_agent a": INTERNAL},
    },
    "otel_botocore": {
        "error_429": {"chat anthropic.claude-x": "rate_limit/unspecified"},
        "error_400_context": {"chat anthropic.claude-x": WINDOW},
        "error_500": {"chat anthropic.claude-x": "provider_error/unavailable"},
    },
    # Spans of an HTTP client to an unknown host.
    "otel_httpx2": {},
}


class Clock:
    def __init__(self) -> None:
        self.now = float(T0)

    def __call__(self) -> float:
        return self.now


class Bench:
    """A triage stage on a state file, that can be restarted."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = Clock()
        self.start()

    def start(self) -> None:
        self.errors = Errors(self.directory, clock=self.clock)
        self.errors.start()
        self.stage = Triage(self.errors, decide=classify, clock=self.clock)

    def restart(self) -> None:
        self.errors.close()
        self.start()

    async def spans(self, *spans: Span, scope: str = "app") -> list[dict[str, Any]]:
        """Our attributes on each span after triage."""
        request = traces(*spans, scope=scope)
        done = await self.run(Signal.TRACES, request.SerializeToString(), request)
        return [ours(span) for _, span in spans_of(ExportTraceServiceRequest.FromString(done.body))]

    async def records(self, *records: Any, scope: str = "otel_triage") -> list[dict[str, Any]]:
        request = logs(*records, scope=scope)
        done = await self.run(Signal.LOGS, request.SerializeToString(), request)
        answer = ExportLogsServiceRequest.FromString(done.body)
        return [ours(record) for record in answer.resource_logs[0].scope_logs[0].log_records]

    async def run(self, signal: Signal, body: bytes, message: Any = None) -> Triaged:
        done = self.stage(signal, body, message)
        if done.noted is not None:
            await done.noted
        assert not self.stage.counts["broken"]
        return done


@pytest_asyncio.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.errors.close()


def _verdict(attributes: dict[str, Any]) -> str | None:
    return (
        f"{attributes['triage.category']}/{attributes['triage.reason']}"
        if "triage.category" in attributes
        else None
    )


CASES = [(dialect, scenario) for dialect in dialects() for scenario in scenarios(dialect)]


@pytest.mark.parametrize(("dialect", "scenario"), CASES)
async def test_recorded_spans(bench: Bench, dialect: str, scenario: str) -> None:
    request = load(dialect, scenario)
    body = request.SerializeToString()
    done = await bench.run(Signal.TRACES, body, request)
    expected = EXPECTED[dialect].get(scenario, {})
    found = dict(spans_of(ExportTraceServiceRequest.FromString(done.body)))
    verdicts = {span.name: _verdict(ours(span)) for span in _all(done.body) if ours(span)}
    assert verdicts == expected
    assert await bench.errors.count() == len(expected)
    assert len(found) == len(dict(spans_of(request)))
    if not expected:
        assert done.body is body
        assert done.noted is None
        return
    # Everything but our attributes is as it was, status included.
    for before, after in zip(_all(body), _all(done.body), strict=True):
        kept = [pair for pair in after.attributes if not pair.key.startswith("triage.")]
        assert kept == list(before.attributes)
        del before.attributes[:], after.attributes[:]
        assert before == after
    again = await bench.run(Signal.TRACES, done.body)
    assert again.body == done.body
    assert await bench.errors.count() == len(expected)


def _all(body: bytes) -> list[Span]:
    return [span for _, span in spans_of(ExportTraceServiceRequest.FromString(body))]


def test_every_dump_is_expected_to_say_something() -> None:
    assert set(EXPECTED) == set(dialects())
    for dialect, expected in EXPECTED.items():
        assert set(expected) <= set(scenarios(dialect))


STACK = 'Traceback (most recent call last):\n  File "{}", line 3, in f\n    g()\n{}\n'


def _raised(name: str, message: str = "x", file: str | None = None) -> dict[str, str]:
    told = {"exception.type": name, "exception.message": message}
    if file:
        told["exception.stacktrace"] = STACK.format(file, f"{name}: {message}")
    return told


def _http(method: str, url: str, status: int, **more: Any) -> Span:
    attributes = {"http.request.method": method, "url.full": url, "http.response.status_code": status}
    return make_span(attributes, **more)


OTHER_TRADES = {
    "google sheets": _http(
        "GET",
        "https://sheets.googleapis.com/v4/spreadsheets/1",
        429,
        exception=_raised("googleapiclient.errors.HttpError", "<HttpError 429 Quota exceeded>"),
    ),
    "stripe": _http(
        "POST", "https://api.stripe.com/v1/charges", 429, exception=_raised("stripe.error.RateLimitError")
    ),
    "stripe, old names, payment required": make_span(
        {"http.method": "POST", "http.url": "https://api.stripe.com/v1/invoices", "http.status_code": 402}
    ),
    "github": _http(
        "POST", "https://api.github.com/graphql", 403, description="You have exceeded a rate limit."
    ),
    "redis": make_span({"db.system": "redis"}, exception=_raised("redis.exceptions.TimeoutError")),
    "postgres": make_span(
        {"db.system.name": "postgresql"}, description="FATAL: sorry, too many clients already"
    ),
    "openstack mistral": make_span(
        {"messaging.destination.name": "mistral_engine"},
        kind=1,
        exception=_raised(
            "mistral.exceptions.MistralException", file="/opt/v/site-packages/mistral/engine/tasks.py"
        ),
    ),
    "course role instructor": make_span(
        {}, kind=1, exception=_raised("instructor.models.DoesNotExist", file="/edx/lms/instructor/api.py")
    ),
    "call centre agents": make_span({}, kind=1, exception=_raised("agents.models.Agent.DoesNotExist")),
    "an openai-like path elsewhere": _http("POST", "https://shop.example.com/v1/chat/completions", 500),
    "a model list of a GET": _http("GET", "https://api.openai.com/v1/models", 500),
    "a file named like our attributes": make_span({"code.filepath": "triage.error_id/finish_reason.py"}),
    "openai in an error text": make_span(
        {}, kind=1, exception=_raised("ValueError", "openai.RateLimitError is not mapped")
    ),
}


@pytest.mark.parametrize("name", OTHER_TRADES)
async def test_other_trades_pass_byte_for_byte(bench: Bench, name: str) -> None:
    request = traces(OTHER_TRADES[name])
    body = request.SerializeToString()
    done = await bench.run(Signal.TRACES, body, request)
    assert done.body is body
    assert done.noted is None
    # The same, logged.
    event = OTHER_TRADES[name].events
    logged = logs(make_record(plain(event[0].attributes) if event else {"exception.type": "X"}))
    body = logged.SerializeToString()
    assert (await bench.run(Signal.LOGS, body, logged)).body is body
    assert await bench.errors.count() == 0


FAILED = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o"}
SLOW = "Error code: 429 - Rate limit reached on tokens per min (TPM): Limit 30000. Please try again in 2s."


def _call(**more: Any) -> Span:
    return make_span(FAILED | more.pop("attributes", {}), description=more.pop("description", SLOW), **more)


def _event(error_id: str | None = "e1", **more: Any) -> Any:
    """An error event of the tap: it knows more than the span."""
    attributes = FAILED | {
        "http.response.status_code": 429,
        "triage.provider.error_code": "insufficient_quota",
        "triage.provider.error_type": "insufficient_quota",
        "triage.provider.request_id": "req_1",
        "triage.attempts": 3,
        "triage.outcome": "failed",
        "exception.type": "openai.RateLimitError",
        "exception.message": "You exceeded your current quota.",
    }
    if error_id:
        attributes["triage.error_id"] = error_id
    return make_record(
        attributes | more.pop("attributes", {}), event="gen_ai.client.operation.exception", **more
    )


async def test_healthy_spans_beside_a_failed_one_keep_their_bytes(bench: Bench) -> None:
    healthy = [make_span(FAILED, status=status, span=span) for status, span in ((0, 2), (1, 3))]
    request = traces(healthy[0], _call(), healthy[1])
    done = await bench.run(Signal.TRACES, request.SerializeToString(), request)
    assert healthy[0].SerializeToString() in done.body
    assert healthy[1].SerializeToString() in done.body
    assert [bool(ours(span)) for span in _all(done.body)] == [False, True, False]


async def test_without_failures_the_very_same_object_goes_on(bench: Bench) -> None:
    fine = FAILED | {"gen_ai.response.finish_reasons": ["stop"], "gen_ai.request.max_tokens": 50}
    request = traces(*(make_span(fine, status=0, span=span) for span in range(1, 20)))
    for message in (request, None):
        body = request.SerializeToString()
        assert (await bench.run(Signal.TRACES, body, message)).body is body
    plain_logs = logs(make_record({"message": "order 7 shipped"})).SerializeToString()
    assert (await bench.run(Signal.LOGS, plain_logs)).body is plain_logs
    metrics = ExportMetricsServiceRequest().SerializeToString() + b""
    assert (await bench.run(Signal.METRICS, metrics)).body is metrics


@pytest.mark.parametrize(
    ("attributes", "verdict"),
    [
        ({"gen_ai.response.finish_reasons": ["length"]}, "prompt_issue/output_truncated"),
        ({"gen_ai.response.finish_reasons": ["stop", "length"]}, "prompt_issue/output_truncated"),
        ({"gen_ai.response.finish_reasons": '["length"]'}, "prompt_issue/output_truncated"),
        ({"llm.finish_reason": "content_filter"}, "prompt_issue/content_filter"),
        ({"gen_ai.response.finish_reasons": ["refusal"]}, "prompt_issue/refusal"),
        ({"gen_ai.response.finish_reasons": ["stop"], "gen_ai.request.max_tokens": 5}, None),
        ({"gen_ai.response.finish_reasons": ["end_turn"], "app.note": "length"}, None),
    ],
)
async def test_soft_failures_of_spans_that_are_no_error(
    bench: Bench, attributes: dict[str, Any], verdict: str | None
) -> None:
    soft = make_span(FAILED | attributes, status=1, span=2)
    [first, found] = await bench.spans(make_span(FAILED, status=0), soft)
    assert first == {}
    assert _verdict(found) == verdict
    assert found.get("triage.outcome") == ("soft" if verdict else None)
    assert await bench.errors.count() == (1 if verdict else 0)


async def test_anthropics_stop_reason_in_its_own_scope(bench: Bench) -> None:
    told = {"gen_ai.provider.name": "anthropic", "anthropic.message.stop_reason": "max_tokens"}
    [found] = await bench.spans(make_span(told, status=1), scope="com.anthropic.sdk.python")
    assert _verdict(found) == "prompt_issue/output_truncated"


async def test_a_finish_reason_outside_of_a_model_call_is_nothing(bench: Bench) -> None:
    assert await bench.spans(make_span({"job.finish_reason": "length"}, status=0)) == [{}]


async def test_the_tap_knows_of_failures_that_the_instrumentation_calls_ok(bench: Bench) -> None:
    told = FAILED | {"triage.error_id": "e7", "triage.outcome": "failed", "triage.broke_at": "stream"}
    attempt = make_span({"http.method": "POST", "triage.call_id": "c"}, span=2, trace=2)
    [healthy, found, tried] = await bench.spans(
        make_span(FAILED, status=0, span=3, trace=3), make_span(told, status=1), attempt
    )
    assert (healthy, tried) == ({}, {"triage.call_id": "c"})
    assert found["triage.category"] == "network_error"
    assert found["triage.error_id"] == "e7"


async def test_a_server_span_and_an_agent_only_carry_the_error_up(bench: Bench) -> None:
    exception = {"exception.type": "openai.RateLimitError", "exception.message": SLOW}
    server = make_span({"http.route": "/ask"}, kind=2, span=1, exception=exception)
    agent = make_span(
        {"gen_ai.operation.name": "invoke_agent"}, kind=1, span=2, parent=1, exception=exception
    )
    step = make_span({"code.function.name": "ask"}, kind=1, span=3, parent=2, exception=exception)
    call = _call(span=4, parent=3)
    for order in ([server, agent, step, call], [call, step, agent, server]):
        found = dict(zip([span.span_id[-1] for span in order], await bench.spans(*order), strict=True))
        assert _verdict(found.pop(4)) == TOKENS
        assert found == {1: {}, 2: {}, 3: {}}
    assert await bench.errors.count() == 1


async def test_carriers_that_come_in_a_later_request(bench: Bench) -> None:
    exception = {"exception.type": "openai.RateLimitError", "exception.message": SLOW}
    [found] = await bench.spans(_call(span=4, parent=3))
    assert _verdict(found) == TOKENS
    for carrier in (
        make_span(
            {"gen_ai.operation.name": "invoke_agent"}, kind=1, span=2, exception=exception, at=T0 + 0.5
        ),
        make_span(FAILED | {"llm.system": "x"}, span=3, description="other words", at=T0 + 0.1),
        make_span({}, kind=2, span=1, exception=exception, at=T0 + 0.6),
    ):
        assert await bench.spans(carrier, scope="other") == [{}]
    assert await bench.errors.count() == 1


async def test_an_agent_that_fails_later_for_another_reason_is_a_failure_of_its_own(bench: Bench) -> None:
    limit = {
        "exception.type": "pydantic_ai.exceptions.UsageLimitExceeded",
        "exception.message": "request_limit of 3",
    }
    agent = make_span({"gen_ai.operation.name": "invoke_agent"}, kind=1, span=2, exception=limit, at=T0 + 60)
    [call, above] = await bench.spans(_call(span=4, parent=2), agent)
    assert _verdict(call) == TOKENS
    assert _verdict(above) is not None
    assert await bench.errors.count() == 2


POST = {"http.request.method": "POST", "server.address": "api.openai.com", "http.response.status_code": 429}


async def test_http_attempts_below_a_call_are_no_failures(bench: Bench) -> None:
    attempts = [make_span(POST, span=span, parent=1, at=T0 - 4 + span) for span in (2, 3, 4)]
    found = await bench.spans(*attempts, _call(attributes={"error.type": "openai.RateLimitError"}))
    assert found[:3] == [{}, {}, {}]
    assert _verdict(found[3]) == TOKENS
    # Absorbed: the call went well in the end.
    fine = make_span(FAILED, status=0, trace=2, span=1)
    assert await bench.spans(make_span(POST, trace=2, span=2, parent=1), fine) == [{}, {}]
    # Watched by the tap: an attempt, whatever comes of it.
    assert await bench.spans(make_span(POST | {"triage.call_id": "c"}, trace=3)) == [{"triage.call_id": "c"}]
    assert await bench.errors.count() == 1


async def test_a_bare_post_to_a_known_host_is_a_call(bench: Bench) -> None:
    [found] = await bench.spans(make_span(POST))
    assert _verdict(found) == "rate_limit/unspecified"
    [error] = await bench.errors.recent()
    assert (error.error.provider, error.error.status, error.service) == ("openai", 429, "shop")


@pytest.mark.parametrize(
    "more",
    [
        {"attributes": {"triage.outcome": "cancelled", "triage.error_id": "e"}},
        {"attributes": {"triage.outcome": "absorbed", "triage.error_id": "e"}},
        {"exception": {"exception.type": "asyncio.exceptions.CancelledError", "exception.message": ""}},
        {"attributes": {"http.response.status_code": 499}, "description": ""},
    ],
)
async def test_cancelled_and_absorbed_get_no_verdict(bench: Bench, more: dict[str, Any]) -> None:
    request = traces(_call(**more))
    body = request.SerializeToString()
    assert (await bench.run(Signal.TRACES, body, request)).body is body


async def test_two_failures_in_one_trace_are_two(bench: Bench) -> None:
    await bench.spans(_call(span=1), _call(span=2, at=T0 + 1))
    assert await bench.errors.count() == 2
    assert bench.stage.counts["failures"] == 2


async def test_an_error_event_gets_its_verdict(bench: Bench) -> None:
    [found] = await bench.records(_event())
    assert _verdict(found) == QUOTA
    assert found["triage.provider.error_code"] == "insufficient_quota"
    soft = make_record(FAILED | {"gen_ai.response.finish_reasons": ["length"], "triage.error_id": "e2"},
                       event="triage.soft_failure", trace=5)  # fmt: skip
    [found] = await bench.records(soft)
    assert _verdict(found) == "prompt_issue/output_truncated"
    assert await bench.errors.count() == 2


async def test_a_logged_exception_of_an_llm_client_gets_a_verdict(bench: Bench) -> None:
    # OpenTelemetry's logging handler writes the bare class; the stack trace tells whose it is.
    logged = {
        "exception.type": "RateLimitError",
        "exception.message": SLOW,
        "exception.stacktrace": STACK.format(
            "/v/site-packages/openai/_base_client.py", f"openai.RateLimitError: {SLOW}"
        ),
    }
    [found] = await bench.records(make_record(logged), scope="app.log")
    assert _verdict(found) == TOKENS


TOLD = {"triage.error_id": "e1", "triage.outcome": "failed"}
QUIET = {"attributes": TOLD, "description": "Connection error."}


@pytest.mark.parametrize("between", [lambda bench: None, Bench.restart], ids=["running", "restarted"])
async def test_event_then_span_counts_once_and_the_event_decides(
    bench: Bench, between: Callable[[Bench], None]
) -> None:
    await bench.records(_event())
    between(bench)
    [found] = await bench.spans(_call(**QUIET))
    assert _verdict(found) == QUOTA
    assert found["triage.provider.request_id"] == "req_1"
    assert found["triage.attempts"] == 3
    assert await bench.errors.count() == 1
    assert bench.stage.counts["joined"] == 1


@pytest.mark.parametrize("between", [lambda bench: None, Bench.restart], ids=["running", "restarted"])
async def test_span_then_event_counts_once_and_the_row_learns(
    bench: Bench, between: Callable[[Bench], None]
) -> None:
    [found] = await bench.spans(_call(**QUIET))
    assert _verdict(found) == "network_error/unspecified"
    between(bench)
    [found] = await bench.records(_event())
    assert _verdict(found) == QUOTA
    [row] = await bench.errors.recent()
    assert (row.verdict.reason, row.error.code, row.key) == ("quota_exhausted", "insufficient_quota", "e1")


@pytest.mark.parametrize("event_first", [True, False])
async def test_without_an_error_id_the_span_of_the_event_joins(bench: Bench, event_first: bool) -> None:
    steps = [lambda: bench.records(_event(None)), lambda: bench.spans(_call())]
    for step in steps if event_first else reversed(steps):
        [found] = await step()
        assert _verdict(found) is not None
    assert await bench.errors.count() == 1


async def test_two_instrumentations_of_one_call_count_once(bench: Bench) -> None:
    await bench.spans(_call(span=1, parent=9), scope="one")
    [found] = await bench.spans(_call(span=2, parent=9, at=T0 + 0.1), scope="two")
    assert _verdict(found) == TOKENS
    assert await bench.errors.count() == 1
    # Later than two seconds it is another call.
    await bench.spans(_call(span=3, parent=9, at=T0 + 5, began=T0 + 4), scope="two")
    assert await bench.errors.count() == 2


@pytest.mark.parametrize("between", [lambda bench: None, Bench.restart], ids=["running", "restarted"])
async def test_a_replay_counts_nothing_twice(bench: Bench, between: Callable[[Bench], None]) -> None:
    """Also one that comes when a backend was away for hours."""
    first = [await bench.spans(_call(span=1), _call(span=2)), await bench.records(_event(None, trace=7))]
    bench.clock.now += 5 * 3600
    between(bench)
    again = [await bench.spans(_call(span=1), _call(span=2)), await bench.records(_event(None, trace=7))]
    assert again == first
    assert await bench.errors.count() == 3
    assert bench.stage.counts["failures"] == (0 if between is Bench.restart else 3)


INCOMING = {
    "triage.category": "timeout",
    "triage.reason": "read",
    "triage.severity": "low",
    "triage.retryable": "yes",
    "triage.owner": "provider",
    "triage.confidence": 1.0,
    "triage.source": "rules",
    "triage.root_cause": "c",
    "triage.suggested_action": "a",
    "triage.fingerprint": "f:1",
    "triage.version": "0",
}


async def test_the_event_decides_for_the_span_even_where_the_span_seems_surer(bench: Bench) -> None:
    def decide(error: Any) -> Any:
        told = error.code is not None
        return replace(classify(error), reason="event" if told else "span", confidence=0.5 if told else 0.9)

    bench.stage = Triage(bench.errors, decide=decide, clock=bench.clock)
    await bench.records(_event())
    [found] = await bench.spans(_call(**QUIET))
    assert found["triage.reason"] == "event"


async def test_a_persons_verdict_stays_as_it_is(bench: Bench) -> None:
    await bench.records(_event(None))  # knows facts that the span lacks
    request = traces(_call(attributes=INCOMING | {"triage.source": "human", "triage.confidence": 0.1}))
    body = request.SerializeToString()
    assert (await bench.run(Signal.TRACES, body, request)).body is body
    [row] = await bench.errors.recent()
    assert row.verdict.category == "timeout"


async def test_the_applications_surer_verdict_is_kept_and_a_weaker_one_replaced(bench: Bench) -> None:
    [found] = await bench.spans(_call(attributes=INCOMING | TOLD))
    # "Please try again in 2s" is a fact of the text, whoever gave the verdict.
    assert found == INCOMING | TOLD | {"triage.retry_after_s": 2.0}
    weak = INCOMING | {"triage.confidence": 0.01, "triage.incident_id": "i", "triage.error_id": "e9"}
    [found] = await bench.spans(_call(attributes=weak, trace=4))
    assert _verdict(found) == TOKENS
    assert "triage.incident_id" not in found
    assert found["triage.error_id"] == "e9"


async def test_a_fault_of_our_own_costs_one_verdict_and_no_request(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    def decide(error: Any) -> Any:
        if error.model == "odd":
            raise RuntimeError("rule engine on fire")
        return classify(error)

    stage = Triage(bench.errors, decide=decide, clock=bench.clock)
    odd = {"gen_ai.request.model": "odd"}
    request = traces(_call(attributes=odd), _call(trace=2), _call(attributes=odd, trace=3))
    done = stage(Signal.TRACES, request.SerializeToString(), request)
    assert [bool(ours(span)) for span in _all(done.body)] == [False, True, False]
    assert stage.counts["broken"] == 2
    assert len(caplog.records) == 1
    garbage = b"\xff\xff\xff"
    assert stage(Signal.TRACES, garbage).body is garbage
