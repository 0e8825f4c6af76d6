"""`otel-triage classify`: error records in, verdicts out, JSON lines both, in order.

Memory does not grow with the input, and what is done is never lost: a broken line gives an error
record and the rest goes on; an interrupted run is continued with `--resume`.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, BinaryIO, Final

from otel_triage.cli.workers import in_order, processors
from otel_triage.facts.records import facts_of_record
from otel_triage.model import Verdict
from otel_triage.verdict import text_model
from otel_triage.verdict.classify import Second, classify

LINE_LIMIT: Final = 16 << 20
"""Bytes of one line at most."""

WRONG: Final = 2
"""Exit code where arguments or files are wrong."""

INTERRUPTED: Final = 130
_SHOWN_EVERY: Final = 100  # lines
_MANY: Final = 1 << 20  # bytes of a file, from which all processors work on it
_BROKEN_PIPE: Final = 141  # as a program that SIGPIPE ended

_TEXTS: Final = ("error_type", "error_message", "stacktrace")
_RECORD: Final = frozenset({*_TEXTS, "tags", "timestamp"})
_EXAMPLE: Final = '{"error_type": "RateLimitError", "error_message": "…", "tags": {"provider": "openai"}}'
_KINDS: Final = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "a list",
    dict: "an object",
    type(None): "null",
}


class BadRecord(ValueError):
    """A line is no error record; the text says what is wrong and what would be right."""


class BadFile(Exception):
    """A file cannot be used; the text names it, says what is wrong and what would be right."""


def _no_constant(name: str) -> Any:
    raise BadRecord(f"{name} is no JSON: write null, or a number")


_DECODER: Final = json.JSONDecoder(parse_constant=_no_constant)


def read_record(line: bytes) -> dict[str, Any]:
    """One line as an error record.

    Raises:
        BadRecord: it is none.
    """
    if len(line) > LINE_LIMIT:
        raise BadRecord(f"longer than {LINE_LIMIT >> 20} MiB: shorten the stack trace")
    try:
        record = _DECODER.decode(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise BadRecord(f"not UTF-8 at byte {error.start + 1}: save the input as UTF-8") from None
    except json.JSONDecodeError as error:
        raise BadRecord(
            f"not JSON: {error.msg} at character {error.pos + 1}; one JSON object a line, as {_EXAMPLE}"
        ) from None
    except RecursionError:
        raise BadRecord("nested too deeply: an error record holds strings and one object of tags") from None
    except ValueError as error:
        raise BadRecord(str(error)) from None
    if not isinstance(record, dict):
        raise BadRecord(f"{_KINDS[type(record)]} where an object is due, as {_EXAMPLE}")
    for name in _TEXTS:
        if not isinstance(record.get(name), (str, type(None))):
            raise BadRecord(f"{name} must be a string or null, not {_KINDS[type(record[name])]}")
    timestamp = record.get("timestamp")
    if isinstance(timestamp, bool) or not isinstance(timestamp, (str, int, float, type(None))):
        raise BadRecord(f"timestamp must be RFC 3339 text or Unix seconds, not {_KINDS[type(timestamp)]}")
    tags = record.get("tags")
    if not isinstance(tags, (dict, type(None))):
        raise BadRecord(f"tags must be an object of strings or null, not {_KINDS[type(tags)]}")
    for name, value in (tags or {}).items():
        if isinstance(value, (dict, list)):
            raise BadRecord(f"tags.{name} must be a string, not {_KINDS[type(value)]}")
    if not tags and not any(record.get(name) for name in _TEXTS):
        raise BadRecord(
            f"nothing to classify: error_type, error_message, stacktrace and tags are all empty or missing; "
            f"give one of them, as {_EXAMPLE}"
        )
    return record


@cache
def _second() -> Second | None:
    return text_model.if_installed()


def verdict_of(record: Mapping[str, Any]) -> Verdict:
    """The verdict on an error record that `read_record` took."""
    return classify(facts_of_record(record), second=_second())


def ways(*, offline: bool) -> str:
    """What verdicts rest on here, for people."""
    if _second() is None:
        return "rules alone; the local text model needs numpy: pip install 'otel-triage[cli]'"
    return "rules and the local text model" + ("" if offline else "; no LLM is configured")


def verdict_record(verdict: Verdict, *, explain: bool = False) -> dict[str, Any]:
    """A verdict as the object that `classify` writes and `POST /v1/classify` answers."""
    other = verdict.alternative
    record: dict[str, Any] = {
        "category": verdict.category,
        "reason": verdict.reason,
        "severity": verdict.severity,
        "retryable": verdict.retryable,
        "retry_after_s": verdict.retry_after_s,
        "owner": verdict.owner,
        "root_cause": verdict.root_cause,
        "suggested_action": verdict.suggested_action,
        "confidence": verdict.confidence,
        "source": verdict.source,
        "fingerprint": verdict.fingerprint,
        "version": verdict.version,
        "alternative": other
        and {"category": other.category, "reason": other.reason, "confidence": other.confidence},
    }
    if explain:
        record["explain"] = verdict.explain
    return record


def answer(line: bytes, *, explain: bool) -> dict[str, Any]:
    """What to write for a line that was read: members that are not ours, and the verdict.

    A member that is called as one of the verdict's is replaced by it.

    Raises:
        BadRecord: the line is no error record.
    """
    record = read_record(line)
    others = {name: value for name, value in record.items() if name not in _RECORD}
    return others | verdict_record(verdict_of(record), explain=explain)


def _encode(record: Mapping[str, Any]) -> bytes:
    try:
        text = json.dumps(record, ensure_ascii=False, allow_nan=False)
        return text.encode("utf-8") + b"\n"
    except UnicodeEncodeError:  # half of a surrogate pair, which only an escape can hold
        return json.dumps(record, allow_nan=False).encode("ascii") + b"\n"
    except ValueError:  # 1e999 was read as infinity
        raise BadRecord("a number is too large for JSON: write it as a string") from None


def lines_of(source: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Numbered lines that are not blank; of one that is too long as much as tells that."""
    number = 0
    while line := source.readline(LINE_LIMIT + 1):
        number += 1
        rest = line
        while len(rest) > LINE_LIMIT and not rest.endswith(b"\n"):
            rest = source.readline(LINE_LIMIT + 1)
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line.strip():
            yield number, line


