"""The stable identity of "the same error": what differs from one occurrence to the next is masked.

A fingerprint is hashed from what an error *is*: provider, status, the provider's code and
type, why the model stopped, where the exchange broke, the innermost exception class where no
answer came, how long a wait is stated, and the message with everything masked that changes from
call to call.
Statuses, provider codes and limit windows ("per min", TPM, `limit: 0`) are never masked.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from http import HTTPStatus
from typing import Final

from otel_triage.facts.providers import canonical
from otel_triage.facts.waits import wait_in
from otel_triage.model import LLMError
from otel_triage.verdict.advice import LONG_WAIT_S
from otel_triage.verdict.names import short

_READ: Final = 1000
_STATUS_TEXT: Final = 80
_STATUS_WORDS: Final = frozenset({"error", "code", "status", "http", "response"})
_WORD: Final = re.compile(r"[a-z0-9]+")
_SYSTEM: Final = re.compile(r"\[(?:Errno|WinError|SSL)\b")
_KEPT: Final = 500
_DAY_S: Final = 86400.0

# Quoted text, but not the keys and values of a dict or JSON object, nor an apostrophe.
_QUOTED: Final = re.compile(
    r"(?:'(?<![\w\\]')(?<![\"']: ')(?<![\"']:')(?:[^']|(?<=\w)'(?=\w)){1,300}'(?!\w)"
    r"|\"(?<!\w\")(?<![\"']: \")(?<![\"']:\")[^\"]{1,300}\"|`[^`]{1,300}`)(?!\s?:)"
)
_ECHO: Final = re.compile(
    r"([\"'](?:content|prompt|text|input|arguments|input_value|system|query)[\"']\s?:\s?)"
    r"([\"'])(?:\\.|(?!\2).)*\2|(input_value=)(?:'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|.*?)(?=, input_type=)"
)
# Marks of `facts.scrub`, which must not change a fingerprint: as words that are masked here.
_SCRUBBED: Final = (("[secret]", "sk-0"), ("[email]", "a@0"), ("-[id]", "-0"))
_BEARER: Final = re.compile(r"(?<=bearer )[a-z0-9._~+/-]{8,}=*")
_ODD: Final = re.compile(r"[\d/\\@]|(?:^|\W)(?:sk|org|proj|req)[-_]|(?:key|token|sig|secret|password)=")
_DIGIT: Final = re.compile(r"\d")
_LETTER: Final = re.compile(r"[a-z0-9]")
_EDGES: Final = "()[]{}<>,.;:!?\"'`=|"
_CODE: Final = re.compile(r"\d{3,5}")
_CODE_INSIDE: Final = re.compile(r"\W*(?:status|code|error|http)\W{1,4}\d{3,5}\W*")
_RATE: Final = re.compile(r"[a-z]+/[a-z]+")
_URL: Final = re.compile(r"[a-z]+://([a-z0-9.-]+)")
_HOST: Final = re.compile(r"(?:[a-z][a-z0-9-]*\.)+[a-z]{2,}")
_NUMBER: Final = re.compile(r"[.,:%+-]*\d[\d.,:%a-z-]{0,20}")
_NAMES_CODE: Final = frozenset({"status", "code", "http", "error", "http/1.1", "http/2"})
_UNIT: Final = re.compile(r"ms|(?:s|m|h|d|sec|min|millisecond|second|minute|hour|day)s?")
_CALENDAR: Final = re.compile(
    r"[ap]m|utc|gmt|mon(?:day)?|tue(?:sday)?|wed(?:nesday)?|thu(?:rsday)?|fri(?:day)?|sat(?:urday)?|sun(?:day)?"
    r"|jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?"
    r"|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?"
)


def _masked(word: str, before: str) -> str:
    """A word with a digit, slash or at sign in it, masked by what it is; `before`: the word in front."""
    core = word.strip(_EDGES)
    if not _LETTER.search(core) or _CODE_INSIDE.fullmatch(word):
        return word
    if (_CODE.fullmatch(core) and before in _NAMES_CODE) or (core == "0" and before == "limit"):
        return word
    url = _URL.match(core)
    if url:
        mark = f"<url:{_DIGIT.sub('', url[1])}>" if _HOST.fullmatch(url[1]) else "<url>"
    elif _RATE.fullmatch(core):
        mark = core
    elif "@" in core:
        mark = "<address>"
    elif "/" in core or "\\" in core:
        mark = "<path>"
    else:
        mark = "<n>" if _NUMBER.fullmatch(core) else "<id>"
    return word.replace(core, mark, 1)


def _is_time(words: list[str], at: int) -> bool:
    """Whether a word is a part of a date, or the unit of a duration, beside a number."""
    word = words[at].strip(_EDGES)
    before = words[at - 1] if at else ""
    if _CALENDAR.fullmatch(word):
        return bool(_DIGIT.search(before)) or (at + 1 < len(words) and bool(_DIGIT.search(words[at + 1])))
    per = at > 1 and words[at - 2] == "per"
    return not per and bool(_DIGIT.search(before)) and _UNIT.fullmatch(word) is not None


def mask(message: str, model: str | None = None) -> str:
    """A message in lower case with all that changes from call to call replaced by marks.

    At most 500 characters of the first 1000 are kept.

    Args:
        message: an error's text.
        model: the model that was called, which is masked wherever it stands.
    """
    text = " ".join(message[:_READ].lower().split())
    if model:
        text = text.replace(model.lower(), "m-0")  # masked below, as any name with a digit is
    if "[" in text:
        for mark, stand_in in _SCRUBBED:
            text = text.replace(mark, stand_in)
    if "bearer " in text:
        text = _BEARER.sub("sk-0", text)
    if '"' in text or "'" in text:
        text = _ECHO.sub(lambda found: f"{found[1] or found[3]}<quoted>", text)
        # JSON without spaces would be one word.
        text = text.replace('":', '": ').replace(',"', ', "').replace('{"', '{ "')
    if '"' in text or "'" in text or "`" in text:
        text = _QUOTED.sub("<quoted>", text)
    words = text.split()
    kept = []
    odd = False
    for at, word in enumerate(words):
        time_like = odd or _CALENDAR.match(word)
        odd = not word.isalpha() and _ODD.search(word) is not None
        if odd:
            kept.append(_masked(word, words[at - 1].strip(_EDGES) if at else ""))
        elif not (time_like and _is_time(words, at)):
            kept.append(word)
    return " ".join(kept)[:_KEPT]


def _wait_class(message: str | None) -> str:
    """Whether a wait is stated and how long: it tells a minute's limit from a day's."""
    wait_s = wait_in(message)
    if wait_s is None:
        return ""
    return "short" if wait_s <= LONG_WAIT_S else "hours" if wait_s < _DAY_S else "days"


def _said(error: LLMError) -> str:
    """The masked message; empty where it only names the status, as "Error code: 502" or a page's title do."""
    message = error.message or ""
    if error.status and len(message) < _STATUS_TEXT:
        words = set(_WORD.findall(message.lower())) - _STATUS_WORDS - {str(error.status)}
        if not words - _phrase(error.status):
            return ""
    return mask(message, error.model)


