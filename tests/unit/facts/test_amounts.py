"""Numbers and parameters in error texts: messages as the named sources print them, numbers by hand."""

# ruff: noqa: E501 - messages as they are
from __future__ import annotations

import pytest

from otel_triage.facts.amounts import (
    RateAmounts,
    ValueAmounts,
    parameter_in,
    rate_amounts,
    size_limits,
    token_limits,
    value_amounts,
)

WINDOWS = {
    # https://platform.openai.com/docs/guides/error-codes
    "This model's maximum context length is 8192 tokens. However, your messages resulted in 10345 tokens.": (
        8192,
        10345,
    ),
    "This model's maximum context length is 8192 tokens, however you requested 12016 tokens (11004 in your prompt; "
    "1012 for the completion).": (8192, 12016),  # Azure
    "Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in 300123 tokens.": (
        272000,
        300123,
    ),
    "Requested 319487 tokens, max 300000 tokens per request": (300000, 319487),  # ridges-old#75
    "prompt is too long: 208310 tokens > 200000 maximum": (200000, 208310),  # Anthropic
    # continuedev/continue#6080
    "input length and `max_tokens` exceed context limit: 199759 + 8192 > 200000, decrease input length": (
        200000,
        207951,
    ),
    # google-gemini/gemini-cli#6678
    "The input token count (1200293) exceeds the maximum number of tokens allowed (1048576).": (
        1048576,
        1200293,
    ),
    "The input token count exceeds the maximum number of tokens allowed (1048576).": (1048576, None),
    "Unable to submit request because the input token count is 40000 but model only supports up to 32767.": (
        32767,
        40000,
    ),
    "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length": (
        32768,
        40000,
    ),  # Mistral
    "Too many input tokens. Max input tokens: 8192, request input token count: 9021": (8192, 9021),  # Titan
    "This model's maximum prompt length is 131072 but the request contains 140000 tokens.": (131072, 140000),
    # vLLM: OpenCowork#82, and of older versions
    "This model's maximum context length is 262144 tokens. However, you requested 128000 output tokens and your prompt "
    "contains at least 134145 input tokens, for a total of at least 262145 tokens.": (262144, 262145),
    "This model's maximum context length is 4096 tokens. However, you requested 512 output tokens and your prompt "
    "contains 4000 input tokens.": (4096, 4512),
    "'max_tokens' is too large: 4000. This model's maximum context length is 4096 tokens and your request has 1000 "
    "input tokens (4000 > 4096 - 1000).": (4096, 5000),
    "This model's maximum context length is 4096 tokens. However, your request has 5000 input tokens.": (
        4096,
        5000,
    ),
    "The decoder prompt (length 9000) is longer than the maximum model length of 8192.": (8192, 9000),
    "The prompt (total length 9000) is too long to fit into the model (context length 8192).": (8192, 9000),
    # SGLang
    "The input (61709 tokens) is longer than the model's context length (40960 tokens).": (40960, 61709),
    "Requested token count exceeds the model's maximum context length of 32768 tokens. You requested a total of 40960 "
    "tokens: 8192 tokens from the input messages": (32768, 40960),
    # llama.cpp, tools/server
    "request (9000 tokens) exceeds the available context size (8192 tokens), try increasing it": (8192, 9000),
    "the request exceeds the available context size. try increasing the context size": (None, None),
    "Requested tokens (2048) exceed context window of 512": (512, 2048),  # llama-cpp-python
    "Trying to keep the first 9000 tokens when context the overflows. However, the model is loaded with context length "
    "of only 4096 tokens, which is not enough.": (4096, 9000),  # LM Studio
    "Invalid request: Your request exceeded model token limit: 131072 (requested: 140000)": (131072, 140000),
    "Invalid request: Your request exceeded model token limit: 8192": (8192, None),
    "prompt token count of 140000 exceeds the limit of 128000": (128000, 140000),  # GitHub Copilot
    "Request body too large for gpt-4o model. Max size: 8000 tokens.": (8000, None),  # GitHub Models
    "too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 5000.": (4081, 5000),
    # Text Generation Inference, router/src/validation.rs
    "Input validation error: `inputs` must have less than 1024 tokens. Given: 2048": (1024, 2048),
    "`inputs` tokens + `max_new_tokens` must be <= 8193. Given: 9000 `inputs` tokens and 512 `max_new_tokens`": (
        8193,
        9512,
    ),
    "The max allowed tokens per submitted batch is 120000. Your batch has 130000 tokens after truncation.": (
        120000,
        130000,
    ),  # Voyage
    "Range of input length should be [1, 30720]": (30720, None),  # DashScope
    # None of these is about a window.
    "Rate limit reached: Limit 30000, Used 14567, Requested 24754": (None, None),
    "max_tokens: 8192 > 4096, which is the maximum allowed number of output tokens": (None, None),
}
RATES = {
    "on tokens per min (TPM): Limit 30000, Used 14567, Requested 24754. Please": RateAmounts(
        limit=30000, used=14567, requested=24754
    ),
    "on tokens per minute (TPM): Limit 6000, Requested 12328, please reduce": RateAmounts(
        limit=6000, requested=12328
    ),  # Groq
    "on tokens per minute (TPM): Limit 7000, Used 0, Requested ~12903. Please": RateAmounts(
        limit=7000, used=0, requested=12903
    ),  # Groq, before it counted exactly
    "on requests per day (RPD): Limit 200, Used 200, Requested 1.": RateAmounts(
        limit=200, used=200, requested=1
    ),
    "on requests per min. Limit: 60.000000 / min. Current: 70.000000 / min.": RateAmounts(limit=60, used=70),
    "on requests per min. Limit: 3 / min. Please try again in 20s.": RateAmounts(limit=3),
    # cline/cline#4826
    "Your team's rate limit is — Tokens per Minute (actual/limit): 65605/16000.": RateAmounts(
        limit=16000, used=65605
    ),
    "request reached organization max RPM: 3, please try again after 1 seconds": RateAmounts(
        limit=3
    ),  # Moonshot
    "request reached max organization concurrency: 1, please": RateAmounts(limit=1),
    # BerriAI/litellm#8293
    "exceed your organization's rate limit of 80,000 input tokens per minute.": RateAmounts(limit=80000),
    "trial token rate limit exceeded, limit is 100000 tokens per minute": RateAmounts(limit=100000),  # Cohere
    "Quota exceeded for metric: x/free_tier_requests, limit: 15": RateAmounts(limit=15),  # Gemini
    "Your current concurrency is 5, which exceeds your concurrency limit of 4": RateAmounts(limit=4, used=5),
    "You requested up to 225702 tokens, but can only afford 92985.": RateAmounts(
        limit=92985, requested=225702
    ),
    "Too many requests": RateAmounts(),
    "Rate limit exceeded: limit_rpd/some-model/0001": RateAmounts(),
}
VALUES = {
    "Invalid 'temperature': decimal above maximum value. Expected a value <= 2, but got 3.5 instead.": ValueAmounts(
        parameter="temperature", given="3.5", allowed="≤ 2"
    ),
    "Invalid 'tools': array too long. Expected an array with maximum length 128, but got an array with length 309 "
    "instead.": ValueAmounts(parameter="tools", given="309", allowed="≤ 128"),
    "Invalid 'n': integer below minimum value. Expected a value >= 1, but got 0 instead.": ValueAmounts(
        parameter="n", given="0", allowed="≥ 1"
    ),
    "max_tokens is too large: 1048576. This model supports at most 131072 completion tokens, whereas you provided "
    "1048576.": ValueAmounts(parameter="max_tokens", given="1,048,576", allowed="≤ 131,072"),
    "max_tokens: 8192 > 4096, which is the maximum allowed number of output tokens for claude-3-haiku": ValueAmounts(
        parameter="max_tokens", given="8,192", allowed="≤ 4,096"
    ),
    # nickscamara/open-deep-research#19 (DeepSeek)
    "Invalid max_tokens value, the valid range of max_tokens is [1, 8192]": ValueAmounts(
        parameter="max_tokens",
        allowed="1–8,192",  # noqa: RUF001 - a range
    ),
    # stackblitz-labs/bolt.diy#955 (Vertex AI)
    "Unable to submit request because it has a maxOutputTokens value of 655360 but the supported range is from 1 "
    "(inclusive) to 8193 (exclusive).": ValueAmounts(
        parameter="maxOutputTokens", given="655,360", allowed="≥ 1, < 8,193"
    ),
    "The maximum tokens you requested exceed the model limit of 4096. Try again": ValueAmounts(
        allowed="≤ 4,096"
    ),
    "temperature: Input should be less than or equal to 1": ValueAmounts(
        parameter="temperature", allowed="≤ 1"
    ),
}
PARAMETERS = {
    "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.": (
        "max_tokens"
    ),
    "Argument not supported on this model: presencePenalty": "presencePenalty",  # xAI
    "Model xxx does not support parameter presencePenalty.": "presencePenalty",
    "The parameter `max_completion_tokens` specified in the request are not valid": "max_completion_tokens",
    "extraneous key [top_k] is not permitted": "top_k",  # Bedrock
    "messages.125: `tool_use` ids were found without `tool_result` blocks": "messages.125",  # Anthropic
    "tools.41.custom.input_schema: JSON schema is invalid.": "tools.41.custom.input_schema",
    "property 'name' is unsupported": "name",  # Groq
    "Function calling mode `ANY` is not enabled": None,
    "Something went wrong": None,
    "Invalid parameter: '<script>'": None,
}


