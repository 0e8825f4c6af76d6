"""What capturing costs an application: time a call of the openai SDK, with and without us, beside others.

    python -m benchmarks.overhead [--rounds 5] [--calls 300]

Each cell is a process of its own; the ways take turns in every round, so that the machine's mood hits all.
The provider is a transport in the process, which costs next to nothing: the worst case for overhead.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress

WAYS = ("bare", "otel-triage", "otel-triage, sidecar down", "otel genai", "sentry")
KINDS = ("good answer", "good answer, 100 kB prompt", "429")


def _set_up(way: str) -> None:
    if way.startswith("otel-triage"):
        import otel_triage

        otel_triage.init()
    elif way == "otel genai":
        from opentelemetry import trace
        from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor
        from opentelemetry.sdk.trace import TracerProvider

        trace.set_tracer_provider(TracerProvider())
        OpenAIInstrumentor().instrument()
    elif way == "sentry":
        import sentry_sdk
        from sentry_sdk.transport import Transport

        class Nowhere(Transport):
            def capture_envelope(self, envelope: object) -> None:
                pass

        sentry_sdk.init(dsn="http://key@127.0.0.1/1", traces_sample_rate=1.0, transport=Nowhere)


def _measure(way: str, kind: str, calls: int) -> float:
    """Microseconds a call: the median of `calls`, in this process."""
    _set_up(way)
    import httpx2
    import openai

    good = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-2024-08-06",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
    }
    bad = {"error": {"message": "Rate limit reached", "type": "requests", "code": "rate_limit_exceeded"}}
    status, body = (429, bad) if kind == "429" else (200, good)
    transport = httpx2.MockTransport(lambda _request: httpx2.Response(status, json=body))
    prompt = "word " * (20_000 if "100 kB" in kind else 4)
    client = openai.OpenAI(api_key="k", max_retries=0, http_client=httpx2.Client(transport=transport))

    def call() -> None:
        with suppress(openai.RateLimitError):
            client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": prompt}])

    for _ in range(30):
        call()
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def _run(way: str, kind: str, calls: int, closed_port: int) -> float:
    env: Mapping[str, str] = dict(os.environ)
    if way.endswith("sidecar down"):
        env = {**env, "OTEL_TRIAGE_SIDECAR": f"http://127.0.0.1:{closed_port}"}
    out = subprocess.run(
        [sys.executable, "-m", "benchmarks.overhead", "--one", way, kind, str(calls)],
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return float(json.loads(out.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        way, kind, calls = args.one
        print(json.dumps(_measure(way, kind, int(calls))), flush=True)
        return
    found: dict[tuple[str, str], list[float]] = {}
    with socket.socket() as probe:  # bound and not listening: connections to it are refused
        probe.bind(("127.0.0.1", 0))
        for _ in range(args.rounds):
            for kind in KINDS:
                for way in WAYS:
                    cost = _run(way, kind, args.calls, probe.getsockname()[1])
                    found.setdefault((kind, way), []).append(cost)
    print(f"{'µs a call, median (min-max)':<28} {'way':<28} {'ratio to bare':>14}")
    for kind in KINDS:
        bare = statistics.median(found[kind, "bare"])
        for way in WAYS:
            costs = found[kind, way]
            figure = f"{statistics.median(costs):.0f} ({min(costs):.0f}-{max(costs):.0f})"
            print(f"{kind:<28} {way:<28} {figure:<20} {statistics.median(costs) / bare:.2f}")


if __name__ == "__main__":
    main()
