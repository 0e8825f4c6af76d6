"""What comes in from Sentry SDKs: every way of saying who one is, every coding, and what is refused."""

from __future__ import annotations

import base64
import gzip
import json
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import brotli
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
from sidecar_tools import metric, traces, until

from otel_triage.demo.sentry_sink import SentrySink
from otel_triage.sidecar.http_body import gunzip, unbrotli, undeflate
from otel_triage.sidecar.process import Sidecar
from otel_triage.sidecar.refusals import Refused, Why

MIB = 1 << 20
ENVELOPE = event_envelope()


@pytest.fixture
def sentry() -> Iterator[SentrySink]:
    with SentrySink() as made:
        yield made


@pytest.fixture
async def sidecar(tmp_path: Path, sentry: SentrySink) -> AsyncIterator[Sidecar]:
    async with forwarding(tmp_path, sentry) as made:
        yield made


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("coding", "pack"),
    [
        (None, bytes),
        ("", bytes),
        ("identity", bytes),
        ("gzip", gzip.compress),
        ("br", brotli.compress),
        ("deflate", zlib.compress),
        ("deflate", raw_deflate),
    ],
)
async def test_codings(sidecar: Sidecar, sentry: SentrySink, coding: str | None, pack: Any) -> None:
    headers = AUTH if coding is None else {**AUTH, "content-encoding": coding}
    answer = await post(sidecar, pack(ENVELOPE), headers=headers)
    assert (answer.status_code, answer.json()) == (200, {"id": EVENT_ID})
    (request,) = await kept(sentry, 1)
    assert request.path == "/api/1/envelope/"
    assert request.events()[0]["tags"]["triage.category"] == "rate_limit"


async def test_chunked_without_a_content_type(sidecar: Sidecar, sentry: SentrySink) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(ENVELOPE), 7):
            yield ENVELOPE[at : at + 7]

    async with httpx.AsyncClient() as client:
        url = f"http://{sidecar.http_listen}/api/1/envelope/?sentry_version=7&sentry_key={KEY}&sentry_client=js%2F11"
        answer = await client.post(url, content=chunks())
    assert answer.status_code == 200
    (request,) = await kept(sentry, 1)
    assert (
        request.headers["x-sentry-auth"] == f"Sentry sentry_version=7, sentry_client=js/11, sentry_key={KEY}"
    )


DSN = f"https://{KEY}@o1.ingest.sentry.io/77"


@pytest.mark.parametrize(
    ("path", "headers", "body", "goes_to"),
    [
        ("/api/1/envelope/", AUTH, ENVELOPE, "/api/1/envelope/"),
        ("/api/1/envelope", AUTH, ENVELOPE, "/api/1/envelope/"),
        # Java: commas without blanks
        ("/api/1/envelope/", {"x-sentry-auth": f"Sentry sentry_key={KEY},x=7"}, ENVELOPE, "/api/1/envelope/"),
        ("/api/1/envelope/", {"authorization": f"sentry sentry_key={KEY}"}, ENVELOPE, "/api/1/envelope/"),
        (f"/api/1/envelope/?sentry_key={KEY}", {}, ENVELOPE, "/api/1/envelope/"),
        # the tunnel: only the dsn says who and where, whatever the path
        ("/api/1/envelope/", {}, event_envelope(dsn=DSN), "/api/77/envelope/"),
        ("/tunnel", {}, event_envelope(dsn=DSN), "/api/77/envelope/"),
        ("/tunnel/", {}, event_envelope(dsn=DSN), "/api/77/envelope/"),
        # all of them, agreeing
        (f"/api/77/envelope/?sentry_key={KEY}", AUTH, event_envelope(dsn=DSN), "/api/77/envelope/"),
    ],
)  # fmt: skip
async def test_who_sends(
    sidecar: Sidecar, sentry: SentrySink, path: str, headers: dict[str, str], body: bytes, goes_to: str
) -> None:
    answer = await post(sidecar, body, path, headers)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "*")
    (request,) = await kept(sentry, 1)
    assert request.path == goes_to
    assert f"sentry_key={KEY}" in request.headers["x-sentry-auth"]


