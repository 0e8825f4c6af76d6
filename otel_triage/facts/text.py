"""One reader of error texts: cuts what clients and frameworks print in front of the provider's words.

On the way it takes out what the prefixes say (status, code, classes), reads the error object that is
printed in the text (`walk`), and finds the wait and the request id wherever they stand.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final

from otel_triage.facts.values import MESSAGE_LIMIT, status_of, status_of_phrase
from otel_triage.facts.waits import wait_in
from otel_triage.facts.walk import TEXT_LIMIT, ErrorBody, Facts, Walk

_PREFIXES_A_TEXT: Final = 10
_SCANNED: Final = 2000
_NUMBERS: Final = 8


@dataclass(frozen=True, slots=True)
class Told:
    """What a text says.

    `body` holds the facts. Its message is what remains behind the prefixes, or None where they are all
    there is. `classes` are those of exceptions that are named in the prefixes, outermost first.
    """

    body: ErrorBody
    classes: tuple[str, ...] = ()


_SEPARATORS: Final = r"(?:[\s:,;.|\u2013\u2014-]|\b(?:[Bb]ody|[Mm]essage|[Rr]esponse): )*+"
_CLASS: Final = (
    r"(?:[A-Za-z_]\w*(?:\.|::|\\))*+[A-Z]\w*(?<=Error|ption|meout|ilure|Fault|eeded)"
    r"|(?:[a-z_]\w*\.)++[A-Z]\w*"
)

# What stands in front of the provider's words, by its source: a word without which it cannot stand there
# (`in` is fast, a pattern is slow), and the pattern. A prefix is cut where text follows it.
_PREFIXES: Final = tuple(
    (hint, re.compile(pattern))
    for hint, pattern in (
        # sashabaranov/go-openai (error.go): "error, status code: 429, status: 429 Too …, message: …"
        (
            "error, s",
            r"error, status code: (?P<status>\d{3})(?:, status: [^,]{0,60})?(?:, (?:message|body): )",
        ),
        # OpenAI .NET (ClientResultException): "HTTP 429 (type: code)\nParameter: p\n\n…"
        (
            "HTTP ",
            r"HTTP (?P<status>\d{3}) \((?P<type>[\w.-]*): (?P<code>[\w.-]*)\)\s+"
            r"(?:Parameter: (?P<param>\S+)\s+)?",
        ),
        # pydantic-ai (exceptions.py): "status_code: 429, model_name: gpt-4o, body: …"
        ("model_name", r"status_code: (?P<status>\d{3}), model_name: [^,]{1,100}, body: "),
        # openai, anthropic (_base_client.py): "Error code: 429 - …"; mistralai: "API error occurred: Status
        # 429 …"; openai-go 3: "OpenAI API error: 429 …"; npm: "429 …"; the Java SDKs: "429: …"; Spring AI:
        # "HTTP 429 - …"; google.genai: "429 RESOURCE_EXHAUSTED. …"
        (
            "",
            r"(?:(?:OpenAI|HTTP(?:/\d(?:\.\d)?)?|API|[Ee]rror|[Ss]tatus|[Cc]ode|occurred:?)[ _:=]{1,2}){0,5}"
            r"[(\[]?(?P<status>[45]\d\d)\b[)\]]?(?: ?(?P<canonical>[A-Z]{4,}(?:_[A-Z]+)*)\b)?(?=[\s:,.-])"
            r"(?! (?:Client|Server) Error: )",  # requests says no more than that
        ),
        # botocore (exceptions.py): "An error occurred (Code) when calling the X operation (reached …): …"
        (
            " when calling the ",
            r"An error occurred \((?P<code>\w+)\) when calling the \w+ operation"
            r"(?: \(reached [^)]{1,40}\))?: ",
        ),
        # azure-core (exceptions.py): "(code) message\nCode: code\nMessage: message"
        ("\nCode: ", r"\((?P<code>[A-Za-z][\w.]{2,60}|\d{3})\) (?=\S)"),
        # anthropic-sdk-go (apierror.go): 'POST "https://…": 529 … (Request-ID: …) {…}'
        ('": ', r'[A-Z]{3,7} "[^"\n]{1,300}": (?=\S)'),
        ("(Request-ID", r"\(Request-ID: (?P<request_id>[\w-]+)\)"),
        # @google/generative-ai (request.ts): "[GoogleGenerativeAI Error]: Error fetching from …: [429 …] …"
        (
            "[Google",
            r"\[GoogleGenerativeAI Error\]: (?:Error fetching from \S{1,300}: )?"
            r"(?:\[(?P<status>\d{3}) [^\]]{0,60}\])?",
        ),
        # Guzzle (RequestException.php): "Client error: `POST …` resulted in a `429 …` response:\n…"
        (
            "resulted in",
            r"(?:Client|Server) error: `[^`]{1,300}` resulted in a `(?P<status>\d{3})[^`]{0,60}` response:",
        ),
        # Vercel's ai (retry-with-exponential-backoff.ts) and many: "Failed after 3 attempts. Last error: …"
        ("ast e", r"[^\n]{0,160}?\b[Ll]ast (?:error|exception)(?: was)?: "),
        # dspy (adapters/json_adapter.py) and others: "… failed. … Original error: …"
        ("riginal e", r"[^\n]{0,300}?\b[Oo]riginal (?:error|exception): (?=\S+ )"),
        # instructor (core/exceptions.py) prints all attempts and then the last one
        ("<last_exception>", r"(?s:.{0,16000})<last_exception>\s*"),
        # litellm (exceptions.py, exception_mapping_utils.py): "litellm.RateLimitError: AzureException
        # RateLimitError - …"; a class in front of a text in Python, Java, .NET, Ruby and PHP
        ("", rf"(?:Uncaught |\[?\w+Exception )?(?P<class>{_CLASS})(?: \[\w+\])?(?:: ?| - )"),
        # Anthropic's and OpenAI's types and codes in front of the text, as gateways print them
        ("_", r"(?!(?:finish|stop)_reason)(?P<word>[a-z]+(?:_[a-z]+)+)(?:: | - )"),
        (
            "rror: ",
            r"(?:(?:API|LLM|Model|Provider|Upstream|Agent|Unexpected|Unknown|OpenAI|Anthropic|Gemini) ){0,3}"
            r"[Ee]rror: ",
        ),
    )
)
_AFTER: Final = re.compile(_SEPARATORS)
# What stands behind the provider's words: litellm's own state, azure-core's second telling, instructor's end.
_BEHIND: Final = re.compile(
    r"\.?\s?\b(?:Received Model Group=|LiteLLM Retried:|No fallback model group found|Handle with `litellm\.)"
    r"|\nCode: \S+\nMessage: |\s*</last_exception>"
)
_BEHIND_HINTS: Final = ("LiteLLM", "Model Group", "model group", "`litellm", "\nCode: ", "</last_")
_RAISED: Final = re.compile(r"(?:state=finished raised |Caused by )(?P<class>[A-Za-z_]\w*)")
_RPC: Final = re.compile(
    r"status = StatusCode\.(?P<code>[A-Z_]+)\s+details = \"(?P<details>(?:[^\"\\]|\\.)*+)\"", re.DOTALL
)
_NUMBER: Final = re.compile(r"[45]\d\d(?![\w%]|[.,:/]\d)(?<![\w.,$/-].{3})", re.DOTALL)
_PHRASE_ONLY: Final = re.compile(r"invalid status '([A-Z][A-Za-z -]{2,40})'")  # azure-core
_STATUS_CLASSES: Final = ("Client Error", "Server Error")  # requests
_NAMED: Final = re.compile(
    r"(?:status(?:[ _-]?code)?|\bcode|\bhttp(?:/[\d.]{1,3})?|error|returned|responded with|success)"
    r"(?: (?:of|is|was|error|code|response))?[\"'`)]?\s?[:=]?\s?[\[(\"'`<]{0,2}$",
    re.IGNORECASE,
)
_STATUS_WORD: Final = re.compile(
    r"\b(RESOURCE_EXHAUSTED|DEADLINE_EXCEEDED|INVALID_ARGUMENT|PERMISSION_DENIED|FAILED_PRECONDITION"
    r"|UNAUTHENTICATED|(?<=StatusCode\.)[A-Z_]{4,20})\b"
)
_STATUS_HINTS: Final = ("EXHAUSTED", "EXCEEDED", "ARGUMENT", "DENIED", "CONDITION", "UNAUTH", "StatusCode.")
_LABELS: Final = ("ode", "ype", "eason")
_LABELLED: Final = re.compile(
    r"\b(?:[Ee]rror[ _]?)?(?P<label>[Cc]ode|[Tt]ype|[Rr]eason)[\"']?\s?[:=]\s?[\"']?"
    r"(?P<word>[a-z]+(?:_[a-z]+)+|[A-Z]+(?:_[A-Z]+)+)\b"
)
_REQUEST_ID: Final = re.compile(r"equest[ _-]?[Ii][Dd]\W{1,4}(?:is )?(?P<id>[\w-]{8,80})")
_REQUEST: Final = re.compile(r"\breq_\w{8,60}")  # OpenAI, Anthropic
# What curl -v prints around a body, https://curl.se/docs/manpage.html#-v
_CURL: Final = re.compile(r"^(?:[*<>] ?|[{}] \[\d|  % Total|[ \d]{3} [\d.kMG]+ +\d).*\n?", re.MULTILINE)
_CURL_STATUS: Final = re.compile(r"^< HTTP/[\d.]{1,3} (\d{3})", re.MULTILINE)
_TITLE: Final = re.compile(r"<title[^>]{0,200}>(?P<title>[^<]{1,400})</title>", re.IGNORECASE)
_TITLE_STATUS: Final = re.compile(r"(?<!\d)[45]\d\d(?!\d)")


@dataclass(slots=True)
class _Cut:
    """A text whose prefixes are being cut."""

    facts: Facts
    rest: str
    classes: list[str] = field(default_factory=list)

    def cut(self, *, more: bool = False) -> None:
        """Cuts prefixes as long as text stands behind them; `more`: an object does."""
        at = 0
        patterns = [pattern for hint, pattern in _PREFIXES if hint in self.rest]
        for _ in range(_PREFIXES_A_TEXT):
            found = next((hit for pattern in patterns if (hit := pattern.match(self.rest, at))), None)
            if found is None or found.end() == at:
                break
            end = self._behind(found)
            if end >= len(self.rest) and not more:
                self._note(found)
                break
            self._note(found)
            at = end
        self.rest = self.rest[at:]
        if any(hint in self.rest for hint in _BEHIND_HINTS):
            self.rest = _BEHIND.split(self.rest, maxsplit=1)[0]

    def _behind(self, found: re.Match[str]) -> int:
        """Where the text goes on behind a prefix, the status's own reason phrase skipped."""
        after = _AFTER.match(self.rest, found.end())
        end = after.end() if after else found.end()
        if found.groupdict().get("status"):
            words = self.rest[end : end + 40]
            phrase = next((p for p in _phrases(words) if status_of_phrase(p) == int(found["status"])), "")
            if phrase and (after := _AFTER.match(self.rest, end + len(phrase))):
                end = after.end()
        return end

    def _note(self, found: re.Match[str]) -> None:
        """Keeps what a prefix says; the inner prefix beats the outer one."""
        told = {name: value for name, value in found.groupdict().items() if value}
        facts = self.facts
        facts.status = status_of(told.get("status")) or status_of(told.get("code")) or facts.status
        if status_of(told.get("code")) is None:
            facts.code = told.get("code") or told.get("canonical") or facts.code
        facts.type = told.get("type") or facts.type
        facts.param = told.get("param") or facts.param
        facts.request_id = told.get("request_id") or facts.request_id
        word = told.get("word")
        if word and word.endswith("_error"):
            facts.type = word
        elif word:
            facts.code = word
        if "class" in told:
            self.classes.append(told["class"])


