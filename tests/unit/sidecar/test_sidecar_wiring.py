"""The process as it ships: rules and desk behind the data path; TLS."""

from __future__ import annotations

import shutil
import sqlite3
import ssl
import subprocess
from pathlib import Path

import grpc
import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from sidecar_tools import SidecarProcess, in_thread, metric, names, running, traces

from otel_triage.demo.sink import Sink
from otel_triage.sidecar.signals import WIRE, Signal

PROTOBUF = {"content-type": "application/x-protobuf"}


def failed_call() -> bytes:
    """A GenAI span by OpenTelemetry's conventions whose call was refused with 429."""
    request = ExportTraceServiceRequest()
    span = (
        request.resource_spans.add()
        .scope_spans.add()
        .spans.add(
            trace_id=b"\3" * 16,
            span_id=b"\4" * 8,
            name="chat gpt-4o",
            kind=3,
            status={"code": 2, "message": "boom"},
        )
    )
    span.start_time_unix_nano, span.end_time_unix_nano = 1_700_000_000_000_000_000, 1_700_000_001_000_000_000
    for key, value in (
        ("gen_ai.provider.name", "openai"),
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.request.model", "gpt-4o"),
        ("error.type", "RateLimitError"),
    ):
        span.attributes.add(key=key).value.string_value = value
    span.attributes.add(key="http.response.status_code").value.int_value = 429
    return request.SerializeToString()


@pytest.mark.parametrize("desk", [True, False])
def test_a_failed_call_leaves_with_its_verdict_and_a_healthy_one_as_it_came(
    tmp_path: Path, sink: Sink, desk: bool
) -> None:
    with SidecarProcess(tmp_path, otlp_endpoint=sink.grpc_endpoint, desk=desk) as sidecar:
        sidecar.ready()
        with httpx.Client() as client:
            for body in (failed_call(), traces("healthy")):
                answer = client.post(f"{sidecar.http}/v1/traces", content=body, headers=PROTOBUF)
                assert answer.status_code == 200
            sink.wait_for(lambda: len(sink.spans()) == 2)
            shown = client.get(f"{sidecar.admin}/metrics").text
        assert sidecar.terminate() == 0
    by_name = {span["name"]: span["attributes"] for span in sink.spans()}
    assert by_name["healthy"] == {}
    assert by_name["chat gpt-4o"]["triage.category"] == "rate_limit"
    assert by_name["chat gpt-4o"]["gen_ai.provider.name"] == "openai"
    assert 'otel_triage_triaged_total{kind="failures"} 1.0' in shown
    assert (tmp_path / "state.db").exists() == desk
    if desk:
        db = sqlite3.connect(tmp_path / "state.db")
        assert db.execute("SELECT count(*) FROM errors").fetchone() == (1,)
        db.close()


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A key, and a certificate of its own for localhost."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is missing: `apt-get install openssl`")
    cert, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", key, "-out", cert, "-days", "2"], check=True, capture_output=True)
    return cert, key


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
async def test_tls_in_and_out(
    tmp_path: Path, sink: Sink, certificate: tuple[Path, Path], protocol: str
) -> None:
    """A sidecar with TLS in front of the sink, and one in front of that."""
    cert, key = certificate
    tls = {"tls_cert": cert, "tls_key": key}
    async with running(tmp_path / "b", otlp_endpoint=sink.grpc_endpoint, **tls) as back:
        listen = back.grpc_listen if protocol == "grpc" else back.http_listen
        async with running(
            tmp_path / "a",
            otlp_endpoint=f"https://localhost:{listen.port}",
            otlp_protocol=protocol,
            otlp_certificate=cert,
        ) as front:
            await front.pipeline.accept(Signal.TRACES, traces("through"))
            await in_thread(sink.wait_for, sink.spans)
            assert names(sink) == {"through": 1}
            assert metric(back, "requests_acknowledged_total", signal="traces") == 1


async def test_a_client_certificate_is_asked_for(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    trusted = ssl.create_default_context(cafile=cert)
    async with running(tmp_path / "d", tls_cert=cert, tls_key=key, tls_client_ca=cert) as sidecar:
        url = f"https://localhost:{sidecar.http_listen.port}/v1/traces"
        async with httpx.AsyncClient(verify=trusted) as client:
            with pytest.raises(httpx.TransportError):
                await client.post(url, content=traces("x"), headers=PROTOBUF)
        trusted.load_cert_chain(cert, key)
        async with httpx.AsyncClient(verify=trusted) as client:
            assert (await client.post(url, content=traces("x"), headers=PROTOBUF)).status_code == 200

        def call(*pair: bytes) -> bytes:
            credentials = grpc.ssl_channel_credentials(cert.read_bytes(), *pair)
            with grpc.secure_channel(f"localhost:{sidecar.grpc_listen.port}", credentials) as channel:
                return channel.unary_unary(WIRE[Signal.TRACES].method)(traces("x"), timeout=5)

        with pytest.raises(grpc.RpcError):
            await in_thread(call)
        assert await in_thread(call, key.read_bytes(), cert.read_bytes()) == b""
