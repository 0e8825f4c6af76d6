"""The same error has the same fingerprint whatever changes from call to call, and only then."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_triage.facts.scrub import scrub
from otel_triage.model import BrokeAt, Cause, LLMError
from otel_triage.verdict.fingerprint import alias, fingerprint, mask

BASE = LLMError(
    provider="openai", status=429, code="rate_limit_exceeded", error_type="openai.RateLimitError",
    message="Rate limit reached for gpt-4o on tokens per min (TPM): Limit 30000.",
)  # fmt: skip


of = fingerprint


hexes = st.text("0123456789abcdef", min_size=8, max_size=32)
ids = st.one_of(
    st.uuids().map(str),
    hexes.map(lambda h: f"req_{h}"),
    st.text("abcdefghij0123456789", min_size=10, max_size=30).map(lambda t: f"org-{t}"),
    hexes.map(lambda h: f"sk-proj-{h}"),
    hexes.map(lambda h: f"chatcmpl-7{h}"),
)
octet = st.integers(0, 255)
addresses = st.builds("{}.{}.{}.{}:{}".format, octet, octet, octet, octet, st.integers(1, 65535))
emails = st.builds("{}@example{}.com".format, st.text("abc", min_size=1, max_size=5), octet)
names = st.text("abcdefgh_.", min_size=1, max_size=10).map(lambda name: f"x{name}x")
paths = st.lists(names, min_size=2, max_size=5).map(lambda parts: "/" + "/".join(parts))
times = st.one_of(
    st.datetimes().map(lambda t: t.strftime("%Y-%m-%dT%H:%M:%SZ")),
    st.datetimes().map(lambda t: t.strftime("%H:%M:%S.%f")),
)
dates = st.datetimes().map(lambda t: t.strftime("%a, %d %b %Y"))
models = st.sampled_from(
    ["gpt-4o", "gpt-5-mini", "claude-sonnet-4-5", "o3", "llama-3.1-8b-instant", "mistral.large2"]
)
numbers = st.one_of(st.integers(1, 10**9).map(str), st.floats(0.1, 1e6).map("{:.3f}".format))
quoted = st.text(
    st.characters(codec="utf-8", exclude_characters="'\"`\\\r\n"), min_size=1, max_size=60
).filter(str.strip)

CASES = {
    "ids": (ids, "The server failed, please contact us (request id {}) about it"),
    "numbers": (numbers, "Limit {} reached, please reduce the length"),
    "times": (times, "Failure at {} on the server"),
    "dates": (dates, "You will regain access on {} at midnight"),
    "addresses": (addresses, "Cannot connect to {} from here"),
    "e-mail addresses": (emails, "The user {} may not do this"),
    "paths": (paths, "No such file {} on this host"),
    "models": (models, "The model {} does not exist"),
    "quoted text": (quoted, "Invalid value '{}' in the request"),
    "double-quoted text": (quoted, 'Invalid value "{}" in the request'),
    "code in backticks": (quoted, "The field `{}` is not allowed"),
    "milliseconds": (st.integers(1, 290_000), "Please try again in {}ms."),
    "seconds": (st.integers(2, 290), "Please try again in {} seconds. Thank you."),
}


@pytest.mark.parametrize("name", CASES)
@given(data=st.data())
def test_stable(name, data):
    values, template = CASES[name]
    one, other = data.draw(values), data.draw(values)
    for base in (BASE, LLMError()):
        assert of(replace(base, message=template.format(one))) == of(
            replace(base, message=template.format(other))
        )


@given(st.text(" \t\n", min_size=1, max_size=5))
def test_stable_under_white_space_and_case(space):
    assert of(replace(BASE, message=BASE.message.replace(" ", space).upper())) == of(BASE)


@given(models.filter(lambda m: m != "gpt-4o"))
def test_stable_under_the_model_that_was_called(model):
    one = replace(BASE, model="gpt-4o")
    other = replace(BASE, model=model, message=BASE.message.replace("gpt-4o", model))
    assert of(one) == of(other) == of(BASE)


@given(ids, st.emails(domains=st.just("example.com")))
def test_stable_under_scrubbing(one_id, email):
    text = (
        f"Incorrect API key provided: {one_id} of {email}, Bearer abcdefghijkl, "
        "'content': 'my secret', key=abcdefgh1"
    )
    assert mask(scrub(text)) == mask(text)


@pytest.mark.parametrize(
    "change",
    [
        {"provider": "anthropic"},
        {"status": 503},
        {"code": "slow_down"},
        {"type": "requests"},
        {"broke_at": BrokeAt.STREAM},
        {"finish_reasons": ("length",)},
        {"message": "Rate limit reached for gpt-4o on tokens per day (TPD): Limit 30000."},
        {"message": "Rate limit reached for gpt-4o on requests per min (RPM): Limit 30000."},
        {"message": "Rate limit reached for gpt-4o on tokens per min (TPM): limit: 0."},
        {"message": BASE.message + " Please try again in 5s."},
        {"message": BASE.message + " Please try again in 10h."},
    ],
    ids=lambda change: next(iter(change)),
)
def test_different(change):
    assert of(replace(BASE, **change)) != of(BASE)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Error code: 429 - no", "Error code: 503 - no"),
        ("HTTP 502 from the gateway", "HTTP 504 from the gateway"),
        ('{"error":{"code":1302,"message":"busy"}}', '{"error":{"code":1305,"message":"busy"}}'),
        ("quota exceeded, limit: 0", "quota exceeded, limit: 7"),
        ("5 requests per minute", "5 requests per day"),
        ("20 requests/minute", "20 requests/day"),
        ("{'type': 'tokens'}", "{'type': 'requests'}"),
    ],
)
def test_what_is_never_masked(one, other):
    assert mask(one) != mask(other)


def test_the_same_wrapper_around_different_causes():
    """ "Connection error." alone says nothing: the chain is part of the identity."""
    wrapper = LLMError(error_type="openai.APIConnectionError", message="Connection error.")
    dns = replace(wrapper, causes=(Cause("openai.APIConnectionError"), Cause("socket.gaierror")))
    tls = replace(wrapper, causes=(Cause("openai.APIConnectionError"), Cause("ssl.SSLCertVerificationError")))
    assert len({of(wrapper), of(dns), of(tls)}) == 3


def test_a_wait_of_seconds_is_not_a_wait_of_hours():
    waits = ("5s", "290s", "10h", "2h", "50h")
    prints = [of(replace(BASE, message=f"Limit reached. Please try again in {wait}.")) for wait in waits]
    assert prints[0] == prints[1] != prints[2] == prints[3] != prints[4]


def test_prefix_says_what_it_rests_on():
    assert of(BASE)[:2] == "f:"
    assert of(LLMError(provider="openai", code="x"))[:2] == "f:"
    assert of(LLMError(provider="openai", message="x"))[:2] == "c:"
    assert of(LLMError(status=429, message="x"))[:2] == "c:"
    assert of(LLMError(provider="openai", status=429, message="x"))[:2] == "c:"
    assert of(LLMError(provider="openai", call_id="1", message="x"))[:2] == "f:"


def test_the_client_library_is_no_part_of_what_a_provider_refused():
    asked_by_another = replace(
        BASE, error_type="groq.RateLimitError", causes=(Cause("httpx.HTTPStatusError"),)
    )
    assert of(asked_by_another) == of(BASE)
    unanswered = replace(BASE, status=None, error_type="openai.APIConnectionError")
    assert of(unanswered) != of(replace(unanswered, error_type="openai.APITimeoutError"))


def test_an_alias_is_the_fingerprint_of_the_same_error_by_a_nameless_provider():
    nameless = replace(BASE, provider=None)
    assert alias(BASE) == alias(nameless) == of(nameless) != of(BASE)
    assert alias(replace(BASE, provider="groq", broke_at=BrokeAt.STREAM)) == alias(BASE)


@pytest.mark.parametrize("text", ["Error code: 502", "502 Bad Gateway", "Bad Gateway", "HTTP 502", ""])
def test_a_text_that_names_the_status_alone_says_nothing(text):
    assert of(LLMError(status=502, message=text)) == of(LLMError(status=502))
    assert of(LLMError(status=502, message=f"{text} upstream broke")) != of(LLMError(status=502))


def test_classes_around_an_error_of_the_operating_system_do_not_count():
    refused = "[Errno 111] Connection refused"
    one = LLMError(message="Connection error.", causes=(Cause("httpx.ConnectError", refused),))
    other = replace(one, causes=(*one.causes, Cause("ConnectionRefusedError", refused)))
    assert of(one) == of(other) != of(replace(one, causes=(Cause("httpx.ConnectTimeout"),)))


def test_names_of_one_provider_are_one():
    assert of(replace(BASE, provider="azure_openai")) == of(replace(BASE, provider="Azure OpenAI"))


def test_known_masks():
    assert mask("Limit 30000, Used 14567. Visit https://platform.openai.com/account/rate-limits now") == (
        "limit <n>, used <n>. visit <url:platform.openai.com> now"
    )
    assert mask("open /home/x/y.py line 45 from 10.0.0.1:443, ask a@b.example") == (
        "open <path> line <n> from <n>, ask <address>"
    )
    assert mask("This model's limit isn't 'my own text'") == "this model's limit isn't <quoted>"
