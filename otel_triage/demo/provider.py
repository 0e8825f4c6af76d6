"""A loopback LLM provider that answers, refuses, fails and breaks off as OpenAI and Anthropic do.

A small HTTP/1.1 server of its own, since no web framework can end a connection without an
answer, break off inside a chunk or reset it. h11 does the framing, so that whatever the
scenario does not break is proper HTTP. A request chooses its scenario by the header
`x-demo-scenario` (`provider_scenarios.choose`), which the SDKs' `default_headers` and
`extra_headers` can carry. For an application that knows nothing of a demo, `PUT /demo/scenario`
with a JSON string sets the scenario of requests without that header; else their answer is good.

Run as a process: `python -m otel_triage.demo.provider [--port 0]` prints
`listening http://127.0.0.1:PORT` and ends on SIGTERM or SIGINT.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import socket
import struct
import threading
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, Self

import h11

from otel_triage.demo.provider_scenarios import (
    ATTEMPT_HEADER,
    CONTROL_PATH,
    PATHS,
    SELECT_HEADER,
    Scenario,
    choose,
    clock_values,
    fill,
    frames,
    load,
)

_HOST: Final = "127.0.0.1"
_READ_BYTES: Final = 65536
_STOP_TIMEOUT_S: Final = 10.0
_GZIP: Final = 16 + zlib.MAX_WBITS


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One request as the provider saw it, and what it chose to answer.

    `headers` have lower-case names. `body` is the request's JSON, None where there was none.
    `request_id` is the id that the answer carries, in the provider's own form.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any
    scenario: str
    request_id: str


class DemoProvider:
    """The provider in a thread of this process.

        with DemoProvider() as provider:
            client = openai.OpenAI(base_url=provider.url + "/v1", api_key="any")

    Request ids count the exchanges from 1, so that a test knows them beforehand:
    `req_` and 32 hex digits (OpenAI), `req_011C` and 20 digits (Anthropic).
    """

    def __init__(self, *, port: int = 0) -> None:
        self.default = ""
        self._port = port
        self._requests: list[Exchange] = []
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="demo-provider", daemon=True)

    @property
    def url(self) -> str:
        """Base URL of Anthropic's API; OpenAI's is this and `/v1`."""
        return f"http://{_HOST}:{self._port}"

    @property
    def requests(self) -> list[Exchange]:
        """What was asked so far, in order of arrival."""
        with self._lock:
            return list(self._requests)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread.is_alive() and self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_STOP_TIMEOUT_S)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 -- told to the thread that waits for the start
            self._failure = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        load()
        connections: set[asyncio.Task[None]] = set()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            connections.add(task)
            task.add_done_callback(connections.discard)
            try:
                await _Connection(self, reader, writer).run()
            except (ConnectionError, h11.RemoteProtocolError):
                pass  # the client went away, or does not speak HTTP: nobody is left to answer
            except asyncio.CancelledError:
                pass  # we are stopping
            finally:
                writer.close()

        server = await asyncio.start_server(connected, _HOST, self._port)
        self._port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    def record(self, request: _Request, scenario: str) -> str:
        """Notes an exchange; returns the request id of its answer."""
        with self._lock:
            number = len(self._requests) + 1
            request_id = f"req_011C{number:020d}" if request.anthropic else f"req_{number:032x}"
            self._requests.append(
                Exchange(
                    method=request.method,
                    path=request.path,
                    headers=request.headers,
                    body=request.json,
                    scenario=scenario,
                    request_id=request_id,
                )
            )
        return request_id


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    method: str
    path: str
    headers: Mapping[str, str]
    json: Any

    @property
    def anthropic(self) -> bool:
        return self.path.startswith("/v1/messages") or "anthropic-version" in self.headers

    @property
    def api(self) -> str | None:
        return PATHS.get(self.path) if self.method == "POST" else None

    @property
    def options(self) -> Mapping[str, Any]:
        return self.json if isinstance(self.json, dict) else {}


def _scenario_for(request: _Request, default: str) -> Scenario:
    """What the request gets: the scenario that it names, else `default`; or a refusal of a bad request."""
    refusals = "anthropic.messages" if request.anthropic else "openai.chat"
    if request.api is None:
        return load()[f"{refusals}.unknown_url"]
    if not isinstance(request.json, dict):
        return load()[f"{refusals}.bad_json"]
    count = request.headers.get(ATTEMPT_HEADER, "")
    attempt = int(count) if count.isdecimal() else 0
    try:
        return choose(
            request.headers.get(SELECT_HEADER, default),
            attempt,
            request.api,
            request.options.get("stream") is True,
        )
    except ValueError as error:
        return _misuse(request, str(error))


def _misuse(request: _Request, message: str) -> Scenario:
    """A wrong `x-demo-scenario`: 400 in the provider's format. No provider says this, hence no source."""
    body: dict[str, Any] = {"error": {"type": "invalid_request_error", "message": message}}
    if request.anthropic:
        body["type"] = "error"
    else:
        body["error"] |= {"param": None, "code": "demo_unknown_scenario"}
    headers = {"content-type": "application/json", "x-should-retry": "false"}
    return Scenario(id="demo.misuse", source=(), status=400, headers=headers, body=json.dumps(body))


