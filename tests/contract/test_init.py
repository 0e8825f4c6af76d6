"""`init`: idempotent, off by its environment variable, and never raising on a wrong argument."""

from __future__ import annotations

from typing import Any

import pytest

import otel_triage


@pytest.fixture(autouse=True)
def ended() -> Any:
    yield
    otel_triage.init().shutdown()


def test_twice_is_once() -> None:
    assert otel_triage.init() is otel_triage.init(language="en")


def test_again_after_the_end() -> None:
    first = otel_triage.init()
    first.shutdown()
    assert otel_triage.init() is not first


@pytest.mark.parametrize("said", ["false", "0", "off", "FALSE"])
def test_switched_off(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setenv("OTEL_TRIAGE_ENABLED", said)
    handle = otel_triage.init()
    assert not handle.enabled
    handle.flush()
    handle.shutdown()


def test_a_word_that_is_neither(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("OTEL_TRIAGE_ENABLED", "maybe")
    assert otel_triage.init().enabled
    assert caplog.messages == [
        "otel-triage: OTEL_TRIAGE_ENABLED=maybe is neither true nor false; it stays enabled"
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"sidecar": "127.0.0.1:4318"},
            "otel-triage: sidecar '127.0.0.1:4318' is not a base URL such as http://127.0.0.1:4318; "
            "events go where the application sends its own",
        ),
        ({"language": "tlh"}, "otel-triage: language 'tlh' is not one of en, ja, zh; texts are English"),
        ({"grouping": "all"}, "otel-triage: grouping 'all' is not one of cause, off; it is cause"),
    ],
)
def test_wrong_arguments(caplog: pytest.LogCaptureFixture, options: dict[str, str], message: str) -> None:
    assert otel_triage.init(**options).enabled
    assert caplog.messages == [message]


def test_the_contract_of_its_arguments() -> None:
    handle = otel_triage.init(
        sidecar=None,
        grouping="off",
        language="en",
        soft_events=True,
        defer_at_call=True,
        hosts=("llm.internal",),
        content=False,
    )
    assert handle.options is not None
    assert handle.options.grouping == "off"


def test_a_host_of_ones_own_needs_no_known_path(provider: Any, telemetry: Any) -> None:
    import httpx

    otel_triage.init().shutdown()
    handle = otel_triage.init(hosts=["127.0.0.1"])
    with httpx.Client() as client:
        assert client.post(f"{provider.url}/my/own/path", json={"prompt": "x"}).status_code == 404
    event = telemetry.event()
    assert (event["server.address"], event["http.response.status_code"]) == ("127.0.0.1", 404)
    handle.shutdown()
