"""How long a text says to wait before the next try, in seconds."""

# ruff: noqa: RUF001 - Russian letters are meant
from __future__ import annotations

import re
from typing import Final

from otel_triage.facts.values import seconds_until

_READ: Final = 8000
_TRIES: Final = 5

# A unit, in the languages that providers and gateways answer in -> seconds.
_UNITS: Final = {
    r"milliseconds?|ms": 0.001,
    r"seconds?|secs?|s|segundos?|secondes?|sekunden?|секунд[аы]?|сек|秒|초": 1.0,
    r"minutes?|mins?|m|minutos?|minuten?|минут[аы]?|мин|分钟|分|분": 60.0,
    r"hours?|hrs?|h|horas?|heures?|stunden?|час(?:а|ов)?|小时|時間|시간": 3600.0,
    r"days?|d|天|日|일": 86400.0,
}
_UNIT: Final = rf"(?:{'|'.join(_UNITS)})(?![a-zа-я])"
_UNIT_S: Final = tuple((re.compile(words), seconds) for words, seconds in _UNITS.items())
_SPAN: Final = re.compile(rf"(\d{{1,9}}(?:\.\d{{1,9}})?)\s?({_UNIT})")
_SPANS: Final = rf"(?P<spans>(?:\d{{1,9}}(?:\.\d{{1,9}})?\s?{_UNIT}(?:\s|,|and|und|y|et|e|и)*){{1,4}})"

# "try again in 6m0s" (OpenAI), "retry after 10 seconds" (Azure), "reset after 12h34m16s" (Google).
_CUES: Final = ("again", "retry", "reset", "wait", "请", "等待")
_BEHIND: Final = re.compile(
    r"(?:ing|s|ting)?"
    r"(?:[\"'\s:=(~_-]|in|after|for|at least|delay|about|another|your request|the request|在|等待){0,8}"
    + _SPANS
)
# After a bare "in" only a unit that is no English word: "timed out in 20 seconds" is no advice.
_FOREIGN_CUES: Final = ("через", "dentro de", " en ", " em ", "dans ", " in ")
_FOREIGN: Final = re.compile(
    r"\s?(?P<spans>\d{1,7}\s?(?:segundos?|minutos?|horas?|secondes?|heures?|sekunden?|minuten?|stunden?"
    r"|секунд[аы]?|сек|минут[аы]?|мин|час(?:а|ов)?))"
)
_FOREIGN_UNITS: Final = ("segundo", "minuto", "hora", "secondes", "heure", "sekunde", "minuten", "stunde")
# The cue behind the time: 请 60 秒后重试, 60秒後, 60초 후.
_BEFORE: Final = re.compile(
    r"(?P<spans>(?:\d{1,7}\s?(?:秒|分钟|分|小时|時間|초|분|시간|天|日|일)钟?\s?){1,4})(?:之后|以后|后|後|후)"
)
_FIELD: Final = re.compile(
    r"retry[-_ ]?after[\"']?\s?[:=]\s?[\"']?(?P<seconds>\d{1,7}(?:\.\d{1,6})?)(?![\d.]*\s?[a-z])"
    r"|retry_delay\s?\{\s*seconds:\s?(?P<proto>\d{1,7})"
)
_UNTIL: Final = re.compile(
    r"(?:resets?|again|access|available|retry|until)(?: (?:at|on|after|again at))?[ :]{1,3}"
    r"(?P<until>\d{4}-\d\d-\d\d[\dt:. zutc+-]{0,24}(?: at \d\d:\d\d)?|\d{10}\b)"
    r"|limit reached\|(?P<unix>\d{10})"  # Claude Code
    r"|将在\s?(?P<zh>\d{4}-\d\d-\d\d \d\d:\d\d(?::\d\d)?)"  # Zhipu
)
_DIGIT: Final = re.compile(r"\d")


def _seconds(text: str) -> float | None:
    """`6m0s`, `18.642s`, `2 minutes`, `60 秒` in seconds."""
    total = 0.0
    for number, unit in _SPAN.findall(text):
        total += float(number) * next(seconds for words, seconds in _UNIT_S if words.fullmatch(unit))
    return round(total, 6) if 0 < total < 10**9 else None


def _cued(text: str, cues: tuple[str, ...], pattern: re.Pattern[str]) -> str | None:
    """The span of time behind the first cue that one stands behind."""
    for cue in cues:
        at = text.find(cue)
        for _ in range(_TRIES):
            if at < 0:
                break
            found = pattern.match(text, at + len(cue))
            if found:
                return found["spans"]
            at = text.find(cue, at + 1)
    return None


def wait_in(text: str, now: float | None = None) -> float | None:
    """The wait that a text states, in seconds; None if it states none.

    Args:
        text: An error's text.
        now: Unix time in seconds, for a text that names a point in time.
    """
    if not _DIGIT.search(text):
        return None
    plain = text[:_READ].lower()
    if "retry" in plain and (found := _FIELD.search(plain)):
        return float(found["seconds"] or found["proto"])
    spans = _cued(plain, _CUES, _BEHIND)
    if spans is None and (not plain.isascii() or any(unit in plain for unit in _FOREIGN_UNITS)):
        spans = _cued(plain, _FOREIGN_CUES, _FOREIGN)
    if spans is None and any(sign in plain for sign in "后後후") and (found := _BEFORE.search(plain)):
        spans = found["spans"]
    if spans is not None:
        return _seconds(spans)
    if now is not None and (found := _UNTIL.search(plain)):
        told = found["until"] or found["unix"] or found["zh"]
        return seconds_until(told.upper().replace(" AT ", " at "), now)
    return None
