"""Response headers: expected values from RFC 9110 and the providers' documentation."""

from __future__ import annotations

import pytest

from otel_triage.facts.headers import account, duration_s, rate_limits, request_id, retry_after_s

NOW = 1_800_000_000.0  # Fri, 15 Jan 2027 08:00:00 GMT


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("20ms", 0.02),
        ("1h2m3s", 3723.0),
        ("8.64s", 8.64),
        ("17", 17.0),
        ("0", 0.0),
    ],
)
def test_duration(text: str, seconds: float) -> None:
    assert duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "soon", "1s soon", "-3", "nan", "inf", "1e300"])
def test_no_duration(text: str) -> None:
    assert duration_s(text) is None


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "Fri, 15 Jan 2027 08:00:30 GMT"}, 30.0),
        ({"retry-after": "Fri, 15 Jan 2027 07:00:00 GMT"}, 0.0),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after": "tomorrow"}, None),
        ({}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers, NOW) == seconds


def test_openai_limits() -> None:
    headers = {
        "x-ratelimit-limit-requests": "10000",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "8.64s",
        "x-ratelimit-limit-tokens": "200000",
        "x-ratelimit-remaining-tokens": "-",
        "x-ratelimit-reset-tokens": "6ms",
    }
    assert rate_limits(headers, NOW) == {
        "requests_limit": 10000,
        "requests_remaining": 0,
        "requests_reset_s": 8.64,
        "tokens_limit": 200000,
        "tokens_reset_s": 0.006,
    }


def test_anthropic_limits() -> None:
    headers = {
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-requests-remaining": "49",
        "anthropic-ratelimit-requests-reset": "2027-01-15T08:01:00Z",
    }
    assert rate_limits(headers, NOW) == {
        "requests_limit": 50,
        "requests_remaining": 49,
        "requests_reset_s": 60.0,
    }


def test_request_id_prefers_the_providers_own() -> None:
    assert request_id({"cf-ray": "8d65", "request-id": "req_1"}) == "req_1"
    assert request_id({}) is None


def test_account_is_never_the_key() -> None:
    key = {"authorization": "Bearer sk-secret-1"}
    hashed = account(key, {})
    assert hashed is not None
    assert len(hashed) == 8
    assert hashed == account(dict(key), {})
    assert hashed != account({"authorization": "Bearer sk-secret-2"}, {})
    assert account(key, {"openai-organization": "acme"}) == "acme"
    assert account({}, {}) is None