def _phrases(text: str) -> list[str]:
    """The beginnings of a text at its word boundaries, longest first."""
    words = re.split(r"[:.,\n{()<\"'`\]]", text, maxsplit=1)[0].split(" ")
    return [" ".join(words[:count]) for count in range(min(len(words), 5), 0, -1)]


def _status_in(text: str) -> int | None:
    """A status that is named as one, or that its reason phrase follows; a bare number is none."""
    if found := _PHRASE_ONLY.search(text):
        return status_of_phrase(found[1])
    for found in islice(_NUMBER.finditer(text[:_SCANNED]), _NUMBERS):
        status = int(found[0])
        behind = text[found.end() : found.end() + 40].lstrip(" :)-,(")
        if behind.startswith(_STATUS_CLASSES) or any(
            status_of_phrase(phrase) == status for phrase in _phrases(behind)
        ):
            return status
        before = text[max(0, found.start() - 40) : found.start()]
        if _NAMED.search(before) and "exit" not in before:
            return status
        if before.endswith("(") and text[found.end() : found.end() + 1] == ")":
            return status
    return None


def _codes_in(text: str, facts: Facts) -> None:
    """Codes that a text names as such."""
    if "_" not in text and "StatusCode." not in text and "UNAUTH" not in text:
        return
    for found in _LABELLED.finditer(text[:_SCANNED]) if any(label in text for label in _LABELS) else ():
        if found["label"].lower() == "type":
            facts.type = facts.type or found["word"]
        else:
            facts.code = facts.code or found["word"]
    if facts.code is None and any(word in text for word in _STATUS_HINTS):
        word = _STATUS_WORD.search(text[:_SCANNED])
        facts.code = word[1] if word else None


