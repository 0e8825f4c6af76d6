"""The packaged data of this room, read once: `data.json`, which `build` makes from the TOML files.

JSON, since reading it takes 2 ms where the TOML of a thousand rules takes 100: the first error
of a process is classified while somebody waits for it.
"""

from __future__ import annotations

import hashlib
import json
import pkgutil
from functools import cache
from typing import Any, Final

FILE: Final = "data.json"


@cache
def _content() -> bytes:
    content = pkgutil.get_data(__package__, FILE)
    if content is None:
        raise FileNotFoundError(f"{__package__}/{FILE} is missing: reinstall otel-triage")
    return content


@cache
def load() -> dict[str, Any]:
    """All data: `package`, `taxonomy`, `statuses`, `rules`, `advice`. Shared: do not change it."""
    data: dict[str, Any] = json.loads(_content())
    return data


@cache
def version() -> str:
    """Package version and the first eight hex digits of the data's hash: `0.1.0+rules.1a2b3c4d`."""
    return f"{load()['package']}+rules.{hashlib.sha256(_content()).hexdigest()[:8]}"
