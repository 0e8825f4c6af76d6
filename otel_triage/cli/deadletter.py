"""`otel-triage deadletter list|resend`: what a backend refused for good.

The list is read from the data directory. Sending again goes through the sidecar that has the directory,
by its admin API; where none runs, the letters become pending records, and the next start delivers them.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import httpx

from otel_triage.sidecar.datadir import DataDirError, claim
from otel_triage.sidecar.process import JOURNAL_FILE
from otel_triage.sidecar.settings import Settings, SettingsError, load
from otel_triage.sidecar.store import JournalError, Letter, Reader, Store


@dataclass(frozen=True, slots=True)
class Options:
    """The command line: `ids` are numbers of the list, none of them means all."""

    action: str
    ids: tuple[int, ...] = ()
    data_dir: Path | None = None
    admin: str | None = None


def run(options: Options, out: TextIO | None = None) -> int:
    """List dead letters as JSON lines, or send them again; returns the exit code."""
    out = out or sys.stdout
    try:
        settings, _ = load(None, _environment(options))
        journal = settings.data_dir / JOURNAL_FILE
        if not journal.is_file():
            return _fail(f"no journal in {settings.data_dir}; give --data-dir or OTEL_TRIAGE_DATA_DIR")
        letters = [letter for letter in _letters(journal) if not options.ids or letter.seq in options.ids]
        if missing := set(options.ids) - {letter.seq for letter in letters}:
            return _fail(f"no dead letter {min(missing)}; `otel-triage deadletter list` shows all")
        if options.action == "list":
            for letter in letters:
                print(json.dumps(_shown(letter), ensure_ascii=False), file=out)
            return 0
        count = _resend(settings, journal, [letter.seq for letter in letters], options.admin)
    except (SettingsError, JournalError, DataDirError, httpx.HTTPError) as error:
        return _fail(str(error))
    print(f"{count} of {len(letters)} dead letters will be sent again", file=out)
    return 0 if count == len(letters) else 1


def _environment(options: Options) -> dict[str, str]:
    given = dict(os.environ)
    if options.data_dir is not None:
        given["OTEL_TRIAGE_DATA_DIR"] = str(options.data_dir)
    return given


def _letters(journal: Path) -> list[Letter]:
    reader = Reader(journal)
    try:
        return reader.letters()
    finally:
        reader.close()


def _shown(letter: Letter) -> dict[str, object]:
    def moment(seconds: float) -> str:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")

    return {
        "id": letter.seq,
        "kind": letter.signal,
        "received": moment(letter.received),
        "given_up": moment(letter.buried),
        "reason": letter.reason,
        "detail": letter.detail,
        "bytes": letter.size,
    }


def _resend(settings: Settings, journal: Path, ids: Collection[int], admin: str | None) -> int:
    try:
        lock = claim(settings.data_dir)
    except DataDirError:  # a sidecar has it
        return _ask(settings, ids, admin or f"http://{settings.admin_listen}")
    try:
        store = Store(journal)
        try:
            return store.revive(ids)
        finally:
            store.close()
    finally:
        os.close(lock)


def _ask(settings: Settings, ids: Collection[int], admin: str) -> int:
    token = settings.admin_token.get_secret_value() if settings.admin_token else None
    headers = {"authorization": f"Bearer {token}"} if token else {}
    url = f"{admin.rstrip('/')}/api/v1/deadletters/resend"
    answer = httpx.post(url, json={"ids": list(ids)}, headers=headers, timeout=60)
    if not answer.is_success:
        raise JournalError(
            f"the sidecar at {admin} answered {answer.status_code}: {answer.text.strip()[:500]}"
        )
    return int(answer.json()["resent"])


def _fail(text: str) -> int:
    print(f"otel-triage deadletter: {text}", file=sys.stderr)
    return 2