def _request_id(text: str) -> str | None:
    if found := _REQUEST_ID.search(text):
        return found["id"]
    found = _REQUEST.search(text) if "req_" in text else None
    return found[0] if found else None


def _page(text: str) -> Told | None:
    """An HTML page: its title says what there is to say."""
    if "<" not in text or not (page := _TITLE.search(text)):
        return None
    title = " ".join(page["title"].split())
    number = _TITLE_STATUS.search(title)
    status = int(number[0]) if number else status_of_phrase(title) or _status_in(text[: page.start()])
    return Told(ErrorBody(status=status, message=title or None))


def finish(
    facts: Facts, now: float | None = None, around: str = "", classes: list[str] | None = None
) -> ErrorBody:
    """A body from the facts of a walk: prefixes of its message are cut, wait and request id are read.

    Args:
        facts: What the walk found.
        now: Unix time in seconds, for waits that are told as a point in time.
        around: The text that it was found in.
        classes: Where the exception classes in front of its message are added.
    """
    message = facts.message
    if message:
        inner = Facts()
        cut = _Cut(inner, message)
        cut.cut()
        facts.message = cut.rest.strip()[:MESSAGE_LIMIT] or message
        facts.status = facts.status or inner.status or _status_in(facts.message)
        facts.code = facts.code or inner.code
        facts.type = facts.type or inner.type
        if classes is not None:
            classes += cut.classes
    for text in (message, around):
        if text and facts.wait is None:
            facts.wait = wait_in(text, now)
        if text and facts.request_id is None:
            facts.request_id = _request_id(text)
    return facts.body()


