"""The numbers that an error's text states, and the parameter that it names.

Windows and sizes of requests, rate limits and what is used of them, the values that a parameter may
take: each provider says them in words of its own. A text is read in lower case with single spaces.
"""

# ruff: noqa: E501 - a pattern stands on one line
from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from otel_triage.facts.lazy import compiled

_READ: Final = 4000
_N: Final = r"\d{1,12}+(?:,\d{3})*+"
_LIMIT: Final = rf"(?P<limit>{_N})"
_ASKED: Final = rf"(?P<asked>{_N})"
_MORE: Final = rf"(?P<more>{_N})"


@dataclass(frozen=True, slots=True, kw_only=True)
class RateAmounts:
    """A rate limit as a text states it, in requests or tokens by the kind of the limit; None where not."""

    limit: int | None = None
    used: int | None = None
    requested: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueAmounts:
    """A parameter as a text names it, the value that was given, and what is allowed (`≤ 8,192`)."""

    parameter: str | None = None
    given: str | None = None
    allowed: str | None = None


_Table = tuple[tuple[str, str], ...]

# A word that is cheap to look for, and the pattern that is tried where it occurs. `asked` and `more` add up.
_WINDOWS: Final[_Table] = (
    # vLLM (vllm/renderers/params.py): "… for a total of at least 4097 tokens"; SGLang: "requested a total of"
    (
        "maximum context length",
        rf"maximum context length (?:is|of) {_LIMIT}.{{0,200}}?total of (?:at least )?{_ASKED}",
    ),
    ("maximum context length", rf"maximum context length (?:is|of) {_LIMIT} tokens.{{0,60}}? requested {_ASKED}"
     rf" output tokens and your (?:prompt|request) contains (?:at least )?{_MORE} input tokens"),
    # vLLM 0.9: "… is 4096 tokens and your request has 1000 input tokens (4000 > 4096 - 1000)"
    ("maximum context length", rf"maximum context length (?:is|of) {_LIMIT} tokens and your request has {_MORE}"
     rf" input tokens \({_ASKED} > "),
    # OpenAI: "maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens", "…, you
    # requested 9000 tokens (…)": https://platform.openai.com/docs/guides/error-codes
    (
        "maximum context length",
        rf"maximum context length (?:is|of) {_LIMIT}.{{0,160}}?{_ASKED} (?:input )?tokens",
    ),
    ("maximum context length", rf"maximum context length (?:is|of) {_LIMIT}"),
    # Mistral: "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum …"
    (
        "maximum context length",
        rf"prompt contains {_ASKED} tokens.{{0,60}}?too large for model with {_LIMIT} maximum context",
    ),
    # Anthropic: "prompt is too long: 210000 tokens > 200000 maximum"
    ("tokens > ", rf"{_ASKED} tokens > {_LIMIT} maximum"),
    # Anthropic: "input length and `max_tokens` exceed context limit: 199759 + 8192 > 200000"
    ("context limit: ", rf"context limit: {_ASKED} \+ {_MORE} > {_LIMIT}"),
    # Gemini and Vertex AI: with the count or without it
    ("input token count", rf"input token count \(?{_ASKED}\)? exceeds the maximum number of tokens allowed \(?{_LIMIT}"),
    ("input token count", rf"input token count exceeds the maximum number of tokens allowed \(?{_LIMIT}"),
    ("input token count", rf"input token count is {_ASKED} but.{{0,30}}? supports up to {_LIMIT}"),
    ("input token count", rf"max input tokens: {_LIMIT}, request input token count: {_ASKED}"),  # Bedrock, Titan
    # xAI: "This model's maximum prompt length is 131072 but the request contains 140000 tokens."
    ("maximum prompt length", rf"maximum prompt length is {_LIMIT} but the request contains {_ASKED} tokens"),
    # SGLang: "The input (61709 tokens) is longer than the model's context length (40960 tokens)."
    ("context length (", rf"input \({_ASKED} tokens\) is longer than the model\\?'s context length \({_LIMIT}"),
    # llama.cpp: "request (9000 tokens) exceeds the available context size (8192 tokens)"
    (
        "available context size",
        rf"request \({_ASKED} tokens\) exceeds the available context size \({_LIMIT} tokens",
    ),
    ("available context size", rf"available context size \({_LIMIT} tokens"),
    ("exceed context window of", rf"tokens \({_ASKED}\) exceed context window of {_LIMIT}"),  # llama-cpp-python
    # LM Studio
    ("context length of only", rf"keep the first {_ASKED} tokens .{{0,120}}?context length of only {_LIMIT}"),
    ("n_keep", rf"n_keep: {_ASKED}\s?>=? n_ctx: {_LIMIT}"),
    # vLLM's engine: "The decoder prompt (length 9000) is longer than the maximum model length of 8192"
    ("maximum model length", rf"prompt \(length {_ASKED}\) is longer than the maximum model length of {_LIMIT}"),
    ("(context length ", rf"\(total length {_ASKED}\) is too long to fit into the model \(context length {_LIMIT}"),
    # Moonshot: "Your request exceeded model token limit: 131072 (requested: 140000)"
    ("model token limit", rf"model token limit ?: {_LIMIT} \(requested: {_ASKED}"),
    ("model token limit", rf"model token limit ?: {_LIMIT}"),
    # GitHub Copilot: "prompt token count of 140000 exceeds the limit of 128000"
    ("prompt token count", rf"prompt token count of {_ASKED} exceeds the limit of {_LIMIT}"),
    # GitHub Models: "Request body too large for gpt-4o model. Max size: 8000 tokens."
    ("max size: ", rf"max size: {_LIMIT} tokens"),
    # OpenAI: "Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in 300000 tokens"
    ("configured limit", rf"exceed the configured limit of {_LIMIT} tokens.{{0,40}}? resulted in {_ASKED} tokens"),
    # OpenAI embeddings: "Requested 319487 tokens, max 300000 tokens per request"
    ("tokens per request", rf"requested {_ASKED} tokens, max {_LIMIT} tokens per request"),
    # Cohere: "total number of tokens in the prompt cannot exceed 4081 - received 5000"
    ("cannot exceed", rf"tokens in the prompt cannot exceed {_LIMIT} - received {_ASKED}"),
    # watsonx: "the number of input tokens 5000 cannot exceed the total tokens limit 4096 for this model"
    ("cannot exceed", rf"number of input tokens {_ASKED} cannot exceed the total tokens limit {_LIMIT}"),
    # Text Generation Inference (router/src/validation.rs)
    ("must have less than", rf"must have less than {_LIMIT} tokens\. given: {_ASKED}"),
    ("max_new_tokens", rf"must be <= {_LIMIT}\. given: {_ASKED} `?inputs`? tokens and {_MORE} `?max_new_tokens"),
    ("max_new_tokens", rf"max_new_tokens`? must be <= {_LIMIT}"),
    # Voyage: "The max allowed tokens per submitted batch is 120000. Your batch has 130000 tokens"
    (
        "tokens per submitted batch",
        rf"tokens per submitted batch is {_LIMIT}\. your batch has {_ASKED} tokens",
    ),
    # DashScope: "Range of input length should be [1, 30720]"
    ("range of input length", rf"range of input length should be \[\d{{1,6}}, ?{_LIMIT}\]"),
)  # fmt: skip

