"""A system-call trace: the journal is synced between a request's arrival and its acknowledgement.

SIGKILL leaves the page cache alone, so that no kill can show this.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from sidecar_tools import SidecarProcess, grpc_client, traces

REQUESTS = 10
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS = 0, 1
WAL = "".join(f"\\x{byte:02x}" for byte in b"/journal.db-wal>"[:-1]) + ">"


@pytest.fixture(scope="module")
def strace() -> str:
    path = shutil.which("strace")
    if path is None or subprocess.run([path, "true"], check=False, capture_output=True).returncode:
        pytest.skip("strace is missing, or may not trace here: `apt-get install strace`")
    return path


@dataclass
class Connection:
    """One TCP connection to the sidecar, as its system calls show it."""

    received: bytearray = field(default_factory=bytearray)
    sent: bytearray = field(default_factory=bytearray)


@dataclass
class Order:
    """What happened between each request and its answer."""

    answers: int = 0
    synced: int = 0


def record(strace: str, tmp_path: Path, **settings: object) -> tuple[Path, dict[str, int]]:
    """Send some requests over both protocols, one after the other; the trace and the ports.

    Nothing can be delivered, so that no settlement is written between a request and its answer.
    """
    trace, data_dir = tmp_path / "trace", tmp_path / "data"
    with socket.create_server(("127.0.0.1", 0)) as closed:
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
    calls = "trace=fsync,fdatasync,sendmsg,sendto,write,writev,recvmsg,recvfrom,read,readv"
    prefix = [strace, "-f", "--seccomp-bpf", "-yy", "-xx", "-s", "4096"]
    prefix += ["-e", calls, "-e", "signal=none", "-o", str(trace)]
    with SidecarProcess(data_dir, prefix=prefix, otlp_endpoint=endpoint, **settings) as sidecar:
        try:
            sidecar.ready(30)
            with grpc_client(sidecar.grpc) as export, httpx.Client(timeout=20) as client:
                for number in range(REQUESTS):
                    assert export(traces(f"grpc {number}"), timeout=20) == b""
                    headers = {"content-type": "application/x-protobuf"}
                    url = f"{sidecar.http}/v1/traces"
                    answer = client.post(url, content=traces(f"http {number}"), headers=headers)
                    assert answer.status_code == 200
        finally:
            # Not strace, which would let go of it: the sidecar itself.
            os.kill(int((data_dir / "lock").read_text()), signal.SIGKILL)
        assert sidecar.wait() == -signal.SIGKILL
    return trace, sidecar.ports


def bytes_of(text: str) -> bytes:
    """All quoted strings of a call, joined: with -xx each byte is `\\xNN`."""
    return bytes.fromhex("".join(re.findall(r'"((?:\\x[0-9a-f]{2})*)"', text)).replace("\\x", ""))


def frames(data: bytearray) -> list[tuple[int, int]]:
    """Take all complete HTTP/2 frames off a stream of bytes: kind and stream of each."""
    if data.startswith(PREFACE):
        del data[: len(PREFACE)]
    found = []
    while len(data) >= 9 and len(data) >= 9 + (size := int.from_bytes(data[:3], "big")):
        found.append((data[3], int.from_bytes(data[5:9], "big")))
        del data[: 9 + size]
    return found


def orders(trace: Path, ports: dict[str, int]) -> dict[str, Order]:
    """Walk through the trace: for each answer, was the journal synced since its request?"""
    found = {"grpc": Order(), "http": Order()}
    connections: dict[str, Connection] = {}
    waiting: dict[tuple[str, int], bool] = {}
    unfinished: dict[str, str] = {}
    for line in trace.read_text().splitlines():
        thread = line.split(" ", 1)[0]
        if line.endswith("<unfinished ...>"):
            unfinished[thread] = line.removesuffix("<unfinished ...>")
            if any(name in line for name in ("send", "write")):
                line = unfinished[thread] + ") = 0"  # bytes may be out from here on
            else:
                continue
        elif "resumed>" in line:
            begun = unfinished.pop(thread, "")
            if any(name in begun for name in ("send", "write")):
                continue
            line = begun + line.split("resumed>", 1)[1]
        call = line.split(" ", 1)[1].lstrip().split("(", 1)[0]
        if call in ("fsync", "fdatasync"):
            if WAL in line and line.rstrip().endswith("= 0"):
                waiting = dict.fromkeys(waiting, True)
            continue
        tcp = re.search(r"<TCP(?:v6)?:\[\S+?:(\d+)->\S+?:\d+\]>", line)
        if tcp is None or int(tcp[1]) not in (ports["grpc"], ports["http"]):
            continue
        kind = "grpc" if int(tcp[1]) == ports["grpc"] else "http"
        peer = tcp[0]
        data = bytes_of(line)
        if not data or re.search(r"= -1 E", line):
            continue
        sends = call in ("sendmsg", "sendto", "write", "writev")
        if kind == "http":
            if not sends and data.startswith(b"POST /v1/traces"):
                waiting[peer, 0] = False
            elif sends and data.startswith(b"HTTP/1.1 200"):
                found[kind].answers += 1
                found[kind].synced += waiting.pop((peer, 0))
            continue
        connection = connections.setdefault(peer, Connection())
        stream_bytes = connection.sent if sends else connection.received
        stream_bytes += data
        for frame, stream in frames(stream_bytes):
            if not sends and frame == DATA:
                waiting.setdefault((peer, stream), False)
            elif sends and frame == HEADERS and (peer, stream) in waiting:
                found[kind].answers += 1
                found[kind].synced += waiting.pop((peer, stream))
    return found


@pytest.mark.timeout(60)
def test_the_journal_is_synced_before_each_acknowledgement(strace: str, tmp_path: Path) -> None:
    expected = Order(answers=REQUESTS, synced=REQUESTS)
    assert orders(*record(strace, tmp_path)) == {"grpc": expected, "http": expected}


@pytest.mark.timeout(60)
def test_without_syncing_the_same_check_fails(strace: str, tmp_path: Path) -> None:
    """The negative control: `synchronous=OFF`."""
    expected = Order(answers=REQUESTS, synced=0)
    assert orders(*record(strace, tmp_path, fault="no_fsync")) == {"grpc": expected, "http": expected}