@cache
def _phrase(status: int) -> frozenset[str]:
    try:
        return frozenset(_WORD.findall(HTTPStatus(status).phrase.lower()))
    except ValueError:
        return frozenset()


def _innermost(error: LLMError) -> str:
    """The class of the innermost cause, or the words of the operating system: classes differ around those.

    Where the provider refused it is nothing: the class is the client library's name for the status.
    """
    if (error.status or 0) >= 400:
        return ""
    if not error.causes:
        return short(error.error_type or "")
    last = error.causes[-1]
    return mask(last.message) if _SYSTEM.match(last.message) else short(last.type)


def _parts(error: LLMError) -> list[str]:
    """What an error is, as far as its own text tells it."""
    return [
        _innermost(error),
        _wait_class(error.message),
        _said(error),
        *sorted(error.finish_reasons or ()),
        str(error.status or ""),
    ]


def _digest(mark: str, parts: list[str]) -> str:
    joined = "\x1f".join(parts).encode("utf-8", "replace")
    return f"{mark}:{hashlib.blake2b(joined, digest_size=8).hexdigest()}"


def fingerprint(error: LLMError) -> str:
    """The identity of an error: `f:` or `c:` and 16 hex digits.

    `f:` where the facts of the call are known: the provider with its code or type, or what the tap
    saw; `c:`, coarser, where there is only a text. The verdict is no part of it, so that a
    correction outlives a change of rules.
    """
    told = error.code or error.type or error.broke_at or error.call_id
    if not error.provider or not told:
        return alias(error)
    facts = [canonical(error.provider), error.code or "", error.type or "", error.broke_at or ""]
    return _digest("f", [*facts, *_parts(error)])


def alias(error: LLMError) -> str:
    """The `c:` fingerprint that the same error has where it is known by its text alone.

    What a person says of an error that was met as a bare text holds for it as a call, and the
    other way round: memory and corrections look under both.
    """
    return _digest("c", _parts(error))