def read_text(text: str, now: float | None = None) -> Told:
    """Reads an error's text as exceptions and logs print it.

    Args:
        text: The text; of a long one the first 20,000 characters count.
        now: Unix time in seconds, for waits that are told as a point in time.
    """
    text = text[:TEXT_LIMIT]
    curl = "\n* Connection #" in text or "< HTTP/" in text
    if curl and (rest := _CURL.sub("", text)) != text:
        answers = _CURL_STATUS.findall(text)
        inner = read_text(rest, now)
        wait = inner.body.retry_after_s
        wait = wait_in(text, now) if wait is None else wait
        status = inner.body.status or (status_of(answers[-1]) if answers else None)
        return replace(inner, body=replace(inner.body, status=status, retry_after_s=wait))
    page = _page(text)
    if page is not None:
        return page
    printed = Walk(now).printed(text) if "{" in text else None
    facts, start = printed or (Facts(), len(text))
    head = text[:start]
    cut = _Cut(Facts(), head)
    cut.cut(more=start < len(text))
    told = cut.facts
    rpc = _RPC.search(text) if "RPC that terminated with" in text else None
    if rpc is not None:
        told.code, cut.rest = rpc["code"], rpc["details"].replace('\\"', '"')
    if facts.message is None:
        words = cut.rest.strip()
        if printed:
            words = words.rstrip(" -:[({,=\"'`")
        facts.message = None if not words or status_of_phrase(words) else words[:MESSAGE_LIMIT]
        if facts.status is None and told.status is None:
            told.status = status_of_phrase(words)
    if told.status is None and facts.status is None:
        told.status = _status_in(head)
    if facts.code is None and told.code is None:
        _codes_in(head, told)
    if "aised " in text or "Caused by " in text:
        cut.classes += [found["class"] for found in _RAISED.finditer(head[:_SCANNED])]
    facts.status = facts.status or told.status
    facts.code = facts.code or told.code
    facts.type = facts.type or told.type
    facts.param = facts.param or told.param
    facts.request_id = facts.request_id or told.request_id
    around = text if printed or cut.rest != text else ""
    body = finish(facts, now, around, cut.classes)
    return Told(body, tuple(dict.fromkeys(cut.classes)))
