"""Makes `data.json` from the TOML files that people write: `python -m otel_triage.verdict.build`.

Everything that can be wrong in a data file is found here, so that the engine need not look:
unknown keys, unknown verdicts, patterns that do not compile, rules without a source or an
example. A test fails while `data.json` is not what the TOML files say.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from otel_triage.facts.providers import canonical
from otel_triage.model import BrokeAt, Cause, LLMError, Outcome, Owner, Retryable, Severity
from otel_triage.verdict import data, table
from otel_triage.verdict.index import index_of
from otel_triage.verdict.names import plain
from otel_triage.verdict.rule import read_rule

HERE: Final = Path(__file__).parent

_LISTS: Final = {
    "provider", "status", "code", "error_type", "cause", "finish_reason", "broke_at", "outcome", "param",
    "keywords",
}  # fmt: skip
_TEXTS: Final = {"id", "verdict", "retryable", "source", "pattern", "veto", "stack"}
_EXAMPLES: Final = {"true_positives", "false_positives"}
_KNOWN: Final = _LISTS | _TEXTS | _EXAMPLES | {"confidence", "weak"}
_FACTS: Final = {field.name for field in fields(LLMError)}
_STATUS: Final = re.compile(r"[1-5]xx|none|local")


class DataError(ValueError):
    """A data file is wrong; the text names the file, the rule, what is wrong and what would be right."""


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{path.name}: {error}") from error


def taxonomy() -> dict[str, Any]:
    """`taxonomy.toml`, checked."""
    table = _toml(HERE / "taxonomy.toml")
    wanted = {"covers": None, "retryable": Retryable, "owner": Owner, "severity": Severity}
    for category, rows in table.items():
        for name, row in rows.items():
            if set(row) != set(wanted):
                raise DataError(f"taxonomy.toml: {category}.{name} needs exactly {', '.join(wanted)}")
            for key, kind in wanted.items():
                if kind and row[key] not in set(kind):
                    raise DataError(f"taxonomy.toml: {category}.{name}: {key} is one of {', '.join(kind)}")
    return table


def advice() -> dict[str, Any]:
    """The files in `advice` by their names; their texts are checked by tests, which can say more."""
    return {path.stem: _toml(path) for path in sorted((HERE / "advice").glob("*.toml"))}


def statuses() -> dict[str, int | str]:
    """`statuses.toml`: class -> the HTTP status that it stands for, or "local" for the language's own."""
    table: dict[str, int | str] = _toml(HERE / "statuses.toml")
    for name, status in table.items():
        if status != "local" and (not isinstance(status, int) or not 100 <= status <= 599):
            raise DataError(f'statuses.toml: {name} needs an HTTP status, as 429, or "local"')
    return table


def code_rows() -> list[dict[str, Any]]:
    """The rules that the codes of `facts.tsv` are."""
    defaults = {
        f"{category}/{name}": row["retryable"]
        for category, rows in taxonomy().items()
        for name, row in rows.items()
    }
    for row in table.rows():
        if row.verdict not in defaults or row.retryable not in set(Retryable) or not row.source:
            raise DataError(f"facts.tsv: line {row.line}: verdict, retryable or source is wrong")
    return list(table.code_rules(statuses(), defaults))


def rule_rows() -> list[dict[str, Any]]:
    """All rules with their examples, checked, in the order of files and lines."""
    known = {f"{category}/{name}" for category, rows in taxonomy().items() for name in rows}
    rows = []
    for path in sorted((HERE / "rules").glob("*.toml")):
        for row in _toml(path).get("rule", []):
            where = f"{path.name}: rule {row.get('id', '(without id)')}"
            for wrong in check(row, path.stem, known):
                raise DataError(f"{where}: {wrong}")
            rows.append(row)
    ids = [row["id"] for row in rows]
    for twice in {name for name in ids if ids.count(name) > 1}:
        raise DataError(f"rule {twice} exists twice")
    return rows


def check(row: dict[str, Any], file: str, verdicts: set[str]) -> Iterator[str]:
    """What is wrong with one rule of `file` (its name without suffix); nothing if it is right."""
    for key in sorted(set(row) - _KNOWN):
        yield f"unknown key {key}; known are {', '.join(sorted(_KNOWN))}"
    wrong = [f"{key} must be a list" for key in _LISTS | _EXAMPLES if not isinstance(row.get(key, []), list)]
    wrong += [f"{key} must be a text" for key in _TEXTS if not isinstance(row.get(key, ""), str)]
    if wrong:
        yield from wrong
        return
    if not re.fullmatch(rf"{re.escape(file)}/[a-z0-9_.-]+", row.get("id", "")):
        yield f"the id must be {file}/some-name"
    if row.get("verdict") not in verdicts:
        yield f"verdict {row.get('verdict')} is not in taxonomy.toml"
    if row.get("retryable", "no") not in set(Retryable):
        yield "retryable is yes, no or later"
    if not isinstance(row.get("confidence"), (int, float)) or not 0 <= row["confidence"] <= 1:
        yield "confidence must be a number from 0 to 1"
    if not row.get("source"):
        yield "no source: name the page, the specification or the row of facts that it rests on"
    if not row.get("true_positives"):
        yield "no true positive: give a record that gets this verdict"
    if not _LISTS & {key for key, value in row.items() if value}:
        yield "no condition: it would match everything"
    yield from _check_values(row)
    yield from _check_text(row)
    for examples in sorted(_EXAMPLES):
        for record in row.get(examples, ()):
            yield from _check_record(record, examples)


