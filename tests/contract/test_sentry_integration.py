"""TriageIntegration with the real sentry_sdk and its own AI integrations on, against a recording Sentry."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
from sentry_runs import Run, run

PLAIN: dict[str, Any] = {"integration": {}}
OFF = {"OTEL_TRIAGE_ENABLED": "false"}
CASES = (
    "handled", "told_often", "anthropic_call", "async_call", "stream_cut", "raw_http", "no_tap",
    "own_fingerprint", "own_grouping_adds", "fallback_bug", "fallback_call", "not_ours", "soft", "absorbed",
    "in_transaction",
)  # fmt: skip
TRACED = {"traces_sample_rate": 1.0}

QUOTA_TAGS = {
    "triage.category": "rate_limit",
    "triage.reason": "quota_exhausted",
    "triage.severity": "high",
    "triage.retryable": "no",
    "triage.owner": "account",
    "triage.provider": "openai",
    "triage.model": "gpt-4o",
    "triage.outcome": "failed",
}
AT_CALL = {"triage.captured": "at_call"}
QUOTA_GROUP = ["otel-triage", "openai", "rate_limit", "quota_exhausted"]
QUOTA_MESSAGE = (
    "You exceeded your current quota, please check your plan and billing details. For more information on "
    "this error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors."
)
QUOTA_CONTEXT = {
    "category": "rate_limit",
    "reason": "quota_exhausted",
    "severity": "high",
    "retryable": "no",
    "owner": "account",
    "source": "rules",
    "root_cause": "The account at OpenAI has no credit left, or its spending cap is reached. "
    "Every call fails until that changes.",
    "suggested_action": "Do not retry. Add credit or raise the spending cap in OpenAI's billing settings.",
    "gen_ai.provider.name": "openai",
    "gen_ai.operation.name": "chat",
    "gen_ai.request.model": "gpt-4o",
    "http.response.status_code": 429,
    "error.type": "openai.RateLimitError",
    "server.address": "127.0.0.1",
    "provider.error_code": "insufficient_quota",
    "provider.error_type": "insufficient_quota",
    "input_tokens_estimate": 4,
    "attempts": 1,
    "attempt_statuses": [429],
    "account": "demo-org",
    "outcome": "failed",
    "exception.message": QUOTA_MESSAGE,
}
IDS = {
    "error_id": r"[0-9a-f]{32}",
    "call_id": r"[0-9a-f]{32}",
    "fingerprint": r"\S{8,}",
    "version": r"0\.1\.0\+rules\.[0-9a-f]{8}",
    "provider.request_id": r"req_[0-9a-f]{32}",
}


@pytest.fixture(scope="module")
def runs(provider: Any) -> dict[str, Run]:
    """One process, one step after the other."""
    steps: dict[str, dict[str, Any]] = {
        "default": {**PLAIN, "sentry": TRACED, "run": CASES},
        "soft": {"integration": {"soft_events": True}, "run": ["soft", "absorbed"]},
        "before_send": {
            **PLAIN,
            "sentry": {"before_send": "drop_at_call"},
            "run": ["handled", "told_often"],
        },
        "defer": {"integration": {"defer_at_call": True}, "run": ["handled", "told_often", "no_tap"]},
        "off": {"init": {}, "order": "before", "integration": {"grouping": "off"}, "run": ["handled"]},
        "plain": {**PLAIN, "run": ["handled"]},
        "otel": {**PLAIN, "otel": True, "sentry": TRACED, "run": ["in_span"]},
    }
    return dict(zip(steps, run(provider.url, *steps.values()), strict=True))


@pytest.fixture(scope="module")
def ran(runs: dict[str, Run]) -> Run:
    return runs["default"]


@pytest.fixture(scope="module")
def without(provider: Any) -> Run:
    """What Sentry sends without us."""
    return run(provider.url, {**PLAIN, "run": ["handled"]}, env=OFF)[0]


def triage(event: dict[str, Any]) -> dict[str, Any]:
    """Our context but for its ids, which are checked by their form."""
    found = dict(event["contexts"]["triage"])
    assert 0.5 < found.pop("confidence") <= 1
    for name, form in IDS.items():
        if name in found:
            assert re.fullmatch(form, str(found.pop(name))), name
    return found


def ours(event: dict[str, Any]) -> dict[str, str]:
    return {name: value for name, value in event.get("tags", {}).items() if name.startswith("triage.")}


def handled(event: dict[str, Any]) -> list[Any]:
    return [one["mechanism"].get("handled", "unsaid") for one in event["exception"]["values"]]


def test_whole_record(ran: Run) -> None:
    event = ran.event("handled")
    assert triage(event) == QUOTA_CONTEXT
    assert ours(event) == QUOTA_TAGS | AT_CALL
    assert event["fingerprint"] == QUOTA_GROUP
    assert [one["mechanism"] for one in event["exception"]["values"]] == [{"type": "openai"}]


def comparable(event: dict[str, Any]) -> dict[str, Any]:
    """An event without what differs from run to run, and without what we add and take."""
    rest = copy.deepcopy(event)
    for name in ("event_id", "timestamp", "fingerprint"):
        rest.pop(name, None)
    rest["contexts"].pop("triage", None)
    trace = rest["contexts"]["trace"]
    trace["trace_id"] = trace["span_id"] = ""
    rest["tags"] = {name: value for name, value in rest["tags"].items() if not name.startswith("triage.")}
    rest["extra"].pop("sys.argv")
    rest["sdk"]["integrations"].remove("otel_triage")
    crumbs = rest["breadcrumbs"]["values"]
    crumbs[:] = [crumb for crumb in crumbs if crumb["category"] == "httplib"]
    for crumb in crumbs:
        crumb["timestamp"] = ""
        crumb.get("data", {}).pop("url", None)
    for one in rest["exception"]["values"]:
        one["mechanism"].pop("handled", None)
        frames = one["stacktrace"]["frames"]
        one["stacktrace"]["frames"] = [f for f in frames if not f["module"].startswith("otel_triage")]
        for frame in one["stacktrace"]["frames"]:
            if frame["module"] != "__main__":
                frame.pop("vars", None)
            frame.get("vars", {}).pop("url", None)
    rest.pop("_meta", None)
    return rest


def test_the_rest_of_the_event_is_as_sentry_made_it(runs: dict[str, Run], without: Run) -> None:
    event, before = runs["plain"].event("handled"), without.event("handled")
    assert handled(before) == [False]
    assert "triage" not in before["contexts"]
    assert comparable(event) == comparable(before)


def test_sentrys_normaliser_objects_to_nothing(runs: dict[str, Run]) -> None:
    processing = pytest.importorskip("sentry_relay.processing", reason="sentry-relay is not installed")
    triaged = [event for ran in runs.values() for event in ran.payloads("event") if ours(event)]
    assert len(triaged) > 15
    for event in triaged:
        out = processing.StoreNormalizer(project_id=1, enable_trimming=True).normalize_event(
            copy.deepcopy(event)
        )
        assert out.get("errors") is None
        context = event["contexts"]["triage"]
        assert {name: out["contexts"]["triage"][name] for name in context} == context
        assert dict(out["tags"]).items() >= ours(event).items()


def test_one_failure_is_one_event(ran: Run) -> None:
    event = ran.event("told_often")
    assert ours(event) == QUOTA_TAGS | AT_CALL
    assert ran.stats["sentry.duplicate"] >= 5


def test_anthropic(ran: Run) -> None:
    event = ran.event("anthropic_call")
    assert ours(event) == AT_CALL | {
        "triage.category": "provider_error",
        "triage.reason": "overloaded",
        "triage.severity": "medium",
        "triage.retryable": "yes",
        "triage.owner": "provider",
        "triage.provider": "anthropic",
        "triage.model": "claude-sonnet-4-5",
        "triage.outcome": "failed",
    }
    assert event["fingerprint"] == ["otel-triage", "anthropic", "provider_error", "overloaded"]
    assert handled(event) == ["unsaid"]


def test_async(ran: Run) -> None:
    event = ran.event("async_call")
    assert triage(event) == QUOTA_CONTEXT
    assert ours(event) == QUOTA_TAGS | AT_CALL


def test_what_the_application_captures_itself_keeps_its_mechanism(ran: Run) -> None:
    event = ran.event("stream_cut")
    assert (ours(event)["triage.category"], ours(event)["triage.reason"]) == (
        "network_error",
        "stream_interrupted",
    )
    assert "triage.captured" not in ours(event)
    assert set(handled(event)) == {True}
    assert event["fingerprint"] == ["otel-triage", "openai", "network_error", "stream_interrupted"]


def test_raw_http(ran: Run) -> None:
    event = ran.event("raw_http")
    assert triage(event) == QUOTA_CONTEXT | {"error.type": "429"}  # what the tap told of its answer
    assert ours(event) == QUOTA_TAGS


def test_without_the_tap_the_exception_tells_nearly_all(ran: Run) -> None:
    event = ran.event("no_tap")
    without = {name: value for name, value in QUOTA_CONTEXT.items() if name != "attempt_statuses"}
    assert triage(event) == without | {"attempts": 2}
    assert "call_id" not in event["contexts"]["triage"]
    assert ours(event) == QUOTA_TAGS | AT_CALL


def test_a_fingerprint_of_the_application_stays(ran: Run) -> None:
    assert ran.event("own_fingerprint")["fingerprint"] == ["mine"]
    assert ours(ran.event("own_fingerprint")) == QUOTA_TAGS | AT_CALL
    assert ran.event("own_grouping_adds")["fingerprint"] == QUOTA_GROUP


def test_a_bug_in_a_fallback_is_a_failure_of_its_own(ran: Run) -> None:
    at_call, bug = ran.events("fallback_bug")
    assert ours(at_call) == QUOTA_TAGS | AT_CALL
    assert bug["exception"]["values"][-1]["type"] == "KeyError"
    assert ours(bug) == {}
    assert "fingerprint" not in bug


def test_a_call_that_fails_in_a_fallback_is_a_failure_of_its_own(ran: Run) -> None:
    first, second = ran.events("fallback_call")
    assert ours(first) == QUOTA_TAGS | AT_CALL
    assert (ours(second)["triage.category"], ours(second)["triage.reason"]) == (
        "invalid_request",
        "model_not_found",
    )
    assert first["contexts"]["triage"]["error_id"] != second["contexts"]["triage"]["error_id"]


def test_other_events_are_not_touched(ran: Run) -> None:
    error, message = ran.events("not_ours")
    for event in (error, message):
        assert ours(event) == {}
        assert "triage" not in event["contexts"]
        assert "fingerprint" not in event
    assert error["exception"]["values"][0]["mechanism"] == {"type": "generic", "handled": True}
    transaction = next(one for one in ran.payloads("transaction") if one["transaction"] == "request")
    assert "triage" not in transaction["contexts"]


def test_soft_failures_and_absorbed_retries_send_no_event(ran: Run) -> None:
    assert ran.events("soft") == []
    assert ran.events("absorbed") == []
    assert ran.stats["calls.absorbed"] == 1


def test_soft_events_when_asked_for(runs: dict[str, Run]) -> None:
    event = runs["soft"].event("soft")
    assert runs["soft"].events("absorbed") == []
    assert (event["level"], event["logentry"]["message"]) == (
        "warning",
        "Unusable answer of a model: output_truncated",
    )
    assert (ours(event)["triage.reason"], ours(event)["triage.outcome"]) == ("output_truncated", "soft")
    assert "fingerprint" not in event  # the application's own matter: Sentry groups it


def test_no_prompt_and_no_key_in_frames(ran: Run) -> None:
    for event in ran.payloads("event"):
        for one in event.get("exception", {}).get("values", []):
            for frame in one["stacktrace"]["frames"]:
                assert "vars" not in frame or frame["module"] == "__main__", frame["module"]
        assert "Wombats" not in repr({**event, "exception": None, "breadcrumbs": None})


def test_a_handled_failure_does_not_crash_the_session(runs: dict[str, Run], without: Run) -> None:
    session = runs["plain"].payloads("session")[-1]
    assert (session["status"], session["errors"]) == ("exited", 1)
    assert without.payloads("session")[-1]["status"] == "crashed"  # what Sentry alone says


def test_a_failure_that_ends_the_process_crashes_the_session(provider: Any) -> None:
    """Told by the event of the excepthook, which is dropped: the failure was sent at the call."""
    [ran] = run(provider.url, {**PLAIN, "run": ["crash"]}, code=1)
    assert len(ran.payloads("event")) == 1
    assert ran.payloads("session")[-1]["status"] == "crashed"


def test_a_before_send_that_drops_events_at_the_call(runs: dict[str, Run]) -> None:
    assert runs["before_send"].events("handled") == []
    event = runs["before_send"].event("told_often")
    assert ours(event) == QUOTA_TAGS
    assert set(handled(event)) == {True}


def test_defer_at_call(runs: dict[str, Run]) -> None:
    assert runs["defer"].events("handled") == []
    for scenario in ("told_often", "no_tap"):
        event = runs["defer"].event(scenario)
        assert ours(event) == QUOTA_TAGS
        assert event["exception"]["values"][-1]["mechanism"]["handled"] is True


def test_init_before_sentry_attaches_by_itself(provider: Any) -> None:
    [ran] = run(provider.url, {"init": {}, "order": "before", "run": ["handled", "told_often"]})
    for scenario in ("handled", "told_often"):
        assert ours(ran.event(scenario)) == QUOTA_TAGS | AT_CALL


def test_init_after_sentry_attaches_in_front_of_its_deduplication(provider: Any) -> None:
    """Else the event at the call, which is dropped, makes Sentry drop the application's as well."""
    settings = {"init": {"defer_at_call": True}, "order": "after", "run": ["handled", "told_often"]}
    [ran] = run(provider.url, settings)
    assert ran.events("handled") == []
    assert ours(ran.event("told_often")) == QUOTA_TAGS
    assert ran.event("told_often")["exception"]["values"][-1]["mechanism"]["type"] == "generic"
    assert len(ran.event("told_often")["exception"]["values"]) == 1  # the first that was captured


