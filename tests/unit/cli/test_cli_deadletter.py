"""`otel-triage deadletter`: with a running sidecar and without one."""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "sidecar"))

from sentry_tools import AUTH, EVENT_ID, event_envelope, llm_event
from sidecar_tools import SidecarProcess

from otel_triage.cli.deadletter import Options, run
from otel_triage.demo.sentry_sink import SentryAnswer, SentrySink

REFUSED = SentryAnswer(status=400, headers={"x-sentry-error": "not today"}, times=2)


def call(*arguments: Any, **options: Any) -> tuple[int, list[str]]:
    out = io.StringIO()
    action, *ids = arguments
    code = run(Options(action=action, ids=tuple(ids), **options), out)
    return code, out.getvalue().splitlines()


def listed(data_dir: Path) -> list[dict[str, Any]]:
    code, lines = call("list", data_dir=data_dir)
    assert code == 0
    return [json.loads(line) for line in lines]


def refuse_two(sidecar: SidecarProcess, sentry: SentrySink) -> None:
    sentry.answer_with(REFUSED)
    for event_id in (EVENT_ID, "a" * 32):
        url = f"{sidecar.http}/api/1/envelope/"
        body = event_envelope(llm_event(event_id))
        assert httpx.post(url, content=body, headers=AUTH).status_code == 200
    sentry.wait_for(lambda: len(sentry.requests()) == 2)


@pytest.mark.parametrize("token", [None, "t0ken"])
def test_with_a_running_sidecar(tmp_path: Path, token: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if token:
        monkeypatch.setenv("OTEL_TRIAGE_ADMIN_TOKEN", token)
    with (
        SentrySink() as sentry,
        SidecarProcess(tmp_path, sentry_upstream=sentry.url, admin_token=token) as sidecar,
    ):
        sidecar.ready()
        refuse_two(sidecar, sentry)
        letters = wait_for_two(tmp_path)
        assert {key: letters[0][key] for key in ("kind", "reason", "detail")} == {
            "kind": "envelope", "reason": "400", "detail": "not today",
        }  # fmt: skip
        ids = [letter["id"] for letter in letters]
        assert call("resend", ids[0], data_dir=tmp_path, admin=sidecar.admin) == (
            0, ["1 of 1 dead letters will be sent again"],
        )  # fmt: skip
        sentry.wait_for(sentry.kept)
        assert call("resend", data_dir=tmp_path, admin=sidecar.admin)[0] == 0
        sentry.wait_for(lambda: len(sentry.kept()) == 2)
        assert {event["event_id"] for event in sentry.events()} == {EVENT_ID, "a" * 32}
        assert sidecar.terminate() == 0
    assert listed(tmp_path) == []


def wait_for_two(data_dir: Path) -> list[dict[str, Any]]:
    """A letter is written with the next commit, which nothing tells another process: so look again."""
    end = time.monotonic() + 10
    while len(found := listed(data_dir)) < 2:
        assert time.monotonic() < end, "no dead letters"
        time.sleep(0.05)
    return found


def test_without_a_sidecar(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with SentrySink() as sentry:
        with SidecarProcess(tmp_path, sentry_upstream=sentry.url) as sidecar:
            refuse_two(sidecar.ready(), sentry)
            assert sidecar.terminate() == 0
        first, second = listed(tmp_path)
        assert call("resend", first["id"] + 12345, data_dir=tmp_path)[0] == 2
        assert "no dead letter" in capsys.readouterr().err
        assert call("resend", second["id"], data_dir=tmp_path) == (
            0,
            ["1 of 1 dead letters will be sent again"],
        )
        assert [letter["id"] for letter in listed(tmp_path)] == [first["id"]]
        assert sentry.kept() == []
        with SidecarProcess(tmp_path, sentry_upstream=sentry.url) as sidecar:
            sidecar.ready()
            (request,) = sentry.wait_for(sentry.kept)
            assert sidecar.terminate() == 0
    assert request.header()["event_id"] == "a" * 32


def test_what_is_wrong_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("list", data_dir=tmp_path)[0] == 2
    assert f"no journal in {tmp_path}" in capsys.readouterr().err
    with SidecarProcess(tmp_path, admin_token="secret") as sidecar:
        sidecar.ready()
        assert call("resend", data_dir=tmp_path, admin=sidecar.admin)[0] == 2
        assert "401" in capsys.readouterr().err
        headers = {"authorization": "Bearer secret"}
        bad = httpx.post(
            f"{sidecar.admin}/api/v1/deadletters/resend", content=b'{"ids":["x"]}', headers=headers
        )
        assert (bad.status_code, "is due" in bad.json()["error"]) == (400, True)
        assert call("resend", data_dir=tmp_path, admin="http://127.0.0.1:1")[0] == 2