class _Connection:
    """One connection of a client: requests one after the other, until one side ends it."""

    def __init__(
        self, provider: DemoProvider, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._provider = provider
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.SERVER)

    async def run(self) -> None:
        while (request := await self._next_request()) is not None:
            if (request.method, request.path) == ("PUT", CONTROL_PATH) and isinstance(request.json, str):
                self._provider.default = request.json
                scenario = Scenario(id="demo.control", source=(), body="{}")
            else:
                scenario = _scenario_for(request, self._provider.default)
            request_id = self._provider.record(request, scenario.id)
            if not await self._answer(scenario, request, request_id):
                return
            if self._http.our_state is not h11.DONE:
                return
            self._http.start_next_cycle()

    async def _next_request(self) -> _Request | None:
        head: h11.Request | None = None
        body = bytearray()
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(await self._reader.read(_READ_BYTES))
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                return _Request(
                    method=head.method.decode("ascii"),
                    path=head.target.decode("ascii").partition("?")[0],
                    headers={name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers},
                    json=_read_json(bytes(body)),
                )
            else:
                return None

    async def _answer(self, scenario: Scenario, request: _Request, request_id: str) -> bool:
        """Sends the answer as the scenario says; False where the connection is to end here."""
        if scenario.delay_s and await self._client_left(scenario.delay_s):
            return False
        if scenario.drop is not None:
            if scenario.drop == "reset":
                self._reset()
            return False
        values = {
            "MODEL": str(request.options.get("model", "")),
            "REQUEST_ID": request_id,
            "METHOD": request.method,
            "PATH": request.path,
            **clock_values(scenario.reset_s),
        }
        headers = {name: fill(value, values, in_json=False) for name, value in scenario.headers.items()}
        squeeze = None
        if scenario.gzip and "gzip" in request.headers.get("accept-encoding", ""):
            headers["content-encoding"] = "gzip"
            squeeze = zlib.compressobj(wbits=_GZIP)
        if scenario.events is not None and (scenario.body is None or request.options.get("stream") is True):
            headers |= {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
            events = [
                fill(frame, values, in_json=True).encode() for frame in frames(scenario, request.options)
            ]
            return await self._send_stream(scenario, headers, events, squeeze)
        is_json = headers.get("content-type", "").startswith("application/json")
        body = fill(scenario.body or "", values, in_json=is_json).encode()
        if squeeze is not None:
            body = squeeze.compress(body) + squeeze.flush()
        return await self._send_body(scenario, headers, body)

    async def _send_stream(
        self, scenario: Scenario, headers: dict[str, str], events: list[bytes], squeeze: zlib._Compress | None
    ) -> bool:
        ends = [count for count in (scenario.cut_after, scenario.stall_after) if count is not None]
        self._head(scenario.status, headers | {"transfer-encoding": "chunked"})
        for event in events[: min(ends, default=None)]:
            data = event if squeeze is None else squeeze.compress(event) + squeeze.flush(zlib.Z_SYNC_FLUSH)
            await self._send(h11.Data(data=data))
        if scenario.stall_after is not None:
            await self._reader.read()  # silent until the client has had enough
        if ends:
            return False
        if squeeze is not None:
            await self._send(h11.Data(data=squeeze.flush()))
        await self._send(h11.EndOfMessage())
        return True

    async def _send_body(self, scenario: Scenario, headers: dict[str, str], body: bytes) -> bool:
        self._head(scenario.status, headers | {"content-length": str(len(body))})
        await self._send(h11.Data(data=body[: scenario.cut_after]))
        if scenario.cut_after is not None:
            return False
        await self._send(h11.EndOfMessage())
        return True

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        response = h11.Response(status_code=status, headers=list(headers.items()), reason=_reason(status))
        self._writer.write(self._http.send(response) or b"")

    async def _send(self, event: h11.Event) -> None:
        self._writer.write(self._http.send(event) or b"")
        await self._writer.drain()

    async def _client_left(self, seconds: float) -> bool:
        """Waits; True as soon as the client closes the connection or sends something we did not ask for."""
        try:
            await asyncio.wait_for(self._reader.read(1), seconds)
        except TimeoutError:
            return False
        return True

    def _reset(self) -> None:
        """Ends the connection with a TCP reset in place of an orderly close."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


def _reason(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode("ascii")
    except ValueError:
        return b""  # 529 is Anthropic's own and stands in no registry


def _read_json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def main() -> None:
    """Runs the provider until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m otel_triage.demo.provider", description=main.__doc__)
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1 (0: a free one)")
    port = parser.parse_args().port
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # before the thread starts, which inherits it
    with DemoProvider(port=port) as provider:
        print(f"listening {provider.url}", flush=True)
        signal.sigwait(ends)


if __name__ == "__main__":
    main()