@pytest.mark.parametrize(
    ("path", "headers", "body", "status", "says"),
    [
        ("/api/1/envelope/", {}, ENVELOPE, 403, "the request shows no key"),
        ("/api/1/envelope/?sentry_key=other", AUTH, ENVELOPE, 403, "the request shows two keys"),
        ("/api/77/envelope/", AUTH, event_envelope(dsn="http://other@x/77"), 403, "shows two keys"),
        ("/api/1/envelope/", AUTH, event_envelope(dsn=DSN), 403, "the path names project 1, the dsn '77'"),
        ("/tunnel", AUTH, ENVELOPE, 403, "no project"),
        ("/tunnel", {}, event_envelope(dsn=f"http://{KEY}@x/.."), 403, "no project"),
        ("/tunnel", {}, event_envelope(dsn="http://[x/1"), 403, "is not taken here"),
        ("/api/1/envelope/?sentry_key=a%0ab", {}, ENVELOPE, 403, "is not taken here"),
        ("/api/1/envelope/", AUTH, b"", 400, "not a Sentry envelope: the envelope's headers are not JSON"),
        ("/api/1/envelope/", AUTH, b'{}\n{"type":"event","length":9}\n{}', 400, "item 1 says 9 bytes, and 2"),
        ("/api/1/store/", AUTH, b"[]", 400, "not a JSON object"),
        ("/api/1/store/", AUTH, base64.b64encode(zlib.compress(b"{}")), 400, "not a JSON object"),
        ("/api/1/envelope/", {**AUTH, "content-encoding": "zstd"}, ENVELOPE, 415, "'zstd' is not one of"),
        ("/api/1/envelope/", {**AUTH, "content-encoding": "gzip"}, ENVELOPE, 400, "the body is not gzip"),
        ("/api/1/envelope/", {**AUTH, "content-encoding": "br"}, ENVELOPE, 400, "brotli"),
        ("/api/1/envelope/", {**AUTH, "content-encoding": "deflate"}, ENVELOPE, 400, "deflate"),
    ],
)  # fmt: skip
async def test_refused_with_a_reason(
    sidecar: Sidecar,
    sentry: SentrySink,
    path: str,
    headers: dict[str, str],
    body: bytes,
    status: int,
    says: str,
) -> None:
    answer = await post(sidecar, body, path, headers)
    assert answer.status_code == status
    assert says in answer.json()["detail"]
    assert answer.headers["x-sentry-error"] == answer.json()["detail"]
    reason = {400: "invalid", 403: "forbidden", 415: "media_type"}[status]
    assert metric(sidecar, "requests_refused_total", signal="envelope", reason=reason) == 1
    assert metric(sidecar, "journal_records") == 0
    assert sentry.requests() == []


async def test_keys_that_are_named_are_the_only_ones(tmp_path: Path, sentry: SentrySink) -> None:
    async with forwarding(tmp_path, sentry, sentry_keys=f"a1,{KEY}") as sidecar:
        assert (await post(sidecar, ENVELOPE)).status_code == 200
        for path, headers, body in (
            ("/api/1/envelope/?sentry_key=other", {}, ENVELOPE),
            ("/tunnel", {}, event_envelope(dsn="https://other@sentry.io/1")),
            (
                "/api/1/integration/otlp/v1/traces/?sentry_key=b",
                {"content-type": "application/x-protobuf"},
                b"",
            ),
        ):
            assert (await post(sidecar, body, path, headers)).status_code == 403