@pytest.mark.parametrize("message", WINDOWS)
def test_window(message: str) -> None:
    assert token_limits(message) == WINDOWS[message]


@pytest.mark.parametrize("message", RATES)
def test_rate(message: str) -> None:
    assert rate_amounts(message) == RATES[message]


@pytest.mark.parametrize("message", VALUES)
def test_value(message: str) -> None:
    assert value_amounts(message) == VALUES[message]


@pytest.mark.parametrize("message", PARAMETERS)
def test_parameter(message: str) -> None:
    assert parameter_in(message) == PARAMETERS[message]


@pytest.mark.parametrize(
    ("message", "sizes"),
    [
        ("Maximum content size limit (26214400) exceeded (222592852 bytes read)", (26214400, 222592852)),
        ("Request payload size exceeds the limit: 4194304 bytes.", (4194304, None)),
        ("image exceeds 5 MB maximum: 6291456 bytes > 5242880 bytes", (5242880, 6291456)),
        ("total message size 3000000 exceeds limit 2097152", (2097152, 3000000)),
        ("Request Entity Too Large", (None, None)),
    ],
)
def test_size(message: str, sizes: tuple[int | None, int | None]) -> None:
    assert size_limits(message) == sizes


@pytest.mark.timeout(5)
@pytest.mark.parametrize(
    "text",
    [
        "maximum context length is 1" + ",000" * 4000,
        "limit " * 4000,
        "limit: " + "9" * 15_000,
        "parameter '" + "a." * 8000,
        "messages" + ".a" * 8000,
        "maximum context length is 1 tokens " * 500,
    ],
)
def test_hostile_text_is_read_in_time(text: str) -> None:
    token_limits(text)
    rate_amounts(text)
    size_limits(text)
    value_amounts(text)
