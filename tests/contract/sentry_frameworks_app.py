"""litellm and langchain under Sentry: `sentry_frameworks_app.py DSN PROVIDER STEPS`, as in sentry_app."""

from __future__ import annotations

import json
import logging
import os
import sys
from contextlib import suppress
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else litellm asks the network for its prices
os.environ["LANGSMITH_TRACING"] = "false"

import litellm
import sentry_sdk
from langchain_openai import ChatOpenAI
from sentry_sdk.integrations.langchain import LangchainIntegration
from sentry_sdk.integrations.litellm import LiteLLMIntegration
from sentry_sdk.integrations.openai import OpenAIIntegration

import otel_triage

KEY = "-".join(("sk", "demo", "0123456789abcdef0123456789"))
QUOTA = {"x-demo-scenario": "openai.chat.insufficient_quota"}


def litellm_call(url: str) -> None:
    try:
        litellm.completion(
            model="openai/gpt-4o",
            messages=[{"role": "user", "content": "hello"}],
            api_base=f"{url}/v1",
            api_key=KEY,
            max_retries=0,
            extra_headers=QUOTA,
        )
    except litellm.RateLimitError as error:
        sentry_sdk.capture_exception(error)
        logging.getLogger("app").exception("no answer")


def langchain_call(url: str) -> None:
    model = ChatOpenAI(
        model="gpt-4o", base_url=f"{url}/v1", api_key=KEY, max_retries=0, default_headers=QUOTA
    )
    try:
        model.invoke("hello")
    except Exception as error:
        sentry_sdk.capture_exception(error)
        with suppress(RuntimeError):
            raise_anew(error)


def raise_anew(error: Exception) -> None:
    try:
        raise RuntimeError("no answer") from error
    except RuntimeError as last:
        sentry_sdk.capture_exception(last)
        raise


if __name__ == "__main__":
    for number, settings in enumerate(json.loads(sys.argv[3]), start=1):
        integrations: Any = [LiteLLMIntegration(), LangchainIntegration(), OpenAIIntegration()]
        sentry_sdk.init(
            dsn=f"{sys.argv[1]}/{number}",
            integrations=[*integrations, otel_triage.TriageIntegration(**settings["integration"])],
            traces_sample_rate=1.0,  # without a span LiteLLMIntegration captures nothing
            _experiments={"transport_compression_level": 0, "transport_compression_algo": "gzip"},
        )
        for name in settings["run"]:
            with sentry_sdk.isolation_scope() as scope:
                scope.set_tag("scenario", name)
                with sentry_sdk.start_transaction(name=name):
                    globals()[name](sys.argv[2])
        sentry_sdk.flush(10)
        print("STATS", json.dumps(otel_triage.init().stats()), flush=True)