_USED: Final = rf"(?P<used>{_N})"
_WANTED: Final = rf"(?P<requested>{_N})"
_RATES: Final[_Table] = (
    # OpenAI and Groq: "tokens per min (TPM): Limit 30000, Used 14567, Requested 24754"
    ("limit", rf"\blimit:? {_LIMIT}(?:\.0+)?,? ?(?:/ ?\w{{1,6}}\.? )?(?:(?:used|current):? {_USED}(?:\.0+)?)?"
     rf"(?:,? ?requested:? ~?{_WANTED})?(?=\D|$)"),
    # xAI: "Tokens per Minute (actual/limit): 65605/16000"
    ("(actual/limit)", rf"\(actual/limit\): {_USED}/{_LIMIT}"),
    # Moonshot: "request reached organization max RPM: 3", "max organization concurrency: 1"
    ("reached", rf"reached (?:\w{{1,20}} )?max (?:\w{{1,20}} )?(?:rpm|tpm|rpd|tpd|concurrency): {_LIMIT}(?:, current: {_USED})?"),
    # Anthropic: "rate limit of 80,000 input tokens per minute"; Cohere: "limit is 40 calls per minute"
    ("limit", rf"\blimit(?: of| is|ed to) {_LIMIT} (?:[a-z]{{1,12}} ){{1,2}}(?:per|/)"),
    ("concurrency", rf"current concurrency is {_USED}, .{{0,40}}?concurrency limit of {_LIMIT}"),
    # OpenRouter: "You requested up to 225702 tokens, but can only afford 92985."
    ("can only afford", rf"requested up to {_WANTED} tokens, but can only afford {_LIMIT}"),
)  # fmt: skip

