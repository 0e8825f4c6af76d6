"""Who is called, by host and path."""

from __future__ import annotations

import tomllib
from importlib.resources import files

import pytest

from otel_triage.facts.providers import Endpoint, canonical, endpoint_of, provider_of_host, provider_of_name


@pytest.mark.parametrize(
    ("host", "path", "provider"),
    [
        ("api.openai.com", None, "openai"),
        ("API.OpenAI.com.", None, "openai"),
        ("my-resource.openai.azure.com", None, "azure.ai.openai"),
        ("x.cognitiveservices.azure.com", "/openai/deployments/d/chat/completions", "azure.ai.openai"),
        ("x.cognitiveservices.azure.com", "/vision/v3.2/analyze", None),
        ("x.cognitiveservices.azure.com", None, None),
        ("bedrock-runtime.eu-west-1.amazonaws.com", None, "aws.bedrock"),
        ("s3.eu-west-1.amazonaws.com", None, None),
        (
            "us-central1-aiplatform.googleapis.com",
            "/v1/projects/p/locations/l/publishers/google/models/m:generateContent",
            "gcp.vertex_ai",
        ),
        ("sheets.googleapis.com", "/v4/spreadsheets", None),
        ("api.openai.com.evil.example", None, None),
        ("notapi.openai.com.example", None, None),
        ("openrouter.ai", "/docs", None),
        ("openrouter.ai", "/api/v1/chat/completions", "openrouter"),
    ],
)
def test_host(host: str, path: str | None, provider: str | None) -> None:
    assert provider_of_host(host, path) == provider


@pytest.mark.parametrize(
    ("host", "path", "endpoint"),
    [
        (
            "api.groq.com",
            "/openai/v1/chat/completions",
            Endpoint("groq", "chat", "openai.chat", known=True),
        ),
        ("10.0.0.7", "/v1/chat/completions", Endpoint("openai", "chat", "openai.chat", known=False)),
        (
            "gateway.local",
            "/v1/completions?x=1",
            Endpoint("openai", "text_completion", "openai.chat", known=False),
        ),
        (
            "gateway.local",
            "/anthropic/v1/messages",
            Endpoint("anthropic", "chat", "anthropic.messages", known=False),
        ),
        ("api.openai.com", "/v1/files", Endpoint("openai", None, None, known=True)),
        ("gateway.local", "/v1/messages/batches", None),
        ("shop.example", "/orders", None),
    ],
)
def test_endpoint(host: str, path: str, endpoint: Endpoint | None) -> None:
    assert endpoint_of(host, path) == endpoint


def test_every_row_names_its_source() -> None:
    data = tomllib.loads(files("otel_triage.facts").joinpath("providers.toml").read_text("utf-8"))
    rows = data["provider"] + data["endpoint"]
    assert len(rows) > 30
    assert [row for row in rows if not row.get("source", "").startswith("https://")] == []


def test_a_name_means_one_provider() -> None:
    data = tomllib.loads(files("otel_triage.facts").joinpath("providers.toml").read_text("utf-8"))
    names = [*data["names"], *(alias for aliases in data["names"].values() for alias in aliases)]
    assert sorted(names) == sorted(set(names))
    assert [name for name in names if canonical(name) not in data["names"]] == []


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("Azure OpenAI", "azure.ai.openai"),
        ("google-gla", "gcp.gemini"),
        ("Z.AI", "zhipu"),
        ("Some New-One", None),
    ],
)
def test_provider_of_name(name: str, known: str | None) -> None:
    assert provider_of_name(name) == known