async def test_another_machine_needs_a_named_key(tmp_path: Path, sentry: SentrySink) -> None:
    settings = {"http_listen": "0.0.0.0:0", "ingest_token": "t"}
    async with forwarding(tmp_path / "a", sentry, **settings) as sidecar:
        url = f"http://127.0.0.1:{sidecar.http_listen.port}/api/1/envelope/"
        async with httpx.AsyncClient() as client:
            assert (await client.post(url, content=ENVELOPE, headers=AUTH)).status_code == 403
    async with forwarding(tmp_path / "b", sentry, sentry_keys=KEY, **settings) as sidecar:
        url = f"http://127.0.0.1:{sidecar.http_listen.port}/api/1/envelope/"
        async with httpx.AsyncClient() as client:
            assert (await client.post(url, content=ENVELOPE, headers=AUTH)).status_code == 200


async def test_without_an_upstream(tmp_path: Path) -> None:
    async with forwarding(tmp_path) as sidecar:
        ours = await post(sidecar, ENVELOPE, headers={**AUTH, "x-otel-triage-client": "transport"})
        assert ours.status_code == 404
        assert "OTEL_TRIAGE_SENTRY_UPSTREAM" in ours.json()["detail"]
        assert (await post(sidecar, ENVELOPE)).status_code == 200
        await until(lambda: metric(sidecar, "no_downstream_requests_total", signal="envelope") == 1)
        await until(lambda: metric(sidecar, "journal_records") == 0)
        assert metric(sidecar, "triaged_total", kind="failures") == 1


async def test_forwarding_only_to_the_upstream_of_the_settings(
    sidecar: Sidecar, sentry: SentrySink, tmp_path: Path
) -> None:
    with SentrySink() as other:
        body = event_envelope(dsn=f"{other.url.replace('://', f'://{KEY}@')}/1")
        headers = {"x-forwarded-host": other.url, "host": f"127.0.0.1:{other.port}"}
        assert (
            await post(sidecar, body, f"/api/1/envelope/?sentry_key={KEY}&host={other.url}", headers)
        ).is_success
        (request,) = await kept(sentry, 1)
        assert request.header()["dsn"] == sentry.dsn(KEY)
        assert other.requests() == []


async def test_store(sidecar: Sidecar, sentry: SentrySink) -> None:
    event = llm_event()
    assert (await post(sidecar, json.dumps(event, indent=1).encode(), "/api/5/store/")).json() == {
        "id": EVENT_ID
    }
    del event["event_id"]
    given = (await post(sidecar, json.dumps(event).encode(), "/api/5/store")).json()["id"]
    first, second = await kept(sentry, 2)
    assert (first.path, first.header()) == ("/api/5/envelope/", {"event_id": EVENT_ID})
    assert first.events()[0]["tags"]["triage.reason"] == "requests"
    assert (second.header()["event_id"], second.events()[0]["event_id"]) == (given, given)


async def test_answers_without_an_event(sidecar: Sidecar, sentry: SentrySink) -> None:
    assert (await post(sidecar, envelope(item("session", {"sid": "1"})))).json() == {}
    assert (await post(sidecar, envelope(item("event", llm_event())))).json() == {"id": EVENT_ID}
    assert (await post(sidecar, b"{}\n")).json() == {}, "empty, and valid"
    await kept(sentry, 2)
    assert len(sentry.requests()) == 2


async def test_a_browser_may_send_and_read_the_answer(sidecar: Sidecar) -> None:
    async with httpx.AsyncClient() as client:
        answer = await client.options(f"http://{sidecar.http_listen}/api/1/envelope/")
        refused = await client.get(f"http://{sidecar.http_listen}/api/1/envelope/")
        health = await client.get(f"http://{sidecar.http_listen}/healthz")
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "x-sentry-auth" in answer.headers["access-control-allow-headers"]
    assert "x-sentry-rate-limits" in answer.headers["access-control-expose-headers"]
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
    assert health.status_code == 200


