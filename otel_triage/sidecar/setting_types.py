"""How the values of settings are read and checked: one function a kind."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, PlainValidator, SecretStr

from otel_triage.sidecar.addresses import Listen

KEY: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""A DSN's public key."""


def read_listen(value: Any) -> Listen:
    """Read `HOST:PORT`."""
    if isinstance(value, Listen):
        return value
    return Listen.parse(str(value))


def read_endpoint(value: Any) -> str:
    """Read a URL of http or https, without anything that could be a secret."""
    text = str(value)
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{text!r} is not a URL with http:// or https:// and a host")
    if parts.query or parts.fragment or parts.username is not None:
        raise ValueError(
            "a user name, query or fragment has no place in it; use OTLP_HEADERS for credentials"
        )
    _ = parts.port  # raises ValueError on a bad one
    return text.rstrip("/")


def read_upstream(value: Any) -> str:
    """Read the base URL of a Sentry: a DSN without its key and project."""
    if urlsplit(str(value)).username is not None:
        raise ValueError("the base URL alone, without the DSN's key and project; SENTRY_KEYS is for keys")
    return read_endpoint(value)


def read_headers(value: Any) -> dict[str, str]:
    """Read `name=value,name=value` (percent-encoded, as OTEL_EXPORTER_OTLP_HEADERS) or a TOML table."""
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, Mapping):
        pairs = [(str(name), str(text)) for name, text in value.items()]
    else:
        pairs = []
        for part in filter(str.strip, str(value).split(",")):
            name, equals, text = part.partition("=")
            if not equals or not name.strip():
                raise ValueError("each header must read name=value, with a comma between them")
            pairs.append((name.strip(), unquote(text.strip())))
    for name, text in pairs:
        if not name.isascii() or not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
            raise ValueError(f"{name!r} is not a header name")
        if not text.isascii() or not text.isprintable():
            raise ValueError(f"the value of header {name!r} is not printable ASCII")
    return {name.lower(): text for name, text in pairs}


def read_file(value: Any) -> Path:
    """Read the path of a file that can be read."""
    path = Path(str(value)).expanduser()
    if not path.is_file():
        raise ValueError(f"no file {path}")
    if not os.access(path, os.R_OK):
        raise ValueError(f"file {path} may not be read by this user")
    return path


def read_secret(value: Any) -> SecretStr:
    """Read a token."""
    text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("a token must be printable ASCII without spaces, and not empty")
    return SecretStr(text)


def read_keys(value: Any) -> tuple[str, ...]:
    """Read DSN keys: a TOML list, or a text with commas between them."""
    given = value if isinstance(value, (list, tuple)) else str(value).split(",")
    keys = tuple(str(key).strip() for key in given if str(key).strip())
    for key in keys:
        if not KEY.fullmatch(key):
            raise ValueError(f"{key!r} is not the public key of a DSN (letters, digits, - and _)")
    return keys


def read_tables(value: Any) -> Any:
    """Refuse a text where tables are due; each table is checked by its model."""
    if isinstance(value, str):
        raise ValueError("tables stand in the TOML file, not in a variable")
    return value


def read_journal_full(value: Any) -> str:
    """Read what is to be done when the journal is full."""
    if value == "drop_healthy":
        raise ValueError("drop_healthy is not available in this version")
    if value != "refuse":
        raise ValueError(f"{value!r} is not one of: refuse")
    return "refuse"


ListenAt = Annotated[Listen, PlainValidator(read_listen)]
File = Annotated[Path, PlainValidator(read_file)]
Secret = Annotated[SecretStr, PlainValidator(read_secret)]
Endpoint = Annotated[str, PlainValidator(read_endpoint)]
Upstream = Annotated[str, PlainValidator(read_upstream)]
Headers = Annotated[dict[str, str], PlainValidator(read_headers)]
JournalFullPolicy = Annotated[str, PlainValidator(read_journal_full)]
Keys = Annotated[tuple[str, ...], PlainValidator(read_keys)]


class SentrySettings(BaseModel):
    """One Sentry, as `[[sentry]]` in the TOML file. `org` and `token_file` are for writing to its issues."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    upstream: Upstream | None = None
    keys: Keys = ()
    org: str | None = None
    token_file: File | None = None