# Sizes in bytes, by their sources: payload limits of OpenAI, Gemini, Anthropic and Moonshot.
_SIZES: Final[_Table] = (
    ("content size limit", rf"content size limit \({_LIMIT}\) exceeded \({_ASKED} bytes"),
    ("bytes > ", rf"{_ASKED} bytes > {_LIMIT} bytes"),
    ("payload size exceeds", rf"payload size exceeds the limit: {_LIMIT} bytes"),
    ("total message size", rf"total message size {_ASKED} exceeds limit {_LIMIT}"),
    ("maximum allowed size", rf"size {_ASKED} bytes exceeds maximum allowed size of {_LIMIT} bytes"),
)

_V: Final = r"-?\d{1,12}+(?:,\d{3})*+(?:\.\d{1,6})?"
_VALUES: Final[_Table] = (
    # OpenAI: "Expected a value <= 2, but got 3 instead"
    ("expected a", rf"expected a value (?P<sign><=|>=|<|>) (?P<bound>{_V}),? but got (?P<given>{_V})"),
    # OpenAI: "Expected an array with maximum length 128, but got an array with length 309"
    ("maximum length", rf"with maximum length (?P<most>{_V}), but got an? \w{{1,10}} with length (?P<given>{_V})"),
    # OpenAI: "max_tokens is too large: 1048576. This model supports at most 131072 completion tokens"
    ("supports at most", rf"too large: (?P<given>{_V})\. this model supports at most (?P<most>{_V})"),
    ("supports at most", rf"supports at most (?P<most>{_V})"),
    # Anthropic: "max_tokens: 8192 > 4096, which is the maximum allowed number of output tokens"
    (" which is the maximum", rf"(?P<given>{_V}) > (?P<most>{_V}), which is the maximum"),
    # DeepSeek: "the valid range of max_tokens is [1, 8192]"; DashScope: "Range of max_tokens should be [1, 8192]"
    ("range of", rf"range of [\w.]{{1,40}} (?:is|should be) \[(?P<from>{_V}), ?(?P<to>{_V})\]"),
    # Vertex AI: "a maxOutputTokens value of 65536 but the supported range is from 1 (inclusive) to 8193 (exclusive)"
    ("supported range", rf"value of (?P<given>{_V}) but the supported range is from (?P<from>{_V}) "
     rf"\(inclusive\) to (?P<below>{_V}) \(exclusive\)"),
    # Bedrock: "The maximum tokens you requested exceed the model limit of 4096."
    ("model limit of", rf"maximum tokens you requested exceed the model limit of (?P<most>{_V})"),
    # Cohere: "max tokens must be less than or equal to 4096, the maximum output for this model"; pydantic
    ("than or equal to", rf"(?:less than or equal to (?P<most>{_V})|greater than or equal to (?P<least>{_V}))"),
)  # fmt: skip
_SIGNS: Final = {"<=": "≤", ">=": "≥", "<": "<", ">": ">"}

