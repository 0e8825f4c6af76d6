"""What the demo provider can answer: the scenarios of `scenarios.toml`, read, checked and rendered.

The file holds facts (bodies, headers, events, each with its source); here is only how the
pieces become what goes over the wire. Placeholders in bodies, events and headers:
`$MODEL` (as asked), `$REQUEST_ID`, `$METHOD`, `$PATH`, `$DATE` (now, as HTTP writes it) and
`$RESET` (RFC 3339, `reset_s` seconds from now).
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import cache
from importlib.resources import files
from string import Template
from typing import Any, Final, Literal

SELECT_HEADER: Final = "x-demo-scenario"
ATTEMPT_HEADER: Final = "x-stainless-retry-count"
"""Both SDKs count the attempts of one call here, from 0 (`_base_client.py`, `_build_headers`)."""

CONTROL_PATH: Final = "/demo/scenario"
"""`PUT` there sets the scenario of requests that name none."""

PATHS: Final = {
    "/v1/chat/completions": "openai.chat",
    "/v1/responses": "openai.responses",
    "/v1/embeddings": "openai.embeddings",
    "/v1/messages": "anthropic.messages",
}
"""Path -> API. A scenario's id is its API and a name: `openai.chat.ok`."""

_SCENARIOS: Final = "scenarios.toml"

