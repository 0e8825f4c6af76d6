"""A real Sentry-compatible server on loopback: Bugsink, with SQLite, in an environment of its own.

`make test` installs it. What it stored is read back through its own API.
"""

from __future__ import annotations

import itertools
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import pytest

from otel_triage.demo.show import Process, running

ENVIRONMENT: Final = Path(__file__).parents[2] / ".envs" / "bugsink"
_MAKE_S: Final = 60
_STORED_S: Final = 30.0
_API: Final = "/api/canonical/0"

# No task queue: an event can be read as soon as its POST is answered. No call home.
_CONFIGURATION: Final = """
from bugsink.settings.default import *
SECRET_KEY = "{secret}"
ALLOWED_HOSTS = ["127.0.0.1"]
TIME_ZONE = "UTC"
SNAPPEA = {{"TASK_ALWAYS_EAGER": True}}
EMAIL_BACKEND = "django.core.mail.backends.dummy.EmailBackend"
BUGSINK = {{
    "PHONEHOME": False,
    "SINGLE_USER": True,
    "MAX_EVENTS_PER_PROJECT_PER_5_MINUTES": 100_000,
    "MAX_EVENTS_PER_5_MINUTES": 100_000,
    "INGEST_STORE_BASE_DIR": "{folder}/ingestion",
}}
"""
# One process for what would be three commands: most of their time is the start.
_MAKE: Final = """
import django
from django.core.management import call_command

django.setup()
call_command("migrate", verbosity=0)
call_command("migrate", "snappea", database="snappea", verbosity=0)
call_command("create_auth_token")
"""
_EXECUTE: Final = "import os, sys; os.execv(sys.argv[1], sys.argv[1:])"


@contextmanager
def executing(name: str, command: list[str], env: Mapping[str, str], folder: Path) -> Iterator[Process]:
    """Like `running`, for a program that is not this Python."""
    with running(name, ["-c", _EXECUTE, *command], env, folder) as process:
        yield process


@dataclass(frozen=True, slots=True)
class Project:
    """A project of the server, empty at first."""

    id: str
    key: str
    _list: Callable[[str], list[dict[str, Any]]]
    _one: Callable[[str], dict[str, Any]]

    def dsn(self, base_url: str) -> str:
        """Its DSN with another server's address, as one writes it to send through the sidecar."""
        return f"{base_url.replace('://', f'://{self.key}@')}/{self.id}"

    def stored(self) -> list[dict[str, Any]]:
        """What the list of events says of each: `id`, `event_id`, `issue`, …"""
        issues = self._list(f"/issues/?project={self.id}")
        return [event for issue in issues for event in self._list(f"/events/?issue={issue['id']}")]

    def ids(self) -> list[str]:
        """The ids of the events that it holds, as SDKs write them."""
        return [event["event_id"].replace("-", "") for event in self.stored()]

    def wait_for(self, condition: Callable[[list[str]], bool]) -> None:
        """Waits until its ids are what they should be; the server is another process, so it is polled."""
        end = time.monotonic() + _STORED_S
        while not condition(found := self.ids()):
            assert time.monotonic() < end, f"it holds only {found}"
            time.sleep(0.05)

    def issues(self) -> list[list[dict[str, Any]]]:
        """The events of each issue, as they were received."""
        issues: dict[str, list[dict[str, Any]]] = {}
        for event in self.stored():
            issues.setdefault(event["issue"], []).append(self._one(f"/events/{event['id']}/")["data"])
        return list(issues.values())


class Bugsink:
    """The server, running."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self._client = httpx.Client(
            base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=20, trust_env=False
        )
        self._numbers = itertools.count(1)
        self._team = self._post("/teams/", {"name": "team"})["id"]

    def project(self) -> Project:
        """Makes a project."""
        name = f"project {next(self._numbers)}"
        made = self._post("/projects/", {"name": name, "team": self._team})["id"]
        dsn = urlsplit(self._one(f"/projects/{made}/")["dsn"])
        return Project(made, dsn.username or "", self._list, self._one)

    def close(self) -> None:
        self._client.close()

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self._client.post(_API + path, json=body)
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def _one(self, path: str) -> dict[str, Any]:
        found: dict[str, Any] = self._client.get(_API + path).raise_for_status().json()
        return found

    def _list(self, path: str) -> list[dict[str, Any]]:
        """All pages of a list."""
        found: list[dict[str, Any]] = []
        url: str | None = _API + path
        while url:
            page = self._client.get(url).raise_for_status().json()
            found += page["results"]
            url = page["next"]
        return found


@contextmanager
def bugsink_in(folder: Path) -> Iterator[Bugsink]:
    """Makes a server in an empty folder, and runs it on a free port."""
    if not (ENVIRONMENT / ".ok").exists():
        pytest.skip("Bugsink is not installed (`make test` installs it in .envs/bugsink)")
    (folder / "bugsink_conf.py").write_text(
        _CONFIGURATION.format(secret=secrets.token_hex(32), folder=folder), "utf-8"
    )
    env = {"DJANGO_SETTINGS_MODULE": "bugsink_conf", "PYTHONPATH": str(folder)}
    python, gunicorn = (str(ENVIRONMENT / "bin" / name) for name in ("python", "gunicorn"))
    made = subprocess.run(
        [python, "-c", _MAKE],
        cwd=folder,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=_MAKE_S,
    )
    assert made.returncode == 0, made.stderr[-2000:]
    # Without the first flag gunicorn makes a socket in the user's home.
    flags = ["--no-control-socket", "--bind", "127.0.0.1:0", "--threads", "4", "--graceful-timeout", "1"]
    command = [python, gunicorn, *flags, "--chdir", str(folder), "bugsink.wsgi"]
    with executing("bugsink", command, env, folder) as process:
        server = Bugsink(process.line(r"Listening at: (http://\S+)")[1], made.stdout.split()[-1])
        try:
            yield server
        finally:
            server.close()
