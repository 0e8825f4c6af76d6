"""What leaves for Sentry: bytes, headers, verdicts, limits, refusals, and what survives a SIGKILL."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from sentry_tools import (
    AUTH,
    EVENT_ID,
    KEY,
    envelope,
    event_envelope,
    forwarding,
    item,
    kept,
    llm_event,
    post,
)
from sidecar_tools import SidecarProcess, metric, traces, until

from otel_triage.demo.sentry_sink import SentryAnswer, SentrySink
from otel_triage.demo.sink import Answer, Sink

LIMITS = "x-sentry-rate-limits"


@pytest.fixture
def sentry() -> Iterator[SentrySink]:
    with SentrySink() as made:
        yield made


OTHERS = [
    item("attachment", b"\x00\xff{\n}\r\n", filename="a\u00e4.bin"),
    item("attachment", b""),
    item("transaction", b'{"type":"transaction","spans":[],"n":1.10,"big":9007199254740993}'),
    item("session", b'{"sid" : "1"}', sized=False),
    item("check_in", b'{"status":"ok"}'),
    item("log", b'{"items":[]}', item_count=0, content_type="application/vnd.sentry.items.log+json"),
    item("trace_metric", b"{}"),
    item("feedback", json.dumps(llm_event()).encode()),
    item("replay_recording", b'{"segment_id":0}\nx\x9c\x01'),
    item("profile", b"[1,2]"),
    item("client_report", b"{}"),
    item("something new", b"\n\n\n", x=[1, {"y": None}]),
    item("event", b"no json"),
    item("event", b'{"exception":{"values":[{"type":"KeyError","value":"x"}]},"n":1E400,"d":1,"d":2}'),
]


async def test_everything_else_leaves_byte_for_byte(tmp_path: Path, sentry: SentrySink) -> None:
    bodies = [envelope(one) for one in OTHERS]
    bodies.append(envelope(*OTHERS, event_id=EVENT_ID, trace={"public_key": KEY}, x="\u00e4"))
    async with forwarding(tmp_path, sentry) as sidecar:
        for body in bodies:
            assert (await post(sidecar, body)).status_code == 200
        found = await kept(sentry, len(bodies))
    after = sorted(request.body.partition(b"\n")[2] for request in found)
    assert after == sorted(body.partition(b"\n")[2] for body in bodies)
    assert {json.dumps(request.header()) for request in found} == {
        "{}", json.dumps({"event_id": EVENT_ID, "trace": {"public_key": KEY}, "x": "\u00e4"}),
    }  # fmt: skip


async def test_a_triaged_event_whole(tmp_path: Path, sentry: SentrySink) -> None:
    before = json.dumps(llm_event()).encode()
    text = before[:-1] + b', "n": 1.10, "big": 9007199254740993, "tags": {"own": "\\u00e4"}}'
    body = envelope(OTHERS[0], item("event", text, sized=False, x=1), OTHERS[11], event_id=EVENT_ID)
    async with forwarding(tmp_path, sentry) as sidecar:
        await post(sidecar, body)
        (request,) = await kept(sentry, 1)
    first, (headers, payload), last = request.items()
    assert [first, last] == [
        ({"type": "attachment", "length": 7, "filename": "a\u00e4.bin"}, b"\x00\xff{\n}\r\n"),
        ({"type": "something new", "length": 3, "x": [1, {"y": None}]}, b"\n\n\n"),
    ]
    assert headers == {"type": "event", "x": 1, "length": len(payload)}
    assert b'"n": 1.10, "big": 9007199254740993, ' in payload, "numbers as they came"
    event = json.loads(payload)
    context = event["contexts"].pop("triage")
    assert event == {
        **llm_event(), "n": 1.1, "big": 9007199254740993, "contexts": {},
        "tags": {
            "own": "\u00e4", "triage.category": "rate_limit", "triage.reason": "requests",
            "triage.severity": "low", "triage.retryable": "yes", "triage.owner": "account",
            "triage.provider": "openai",
        },
        "fingerprint": ["otel-triage", "openai", "rate_limit", "requests"],
    }  # fmt: skip
    facts = {
        "category": "rate_limit", "reason": "requests", "severity": "low", "retryable": "yes",
        "owner": "account", "source": "rules", "gen_ai.provider.name": "openai",
        "http.response.status_code": 429, "error.type": "openai.RateLimitError",
        "provider.error_code": "rate_limit_exceeded", "provider.error_type": "requests",
    }  # fmt: skip
    worded = {"confidence", "root_cause", "suggested_action", "fingerprint", "version"}
    assert {key: value for key, value in context.items() if key not in worded} == facts
    assert worded < set(context)


async def test_a_second_sidecar_changes_nothing_more(tmp_path: Path, sentry: SentrySink) -> None:
    async with (
        forwarding(tmp_path / "gateway", sentry) as gateway,
        forwarding(tmp_path / "pod", sentry_upstream=f"http://{gateway.http_listen}") as pod,
    ):
        await post(pod, event_envelope())
        (request,) = await kept(sentry, 1)
        assert metric(pod, "triaged_total", kind="events") == 1
        assert metric(gateway, "triaged_total", kind="events") == 0
    assert request.events()[0]["tags"]["triage.category"] == "rate_limit"


async def test_grouping_off(tmp_path: Path, sentry: SentrySink) -> None:
    async with forwarding(tmp_path, sentry, grouping="off") as sidecar:
        await post(sidecar, event_envelope())
        await kept(sentry, 1)
    (event,) = sentry.events()
    assert "fingerprint" not in event
    assert event["tags"]["triage.category"] == "rate_limit"


async def test_one_failure_is_counted_once(tmp_path: Path, sentry: SentrySink) -> None:
    trace = {"trace": {"trace_id": "ab" * 16, "span_id": "cd" * 8}}
    app = llm_event(contexts=trace)
    at_call = llm_event("a" * 32, contexts=trace, timestamp="2026-11-24T10:00:00.000000Z")
    at_call["exception"]["values"][0]["mechanism"] = {"type": "openai", "handled": False}
    other_trace = llm_event("b" * 32)
    async with forwarding(tmp_path, sentry) as sidecar:
        for event in (at_call, app, app, other_trace):
            await post(sidecar, event_envelope(event))
        found = await kept(sentry, 4)
        assert metric(sidecar, "triaged_total", kind="failures") == 2
        assert metric(sidecar, "triaged_total", kind="joined") == 2
    assert all("triage.category" in request.events()[0]["tags"] for request in found)


async def test_failed_calls_in_spans_are_counted_once_and_left_as_they_are(
    tmp_path: Path, sentry: SentrySink
) -> None:
    """One whose failure was captured as well joins it, whichever comes first."""

    def spans(span_id: str, seconds: float) -> bytes:
        attributes = {"sentry.op": "gen_ai.chat", "gen_ai.system": "openai", "gen_ai.request.model": "gpt-4o"}
        span = {"trace_id": "ab" * 16, "span_id": span_id, "parent_span_id": "cd" * 8, "status": "error"}
        span |= {"start_timestamp": seconds - 1, "end_timestamp": seconds}
        typed = {name: {"value": value, "type": "string"} for name, value in attributes.items()}
        headers = {"item_count": 1, "content_type": "application/vnd.sentry.items.span.v2+json"}
        return envelope(item("span", {"version": 2, "items": [{**span, "attributes": typed}]}, **headers))

    def captured(event_id: str, span_id: str, second: int) -> bytes:
        trace = {"trace": {"trace_id": "ab" * 16, "span_id": span_id}}
        at = f"2026-11-24T10:00:{second}.500000Z"
        return event_envelope(llm_event(event_id, contexts=trace, timestamp=at))

    ten = datetime.fromisoformat("2026-11-24T10:00:00.500000Z").timestamp()
    bodies = [
        captured("a" * 32, "01" * 8, 10), spans("01" * 8, ten + 10),
        spans("02" * 8, ten + 20), captured("b" * 32, "cd" * 8, 20),
        spans("03" * 8, ten + 30),  # nobody captured it
        spans("03" * 8, ten + 30),  # sent again
    ]  # fmt: skip
    async with forwarding(tmp_path, sentry) as sidecar:
        for number, body in enumerate(bodies, start=1):
            await post(sidecar, body)
            await kept(sentry, number)
        assert metric(sidecar, "triaged_total", kind="failures") == 3
        assert metric(sidecar, "triaged_total", kind="joined") == 3
        assert metric(sidecar, "triaged_total", kind="events") == 2
    assert [request.body for request in sentry.kept() if b'"span"' in request.body] == [
        body for body in bodies if b'"span"' in body
    ]


async def test_sent_at_is_later_by_the_time_that_it_waited(tmp_path: Path, sentry: SentrySink) -> None:
    sentry.answer_with(SentryAnswer(status=503, times=2))
    dsn = f"http://{KEY}@127.0.0.1:4318/1"
    sent_at = "2020-01-01T00:00:00.000000Z"  # a clock that is wrong stays wrong by the same
    async with forwarding(tmp_path, sentry) as sidecar:
        await post(sidecar, event_envelope(dsn=dsn, sent_at=sent_at, extra=1.5))
        (request,) = await kept(sentry, 1)
    first, *_ = sentry.requests()
    header = request.header()
    assert (header["dsn"], header["extra"], header["event_id"]) == (sentry.dsn(KEY), 1.5, EVENT_ID)
    moved = datetime.fromisoformat(header["sent_at"]) - datetime.fromisoformat(first.header()["sent_at"])
    assert moved.total_seconds() == pytest.approx(request.at - first.at, abs=0.2)
    assert moved.total_seconds() > 0.4
    waited = datetime.fromisoformat(first.header()["sent_at"]) - datetime.fromisoformat(sent_at)
    assert 0 <= waited.total_seconds() < 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413])
async def test_what_is_refused_for_good_goes_to_the_dead_letters(
    tmp_path: Path, sentry: SentrySink, status: int
) -> None:
    sentry.answer_with(SentryAnswer(status=status, headers={"x-sentry-error": "no"}))
    async with forwarding(tmp_path, sentry) as sidecar:
        await post(sidecar, event_envelope())
        await post(sidecar, event_envelope(llm_event("a" * 32)))
        await kept(sentry, 1)
        reason = {"signal": "envelope", "reason": str(status)}
        assert metric(sidecar, "dead_lettered_requests_total", **reason) == 1
        await until(lambda: metric(sidecar, "journal_records") == 0)
    with sqlite3.connect(tmp_path / "journal.db") as db:
        assert db.execute("SELECT reason, detail FROM deadletter").fetchall() == [(str(status), "no")]
    assert len(sentry.requests()) == 2


async def test_a_limit_of_errors_is_obeyed_and_not_told(tmp_path: Path, sentry: SentrySink) -> None:
    sentry.answer_with(SentryAnswer(status=429, headers={LIMITS: "1:error:key, 100:transaction:key"}))
    async with forwarding(tmp_path, sentry) as sidecar:
        await post(sidecar, event_envelope())
        await asyncio.to_thread(sentry.wait_for, sentry.requests)
        await until(lambda: sidecar.degraded())
        second = await post(sidecar, event_envelope(llm_event("a" * 32)))
        assert second.status_code == 200
        assert [part.split(":")[1] for part in second.headers[LIMITS].split(", ")] == ["transaction"]
        found = await kept(sentry, 2)
        limited, *later = sentry.requests()
        assert min(request.at for request in later) - limited.at >= 0.9
        assert {request.header()["event_id"] for request in found} == {EVENT_ID, "a" * 32}
        # no error in it, and all of it limited: the SDK should not have sent it
        assert (await post(sidecar, envelope(OTHERS[2]))).status_code == 200
        assert metric(sidecar, "rate_limited_requests_total", category="transaction") == 1
        # another category of the same key goes at once
        await post(sidecar, envelope(OTHERS[3]))
        await kept(sentry, 3)
        assert metric(sidecar, "journal_records") <= 1
        assert sidecar.degraded() == []


async def test_a_bare_429_is_a_minute_and_never_told_as_a_blanket(tmp_path: Path, sentry: SentrySink) -> None:
    sentry.answer_with(SentryAnswer(status=429, times=None))
    async with forwarding(tmp_path, sentry) as sidecar:
        await post(sidecar, event_envelope())
        await asyncio.to_thread(sentry.wait_for, sentry.requests)
        await until(lambda: sidecar.degraded())
        told = (await post(sidecar, event_envelope(llm_event("a" * 32)))).headers[LIMITS]
        categories = [part.split(":")[1] for part in told.split(", ")]
        assert "transaction" in categories
        assert not {"", "error"} & set(categories)
        assert len(sentry.requests()) == 1
        assert metric(sidecar, "journal_records") == 2


def test_a_dead_sentry_stops_no_other(tmp_path: Path, sentry: SentrySink) -> None:
    with SentrySink() as other:
        config = tmp_path / "triage.toml"
        config.write_text(
            f'[[sentry]]\nkeys = ["{KEY}"]\nupstream = "{sentry.url}"\n'
            f'[[sentry]]\nkeys = ["other"]\nupstream = "{other.url}/base/"\n'
        )
        sentry.answer_with(SentryAnswer(status=502, times=None))
        with SidecarProcess(tmp_path / "data", args=["--config", str(config)]) as sidecar:
            sidecar.ready()
            url = f"{sidecar.http}/api/9/envelope/"
            assert httpx.post(url, content=event_envelope(), headers=AUTH).status_code == 200
            assert httpx.post(f"{url}?sentry_key=other", content=event_envelope()).status_code == 200
            (request,) = other.wait_for(other.kept)
            assert request.path == "/base/api/9/envelope/"
            assert httpx.post(f"{url}?sentry_key=third", content=event_envelope()).status_code == 403
            assert sentry.kept() == []


def test_the_own_listener_is_no_upstream(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"http_listen": "127.0.0.1:45999", "sentry_upstream": "http://localhost:45999"}
    with SidecarProcess(tmp_path, args=["--check"], **settings) as sidecar:
        assert sidecar.wait() == 2
    assert (
        "OTEL_TRIAGE_SENTRY_UPSTREAM: http://localhost:45999 is this sidecar's own listener"
        in sidecar.lines[0]
    )


def acknowledged_before_a_kill(tmp_path: Path, sentry: SentrySink, fault: str) -> list[str]:
    ids = []
    with SidecarProcess(tmp_path, sentry_upstream=sentry.url, fault=fault) as sidecar:
        sidecar.ready()
        for number in range(200):
            event_id = f"{number:032x}"
            try:
                answer = httpx.post(
                    f"{sidecar.http}/api/1/envelope/",
                    content=event_envelope(llm_event(event_id)), headers=AUTH, timeout=10,
                )  # fmt: skip
            except httpx.HTTPError:
                break
            assert answer.json() == {"id": event_id}
            ids.append(event_id)
        assert sidecar.wait() == -9, sidecar.lines
    return ids


@pytest.mark.parametrize("fault", ["before_send:2", "after_send:2", "after_fsync:6", "after_write:6"])
def test_what_was_acknowledged_arrives_after_a_kill(tmp_path: Path, sentry: SentrySink, fault: str) -> None:
    ids = acknowledged_before_a_kill(tmp_path, sentry, fault)
    assert ids
    with SidecarProcess(tmp_path, sentry_upstream=sentry.url) as sidecar:
        assert sidecar.ready().terminate() == 0
    arrived = {event["event_id"] for event in sentry.events()}
    assert set(ids) <= arrived
    assert all("triage.category" in event["tags"] for event in sentry.events())


def test_without_a_journal_the_same_check_fails(tmp_path: Path, sentry: SentrySink) -> None:
    sentry.answer_with(SentryAnswer(status=503, times=None))
    ids = acknowledged_before_a_kill(tmp_path, sentry, "no_journal,before_send:3")
    sentry.answer_with()
    with SidecarProcess(tmp_path, sentry_upstream=sentry.url) as sidecar:
        assert sidecar.ready().terminate() == 0
    assert ids
    assert sentry.events() == []


def big_event(number: int) -> bytes:
    return event_envelope(llm_event(f"{number:032x}", extra={"x": "y" * 100_000}))


async def test_what_waits_for_one_key_fills_no_memory_of_the_others(
    tmp_path: Path, sentry: SentrySink
) -> None:
    sentry.answer_with(SentryAnswer(status=429, headers={LIMITS: "8:error:key"}))
    async with forwarding(tmp_path, sentry, memory_mib=4, max_request_mib=1) as sidecar:
        assert (await post(sidecar, big_event(0))).status_code == 200
        # Only the first is told of the limit: what left before that is known would be taken.
        await until(lambda: metric(sidecar, "export_retries_total", signal="envelope", reason="429") == 1)
        for number in range(1, 40):  # four times the memory for what goes out
            assert (await post(sidecar, big_event(number))).status_code == 200
        assert metric(sidecar, "delivering_bytes") < 1.3 * 2**20
        other = f"/api/1/envelope/?sentry_key={'b' * 32}"
        await post(sidecar, event_envelope(llm_event("b" * 32)), other, {})
        (request,) = await kept(sentry, 1)
        assert request.header()["event_id"] == "b" * 32
        assert len(await kept(sentry, 41)) == 41, "and the rest when the limit ends"
        await until(lambda: metric(sidecar, "journal_records") == 0)
    assert {event["event_id"] for event in sentry.events()} == {*(f"{n:032x}" for n in range(40)), "b" * 32}
    assert all("triage.category" in event["tags"] for event in sentry.events())


async def test_a_dead_otlp_backend_stops_no_envelope_and_each_goes_its_own_way(
    tmp_path: Path, sentry: SentrySink
) -> None:
    names = [f"{number} {'x' * 100_000}" for number in range(40)]
    with Sink() as sink:
        sink.answer_with(Answer(status=grpc.StatusCode.UNAVAILABLE, times=None))
        settings = {"memory_mib": 4, "max_request_mib": 1, "otlp_endpoint": sink.grpc_endpoint}
        async with forwarding(tmp_path, sentry, **settings) as sidecar:
            for name in names:
                headers = {"content-type": "application/x-protobuf"}
                assert (await post(sidecar, traces(name), "/v1/traces", headers)).status_code == 200
            await post(sidecar, event_envelope())
            assert len(await kept(sentry, 1)) == 1
            sentry.answer_with(SentryAnswer(status=503, times=None))
            for number in range(30):
                assert (await post(sidecar, big_event(number))).status_code == 200
        sink.answer_with()
        sentry.answer_with()
        async with forwarding(tmp_path, sentry, **settings) as sidecar:
            await kept(sentry, 31)
            await asyncio.to_thread(sink.wait_for, lambda: len(sink.spans()) >= 40)
            await until(lambda: metric(sidecar, "journal_records") == 0)
        assert sorted(span["name"] for span in sink.spans()) == sorted(names)
    assert len(sentry.events()) == 31
