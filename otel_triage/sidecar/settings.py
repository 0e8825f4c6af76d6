"""The sidecar's settings: environment variables `OTEL_TRIAGE_…`, or the same names in one TOML file.

Each field below is one setting: its default, its check, and the example that a person sees
when the value is wrong. The environment wins over the file. Secrets may stand in a file of
their own, named by `…_FILE`.
"""

from __future__ import annotations

import difflib
import os
import re
import ssl
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from platformdirs import user_state_dir
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from otel_triage.sidecar.addresses import Listen, is_loopback
from otel_triage.sidecar.setting_types import (
    Endpoint,
    File,
    Headers,
    JournalFullPolicy,
    Keys,
    ListenAt,
    Secret,
    SentrySettings,
    Upstream,
    read_tables,
)

PREFIX: Final = "OTEL_TRIAGE_"

APPLICATION: Final = frozenset({"enabled", "sidecar"})
"""Settings of the application half; a pod may share its environment with the sidecar."""

TESTS_ONLY: Final = frozenset({"fault"})
"""Read by `faults.py`."""

KUBERNETES: Final = re.compile(
    r"(\w+_)?(service_(host|port(_\w+)?)|port(_\d+_(tcp|udp|sctp)(_(proto|port|addr))?)?)"
)
"""What Kubernetes puts into every pod's environment for a Service named `otel-triage…`: not settings."""

LATER: Final = frozenset(
    {
        "verdict_deadline_s",
        "llm_base_url",
        "llm_api_key",
        "llm_model",
        "llm_calls_per_minute",
        "llm_money_per_day",
        "llm_price_in",
        "llm_price_out",
        "sentry_client_secret",
        "sentry_auth_token",
        "sentry_api_url",
        "sentry_org",
        "slack_webhook_url",
        "slack_bot_token",
        "slack_channel",
        "slack_api_url",
        "pagerduty_routing_key",
        "pagerduty_url",
        "webhook_url",
        "webhook_secret",
        "state",
        "llm_text",
        "keep_incidents_days",
        "public_url",
        "trace_url_template",
        "runbook_url_template",
        "otlp",
        "route",
    }
)
"""Settings of the contract that this version does not know yet: accepted, without effect, said once."""


class SettingsError(Exception):
    """A setting that stops the start. The text names it, what is wrong, and an example."""


def _state_dir() -> Path:
    return Path(user_state_dir("otel-triage", appauthor=False))


