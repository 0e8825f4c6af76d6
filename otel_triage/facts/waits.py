"""How long a text says to wait before the next try, in seconds."""

# ruff: noqa: RUF001 - Russian letters are meant
from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from otel_triage.facts.headers import retry_after_s
from otel_triage.facts.lazy import compiled
from otel_triage.facts.values import seconds_until

_READ: Final = 8000
_TRIES: Final = 5

# A unit, in the languages that providers and gateways answer in -> seconds.
_UNITS: Final = {
    r"milliseconds?|ms": 0.001,
    r"seconds?|secs?|s|segundos?|secondes?|sekunden?|секунд[аыу]?|сек|秒[钟鐘]?|초": 1.0,
    r"minutes?|mins?|m|minutos?|minuten?|минут[аыу]?|мин|分[钟鐘]?|분": 60.0,
    r"hours?|hrs?|h|horas?|heures?|stunden?|час(?:а|ов)?|小[时時]|時間|시간": 3600.0,
    r"days?|d|d[ií]as?|jours?|tage?n?|день|дня|дней|天|日|일": 86400.0,
}
_UNIT: Final = rf"(?:{'|'.join(_UNITS)})(?![a-zа-яí])"
_SPAN: Final = rf"(\d{{1,9}}(?:\.\d{{1,9}})?)\s?({_UNIT})"
_SPANS: Final = rf"(?P<spans>(?:\d{{1,9}}(?:\.\d{{1,9}})?\s?{_UNIT}(?:\s|,|and|und|y|et|e|и)*){{1,4}})"

# "try again in 6m0s" (OpenAI), "retry after 10 seconds" (Azure), "reset after 12h34m16s" (Google).
_CUES: Final = ("again", "retry", "reset", "wait", "请", "請", "等待", "等候", "稍等")
_BEHIND: Final = (
    r"(?:ing|s|ting)?"
    r"(?:[\"'\\\s:=(~_-]|in|after|for|at least|delay|about|approximately|another|your request|the request"
    r"|在|等待){0,8}" + _SPANS
)
# Where another language says "again", "wait" or "reset": "nach 20 Sekunden" alone may be a time-out.
_FOREIGN_AGAIN: Final = (
    r"versuch|wiederhol|warten|zurückgesetzt|r[ée]essay|attend|patient|réiniti|intent|esper|reinici|tent"
    r"|int[ée]nt|aguard|redefin|повтор|попроб|подожд|сброс|восстанов"
)
_FOREIGN_CUES: Final = (
    "через", "подождите", "dentro de", "después de", " en ", "espere", "espera", " em ", "após", "aguarde",
    "dans ", "après ", "attendez", "patienter", " in ", "nach ", "warten", "warten sie",
)  # fmt: skip
_FOREIGN: Final = (
    r"(?:\s|etwa|ca\.|environ|unos|unas|cerca de|около|por|noch|pendant){0,3}"
    r"(?P<spans>(?:\d{1,7}\s?(?:segundos?|minutos?|horas?|d[ií]as?|secondes?|minutes?|heures?|jours?"
    r"|sekunden?|minuten?|stunden?|tage?n?|секунд[аыу]?|сек|минут[аыу]?|мин|час(?:а|ов)?|день|дня|дней)"
    r"(?:\s|,|und|y|et|e|и){0,3}){1,4})"
)
_FOREIGN_UNITS: Final = ("segundo", "minuto", "hora", "secondes", "heure", "sekunde", "minuten", "stunde")
# The cue behind the time: 请 60 秒后重试, 60秒後, 60초 후, 60秒待って; not 30 秒后超时, which is a time-out.
_BEFORE: Final = (
    r"(?P<spans>(?:\d{1,7}\s?(?:秒[钟鐘]?|分[钟鐘]?|小[时時]|時間|초|분|시간|天|日|일)间?\s?){1,4})"
    r"(?:之后|之後|以后|以後|后|後|후|뒤|이후|(?:ほど|以上|間)?お?待[ちっ]|동안 기다)"
    r"(?!.{0,8}(?:超时|超時|タイムアウト|시간 ?초과|中断|断开|失败|切断))"
)
_BEFORE_CUES: Final = ("后", "後", "후", "뒤", "待", "기다")
_FIELD: Final = (
    r"(?:retry[-_ ]?after|resets?[-_]?in)(?:(?P<ms>[-_]?ms)|[-_]?s(?:ec(?:ond)?s?)?)?"
    r"\\?[\"']?\s?[:=]\s?\\?[\"']?"
    r"(?P<seconds>\d{1,9}(?:\.\d{1,6})?)(?![\d.]*\s?[a-z])"
    r"|retry_delay\s?\{\s*seconds:\s?(?P<proto>\d{1,7})"
)
_DATE: Final = r"\d{4}-\d\d-\d\d[\dt:. zutc+-]{0,24}(?: at \d\d:\d\d)?"
_UNTIL: Final = (
    r"(?:resets?|again|access|available|retry|until|reset[_ ]?time|resets?[_ ]?at|retry-after)"
    rf"(?: (?:at|on|after|again at))?[ :=\\\"']{{1,5}}(?P<until>{_DATE}|\d{{13}}\b|\d{{10}}\b)"
    r"|(?:again|reset|resets|retry|until|retry-after)(?: at| on| after)?:? "
    r"(?P<http>[a-z]{3}, \d\d [a-z]{3} \d{4} \d\d:\d\d:\d\d gmt)"  # RFC 9110, 5.6.7
    r"|limit reached\|(?P<unix>\d{10})"  # Claude Code
    r"|将[在于]\s?(?P<zh>\d{4}-\d\d-\d\d \d\d:\d\d(?::\d\d)?)"  # Zhipu
)
_DIGIT: Final = re.compile(r"\d")


