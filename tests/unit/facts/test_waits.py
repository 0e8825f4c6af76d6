"""Stated waits, in the words of providers, clients and gateways."""

from __future__ import annotations

import pytest

from otel_triage.facts.waits import wait_in

NOW = 1768780800.0  # 2026-01-19T00:00:00Z

SPANS = {
    # https://platform.openai.com/docs/guides/rate-limits, Groq, Azure, Gemini
    "Please try again in 18.642s. Visit https://x": 18.642,
    "Please try again in 6m0s. Visit": 360.0,
    "try again in 1h2m3.5s": 3723.5,
    "Please try again in 20ms.": 0.02,
    "Please try again in 9m38.016s. Need more tokens?": 578.016,
    "Please retry after 86400 seconds.": 86400.0,
    "try again after 1 seconds": 1.0,
    "Please retry in 36.4s": 36.4,
    "Your quota will reset after 12h34m16s": 45256.0,
    "quota resets after 1m20s": 80.0,
    "The limit resets in 2 hours.": 7200.0,
    "please wait 2 minutes": 120.0,
    "Please wait 5 seconds before the next call": 5.0,
    "Try again in about 3 hours.": 10800.0,
    "Try again in 3 days 2 hours 5 minutes.": 266700.0,  # Codex
    "Retry in 20 second(s)": 20.0,
    # Bodies printed into texts, also twice
    '"retryDelay": "36s"': 36.0,
    "retryDelay: '38s'": 38.0,
    '{\\"retryDelay\\": \\"36s\\"}': 36.0,
    "retry_delay {\n  seconds: 24\n}": 24.0,
    "'retry_after': 2.5,": 2.5,
    "Retry-After: 5": 5.0,
    "retry_after_seconds=30": 30.0,
    '"retryAfterMs": 1500': 1.5,
    '\\"retry_after\\": 7}': 7.0,
    '"resets_in_seconds": 3600}': 3600.0,
    # Other languages
    "请在 20 秒后重试": 20.0,
    "请等待 5 分钟": 300.0,
    "請在 20 秒鐘後重試": 20.0,
    "请求过于频繁,1小时后再试": 3600.0,
    "20秒後に再試行してください": 20.0,
    "20秒ほどお待ちください": 20.0,
    "1時間30分後に再試行": 5400.0,
    "20초 후에 다시 시도하세요": 20.0,
    "1분 뒤에 다시 시도해 주세요": 60.0,
    "Повторите попытку через 1 минуту 20 секунд": 80.0,
    "Подождите 20 секунд и повторите": 20.0,
    "Vuelva a intentarlo en 20 segundos": 20.0,
    "Espere 20 segundos antes de volver a intentarlo": 20.0,
    "Inténtelo de nuevo después de 2 minutos": 120.0,
    "Tente novamente em 20 segundos": 20.0,
    "Aguarde 20 segundos e tente novamente": 20.0,
    "Bitte in 20 Sekunden erneut versuchen": 20.0,
    "Bitte warten Sie 20 Sekunden": 20.0,
    "Versuchen Sie es nach 2 Minuten erneut": 120.0,
    "Réessayez dans 20 secondes": 20.0,
    "Veuillez patienter 20 secondes": 20.0,
}
DATES = {
    "will reset at 2026-01-19T06:00:00Z": 21600.0,
    "available again at 2026-01-19T06:00:00+03:00": 10800.0,
    "You will regain access on 2026-02-01 at 00:00 UTC.": 1123200.0,  # Anthropic
    "Retry-After: Mon, 19 Jan 2026 00:10:00 GMT": 600.0,
    '"resets_at": 1768784400': 3600.0,
    '\\"resets_at\\": 1768784400,': 3600.0,
    "X-RateLimit-Reset: 1768784400000": 3600.0,  # OpenRouter, in milliseconds
    "Claude AI usage limit reached|1768784400": 3600.0,
    "您的限额将在 2026-01-19 05:00:00 重置。": 18000.0,
    "resets at 2026-01-18T06:00:00Z": 0.0,
}
NONE = [
    "Please try again later.",
    "Retry the request with 5 messages",
    "after 30s",
    "failed again, 3 times",
    "timed out in 20 seconds",
    "Request timed out after 30 seconds",
    "Rate limit: 3 per 1 minute",
    "请求在 30 秒后超时",
    "30秒後にタイムアウトしました",
    "Zeitüberschreitung nach 30 Sekunden",
    "Le délai a expiré après 30 secondes",
    "Превышено время ожидания: через 30 секунд соединение закрыто",
    "retry_after: null",
    "",
    None,
]


@pytest.mark.parametrize("text", SPANS)
def test_a_span_of_time(text: str) -> None:
    assert wait_in(text) == pytest.approx(SPANS[text])


@pytest.mark.parametrize("text", DATES)
def test_a_point_in_time_needs_a_clock(text: str) -> None:
    assert wait_in(text, NOW) == pytest.approx(DATES[text])
    assert wait_in(text) is None


@pytest.mark.parametrize("text", NONE)
def test_no_wait_is_stated(text: str | None) -> None:
    assert wait_in(text, NOW) is None


@pytest.mark.timeout(5)
@pytest.mark.parametrize(
    "text",
    [
        "retry " * 5000,
        "again in " + "1" * 9000,
        "wait " + "1h " * 4000,
        "请" + "在" * 8000 + "1",
        "через 1 " * 3000,
    ],
)
def test_hostile_text_is_read_in_time(text: str) -> None:
    wait_in(text, NOW)