class Settings(BaseModel):
    """All settings of the sidecar, checked. Build it with `load`."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    grpc_listen: ListenAt = Field(Listen("127.0.0.1", 4317), examples=["127.0.0.1:4317"])
    http_listen: ListenAt = Field(Listen("127.0.0.1", 4318), examples=["127.0.0.1:4318"])
    admin_listen: ListenAt = Field(Listen("127.0.0.1", 4319), examples=["127.0.0.1:4319"])
    health_listen: ListenAt | None = Field(None, examples=["0.0.0.0:4320"])
    data_dir: Annotated[Path, BeforeValidator(lambda v: Path(str(v)).expanduser())] = Field(
        default_factory=_state_dir, examples=["/var/lib/otel-triage"]
    )

    otlp_endpoint: Endpoint | None = Field(None, examples=["http://collector:4317"])
    otlp_protocol: Literal["grpc", "http/protobuf"] = Field("grpc", examples=["http/protobuf"])
    otlp_headers: Headers = Field(
        default_factory=dict,
        examples=["authorization=Bearer%20TOKEN,x-tenant=a"],
        json_schema_extra={"secret": True},
    )
    otlp_certificate: File | None = Field(None, examples=["/etc/ssl/backend-ca.pem"])

    sentry_upstream: Upstream | None = Field(None, examples=["https://o1.ingest.sentry.io"])
    sentry_keys: Keys = Field((), examples=["0123456789abcdef0123456789abcdef"])
    sentry: Annotated[tuple[SentrySettings, ...], BeforeValidator(read_tables)] = Field(
        (), examples=["[[sentry]] in the file of --config"]
    )

    ingest_token: Secret | None = Field(None, examples=["3f9a…"], json_schema_extra={"secret": True})
    admin_token: Secret | None = Field(None, examples=["3f9a…"], json_schema_extra={"secret": True})
    allow_insecure_bind: bool = Field(False, examples=["true"])
    tls_cert: File | None = Field(None, examples=["/etc/otel-triage/tls.crt"])
    tls_key: File | None = Field(None, examples=["/etc/otel-triage/tls.key"])
    tls_client_ca: File | None = Field(None, examples=["/etc/otel-triage/clients-ca.crt"])

    journal_mib: int = Field(1024, ge=1, le=1 << 20, examples=["1024"])
    journal_hours: float = Field(24, gt=0, le=24 * 365, examples=["24"])
    journal_full: JournalFullPolicy = Field("refuse", examples=["refuse"])
    max_request_mib: int = Field(16, ge=1, le=1024, examples=["16"])
    memory_mib: int = Field(256, ge=4, le=1 << 20, examples=["256"])

    language: Literal["en", "ja", "zh"] = Field("en", examples=["en"])
    desk: bool = Field(True, examples=["off"])
    grouping: Literal["cause", "off"] = Field("cause", examples=["cause"])
    correct_status: bool = Field(False, examples=["true"])
    keep_errors_days: float = Field(14, gt=0, le=3650, examples=["14"])
    keep_deadletter_days: float = Field(7, gt=0, le=3650, examples=["7"])

    @model_validator(mode="after")
    def _together(self) -> Self:
        """Check what no field can know alone; each message begins with the setting's name."""
        for name, token in (
            ("grpc_listen", "ingest_token"),
            ("http_listen", "ingest_token"),
            ("admin_listen", "admin_token"),
        ):
            listen: Listen = getattr(self, name)
            if not is_loopback(listen.host) and getattr(self, token) is None and not self.allow_insecure_bind:
                raise ValueError(
                    f"{name}|{listen} can be reached from other machines and {variable(token)} is not set; "
                    f"set it, bind to 127.0.0.1, or accept it with {PREFIX}ALLOW_INSECURE_BIND=true"
                )
        named = [key for entry in self.sentries for key in entry.keys]
        if len(self.sentries) > 1 and not all(entry.keys for entry in self.sentries):
            raise ValueError("sentry|with several Sentries each one needs its `keys`")
        if len(named) != len(set(named)):
            raise ValueError("sentry|a key is named twice; a DSN key belongs to one Sentry")
        if (self.tls_cert is None) != (self.tls_key is None):
            missing, there = ("tls_key", "tls_cert") if self.tls_key is None else ("tls_cert", "tls_key")
            raise ValueError(f"{missing}|is missing, and {variable(there)} is set: both are needed")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError(f"tls_cert|is missing, and {variable('tls_client_ca')} needs it")
        if self.tls_cert is not None and self.tls_key is not None:
            try:
                ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
                    self.tls_cert, self.tls_key
                )
            except (ssl.SSLError, OSError) as error:
                raise ValueError(f"tls_cert|not a PEM certificate that fits its key: {error}") from None
        for name in ("otlp_certificate", "tls_client_ca"):
            file = getattr(self, name)
            try:
                if file is not None:
                    ssl.create_default_context(cafile=file)
            except (ssl.SSLError, OSError) as error:
                raise ValueError(f"{name}|{file} holds no PEM certificates: {error}") from None
        if self.memory_mib < 4 * self.max_request_mib:
            raise ValueError(
                f"memory_mib|{self.memory_mib} is less than four times {PREFIX}MAX_REQUEST_MIB "
                f"({self.max_request_mib}): the largest request would never fit"
            )
        if self.journal_mib < self.max_request_mib:
            raise ValueError(
                f"journal_mib|{self.journal_mib} is less than {variable('max_request_mib')} "
                f"({self.max_request_mib}): the largest request would never fit"
            )
        return self

    @property
    def sentries(self) -> tuple[SentrySettings, ...]:
        """All Sentries: those of `[[sentry]]`, and the one of `SENTRY_UPSTREAM` and `SENTRY_KEYS`."""
        one = SentrySettings(upstream=self.sentry_upstream, keys=self.sentry_keys)
        return (*self.sentry, one) if one.upstream or one.keys else self.sentry