Event = Mapping[str, Any] | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One answer of the provider, and how its delivery goes wrong.

    `body` answers a request, `events` a request with `"stream": true`; one that has only a
    body gives it to both, as an error does. `drop` ends the connection without an answer,
    in good order (`close`) or with a TCP reset (`reset`). `cut_after` closes it after so
    many events (of a stream) or bytes (of a body), `stall_after` goes silent after so many
    events. Times are in seconds.
    """

    id: str
    source: tuple[str, ...]
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None
    events: tuple[Event, ...] | None = None
    drop: Literal["close", "reset"] | None = None
    delay_s: float = 0.0
    cut_after: int | None = None
    stall_after: int | None = None
    reset_s: float = 1.0
    gzip: bool = False

    @property
    def api(self) -> str:
        """The API that the scenario belongs to: its id without the last part."""
        return self.id.rpartition(".")[0]


_OPTIONS: Final = {f.name for f in fields(Scenario)} - {"headers", "body"}
_KEYS: Final = _OPTIONS | {"headers", "extra", "json", "text", "base"}


def parse(text: str) -> dict[str, Scenario]:
    """The scenarios of a TOML text, by id.

    Raises:
        ValueError: a scenario or header set names no source, refers to what is not there,
            or has a key or JSON text that cannot be read; the message names it.
    """
    data = tomllib.loads(text)
    found: dict[str, Scenario] = {}
    for group in ("headers", "base"):
        for name, entry in data.get(group, {}).items():
            _need_source(f"{group}.{name}", entry)
    for entry in data["scenario"]:
        scenario = _scenario(entry, data)
        if scenario.id in found:
            raise ValueError(f"scenario {scenario.id} is there twice")
        found[scenario.id] = scenario
    return found


@cache
def load() -> dict[str, Scenario]:
    """The scenarios that come with the package, by id."""
    return parse(files("otel_triage.demo").joinpath(_SCENARIOS).read_text(encoding="utf-8"))


def _need_source(name: str, entry: Mapping[str, Any]) -> None:
    source = entry.get("source")
    if not source or not all(isinstance(item, str) and item.strip() for item in source):
        raise ValueError(f"{name} names no source: give the URL or the package file that shows it")


def _json(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{name}: not JSON: {error}") from error


def _scenario(entry: Mapping[str, Any], data: Mapping[str, Any]) -> Scenario:
    name = entry.get("id", "a scenario without id")
    _need_source(name, entry)
    if unknown := set(entry) - _KEYS:
        raise ValueError(f"{name}: unknown keys {sorted(unknown)}; known are {sorted(_KEYS)}")
    try:
        sets = [data.get("headers", {})[key]["values"] for key in entry.get("headers", [])]
        base = _json(name, data.get("base", {})[entry["base"]]["json"]) if "base" in entry else {}
    except KeyError as error:
        raise ValueError(f"{name}: no header set or base named {error}") from error
    headers = {key: value for values in (*sets, entry.get("extra", {})) for key, value in values.items()}
    options = {key: entry[key] for key in _OPTIONS & set(entry)}
    options["source"] = tuple(entry["source"])
    if "events" in entry:
        options["events"] = tuple(_event(name, text, base, n) for n, text in enumerate(entry["events"]))
    body = entry.get("text")
    if "json" in entry:
        own = _json(name, entry["json"])
        # A stream's base belongs to its events; a body is merged only where it is alike (Responses).
        body = json.dumps({**base, **own} if name.startswith("openai.responses.") else own)
    return Scenario(**options, headers=headers, body=body)


def _event(name: str, text: str, base: Mapping[str, Any], number: int) -> Event:
    """One event, completed by what every event of that kind of stream repeats."""
    if text == "[DONE]":
        return text
    event = _json(name, text)
    if name.startswith("openai.chat."):
        return event if "error" in event else {**base, **event}
    if name.startswith("openai.responses."):
        if "response" in event:
            event["response"] = {**base, **event["response"]}
        return {**event, "sequence_number": number}
    return dict(event)


def choose(wanted: str, attempt: int, api: str, stream: bool) -> Scenario:
    """The scenario that a request asks for.

    Args:
        wanted: value of the header `x-demo-scenario`: one id, or one an attempt, separated
            by commas; the last repeats. Empty for the good answer.
        attempt: number of the attempt, from 0.
        api: the API whose path was called.
        stream: whether the request asks for a stream.

    Raises:
        ValueError: no such scenario, or not one for this request; the message says what would be right.
    """
    names = [name.strip() for name in wanted.split(",") if name.strip()] or [f"{api}.ok"]
    name = names[min(max(attempt, 0), len(names) - 1)]
    scenario = load().get(name)
    if scenario is None or scenario.api != api:
        known = ", ".join(sorted(s.id for s in load().values() if s.api == api))
        raise ValueError(f"{SELECT_HEADER}: {name!r} is no scenario of {api}; there are {known}")
    if scenario.body is None and scenario.events is not None and not stream:
        raise ValueError(f'{SELECT_HEADER}: {name} is a stream; ask with "stream": true')
    return scenario


def frames(scenario: Scenario, request: Mapping[str, Any]) -> list[str]:
    """The server-sent events of a stream, one text an event, placeholders not filled in.

    Chat completions report usage only where `stream_options.include_usage` asks for it:
    then every chunk has the field, null but in the last chunk, which has no choices.
    """
    options = request.get("stream_options")
    usage = isinstance(options, Mapping) and options.get("include_usage") is True
    found = []
    for event in scenario.events or ():
        if isinstance(event, str):
            found.append(f"data: {event}\n\n")
        elif scenario.api == "openai.chat":
            if "error" not in event and not usage and not event["choices"]:
                continue
            complete = {**event, "usage": event.get("usage")} if usage and "error" not in event else event
            found.append(f"data: {json.dumps(complete)}\n\n")
        else:
            found.append(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n")
    return found


def fill(text: str, values: Mapping[str, str], *, in_json: bool) -> str:
    """`text` with its placeholders filled in, escaped where it is JSON."""
    escaped = {key: json.dumps(value)[1:-1] if in_json else value for key, value in values.items()}
    return Template(text).safe_substitute(escaped)


def clock_values(reset_s: float) -> dict[str, str]:
    """The placeholders that depend on the time."""
    now = datetime.now(UTC)
    return {
        "DATE": format_datetime(now, usegmt=True),
        "RESET": (now + timedelta(seconds=reset_s)).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
