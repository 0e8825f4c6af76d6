"""Collector -> sidecar -> Collector, by pipeline.yaml twice: SIGKILL to each in turn, with a backlog in it.

What stands behind the victim is not there, so what was acknowledged waits in the victim. Requests go on
while it is dead, and after its restart. An acknowledgement by the first Collector is an obligation.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from threading import Event, Thread

import grpc
import pytest
from collector_tools import counted, free_address, needs_otelcol, wait_until
from conftest import World
from span_dumps import make_span, traces

from otel_triage.demo.show import Process
from otel_triage.demo.sink import Answer, Sink
from otel_triage.sidecar.signals import WIRE, Signal

pytestmark = needs_otelcol
CALL = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o"}
QUOTA = "Error code: 429 - You exceeded your current quota, please check your plan and billing details."
BACKLOG, AFTER = 100, 50
PAUSE_S = 0.005  # a Collector's queue holds 1,000 requests: it is not to be full
DRAIN_S = 90  # its back-off grows to 10 s, and a killed one starts anew
DOWN = Answer(status=grpc.StatusCode.UNAVAILABLE, times=None)


class Client(Thread):
    """Sends failed model calls, one a request, each with a name and ids of its own."""

    def __init__(self, address: str) -> None:
        super().__init__(name="client")
        self.acknowledged: list[str] = []
        self._address = address
        self._wanted: dict[int, Event] = {}
        self._done = Event()

    def wait_for(self, more: int) -> None:
        """Waits for so many acknowledgements from now on."""
        reached = self._wanted.setdefault(len(self.acknowledged) + more, Event())
        assert reached.wait(60), f"{len(self.acknowledged)} acknowledged"

    def run(self) -> None:
        with grpc.insecure_channel(
            self._address, options=[("grpc.max_reconnect_backoff_ms", 200)]
        ) as channel:
            export = channel.unary_unary(WIRE[Signal.TRACES].method)
            for number in itertools.count(1):
                if self._done.wait(PAUSE_S):
                    return
                span = make_span(CALL, name=f"call {number}", trace=number, span=number, description=QUOTA)
                try:
                    export(traces(span).SerializeToString(), timeout=5)
                except grpc.RpcError:
                    continue
                self.acknowledged.append(span.name)
                for count, reached in list(self._wanted.items()):
                    if len(self.acknowledged) >= count:
                        reached.set()

    def end(self) -> list[str]:
        self._done.set()
        self.join(30)
        return self.acknowledged


@pytest.mark.timeout(240)
@pytest.mark.parametrize("victim", ["first", "sidecar", "second"])
def test_a_kill_loses_nothing_acknowledged(world: World, victim: str) -> None:
    first, sidecar, second = free_address(), free_address(), free_address()
    with Sink() as sink:
        backend = sink.grpc_endpoint.removeprefix("http://")
        starts: dict[str, Callable[[], Process]] = {
            "first": lambda: (
                world.collector(
                    "pipeline.yaml", "first", COLLECTOR_GRPC=first, SIDECAR=sidecar, BACKEND=backend
                ).process
            ),
            "sidecar": lambda: world.sidecar(grpc_listen=sidecar, otlp_endpoint=f"http://{second}")[0],
            "second": lambda: (
                world.collector("pipeline.yaml", "second", COLLECTOR_TRIAGED=second, BACKEND=backend).process
            ),
        }
        names = list(starts)
        before, behind = names[: names.index(victim) + 1], names[names.index(victim) + 1 :]
        sink.answer_with(DOWN)
        processes = {name: starts[name]() for name in reversed(before)}  # none waits for the one behind it
        client = Client(first)
        client.start()
        client.wait_for(BACKLOG)
        if victim == "sidecar":
            wait_until(lambda: counted(processes["sidecar"], "requests_acknowledged_total") >= BACKLOG, 30)
        elif victim == "second":
            wait_until(lambda: counted(processes["sidecar"], "delivered_requests_total") >= BACKLOG, 30)
        assert sink.spans() == []

        processes[victim].popen.kill()
        assert processes[victim].popen.wait(10) == -9
        processes[victim] = starts[victim]()
        client.wait_for(AFTER)
        acknowledged = client.end()
        for name in behind:
            starts[name]()
        sink.answer_with()

        sink.wait_for(lambda: set(acknowledged) <= {span["name"] for span in sink.spans()}, DRAIN_S)
        assert {span["attributes"].get("triage.reason") for span in sink.spans()} == {"quota_exhausted"}
        twice = [name for name, count in Counter(span["name"] for span in sink.spans()).items() if count > 1]
        print(f"{victim}: {len(acknowledged)} acknowledged, {len(twice)} came twice")