@dataclass(frozen=True, slots=True)
class _Given:
    """One value as somebody wrote it, and under which name."""

    name: str
    value: Any


def variable(field: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + field.upper()


def _is_secret(field: str) -> bool:
    extra = Settings.model_fields[field].json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("secret"))


def load(
    config: Path | None = None, environ: Mapping[str, str] | None = None
) -> tuple[Settings, tuple[str, ...]]:
    """Read and check all settings.

    Args:
        config: A TOML file with the settings' names in lower case.
        environ: The environment (default: the process's own); it wins over the file.

    Returns:
        The settings, and warnings that a person should read once.

    Raises:
        SettingsError: One line for each bad setting.
    """
    given = _from_file(config) if config is not None else {}
    given |= _from_environment(os.environ if environ is None else environ)
    warnings, values, errors = [], {}, []
    for field, entry in sorted(given.items()):
        base = field.removesuffix("_file")
        if field in Settings.model_fields:
            values[field] = entry.value
        elif base != field and base in Settings.model_fields and _is_secret(base):
            if base in given:
                errors.append(f"{entry.name}: set together with {given[base].name}; give only one of them")
                continue
            try:
                values[base] = Path(str(entry.value)).expanduser().read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                errors.append(
                    f"{entry.name}: cannot read it: {error}. Example: {entry.name}=/run/secrets/{base}"
                )
        elif field in LATER or base in LATER:
            warnings.append(f"{entry.name} is set, but not available in this version; it has no effect")
        elif field not in APPLICATION | TESTS_ONLY or not entry.name.startswith(PREFIX):
            errors.append(f"{entry.name}: no such setting.{_nearest(field)}")
    if errors:
        raise SettingsError("\n".join(errors))
    try:
        return Settings(**values), tuple(warnings)
    except ValidationError as failure:
        raise SettingsError("\n".join(_explain(failure, given))) from None


def _from_environment(environ: Mapping[str, str]) -> dict[str, _Given]:
    return {
        name.removeprefix(PREFIX).lower(): _Given(name, value)
        for name, value in environ.items()
        # An empty variable is how compose files say "not set".
        if name.startswith(PREFIX) and value and not KUBERNETES.fullmatch(name.removeprefix(PREFIX).lower())
    }


def _from_file(path: Path) -> dict[str, _Given]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"--config {path}: cannot read it: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(
            f'--config {path}: not TOML: {error}. Example line: grpc_listen = "127.0.0.1:4317"'
        ) from None
    return {name: _Given(f"{name} (in {path})", value) for name, value in table.items()}


def _nearest(field: str) -> str:
    known = [*Settings.model_fields, *LATER]
    match = difflib.get_close_matches(field, known, n=1)
    return f" Did you mean {variable(match[0])}?" if match else ""


def _explain(failure: ValidationError, given: Mapping[str, _Given]) -> list[str]:
    """Turn pydantic's errors into one line a setting: name, what is wrong, an example."""
    lines: dict[str, str] = {}
    for error in failure.errors(include_url=False):
        text = error["msg"].removeprefix("Value error, ")
        if error["loc"]:
            field = str(error["loc"][0])
        else:
            field, _, text = text.partition("|")
        name = given[field].name if field in given else variable(field)
        if not error["type"].startswith("value_error"):
            shown = "" if _is_secret(field) else f"{error['input']!r}: "
            text = shown + text[:1].lower() + text[1:]
        example = (Settings.model_fields[field].examples or [""])[0]
        lines.setdefault(field, f"{name}: {text}. Example: {variable(field)}={example}")
    return list(lines.values())
