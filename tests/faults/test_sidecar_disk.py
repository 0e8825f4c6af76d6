"""A disk that refuses, made by a limit on the size of files: raised, it recovers."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from sidecar_tools import SidecarProcess, grpc_client, names, traces

from otel_triage.demo.sink import Sink

PROTOBUF = {"content-type": "application/x-protobuf"}


def until(true: Callable[[], Any]) -> None:
    ends = time.monotonic() + 10
    while not true():
        assert time.monotonic() < ends, "not within 10 s"
        time.sleep(0.02)


@pytest.mark.timeout(60)
def test_a_full_disk_refuses_at_once_and_recovers(tmp_path: Path, sink: Sink) -> None:
    with (
        SidecarProcess(tmp_path, otlp_endpoint=sink.grpc_endpoint) as sidecar,
        httpx.Client(timeout=10) as client,
    ):
        sidecar.ready()

        def post(name: str) -> httpx.Response:
            body = traces(name, "x" * 100_000)
            return client.post(f"{sidecar.http}/v1/traces", content=body, headers=PROTOBUF)

        def ready() -> httpx.Response:
            return client.get(f"{sidecar.admin}/readyz")

        assert post("before").status_code == 200
        assert ready().status_code == 200
        sink.wait_for(lambda: names(sink)["before"])

        _, hard = resource.prlimit(sidecar.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(sidecar.process.pid, resource.RLIMIT_FSIZE, (4096, hard))
        first = post("lost")
        assert first.status_code == 503
        assert b"cannot write the journal: " in first.content
        assert first.headers["retry-after"] in {"1", "2", "3"}

        until(lambda: ready().status_code == 503)
        assert "cannot write the journal: " in ready().json()["degraded"][0]
        assert client.get(f"{sidecar.admin}/healthz").status_code == 200
        began = time.monotonic()
        for _ in range(20):
            assert post("refused").status_code == 503
        with grpc_client(sidecar.grpc) as export, pytest.raises(grpc.RpcError) as caught:
            export(traces("refused"), timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert time.monotonic() - began < 5, "at once, not after a time-out"

        resource.prlimit(sidecar.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))
        until(lambda: ready().status_code == 200)
        assert post("after").status_code == 200
        sink.wait_for(lambda: names(sink)["after"])
        assert set(names(sink)) == {"before", "after", "x" * 100_000}
        assert sidecar.terminate() == 0
    assert sum("refusing requests until it can be written again" in line for line in sidecar.lines) == 1