@dataclass(frozen=True, slots=True)
class Options:
    """Arguments of the command: `file` and `output` are paths, or `-` and None for the standard streams."""

    file: str = "-"
    output: str | None = None
    offline: bool = False
    explain: bool = False
    concurrency: int = 5
    resume: bool = False


def open_input(file: str) -> BinaryIO:
    """A file to read, or standard input for `-`.

    Raises:
        BadFile: it cannot be read.
    """
    if file == "-":
        return sys.stdin.buffer
    try:
        return open(file, "rb")
    except FileNotFoundError:
        raise BadFile(f"{file}: no such file; give a file of JSON lines, or - for standard input") from None
    except IsADirectoryError:
        raise BadFile(f"{file} is a directory; give a file of JSON lines in it") from None
    except OSError as error:
        raise BadFile(f"{file}: {error.strerror}") from None


@contextmanager
def writing(path: Path, source: BinaryIO, option: str) -> Iterator[None]:
    """Around the opening of an output file that `option` names.

    Raises:
        BadFile: it is the input as well, or the block could not open it.
    """
    try:
        if path.exists() and os.path.samestat(path.stat(), os.fstat(source.fileno())):
            raise BadFile(f"{path} is the input as well; name another file with {option}")
        yield
    except IsADirectoryError:
        raise BadFile(f"{path} is a directory; name a file in it with {option}") from None
    except FileNotFoundError:
        raise BadFile(f"{path}: there is no directory {path.parent}; make it first") from None
    except OSError as error:
        raise BadFile(f"{path}: {error.strerror}") from None


def _finished(path: Path) -> int:
    """How many whole lines a file holds; what was cut off behind them is cut away."""
    count = end = at = 0
    with path.open("r+b") as output:
        while block := output.read(1 << 20):
            count += block.count(b"\n")
            if b"\n" in block:
                end = at + block.rindex(b"\n") + 1
            at += len(block)
        output.truncate(end)
    return count