_NAME: Final = r"(?P<name>(?-i:[a-z])(?:[\w\[\]-]|\.(?=\w)){0,59})"
# The parameter that a text names; its case is kept (reasoningEffort).
_PARAMETERS: Final = tuple(
    f"(?i:{pattern})"
    for pattern in (
        rf"(?:parameters?|argument|param|property|field|value for|invalid)(?:\(s\))?:? ?\[?['\"`]{_NAME}['\"`]",
        rf"['\"`]{_NAME}['\"`](?:: ?| is | does | and | was ){{1,2}}(?:not |unsupported|deprecated|only |invalid|required)",
        rf"(?:not supported on this model: |does not support parameters?:? |(?:unsupported|unknown|invalid) parameter: )\[?['\"`]?{_NAME}",
        rf"^{_NAME}: (?:{_V} > |input should|extra inputs|field required|unexpected value)",
        rf"(?:range of |^){_NAME} (?:is too large|should be|is \[)",
        rf"has an? {_NAME} value of ",
        rf"extraneous key \[{_NAME}\]",
        rf" at ['\"]{_NAME}['\"]",
        r"^(?P<name>(?:messages|tools|system)(?:\.\w{1,40}){1,6}): ",
    )
)  # fmt: skip


def _plain(message: str) -> str:
    return " ".join(message[:_READ].lower().split())


def _count(digits: str | None) -> int | None:
    return int(digits.replace(",", "")) if digits else None


def _first(table: _Table, text: str) -> dict[str, str]:
    """The groups of the first pattern that matches, without those that took no part."""
    for word, pattern in table:
        if word in text and (found := compiled(pattern).search(text)):
            return {name: value for name, value in found.groupdict().items() if value is not None}
    return {}


def token_limits(message: str) -> tuple[int | None, int | None]:
    """The model's window and the tokens asked for (prompt and output, if both count), where stated."""
    found = _first(_WINDOWS, _plain(message))
    asked = _count(found.get("asked"))
    if asked is not None:
        asked += _count(found.get("more")) or 0
    return _count(found.get("limit")), asked


@lru_cache(maxsize=64)
def rate_amounts(message: str) -> RateAmounts:
    """A rate limit, what is used of it, and what the refused call needed, where stated."""
    found = _first(_RATES, _plain(message))
    return RateAmounts(**{name: _count(digits) for name, digits in found.items()})


def size_limits(message: str) -> tuple[int | None, int | None]:
    """The largest size that is taken and the size that was sent, in bytes, where stated."""
    found = _first(_SIZES, _plain(message))
    return _count(found.get("limit")), _count(found.get("asked"))


def _number(digits: str) -> str:
    whole, _, part = digits.replace(",", "").partition(".")
    return f"{int(whole):,}" + (f".{part}" if part else "")


def value_amounts(message: str) -> ValueAmounts:
    """The parameter that a text names, the value it had, and what is allowed."""
    found = {
        name: _number(value) if name != "sign" else value
        for name, value in _first(_VALUES, _plain(message)).items()
    }
    allowed = None
    if "bound" in found:
        allowed = f"{_SIGNS[found['sign']]} {found['bound']}"
    elif "most" in found:
        allowed = f"≤ {found['most']}"
    elif "least" in found:
        allowed = f"≥ {found['least']}"
    elif "from" in found:
        allowed = (
            f"{found['from']}\u2013{found['to']}"
            if "to" in found
            else f"≥ {found['from']}, < {found['below']}"
        )
    return ValueAmounts(parameter=parameter_in(message), given=found.get("given"), allowed=allowed)


def parameter_in(message: str) -> str | None:
    """The parameter that a text names, in its own case."""
    text = " ".join(message[:_READ].replace("\\", "").split())
    for pattern in _PARAMETERS:
        if found := compiled(pattern).search(text):
            return found["name"]
    return None
