"""One failure has one fingerprint, whether it is met as an exception, a span, an event or a record.

Where nobody knows the provider, the fingerprint is the alias of that which the call has.
"""

from __future__ import annotations

import time
import traceback
from typing import Any

import openai
import pytest

import otel_triage
from otel_triage.facts.dialects import read_attributes
from otel_triage.facts.live import facts_of_exception
from otel_triage.facts.otlp import complete
from otel_triage.facts.records import facts_of_record
from otel_triage.verdict.fingerprint import alias, fingerprint

SCENARIOS = [
    "openai.chat.rate_limit_tokens",
    "openai.chat.insufficient_quota",
    "openai.chat.context_length",
    "openai.chat.invalid_api_key",
    "openai.chat.model_not_found",
    "openai.chat.server_error",
    "openai.chat.bad_gateway",
]


def failed_call(url: str, scenario: str | None) -> Exception:
    headers = {"x-demo-scenario": scenario} if scenario else {}
    with openai.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
        try:
            client.chat.completions.create(
                model="gpt-4o",
                messages=[{"role": "user", "content": "Name a harbour"}],
                extra_headers=headers,
            )
        except openai.APIError as exc:
            return exc
    raise AssertionError("the call did not fail")


def record_of(exc: Exception, tags: dict[str, str]) -> dict[str, Any]:
    return {
        "error_type": f"{type(exc).__module__}.{type(exc).__qualname__}",
        "error_message": str(exc),
        "stacktrace": "".join(traceback.format_exception(exc)),
        "tags": tags,
    }


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_of_a_refused_call(provider: Any, telemetry: Any, scenario: str) -> None:
    exc = failed_call(provider.url, scenario)
    event = telemetry.event()
    told = event["triage.fingerprint"]
    assert told.startswith("f:")
    assert otel_triage.classify(exc).fingerprint == told
    (span,) = telemetry.triaged
    assert span.attributes["triage.fingerprint"] == told

    # as the sidecar reads them
    facts = complete(read_attributes(event).facts, event)
    assert fingerprint(facts) == told
    assert (
        fingerprint(complete(read_attributes(dict(span.attributes)).facts, {}, span.status.description))
        == told
    )
    bare = {name: value for name, value in span.attributes.items() if not name.startswith("triage.")}
    assert fingerprint(complete(read_attributes(bare).facts, {}, span.status.description)) == alias(facts)

    # without the tap
    assert fingerprint(facts_of_record(record_of(exc, {}))) == alias(facts) != told
    tagged = facts_of_record(record_of(exc, {"provider": "openai", "model": "gpt-4o"}))
    # openai 2 prints the provider's code with the message, openai 3 the message alone
    assert fingerprint(tagged) == (told if tagged.code or tagged.type else alias(facts))
    assert fingerprint(facts_of_exception(exc, now=time.time())) == alias(facts)


def test_of_an_unanswered_call(unused_tcp_port: int, telemetry: Any) -> None:
    exc = failed_call(f"http://127.0.0.1:{unused_tcp_port}", None)
    event = telemetry.event()
    facts = complete(read_attributes(event).facts, event)
    assert otel_triage.classify(exc).fingerprint == event["triage.fingerprint"] == fingerprint(facts)
    assert fingerprint(facts_of_record(record_of(exc, {"provider": "openai"}))) == alias(facts)
    assert fingerprint(facts_of_exception(exc, now=time.time())) == alias(facts)


def test_different_failures_differ(provider: Any, telemetry: Any) -> None:
    prints = set()
    for scenario in SCENARIOS:
        failed_call(provider.url, scenario)
    for event in telemetry.events:
        prints.add(event["triage.fingerprint"])
    assert len(prints) == len(SCENARIOS)
