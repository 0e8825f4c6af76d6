"""The provider without an SDK: bare httpx, wrong requests, recording, the process, the data file."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import tomllib
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import httpx
import pytest

from otel_triage.demo import provider_scenarios
from otel_triage.demo.provider import DemoProvider
from otel_triage.demo.provider_scenarios import PATHS, load, parse

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Say this is a test"}]}
PATH_OF = {api: path for path, api in PATHS.items()}
# How bare httpx sees what is no answer; every other scenario is its status.
HTTPX_ERRORS = {
    "openai.chat.drop": httpx.RemoteProtocolError,
    "openai.chat.reset": httpx.ReadError,
    "openai.chat.cut_body": httpx.RemoteProtocolError,
    "openai.chat.cut_stream": httpx.RemoteProtocolError,
    "openai.chat.stall_stream": httpx.ReadTimeout,
    "openai.chat.slow": httpx.ReadTimeout,
    "openai.responses.cut_stream": httpx.RemoteProtocolError,
    "openai.responses.stall_stream": httpx.ReadTimeout,
    "anthropic.messages.drop": httpx.RemoteProtocolError,
    "anthropic.messages.cut_stream": httpx.RemoteProtocolError,
    "anthropic.messages.stall_stream": httpx.ReadTimeout,
    "anthropic.messages.slow": httpx.ReadTimeout,
}
DOCUMENTED = re.compile(
    r"https://[\w.-]+/\S+"
    r"|provider_errors\.tsv row: (openai|anthropic)/\d*/\S*, https://\S+"
    r"|(?P<package>openai|anthropic|httpx2|httpcore2|h11) (?P<version>[\d.]+), (?P<file>[\w/]+\.py)\b.*"
)


@pytest.fixture
def provider():
    with DemoProvider() as running:
        yield running


@pytest.fixture(scope="module")
def context():
    return httpx.create_ssl_context()  # slow to make, and never used on loopback


@pytest.fixture
def client(provider, context):
    with httpx.Client(base_url=provider.url, timeout=5.0, verify=context) as made:
        yield made


# --------------------------------------------------------------- bare httpx


@pytest.mark.parametrize("scenario", load().values(), ids=lambda scenario: scenario.id)
def test_every_scenario_over_bare_httpx(client, scenario):
    request = CHAT | {"stream": scenario.body is None}
    headers = {"x-demo-scenario": scenario.id}
    path = PATH_OF[scenario.api]
    if scenario.id in HTTPX_ERRORS:
        with pytest.raises(HTTPX_ERRORS[scenario.id]):
            client.post(path, json=request, headers=headers, timeout=0.3)
    else:
        assert client.post(path, json=request, headers=headers).status_code == scenario.status


def test_body_and_headers_over_bare_httpx(client):
    answer = client.post(
        "/v1/chat/completions", json=CHAT, headers={"x-demo-scenario": "openai.chat.model_not_found"}
    )
    assert answer.json() == {
        "error": {
            "message": "The model `gpt-4o-mini` does not exist or you do not have access to it.",
            "type": "invalid_request_error",
            "param": None,
            "code": "model_not_found",
        }
    }
    assert {name: value for name, value in answer.headers.items() if name != "date"} == {
        "content-type": "application/json; charset=utf-8",
        "server": "cloudflare",
        "cf-cache-status": "DYNAMIC",
        "openai-organization": "demo-org",
        "vary": "Origin",
        "x-content-type-options": "nosniff",
        "x-request-id": "req_00000000000000000000000000000001",
        "content-length": "172",
    }


def test_a_stream_as_it_goes_over_the_wire(client):
    answer = client.post("/v1/chat/completions", json=CHAT | {"stream": True})
    lines = [line for line in answer.text.split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    assert json.loads(lines[1].removeprefix("data: ")) == {
        "id": "chatcmpl-APfFSQXvyhxafsCMim55E7utaDEMO",
        "object": "chat.completion.chunk",
        "created": 1730680122,
        "model": "gpt-4o-mini",
        "system_fingerprint": None,
        "choices": [{"index": 0, "delta": {"content": "This"}, "logprobs": None, "finish_reason": None}],
    }
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"


def test_a_model_name_cannot_break_the_json(client):
    name = 'a "model"\\ of $REQUEST_ID'
    answer = client.post("/v1/chat/completions", json=CHAT | {"model": name})
    assert answer.json()["model"] == name


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
@pytest.mark.parametrize("stream", [False, True])
def test_gzip_where_the_client_takes_it(client, encoding, stream):
    headers = {"x-demo-scenario": "openai.chat.ok_gzip", "accept-encoding": encoding}
    answer = client.post("/v1/chat/completions", json=CHAT | {"stream": stream}, headers=headers)
    assert answer.headers.get("content-encoding", "identity") == encoding
    assert "test" in answer.text


def test_one_connection_carries_many_requests(client, provider):
    for _ in range(3):
        client.post("/v1/chat/completions", json=CHAT)
    client.post("/v1/messages", json=CHAT)
    assert [seen.request_id for seen in provider.requests] == [
        "req_00000000000000000000000000000001",
        "req_00000000000000000000000000000002",
        "req_00000000000000000000000000000003",
        "req_011C00000000000000000004",
    ]


# --------------------------------------------------------------- wrong requests


@pytest.mark.parametrize(
    ("path", "status", "expected"),
    [
        ("/v1/nothing", 404, {"message": "Invalid URL (POST /v1/nothing)", "type": "invalid_request_error"}),
        ("/v1/messages/nothing", 404, {"message": "Not Found", "type": "not_found_error"}),
    ],
)
def test_wrong_path(client, path, status, expected):
    answer = client.post(path, json=CHAT)
    assert answer.status_code == status
    assert answer.json()["error"].items() >= expected.items()


@pytest.mark.parametrize("body", [b"{", b"[]", b"", b"\xff"])
@pytest.mark.parametrize(
    ("path", "start"),
    [
        ("/v1/chat/completions", "We could not parse the JSON body of your request."),
        ("/v1/responses", "We could not parse the JSON body of your request."),
        ("/v1/messages", "The request body is not valid JSON"),
    ],
)
def test_body_that_is_not_a_json_object(client, path, start, body):
    answer = client.post(path, content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith(start)


@pytest.mark.parametrize("wrong", ["nope", "anthropic.messages.ok", "openai.chat."])
def test_unknown_scenario_says_what_there_is(client, wrong):
    answer = client.post("/v1/chat/completions", json=CHAT, headers={"x-demo-scenario": wrong})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "demo_unknown_scenario")
    assert error["message"].startswith(
        f"x-demo-scenario: '{wrong}' is no scenario of openai.chat; there are openai.chat."
    )


def test_stream_scenario_without_stream(client):
    answer = client.post(
        "/v1/messages", json=CHAT, headers={"x-demo-scenario": "anthropic.messages.cut_stream"}
    )
    assert answer.status_code == 400
    assert answer.json() == {
        "type": "error",
        "error": {
            "type": "invalid_request_error",
            "message": 'x-demo-scenario: anthropic.messages.cut_stream is a stream; ask with "stream": true',
        },
    }


def test_what_is_not_http_harms_nobody(client, provider):
    port = int(provider.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=5) as raw:
        raw.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        assert raw.recv(100) == b""
    assert client.post("/v1/chat/completions", json=CHAT).status_code == 200


# --------------------------------------------------------------- recording and stopping


def test_requests_are_recorded_whole(client, provider):
    client.post("/v1/embeddings?a=1", json={"model": "m", "input": "x"}, headers={"X-Team": "blue"})
    (seen,) = provider.requests
    assert (seen.method, seen.path, seen.body) == ("POST", "/v1/embeddings", {"model": "m", "input": "x"})
    assert (seen.scenario, seen.headers["x-team"]) == ("openai.embeddings.ok", "blue")


def test_recording_from_many_threads(client, provider):
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.post("/v1/chat/completions", json=CHAT), range(40)))
    assert {answer.headers["x-request-id"] for answer in answers} == {f"req_{n:032x}" for n in range(1, 41)}
    assert len(provider.requests) == 40


def test_stopping_ends_a_stalled_stream():
    before = set(threading.enumerate())
    with DemoProvider() as provider, httpx.Client(timeout=20.0) as client:
        headers = {"x-demo-scenario": "openai.chat.stall_stream"}
        with client.stream(
            "POST", provider.url + "/v1/chat/completions", json=CHAT | {"stream": True}, headers=headers
        ) as answer:
            lines = answer.iter_lines()
            next(lines)
            provider.__exit__(None, None, None)
            with pytest.raises(httpx.RemoteProtocolError):
                list(lines)
    started = set(threading.enumerate()) - before
    assert "demo-provider" not in {thread.name for thread in started}


def test_a_port_that_is_taken_is_said_at_start():
    with DemoProvider() as first:
        port = int(first.url.rpartition(":")[2])
        with pytest.raises(OSError, match="address already in use"), DemoProvider(port=port):
            pass


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_as_a_process(ending):
    with subprocess.Popen(
        [sys.executable, "-m", "otel_triage.demo.provider", "--port", "0"], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            line = process.stdout.readline()
            assert re.fullmatch(r"listening http://127\.0\.0\.1:\d+\n", line)
            url = line.split()[1]
            assert httpx.post(url + "/v1/chat/completions", json=CHAT, timeout=5).status_code == 200
            process.send_signal(ending)
            assert process.wait(timeout=10) == 0
        finally:
            process.kill()


# --------------------------------------------------------------- the data file


def test_every_entry_names_a_source_that_can_be_looked_up():
    data = tomllib.loads(
        (Path(provider_scenarios.__file__).parent / "scenarios.toml").read_text(encoding="utf-8")
    )
    entries = [*data["headers"].values(), *data["base"].values(), *data["scenario"]]
    assert len(entries) == len(load()) + len(data["headers"]) + len(data["base"])
    for entry in entries:
        assert entry["source"]
        for source in entry["source"]:
            found = DOCUMENTED.fullmatch(source)
            assert found, source
            if package := found["package"]:
                assert found["version"] == version(package), source
                module = __import__(package)
                assert (Path(module.__file__).parent.parent / found["file"]).is_file(), source


SOURCED = '[[scenario]]\nid = "openai.chat.x"\nsource = ["https://example.org/a"]\n'


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[[scenario]]\nid = "openai.chat.x"\njson = "{}"', "openai.chat.x names no source"),
        ('[[scenario]]\nid = "openai.chat.x"\nsource = []', "openai.chat.x names no source"),
        ('[[scenario]]\nid = "openai.chat.x"\nsource = [" "]', "openai.chat.x names no source"),
        ('[headers.h]\nvalues = { a = "b" }\n' + SOURCED, "headers.h names no source"),
        ('[base.b]\njson = "{}"\n' + SOURCED, "base.b names no source"),
        (SOURCED + 'headers = ["h"]', "openai.chat.x: no header set or base named 'h'"),
        (SOURCED + "cut = 1", r"openai.chat.x: unknown keys \['cut'\]"),
        (SOURCED + 'json = "{"', "openai.chat.x: not JSON"),
        (SOURCED + SOURCED, "openai.chat.x is there twice"),
    ],
)
def test_a_wrong_file_is_refused(text, complaint):
    with pytest.raises(ValueError, match=complaint):
        parse(text)