def _check_values(row: dict[str, Any]) -> Iterator[str]:
    for status in row.get("status", ()):
        if not (isinstance(status, int) or _STATUS.fullmatch(str(status))):
            yield f'status {status!r} must be a number, "5xx", "none" or "local"'
    for key, kind in (("broke_at", BrokeAt), ("outcome", Outcome)):
        if not set(row.get(key, ())) <= set(kind):
            yield f"{key} is one of {', '.join(kind)}"


def _check_text(row: dict[str, Any]) -> Iterator[str]:
    for word in row.get("keywords", ()):
        if word != " ".join(word.lower().split()) or not word:
            yield f"keyword {word!r} must be lower case with single spaces"
    for key in ("pattern", "veto", "stack"):
        written = row.get(key, "")
        if re.search("[A-Z]", re.sub(r"\\.", "", written)):
            yield f"{key} must be lower case, since it sees lower-case text"
        if re.search(r"(?<!\\)\(\?(?:P|[a-z])|\\[1-9]", written):
            yield f"{key} has flags, a named group or a reference to a group: write it without"
        if re.search(r"(?<!\\)[.\]](?:\*|\+|\{\d+,\})", written):
            yield f"{key} has an unbounded repeat of a wide class; write .{{0,80}}"
        try:
            re.compile(written)
        except re.error as error:
            yield f"{key} does not compile: {error}"
    if (row.get("pattern") or row.get("veto")) and not row.get("keywords"):
        yield "a pattern needs keywords: cheap texts of which one must occur before it is tried"


def _check_record(record: dict[str, Any], kind: str) -> Iterator[str]:
    extra = {"why"} if kind == "false_positives" else set()
    for key in sorted(set(record) - _FACTS - extra):
        yield f"{kind}: {key} is not a field of LLMError"
    if extra and not record.get("why"):
        yield "every false positive needs a why"


def error_of(record: dict[str, Any]) -> LLMError:
    """The error that an example stands for; `causes` is a list of `{type, message}`."""
    facts: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in record.items()
        if key != "why"
    }
    facts["causes"] = tuple(Cause(**cause) for cause in record.get("causes", ()))
    if "broke_at" in facts:
        facts["broke_at"] = BrokeAt(facts["broke_at"])
    if "outcome" in facts:
        facts["outcome"] = Outcome(facts["outcome"])
    return LLMError(**facts)


def _packaged_rules() -> list[dict[str, Any]]:
    """All rules without their examples, providers by their one name."""
    rows = [{key: row[key] for key in row if key not in _EXAMPLES} for row in rule_rows()] + code_rows()
    for row in rows:
        if "provider" in row:
            row["provider"] = sorted({canonical(name) for name in row["provider"]})
    return rows


def _example_texts() -> Iterator[str]:
    """What the errors say that the rules name as examples, as keywords see it."""
    for row in rule_rows():
        for kind in sorted(_EXAMPLES):
            for record in row.get(kind, ()):
                yield plain(record.get("message") or "")
                yield from (plain(cause.get("message") or "") for cause in record.get("causes", ()))


def build() -> bytes:
    """The content of `data.json`."""
    rows = _packaged_rules()
    conditions = (
        (rule.code, rule.error_type or rule.cause, rule.finish_reason, rule.status, rule.keywords)
        for rule in map(read_rule, rows)
    )
    index = index_of(conditions, _example_texts())
    content = {
        "package": version("otel-triage"),
        "taxonomy": taxonomy(),
        "statuses": statuses(),
        "advice": advice(),
        "calibration": _toml(HERE / "calibration.toml"),
    }
    # One rule a line, so that a change is readable in a review; the index is for machines.
    lines = [f"  {json.dumps(row, ensure_ascii=False)}" for row in rows]
    head = json.dumps(content, ensure_ascii=False, indent=0)[:-2]
    compact = json.dumps(index, ensure_ascii=False, separators=(",", ":"))
    return (head + f',\n"index": {compact},\n"rules": [\n' + ",\n".join(lines) + "\n]\n}\n").encode()


def main() -> int:
    """Writes `data.json`; returns 1 with the reason on stderr if a data file is wrong."""
    try:
        content = build()
    except DataError as error:
        print(error, file=sys.stderr)
        return 1
    (HERE / data.FILE).write_bytes(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
