"""Sentry's rate limits, by the SDK specification's examples."""

from __future__ import annotations

import pytest

from otel_triage.sidecar.ratelimits import RateLimits

HEADER = "x-sentry-rate-limits"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limits(clock: Clock) -> RateLimits:
    return RateLimits(clock)


def test_the_specifications_example(limits: RateLimits, clock: Clock) -> None:
    limits.update("k", 200, {HEADER: "60:transaction:key, 2700:default;error;security:organization"})
    assert limits.wait_s("k", {"transaction"}) == 60
    assert limits.wait_s("k", {"error", "session"}) == 2700, "its error would be dropped"
    assert limits.wait_s("k", {"transaction", "session"}) == 0, "the session is taken"
    assert limits.wait_s("other", {"transaction"}) == 0
    assert limits.header("k") == "60:transaction:key, 2700:default:key, 2700:security:key"
    assert limits.header("k", errors=True) == (
        "60:transaction:key, 2700:default:key, 2700:error:key, 2700:security:key"
    )
    clock.now += 60
    assert limits.wait_s("k", {"transaction"}) == 0
    clock.now += 2640
    assert limits.header("k", errors=True) is None


def test_the_longer_one_holds(limits: RateLimits) -> None:
    limits.update("k", 200, {HEADER: "60:error:key"})
    limits.update("k", 200, {HEADER: "5:error:key"})
    assert limits.wait_s("k", {"error"}) == 60


@pytest.mark.parametrize(
    ("status", "headers", "wait_s"),
    [
        (429, {"retry-after": "7"}, 7),
        (429, {}, 60),
        (429, {"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 60),
        (429, {HEADER: "9::organization"}, 9),
        (200, {HEADER: "9::organization"}, 9),
        (200, {HEADER: "x:error:key"}, 60),
        (200, {HEADER: "-3:error:key"}, 0),
        (200, {HEADER: "nan:error:key"}, 60),
        (200, {HEADER: "99999999:error:key"}, 7 * 86_400),
        (200, {HEADER: ""}, 0),
        (200, {HEADER: "50:unknown_one:organization"}, 0),
        (200, {"retry-after": "7"}, 0),
        (503, {"retry-after": "7"}, 0),
    ],
)
def test_waits_of_an_error(limits: RateLimits, status: int, headers: dict[str, str], wait_s: float) -> None:
    limits.update("k", status, headers)
    assert limits.wait_s("k", {"error"}) == wait_s


def test_a_limit_of_everything_is_never_told_as_one(limits: RateLimits) -> None:
    limits.update("k", 429, {"retry-after": "30"})
    told = limits.header("k")
    assert told is not None
    categories = [part.split(":")[1] for part in told.split(", ")]
    assert {"transaction", "span", "session", "log_item", "replay"} <= set(categories)
    assert not {"", "error", "attachment", "default", "internal"} & set(categories)
    assert "30:error:key" in (limits.header("k", errors=True) or "")


def test_reports_are_never_limited_and_namespaces_are_no_categories(limits: RateLimits) -> None:
    limits.update("k", 200, {HEADER: "30::organization, 30:metric_bucket:organization:quota:custom"})
    assert limits.wait_s("k", {"internal"}) == 0
    limits = RateLimits(Clock())
    limits.update("k", 200, {HEADER: "30:metric_bucket:organization:quota:custom"})
    assert limits.wait_s("k", {"metric_bucket"}) == 0


def test_keys_are_bounded(limits: RateLimits) -> None:
    for number in range(1500):
        limits.update(f"k{number}", 429, {})
    assert limits.wait_s("k0", {"error"}) == 0
    assert limits.wait_s("k1499", {"error"}) == 60