async def test_what_sentry_infers_from_the_request_goes_on(sidecar: Sidecar, sentry: SentrySink) -> None:
    headers = {**AUTH, "user-agent": "Browser/1", "origin": "https://shop", "x-forwarded-for": "203.0.113.7"}
    await post(sidecar, ENVELOPE, headers={**headers, "cookie": "secret"})
    (request,) = await kept(sentry, 1)
    shown = {
        name: request.headers.get(name) for name in ("user-agent", "origin", "x-forwarded-for", "cookie")
    }
    assert shown == {
        "user-agent": "Browser/1", "origin": "https://shop", "x-forwarded-for": "203.0.113.7", "cookie": None,
    }  # fmt: skip


async def test_sentrys_otlp_endpoint(sidecar: Sidecar, sentry: SentrySink) -> None:
    path = "/api/3/integration/otlp/v1/traces/"
    headers = {**AUTH, "content-type": "application/x-protobuf"}
    answer = await post(sidecar, gzip.compress(traces("one")), path, {**headers, "content-encoding": "gzip"})
    assert (answer.status_code, answer.content) == (200, b"")
    (request,) = await kept(sentry, 1)
    assert (request.path, request.body) == (path, traces("one"))
    assert request.headers["content-type"] == "application/x-protobuf"
    assert f"sentry_key={KEY}" in request.headers["x-sentry-auth"]
    for bad, status in ((b"\xff", 400), (b"", 200)):
        assert (await post(sidecar, bad, path, headers)).status_code == status
    assert (await post(sidecar, b"", path, {"content-type": "application/x-protobuf"})).status_code == 403
    assert (await post(sidecar, b"{}", path, {**AUTH, "content-type": "text/plain"})).status_code == 415


BOMB = b"\0" * (64 * MIB)


@pytest.mark.parametrize(
    ("undo", "packed"),
    [
        (gunzip, gzip.compress(BOMB)),
        (undeflate, zlib.compress(BOMB)),
        (unbrotli, brotli.compress(BOMB, quality=5)),
    ],
    ids=["gzip", "deflate", "br"],
)
def test_bombs_are_refused_and_memory_stays_flat(undo: Any, packed: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(Refused) as caught:
            undo(packed, MIB)
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    finally:
        tracemalloc.stop()
    assert caught.value.why is Why.TOO_LARGE


@pytest.mark.parametrize(
    ("undo", "pack"), [(gunzip, gzip.compress), (undeflate, zlib.compress), (unbrotli, brotli.compress)]
)
def test_cut_bodies_are_refused(undo: Any, pack: Any) -> None:
    packed = pack(ENVELOPE)
    assert undo(packed, MIB) == ENVELOPE
    for cut in (packed[:-1], packed[: len(packed) // 2]):
        with pytest.raises(Refused) as caught:
            undo(cut, MIB)
        assert caught.value.why is Why.INVALID


async def test_a_bomb_over_http(tmp_path: Path, sentry: SentrySink) -> None:
    async with forwarding(tmp_path, sentry, max_request_mib=1) as sidecar:
        answer = await post(
            sidecar, brotli.compress(BOMB, quality=5), headers={**AUTH, "content-encoding": "br"}
        )
        assert answer.status_code == 413
        assert "MAX_REQUEST_MIB" in answer.json()["detail"]
        assert (await post(sidecar, b"x" * (MIB + 1))).status_code == 413
        assert metric(sidecar, "receiving_bytes") == 0


async def test_a_full_journal_says_so_and_tells_the_limits_of_errors_too(
    tmp_path: Path, sentry: SentrySink
) -> None:
    async with forwarding(tmp_path, sentry, journal_mib=1, max_request_mib=1, memory_mib=4) as sidecar:
        sidecar._limits.update(KEY, 429, {"retry-after": "100"})
        big = envelope(item("event", llm_event(extra={"x": "y" * 700_000})), event_id=EVENT_ID)
        assert (await post(sidecar, big)).status_code == 200
        full = await post(sidecar, big)
        assert full.status_code == 503
        assert ":error:key" in full.headers["x-sentry-rate-limits"]
        taken = await post(sidecar, ENVELOPE)
        assert taken.status_code == 200
        assert ":error:key" not in taken.headers["x-sentry-rate-limits"]
