"""Clients that are built on the tapped ones, groq's SDK and litellm: one call is one failure."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else litellm asks the network for its prices

import groq
import litellm

MESSAGES = [{"role": "user", "content": "Which harbour towns are there?"}]


def test_groq(provider: Any, telemetry: Any) -> None:
    client = groq.Groq(api_key="gsk_demo", base_url=provider.url, max_retries=2)
    with client, pytest.raises(groq.NotFoundError):  # its own path below the base: an unknown URL here
        client.chat.completions.create(model="llama", messages=MESSAGES)
    event = telemetry.event()
    assert (event["triage.category"], event["triage.reason"]) == ("invalid_request", "model_not_found")
    assert (event["gen_ai.request.model"], event["triage.attempts"]) == ("llama", 1)
    assert telemetry.calls() == {"failed": 1}


def options(provider: Any, scenario: str) -> dict[str, Any]:
    return {
        "model": "openai/gpt-4o",
        "messages": MESSAGES,
        "api_base": f"{provider.url}/v1",
        "api_key": "sk-demo-0123456789",
        "max_retries": 0,
        "extra_headers": {"x-demo-scenario": scenario},
    }


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_litellm(provider: Any, telemetry: Any, mode: str) -> None:
    wanted = options(provider, "openai.chat.insufficient_quota")

    def ask() -> Any:
        return litellm.completion(**wanted) if mode == "sync" else asyncio.run(litellm.acompletion(**wanted))

    with pytest.raises(litellm.RateLimitError):
        ask()
    event = telemetry.event()
    assert (event["triage.category"], event["triage.reason"]) == ("rate_limit", "quota_exhausted")
    assert (event["triage.provider.error_code"], event["gen_ai.request.model"]) == (
        "insufficient_quota",
        "gpt-4o",
    )
    assert telemetry.calls() == {"failed": 1}


def test_litellm_stream_cut(provider: Any, telemetry: Any) -> None:
    with pytest.raises(Exception, match="peer closed"):
        for _ in litellm.completion(stream=True, **options(provider, "openai.chat.cut_stream")):
            pass
    event = telemetry.event()
    assert (event["triage.category"], event["triage.reason"]) == ("network_error", "stream_interrupted")
    assert telemetry.calls() == {"failed": 1}
