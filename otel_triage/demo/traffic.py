"""What goes wrong in the demo: each case is one call of the application and one scenario of the provider.

Run as a process (`python -m otel_triage.demo.traffic`) it is an application of its own, without a web
framework: the openai and anthropic SDKs and raw httpx, traced and tapped as a user would.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Case:
    """One call: the application's route, the provider's scenario (one an attempt), and its story in words."""

    route: str
    scenario: str
    says: str


CASES: Final = (
    Case("/chat", "openai.chat.ok", "a good answer"),
    Case("/chat", "openai.chat.rate_limit_tokens", "tokens per minute used up"),
    Case("/chat", "openai.chat.rate_limit_requests,openai.chat.ok", "a retry that works: nothing to report"),
    Case("/chat", "openai.chat.rate_limit_requests_day", "requests per day used up"),
    Case("/chat", "openai.chat.insufficient_quota", "no credit left"),
    Case("/chat", "openai.chat.request_too_large_tpm", "one request above the limit"),
    Case("/chat", "openai.chat.invalid_api_key", "a wrong key"),
    Case("/chat", "openai.chat.country", "a country that is not served"),
    Case("/chat", "openai.chat.model_not_found", "a retired model"),
    Case("/chat", "openai.chat.context_length", "too long a prompt"),
    Case("/chat", "openai.chat.unsupported_parameter", "a parameter of another model"),
    Case("/chat", "openai.chat.invalid_prompt", "a prompt against the policy"),
    Case("/chat", "openai.chat.server_error", "the provider fails"),
    Case("/chat", "openai.chat.overloaded", "the provider is full"),
    Case("/chat", "openai.chat.bad_gateway", "a gateway's HTML page"),
    Case("/chat", "openai.chat.slow", "no answer in time"),
    Case("/chat", "openai.chat.drop", "the connection drops"),
    Case("/chat", "openai.chat.length", "the answer is cut off"),
    Case("/chat", "openai.chat.content_filter", "the answer is filtered"),
    Case("/chat", "openai.chat.empty", "an empty answer"),
    Case("/chat/stream", "openai.chat.ok", "a good stream"),
    Case("/chat/stream", "openai.chat.cut_stream", "a stream breaks off"),
    Case("/chat/stream", "openai.chat.stall_stream", "a stream goes silent"),
    Case("/chat/stream", "openai.chat.stream_error", "an error inside a stream"),
    Case("/plan", "openai.responses.incomplete_max_output_tokens", "a plan is cut off"),
    Case("/plan", "openai.responses.failed", "a plan fails inside a 200"),
    Case("/summary", "anthropic.messages.ok", "a good summary"),
    Case("/summary", "anthropic.messages.overloaded", "the other provider is full"),
    Case("/summary", "anthropic.messages.credit_balance", "the other provider's credit is gone"),
    Case("/summary", "anthropic.messages.prompt_too_long", "too long a prompt for the other provider"),
    Case("/summary", "anthropic.messages.refusal", "the model declines"),
)

QUESTION: Final = "Which harbour towns lie between Aarhus and Kiel?"


def _routes(provider: str, timeout_s: float) -> dict[str, Callable[[], Any]]:
    """The example's routes without the example: the same clients, called directly."""
    import httpx
    import openai

    llm = openai.OpenAI(base_url=f"{provider}/v1", api_key="demo", timeout=timeout_s, max_retries=1)
    http = httpx.Client(timeout=timeout_s)
    messages = [{"role": "user", "content": QUESTION}]

    def chat(**options: Any) -> Any:
        return llm.chat.completions.create(model="gpt-4o-mini", messages=messages, **options)

    def summary() -> Any:
        return http.post(
            f"{provider}/v1/messages",
            headers={"x-api-key": "demo", "anthropic-version": "2023-06-01"},
            json={"model": "claude-sonnet-4-5", "max_tokens": 512, "messages": messages},
        ).raise_for_status()

    return {
        "/chat": chat,
        "/chat/stream": lambda: list(chat(stream=True)),
        "/plan": lambda: llm.responses.create(model="gpt-4o-mini", input=QUESTION),
        "/summary": summary,
    }


def main() -> None:
    """Reads one route a line from standard input, calls it, and answers with a line."""
    import os
    import sys

    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    import otel_triage

    tracing = TracerProvider()
    tracing.add_span_processor(
        otel_triage.TriageSpanProcessor(BatchSpanProcessor(OTLPSpanExporter(), schedule_delay_millis=500))
    )
    trace.set_tracer_provider(tracing)
    handle = otel_triage.init()
    routes = _routes(os.environ["DEMO_PROVIDER"], float(os.environ.get("LLM_TIMEOUT_S", "2")))
    for line in sys.stdin:
        with suppress(Exception):  # the demo's calls fail on purpose; what they raise is told by the tap
            routes[line.strip()]()
        print("done", flush=True)
    tracing.shutdown()
    handle.shutdown()


if __name__ == "__main__":
    main()
