"""Printed stack traces -> the exception chain and the modules of the frames.

Python's traceback format, Java's `Caused by:`, Node's `[cause]`. A module path is written as
its language does: `openai._base_client`, `com.openai.core.http.RetryingHttpClient`,
`@anthropic-ai/sdk/core`; code outside of installed packages keeps its file's path.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from otel_triage.model import Cause

_LIMIT: Final = 64_000
_CHAIN_LIMIT: Final = 8
_MESSAGE_LIMIT: Final = 2000

_CHAINED = re.compile(
    r"^[ |+\-]*(?:The above exception was the direct cause of the following exception"
    r"|During handling of the above exception, another exception occurred):?[ \t]*$",
    re.MULTILINE,
)
_PYTHON_FRAME = re.compile(r'^[ |]*File "(?P<file>[^"\n]+)", line \d+', re.MULTILINE)
_PYTHON_RAISED = re.compile(r"^[ |]{0,6}(?P<type>[A-Za-z_][\w.]*)(?:: ?(?P<message>.*))?$", re.DOTALL)
_GROUP_MARGIN = re.compile(r"^ *[|+][ \-]?", re.MULTILINE)
_INSTALLED = re.compile(r".*(?:site|dist)-packages/(?P<path>.+)", re.DOTALL)
_STANDARD = re.compile(r".*/python\d[\d.]*/(?P<path>.+)", re.DOTALL)

_AT = re.compile(r"^\s*at (?:async )?(?P<frame>\S.*)$", re.MULTILINE)
_JAVA_PLACE = re.compile(
    r"^(?:[\w.]+/)?(?P<method>[\w.$]+)\((?:[\w$]+\.(?:java|kt|scala)|Native Method|Unknown)"
)
_JAVA_CAUSE = re.compile(r"^(?:Caused by: )(?P<type>[\w.$]+)(?:: (?P<message>.*))?$", re.MULTILINE)
_NODE_CAUSE = re.compile(r"\[cause\]: (?P<head>[^\n]+)")
_NODE_PACKAGE = re.compile(r".*node_modules/(?P<path>[^():]+)", re.DOTALL)
_HEAD = re.compile(r"^(?:\w+ \[(?P<named>\w+)\]|(?P<type>[\w.$]+))(?:: (?P<message>.*))?$")


@dataclass(frozen=True, slots=True)
class Trace:
    """What a printed stack trace tells.

    `causes` is the chain, outermost first. `frames` are the modules of all frames. `raised`
    holds, for each exception of the chain that has frames, the module that raised it.
    """

    causes: tuple[Cause, ...] = ()
    frames: tuple[str, ...] = ()
    raised: tuple[str, ...] = ()


def _python_module(file: str) -> str:
    file = file.replace("\\", "/")
    for pattern in (_INSTALLED, _STANDARD):
        if found := pattern.fullmatch(file):
            path = found["path"].removesuffix(".py").removesuffix("/__init__")
            return path.replace("/", ".")
    return file


def _python_cause(block: str, end_of_frames: int) -> Cause | None:
    """The exception at the end of a traceback: the first line behind the frames that is not indented."""
    lines = block[end_of_frames:].split("\n")[1:]
    for index, line in enumerate(lines):
        if not line or line.startswith(("  ", "\t")):
            continue
        if found := _PYTHON_RAISED.match("\n".join(lines[index:]).rstrip()):
            return Cause(found["type"], (found["message"] or "").strip()[:_MESSAGE_LIMIT])
        return None
    return None


def _python(text: str) -> Trace:
    if "ExceptionGroup" in text:
        text = _GROUP_MARGIN.sub("", text)
    causes: list[Cause] = []
    frames: list[str] = []
    raised: list[str] = []
    for block in reversed(_CHAINED.split(text)):
        found = list(_PYTHON_FRAME.finditer(block))
        modules = [_python_module(frame["file"]) for frame in found]
        frames += modules
        raised += modules[-1:]
        if found and (cause := _python_cause(block, found[-1].end())):
            causes.append(cause)
    return Trace(tuple(causes[:_CHAIN_LIMIT]), tuple(frames), tuple(raised))


def _head(line: str) -> Cause | None:
    """`Type: message`, in Node also `Class [name]: message`, of which the name says more."""
    found = _HEAD.match(line.strip().rstrip("{").rstrip())
    if found is None:
        return None
    return Cause(found["named"] or found["type"], (found["message"] or "")[:_MESSAGE_LIMIT])


def _java(text: str) -> Trace:
    blocks = re.split(r"^(?=Caused by: )", text, flags=re.MULTILINE)
    causes = [_head(blocks[0].partition("\n")[0].removeprefix('Exception in thread "main" '))]
    causes += [
        Cause(found["type"], (found["message"] or "")[:_MESSAGE_LIMIT])
        for found in _JAVA_CAUSE.finditer(text)
    ]
    places = [[place["method"] for at in _AT.finditer(block) if (place := _JAVA_PLACE.match(at["frame"]))]
              for block in blocks]  # fmt: skip
    return Trace(
        tuple(cause for cause in causes if cause)[:_CHAIN_LIMIT],
        tuple(method for block in places for method in block),
        tuple(block[0] for block in places if block),
    )


def _node_module(frame: str) -> str:
    found = _NODE_PACKAGE.match(frame.replace("\\", "/"))
    if found is None:
        return frame
    return re.sub(r"\.[cm]?[jt]s$", "", found["path"].strip())


def _node(text: str) -> Trace:
    lines = [line for line in text.split("\n") if line.strip()]
    heads = [lines[0], *(found["head"] for found in _NODE_CAUSE.finditer(text))]
    frames = tuple(_node_module(at["frame"]) for at in _AT.finditer(text))
    # Frames of the runtime itself say nothing of who raised.
    own = next((frame for frame in frames if "node:internal" not in frame), None)
    return Trace(
        tuple(cause for cause in map(_head, heads) if cause)[:_CHAIN_LIMIT],
        frames,
        (own,) if own else (),
    )


@lru_cache(maxsize=256)
def read_stacktrace(text: str) -> Trace:
    """Reads a printed stack trace of any of the known languages; an empty `Trace` if it is none."""
    if len(text) > _LIMIT:
        text = f"{text[: _LIMIT // 2]}\n{text[-_LIMIT // 2 :]}"
    if _PYTHON_FRAME.search(text):
        return _python(text)
    at = _AT.search(text)
    if at is None:
        return Trace()
    return _java(text) if _JAVA_PLACE.match(at["frame"]) else _node(text)