def _open_output(options: Options, source: BinaryIO) -> tuple[BinaryIO, int]:
    """Where to write, and how many answers are there already."""
    if options.output is None:
        if options.resume:
            raise BadFile("--resume continues a file: name it with -o OUT")
        return sys.stdout.buffer, 0
    path = Path(options.output)
    with writing(path, source, "-o"):
        done = _finished(path) if options.resume and path.exists() else 0
        return path.open("ab" if options.resume else "wb"), done


def _progress(options: Options) -> AbstractContextManager[Any]:
    """A progress bar where a person looks on and nothing else goes to the screen; needs the extra `cli`."""
    if not sys.stderr.isatty() or (options.output is None and sys.stdout.isatty()):
        return nullcontext()
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
    except ModuleNotFoundError:
        return nullcontext()
    columns = (
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True)


@dataclass(slots=True)
class _Count:
    done: int = 0
    broken: int = 0
    read: int = 0  # bytes


def _answered(numbered: tuple[int, bytes], *, explain: bool) -> tuple[bytes, bool, int]:
    """The answer to a line, whether the line was broken, and its length."""
    number, line = numbered
    try:
        return _encode(answer(line, explain=explain)), False, len(line)
    except BadRecord as error:
        return _encode({"line": number, "error": str(error)}), True, len(line)


def _behind(lines: Iterator[tuple[int, bytes]], skip: int, count: _Count) -> Iterator[tuple[int, bytes]]:
    """The lines behind those that an earlier run has answered, which are counted."""
    for number_and_line in lines:
        if count.done < skip:
            count.done += 1
            count.read += len(number_and_line[1])
        else:
            yield number_and_line


def _run(options: Options, source: BinaryIO, count: _Count) -> None:
    output, skip = _open_output(options, source)
    # A reader behind a pipe sees each answer as it comes; a file is written in blocks.
    about = os.fstat(source.fileno())
    at_once = not stat.S_ISREG(about.st_mode)
    source_size = None if at_once else about.st_size
    try:
        with _progress(options) as bar:
            task = bar.add_task("", total=source_size) if bar else None
            work = partial(_answered, explain=options.explain)
            lines = _behind(lines_of(source), skip, count)
            many = source_size is not None and source_size > _MANY and processors() > 1
            for encoded, broken, length in in_order(work, lines) if many else map(work, lines):
                output.write(encoded)
                count.broken += broken
                count.done += 1
                count.read += length
                if bar and count.done % _SHOWN_EVERY == 0:
                    bar.update(task, completed=count.read, description=f"{count.done:,} errors")
                if at_once:
                    output.flush()
        if count.done < skip:
            raise BadFile(
                f"{options.output} holds {skip} answers and {options.file} only {count.done} records: "
                "it belongs to another input; name the right one with -o"
            )
    finally:
        output.flush()
        if options.output is not None:
            output.close()


def run_safely(command: str, work: Callable[[], int], when_interrupted: Callable[[], str]) -> int:
    """Runs a command that reads and writes files; what went wrong is said on standard error.

    Args:
        command: its name.
        work: does it, and returns the exit code.
        when_interrupted: what to say behind "interrupted" if Ctrl-C ends it.
    """
    try:
        return work()
    except BadFile as error:
        print(f"otel-triage {command}: {error}", file=sys.stderr)
        return WRONG
    except BrokenPipeError:
        # Nobody reads any more: leave without a word, and keep Python from flushing at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except KeyboardInterrupt:
        print(f"otel-triage {command}: interrupted{when_interrupted()}", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        print(f"otel-triage {command}: {error.filename or 'output'}: {error.strerror}", file=sys.stderr)
        return WRONG


def run(options: Options) -> int:
    """Runs the command; returns its exit code."""
    print(f"otel-triage classify: {ways(offline=options.offline)}", file=sys.stderr)
    count = _Count()

    def work() -> int:
        source = open_input(options.file)
        with source if options.file != "-" else nullcontext():
            _run(options, source, count)
        if count.broken:
            print(
                f"otel-triage classify: {count.broken} of {count.done} lines were no error records",
                file=sys.stderr,
            )
        return 0

    hint = "; --resume continues" if options.output is not None else ""
    return run_safely("classify", work, lambda: f" after {count.done} records{hint}")