def _seconds(text: str) -> float | None:
    """`6m0s`, `18.642s`, `2 minutes`, `60 秒` in seconds."""
    total = 0.0
    for number, unit in compiled(_SPAN).findall(text):
        total += float(number) * next(s for words, s in _UNITS.items() if compiled(words).fullmatch(unit))
    return round(total, 6) if 0 < total < 10**9 else None


def _cued(text: str, cues: tuple[str, ...], pattern: str) -> str | None:
    """The span of time behind the first cue that one stands behind."""
    for cue in cues:
        at = text.find(cue)
        for _ in range(_TRIES):
            if at < 0:
                break
            found = compiled(pattern).match(text, at + len(cue))
            if found:
                return found["spans"]
            at = text.find(cue, at + 1)
    return None


@lru_cache(maxsize=64)  # a message is asked by facts, advice and fingerprint, one after the other
def wait_in(text: str | None, now: float | None = None) -> float | None:
    """The wait that a text states, in seconds; None if it states none.

    Args:
        text: An error's text.
        now: Unix time in seconds, for a text that names a point in time; without it that gives None.
    """
    if not text or not _DIGIT.search(text):
        return None
    plain = text[:_READ].lower()
    if ("retry" in plain or "reset" in plain) and (found := compiled(_FIELD).search(plain)):
        seconds = float(found["seconds"] or found["proto"])
        return seconds / 1000 if found["ms"] else seconds
    spans = _cued(plain, _CUES, _BEHIND)
    if spans is None and (not plain.isascii() or any(unit in plain for unit in _FOREIGN_UNITS)):
        if compiled(_FOREIGN_AGAIN).search(plain):
            spans = _cued(plain, _FOREIGN_CUES, _FOREIGN)
        if (
            spans is None
            and any(sign in plain for sign in _BEFORE_CUES)
            and (found := compiled(_BEFORE).search(plain))
        ):
            spans = found["spans"]
    if spans is not None:
        return _seconds(spans)
    if now is not None and (found := compiled(_UNTIL).search(plain)):
        if found["http"]:
            return retry_after_s({"retry-after": found["http"]}, now)
        told = found["until"] or found["unix"] or found["zh"]
        return seconds_until(told.upper().replace(" AT ", " at "), now)
    return None