def test_grouping_off(runs: dict[str, Run]) -> None:
    event = runs["off"].event("handled")
    assert ours(event) == QUOTA_TAGS | AT_CALL
    assert "fingerprint" not in event


def test_opentelemetrys_ids_where_both_run(runs: dict[str, Run]) -> None:
    ran = runs["otel"]
    trace_id = re.search(r"SPAN (\w{32})", ran.stdout)
    assert trace_id is not None
    trace = ran.event("in_span")["contexts"]["trace"]
    assert trace["trace_id"] == trace_id[1]
    assert re.fullmatch(r"[0-9a-f]{16}", trace["span_id"])


def test_our_log_lines_are_no_events(provider: Any, unused_tcp_port: int) -> None:
    env = {"OTEL_TRIAGE_SIDECAR": f"http://127.0.0.1:{unused_tcp_port}", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    settings = {"integration": {"language": "xx"}, "sentry": {"enable_logs": True}}
    [ran] = run(provider.url, {**settings, "run": ["handled", "export", "burst"]}, env=env)
    assert "otel-triage: language 'xx'" in ran.stderr
    assert "did not take a batch" in ran.stderr
    events = ran.payloads("event")
    assert len(events) == 6
    crumbs = [crumb for event in events for crumb in event["breadcrumbs"]["values"]]
    assert not [crumb for crumb in crumbs if "triage" in repr(crumb)]
    assert not [log for log in ran.payloads("log") if "triage" in repr(log)]
