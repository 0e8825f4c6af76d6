"""Printed stack traces -> the exception chain and the modules of the frames.

One reader, and a table with a row a language: Python, Java (Kotlin, Scala), Node, .NET, PHP, Ruby and
Go. A module path is written as its language does: `openai._base_client`,
`com.openai.core.http.RetryingHttpClient`, `@anthropic-ai/sdk/core`; code outside of installed packages
keeps its file's path.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from otel_triage.model import Cause

_LIMIT: Final = 64_000
_CHAIN_LIMIT: Final = 8
_MESSAGE_LIMIT: Final = 2000
_HEAD_LIMIT: Final = 6000


@dataclass(frozen=True, slots=True)
class Trace:
    """What a printed stack trace tells.

    `causes` is the chain, outermost first. `frames` are the modules of all frames. `raised`
    holds, for each exception of the chain that has frames, the module that raised it.
    `properties` is what Node prints of an error's own members, as text.
    """

    causes: tuple[Cause, ...] = ()
    frames: tuple[str, ...] = ()
    raised: tuple[str, ...] = ()
    properties: str = ""


@dataclass(frozen=True, slots=True)
class _Language:
    """How one language prints a stack trace.

    `frame` matches one frame, its module in group `at`. `split` stands between two exceptions of a
    chain. `head` matches the exception itself, as `type` and `message`. `innermost_first`: in which
    order the exceptions are printed. `frames_first`: whether the frames of an exception stand above
    it, the innermost one last.
    """

    frame: re.Pattern[str]
    split: re.Pattern[str]
    head: re.Pattern[str]
    module: Callable[[str], str] = str.strip
    innermost_first: bool = False
    frames_first: bool = False


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text, re.MULTILINE)


_INSTALLED: Final = re.compile(r".*(?:site|dist)-packages/(.+)", re.DOTALL)
_STANDARD: Final = re.compile(r".*/python\d[\d.]*/(.+)", re.DOTALL)
_NODE_PACKAGE: Final = re.compile(r".*node_modules/([^():]+)", re.DOTALL)
_GEM: Final = re.compile(r".*/gems/([^/]+?)-\d[\w.]*/lib/(.+?)(?:\.rb)?", re.DOTALL)
_VENDOR: Final = re.compile(r".*/vendor/(.+?)(?:\.php)?", re.DOTALL)


def _python_module(file: str) -> str:
    file = file.replace("\\", "/")
    for pattern in (_INSTALLED, _STANDARD):
        if found := pattern.fullmatch(file):
            return found[1].removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return file


def _node_module(frame: str) -> str:
    found = _NODE_PACKAGE.match(frame.replace("\\", "/"))
    return re.sub(r"\.[cm]?[jt]s$", "", found[1].strip()) if found else frame.removesuffix(" {")


def _ruby_module(file: str) -> str:
    found = _GEM.fullmatch(file)
    return f"{found[1]}/{found[2].removeprefix(found[1] + '/')}" if found else file


def _php_module(file: str) -> str:
    found = _VENDOR.fullmatch(file.replace("\\", "/"))
    return found[1] if found else file


_LANGUAGES: Final = (
    # https://docs.python.org/3/library/traceback.html
    _Language(
        frame=_pattern(r'^[ |]*File "(?P<at>[^"\n]+)", line \d+'),
        split=_pattern(
            r"^[ |+\-]*(?:The above exception was the direct cause of the following exception"
            r"|During handling of the above exception, another exception occurred):?[ \t]*$"
        ),
        head=_pattern(r"^[ |]{0,6}(?P<type>[A-Za-z_][\w.]*)(?:: ?(?P<message>(?s:.*)))?\Z"),
        module=_python_module,
        innermost_first=True,
        frames_first=True,
    ),
    # https://docs.oracle.com/en/java/javase/21/docs/api/java.base/java/lang/Throwable.html#printStackTrace()
    _Language(
        frame=_pattern(
            r"^[ \t]*+at (?:[\w.@-]+/)*(?P<at>[\w.$<>]+)"
            r"\((?:[\w$-]+\.(?:java|kt|scala|groovy)\b|Native Method|Unknown)"
        ),
        split=_pattern(r"^[ \t]*+(?:Caused by|Wrapped by): "),
        head=_pattern(r"^(?:Exception in thread \"[^\"]*\" )?(?P<type>[\w.$]+)(?:: (?P<message>(?s:.*)))?\Z"),
    ),
    # https://learn.microsoft.com/dotnet/api/system.exception.tostring
    _Language(
        frame=_pattern(
            r"^[ \t]*+at (?P<at>[A-Z][\w.`<>|+\[\]]*\.[\w.<>`|\[\]]+)\([^)\n]*\)(?: in [^\n]*)?\r?$"
        ),
        split=_pattern(r" ---> (?:\(Inner Exception #\d+\) )?"),
        head=_pattern(
            r"^(?:Unhandled exception\. )?(?P<type>[A-Z][\w.`+]*)(?: \([\w ]+\))?"
            r"(?:: (?P<message>(?s:.*)))?\Z"
        ),
    ),
    # https://nodejs.org/api/errors.html#errorstack; causes as util.inspect prints them
    _Language(
        frame=_pattern(r"^[ \t]*+at (?:async )?(?P<at>\S.*)$"),
        split=_pattern(r"\[cause\]: |\[errors\]: \[\s*|^[ \t]*+Caused by: "),
        head=_pattern(
            r"^(?:Uncaught )?(?:\w+ \[(?P<named>\w+)\]|(?P<type>[\w.$]+))(?:: (?P<message>(?s:.*?)))?[ {]*\Z"
        ),
        module=_node_module,
    ),
    # https://www.php.net/manual/en/exception.tostring.php: previous ones first, "Next" in front of each
    _Language(
        frame=_pattern(r"^#\d+ (?P<at>[^(\n]+)\(\d+\): "),
        split=_pattern(r"^[ \t]*+Next (?=[\w\\]+(?::| in ))"),
        head=_pattern(
            r"^(?:.{0,60}?(?:Fatal error|ERROR): +)?(?:Uncaught )?(?:exception ')?"
            r"(?P<type>[A-Za-z_][\w\\]*)'?(?:(?::| with message) '?(?P<message>(?s:.*?)))?'?"
            r" in \S+(?::\d+| on line \d+)\s*(?:Stack trace:)?\s*\Z"
        ),
        module=_php_module,
        innermost_first=True,
    ),
    # https://docs.ruby-lang.org/en/3.4/Exception.html#method-i-full_message; Rails: "Class (message):"
    _Language(
        frame=_pattern(r"^[ \t]*+(?:from )?(?P<at>[^\s:][^:\n]*\.rb):\d+:in [`'][^'\n]+'"),
        split=_pattern(r"(?<=\n)(?=[^\s:][^:\n]*\.rb:\d+:in [`'][^'\n]+': )"),
        head=_pattern(
            r"(?:^(?:[^\s:][^:\n]*\.rb:\d+:in [`'][^'\n]+': )?(?P<message>(?s:[^\n]*?))"
            r" \((?P<type>(?:[A-Z]\w*::)*[A-Z]\w*)\)(?=\s|\Z))"
            r"|(?:^(?P<named>(?:[A-Z]\w*::)*[A-Z]\w*) \((?P<text>[^\n]*)\):?)"
        ),
        module=_ruby_module,
    ),
    # https://pkg.go.dev/runtime/debug#PrintStack, https://go.dev/ref/spec#Handling_panics
    _Language(
        frame=_pattern(
            r"^(?:created by )?(?P<at>[\w/~@-]++(?:\.[\w/~@-]++)*+(?:\.\(\*?\w+\))?+[\w.\[\]]*+)"
            r"(?:\([^\n]*\))?(?: in goroutine \d+)?\n\t[^\s:]++:\d+"
        ),
        split=_pattern(r"^[ \t]*+panic: (?=.*\n[^\n]*\[recovered)"),
        head=_pattern(r"^(?:goroutine \d+ .*\n)?(?P<type>panic|fatal error): (?P<message>[^\n]*)"),
    ),
)
_PYTHON, _JAVA, _DOTNET, _NODE, _PHP, _RUBY, _GO = _LANGUAGES
_PYTEST_AT: Final = re.compile(
    r"^([^\s:][^:\n]{0,200}\.py):(\d+): (?:in ([\w<>]+)|[A-Z][\w.]*)?$", re.MULTILINE
)
_CAUSE_FIRST: Final = "\nThe above exception was the direct cause of the following exception:\n"
_QUOTE: Final = re.compile(r'(?<!\\)"')
_ESCAPE: Final = re.compile(r"\\(.)")
_ESCAPED: Final = 3  # times that a text may have been escaped
_WHITE: Final = {"n": "\n", "r": "", "t": "\t"}
_GROUP_MARGIN: Final = re.compile(r"^ *[|+][ \-]?", re.MULTILINE)
_PROPERTIES: Final = re.compile(r" \{\n(?=\s+[\w$'\[])")
_NO_HEAD: Final = ("  ", "\t", "Traceback (most recent call last)")
_OMITTED: Final = re.compile(
    r"^[ \t]*+(?:\.\.\. \d+ (?:more|common frames omitted)|--- End of .*)$", re.MULTILINE
)


def _cause(language: _Language, text: str) -> Cause | None:
    """The exception that a text names: type and message, which may go over several lines."""
    found = language.head.search(text[:_HEAD_LIMIT].strip())
    if found is None:
        return None
    groups = found.groupdict()
    name = groups.get("named") or groups.get("type")
    message = groups.get("message") or groups.get("text") or ""
    return Cause(name, message.strip()[:_MESSAGE_LIMIT]) if name else None


def _head_of(language: _Language, block: str, frames: list[re.Match[str]]) -> str:
    """The part of a block in which its exception stands."""
    if not language.frames_first:
        if frames and not block[: frames[0].start()].strip():  # Ruby: it stands in the line of its frame
            return block[: frames[1].start()] if len(frames) > 1 else block
        return block[: frames[0].start()] if frames else _OMITTED.sub("", block)
    # Python: the first line behind the frames that is not indented.
    lines = block[frames[-1].end() :].split("\n")[1:] if frames else block.split("\n")
    at = next((i for i, line in enumerate(lines) if line.strip() and not line.startswith(_NO_HEAD)), None)
    return "" if at is None else "\n".join(lines[at:])


def _read(language: _Language, text: str) -> Trace:
    if language is _PYTHON and "ExceptionGroup" in text:
        text = _GROUP_MARGIN.sub("", text)
    causes: list[Cause] = []
    frames: list[str] = []
    raised: list[str] = []
    blocks = language.split.split(text)[: 4 * _CHAIN_LIMIT]
    for block in reversed(blocks) if language.innermost_first else blocks:
        found = list(language.frame.finditer(block))
        modules = [language.module(frame["at"]) for frame in found]
        frames += modules
        own = [module for module in modules if "node:internal" not in module]  # the runtime tells nothing
        if own:
            raised.append(own[-1] if language.frames_first else own[0])
        head = _head_of(language, block, found) if found or len(blocks) > 1 else ""
        if head and (cause := _cause(language, head)):
            causes.append(cause)
    properties = ""
    if language is _NODE and (found_at := _PROPERTIES.search(text)):
        properties = text[found_at.start() + 1 :]
    return Trace(tuple(causes[:_CHAIN_LIMIT]), tuple(frames), tuple(raised), properties)


def _indentation(text: str) -> int:
    """How far a Python traceback is indented as a whole, as logs and reports do; 0 for other traces."""
    at = text.find("Traceback (most recent")
    least = 1
    if at < 0:
        at, least = text.find('File "'), 3  # two are its own
    margin = text[text.rfind("\n", 0, max(at, 0)) + 1 : max(at, 0)]
    return len(margin) if len(margin) >= least and margin.isspace() else 0


def _of_pytest(text: str) -> str:
    """What pytest prints of a failure, as a traceback: `a.py:3: in f` are frames, `E   …` is the exception.

    https://docs.pytest.org/en/stable/how-to/output.html#modifying-python-traceback-printing
    """
    lines: list[str] = []
    frames: list[str] = []
    raised: list[str] = []
    for line in [*text.split("\n"), ""]:
        if at := _PYTEST_AT.match(line):
            frames.append(f'  File "{at[1]}", line {at[2]}, in {at[3] or "?"}')
        elif line.startswith("E  "):
            raised.append(line[1:].strip())
        elif _PYTHON.split.match(line):
            lines += [*frames, *raised, line]
            frames, raised = [], []
    return "\n".join([*lines, *frames, *raised])


def _unescaped(text: str) -> str:
    """A stack trace that stands in a string of JSON, from its first line to the end of the string."""
    start = text.find("\\n")
    if start < 0:
        return ""
    end = _QUOTE.search(text, start)
    text = text[text.rfind('"', 0, start) + 1 : end.start() if end else None]
    for _ in range(_ESCAPED):
        text = _ESCAPE.sub(lambda found: _WHITE.get(found[1], found[1]), text)
        if "\n" in text:
            break
    return text


@lru_cache(maxsize=256)
def read_stacktrace(text: str) -> Trace:
    """Reads a printed stack trace of any of the known languages; an empty `Trace` if it is none."""
    if len(text) > _LIMIT:
        text = f"{text[: _LIMIT // 2]}\n{text[-_LIMIT // 2 :]}"
    text = text.replace("\r\n", "\n")
    if "\nE  " in text and _PYTEST_AT.search(text):
        text = _of_pytest(text)
    elif indentation := _indentation(text):
        text = re.sub(rf"(?m)^ {{1,{indentation}}}", "", text)
    if "[chained from]" in text:  # outermost first
        text = _CAUSE_FIRST.join(reversed(text.split("[chained from]")))
    for written in (text, _unescaped(text)):
        for language in _LANGUAGES:
            if written and language.frame.search(written):
                return _read(language, written)
    return Trace()
