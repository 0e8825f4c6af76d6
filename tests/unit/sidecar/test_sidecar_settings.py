from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any

import pytest
from sidecar_tools import SidecarProcess, build

from otel_triage.sidecar.addresses import Listen, own_listener
from otel_triage.sidecar.datadir import DataDirError
from otel_triage.sidecar.main import main
from otel_triage.sidecar.settings import Settings, SettingsError, load

P = "OTEL_TRIAGE_"


def error_of(**environ: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(None, {P + name: value for name, value in environ.items()})
    return str(caught.value)


def test_defaults_are_the_contracts() -> None:
    settings, warnings = load(None, {})
    assert warnings == ()
    assert (settings.grpc_listen, settings.http_listen, settings.admin_listen, settings.health_listen) == (
        Listen("127.0.0.1", 4317),
        Listen("127.0.0.1", 4318),
        Listen("127.0.0.1", 4319),
        None,
    )
    assert (settings.journal_mib, settings.journal_hours, settings.journal_full) == (1024, 24, "refuse")
    assert (settings.max_request_mib, settings.memory_mib) == (16, 256)
    assert (settings.desk, settings.grouping, settings.correct_status, settings.language) == (
        True,
        "cause",
        False,
        "en",
    )
    assert (settings.keep_errors_days, settings.keep_deadletter_days) == (14, 7)
    assert settings.data_dir.name == "otel-triage"


NO_BOOLEAN = "input should be a valid boolean, unable to interpret input"
NO_INTEGER = "input should be a valid integer, unable to parse string as an integer"
NO_NUMBER = "input should be a valid number, unable to parse string as a number"


def open_to_all(listen: str, token: str) -> str:
    return (
        f"{listen} can be reached from other machines and OTEL_TRIAGE_{token} is not set; set it, bind to"
        " 127.0.0.1, or accept it with OTEL_TRIAGE_ALLOW_INSECURE_BIND=true"
    )


BAD = [  # what is set, then: the setting that is named, what is wrong, the example
    ({"GRPC_LISTEN": "4317"}, "GRPC_LISTEN", "'4317' is not HOST:PORT", "127.0.0.1:4317"),
    ({"HTTP_LISTEN": "a:65536"}, "HTTP_LISTEN", "'65536' is not a port (0 to 65535)", "127.0.0.1:4318"),
    ({"ADMIN_LISTEN": "::1:4319"}, "ADMIN_LISTEN", "'::1:4319' is not HOST:PORT", "127.0.0.1:4319"),
    ({"HEALTH_LISTEN": "here"}, "HEALTH_LISTEN", "'here' is not HOST:PORT", "0.0.0.0:4320"),
    (
        {"GRPC_LISTEN": "10.1.2.3:4317"},
        "GRPC_LISTEN",
        open_to_all("10.1.2.3:4317", "INGEST_TOKEN"),
        "127.0.0.1:4317",
    ),
    (
        {"HTTP_LISTEN": "0.0.0.0:4318"},
        "HTTP_LISTEN",
        open_to_all("0.0.0.0:4318", "INGEST_TOKEN"),
        "127.0.0.1:4318",
    ),
    (
        {"ADMIN_LISTEN": "[::]:4319", "INGEST_TOKEN": "t"},
        "ADMIN_LISTEN",
        open_to_all("[::]:4319", "ADMIN_TOKEN"),
        "127.0.0.1:4319",
    ),
    (
        {"OTLP_ENDPOINT": "collector:4317"},
        "OTLP_ENDPOINT",
        "'collector:4317' is not a URL with http:// or https:// and a host",
        "http://collector:4317",
    ),
    (
        {"OTLP_ENDPOINT": "http://user:pass@collector:4317"},
        "OTLP_ENDPOINT",
        "a user name, query or fragment has no place in it; use OTLP_HEADERS for credentials",
        "http://collector:4317",
    ),
    (
        {"OTLP_PROTOCOL": "http/json"},
        "OTLP_PROTOCOL",
        "'http/json': input should be 'grpc' or 'http/protobuf'",
        "http/protobuf",
    ),
    (
        {"OTLP_HEADERS": "authorization"},
        "OTLP_HEADERS",
        "each header must read name=value, with a comma between them",
        "authorization=Bearer%20TOKEN,x-tenant=a",
    ),
    ({"OTLP_CERTIFICATE": "/no/ca"}, "OTLP_CERTIFICATE", "no file /no/ca", "/etc/ssl/backend-ca.pem"),
    (
        {"SENTRY_UPSTREAM": "https://key@o1.ingest.sentry.io/5"},
        "SENTRY_UPSTREAM",
        "the base URL alone, without the DSN's key and project; SENTRY_KEYS is for keys",
        "https://o1.ingest.sentry.io",
    ),
    (
        {"SENTRY_UPSTREAM": "o1.ingest.sentry.io"},
        "SENTRY_UPSTREAM",
        "'o1.ingest.sentry.io' is not a URL with http:// or https:// and a host",
        "https://o1.ingest.sentry.io",
    ),
    (
        {"SENTRY_KEYS": "abc, https://x@y/1"},
        "SENTRY_KEYS",
        "'https://x@y/1' is not the public key of a DSN (letters, digits, - and _)",
        "0123456789abcdef0123456789abcdef",
    ),
    (
        {"SENTRY": "https://o1.ingest.sentry.io"},
        "SENTRY",
        "tables stand in the TOML file, not in a variable",
        "[[sentry]] in the file of --config",
    ),
    (
        {"INGEST_TOKEN": "a b"},
        "INGEST_TOKEN",
        "a token must be printable ASCII without spaces, and not empty",
        "3f9a…",
    ),
    (
        {"ADMIN_TOKEN_FILE": "/no/token"},
        "ADMIN_TOKEN_FILE",
        "cannot read it: [Errno 2] No such file or directory: '/no/token'",
        "/run/secrets/admin_token",
    ),
    ({"ALLOW_INSECURE_BIND": "so"}, "ALLOW_INSECURE_BIND", f"'so': {NO_BOOLEAN}", "true"),
    (
        {"TLS_CERT": __file__},
        "TLS_KEY",
        "is missing, and OTEL_TRIAGE_TLS_CERT is set: both are needed",
        "/etc/otel-triage/tls.key",
    ),
    (
        {"TLS_CLIENT_CA": __file__},
        "TLS_CERT",
        "is missing, and OTEL_TRIAGE_TLS_CLIENT_CA needs it",
        "/etc/otel-triage/tls.crt",
    ),
    ({"TLS_CLIENT_CA": "/no/ca"}, "TLS_CLIENT_CA", "no file /no/ca", "/etc/otel-triage/clients-ca.crt"),
    ({"JOURNAL_MIB": "0"}, "JOURNAL_MIB", "'0': input should be greater than or equal to 1", "1024"),
    (
        {"JOURNAL_MIB": "8"},
        "JOURNAL_MIB",
        "8 is less than OTEL_TRIAGE_MAX_REQUEST_MIB (16): the largest request would never fit",
        "1024",
    ),
    ({"JOURNAL_HOURS": "a day"}, "JOURNAL_HOURS", f"'a day': {NO_NUMBER}", "24"),
    (
        {"JOURNAL_FULL": "drop_healthy"},
        "JOURNAL_FULL",
        "drop_healthy is not available in this version",
        "refuse",
    ),
    ({"JOURNAL_FULL": "drop"}, "JOURNAL_FULL", "'drop' is not one of: refuse", "refuse"),
    ({"MAX_REQUEST_MIB": "1.5"}, "MAX_REQUEST_MIB", f"'1.5': {NO_INTEGER}", "16"),
    (
        {"MEMORY_MIB": "32"},
        "MEMORY_MIB",
        "32 is less than four times OTEL_TRIAGE_MAX_REQUEST_MIB (16): the largest request would never fit",
        "256",
    ),
    ({"LANGUAGE": "fr"}, "LANGUAGE", "'fr': input should be 'en', 'ja' or 'zh'", "en"),
    ({"DESK": "maybe"}, "DESK", f"'maybe': {NO_BOOLEAN}", "off"),
    ({"GROUPING": "on"}, "GROUPING", "'on': input should be 'cause' or 'off'", "cause"),
    ({"CORRECT_STATUS": "2"}, "CORRECT_STATUS", f"'2': {NO_BOOLEAN}", "true"),
    ({"KEEP_ERRORS_DAYS": "-1"}, "KEEP_ERRORS_DAYS", "'-1': input should be greater than 0", "14"),
    ({"KEEP_DEADLETTER_DAYS": "0"}, "KEEP_DEADLETTER_DAYS", "'0': input should be greater than 0", "7"),
]


@pytest.mark.parametrize(("environ", "name", "fault", "example"), BAD)
def test_a_bad_setting_is_one_line_with_name_fault_and_example(
    environ: dict[str, str], name: str, fault: str, example: str
) -> None:
    assert error_of(**environ) == f"OTEL_TRIAGE_{name}: {fault}. Example: OTEL_TRIAGE_{name}={example}"


def test_a_misspelt_setting_is_refused() -> None:
    assert (
        error_of(JORNAL_MIB="9")
        == "OTEL_TRIAGE_JORNAL_MIB: no such setting. Did you mean OTEL_TRIAGE_JOURNAL_MIB?"
    )
    assert error_of(XYZZY="9") == "OTEL_TRIAGE_XYZZY: no such setting."


def test_no_setting_is_without_a_bad_case() -> None:
    tried = {name.removesuffix("_FILE").lower() for _, name, _, _ in BAD}
    assert set(Settings.model_fields) - tried == {"data_dir"}  # below: it takes a disk


def test_every_setting_has_an_example() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.examples] == []


def test_two_bad_settings_are_two_lines() -> None:
    assert error_of(JOURNAL_MIB="x", LANGUAGE="fr").count("\n") == 1


def test_a_secret_is_never_shown() -> None:
    assert "geheim" not in error_of(INGEST_TOKEN="geheim nis")
    assert "geheim" not in error_of(OTLP_HEADERS="geheim")
    assert "geheim" not in repr(load(None, {P + "INGEST_TOKEN": "geheim"})[0])


def test_a_pem_that_is_none_is_said(tmp_path: Path) -> None:
    text = tmp_path / "ca.pem"
    text.write_text("no certificate")
    assert error_of(OTLP_CERTIFICATE=str(text)).startswith(
        f"OTEL_TRIAGE_OTLP_CERTIFICATE: {text} holds no PEM certificates: "
    )
    assert error_of(TLS_CERT=str(text), TLS_KEY=str(text)).startswith(
        "OTEL_TRIAGE_TLS_CERT: not a PEM certificate that fits its key: "
    )


def test_the_file_is_read_and_the_environment_wins(tmp_path: Path) -> None:
    config = tmp_path / "sidecar.toml"
    token = tmp_path / "token"
    token.write_text("from-file\n")
    config.write_text(
        'grpc_listen = "127.0.0.1:1"\nhttp_listen = "[::1]:2"\njournal_mib = 77\ndesk = false\n'
        f'ingest_token_file = "{token}"\n[otlp_headers]\nX-Tenant = "a, b"\n'
    )
    settings, warnings = load(config, {P + "GRPC_LISTEN": "localhost:3"})
    assert warnings == ()
    assert settings.grpc_listen == Listen("localhost", 3)
    assert settings.http_listen == Listen("::1", 2)
    assert (settings.journal_mib, settings.desk) == (77, False)
    assert settings.otlp_headers == {"x-tenant": "a, b"}
    assert settings.ingest_token is not None
    assert settings.ingest_token.get_secret_value() == "from-file"


def test_a_bad_file_is_said(tmp_path: Path) -> None:
    config = tmp_path / "sidecar.toml"
    with pytest.raises(SettingsError, match=r"--config .*sidecar\.toml: cannot read it: .*No such file"):
        load(config, {})
    config.write_text("grpc_listen = ")
    with pytest.raises(
        SettingsError, match=r"--config .*sidecar\.toml: not TOML: .*Example line: grpc_listen"
    ):
        load(config, {})
    config.write_text("journal_mib = 0\n")
    with pytest.raises(
        SettingsError, match=r"^journal_mib \(in .*sidecar\.toml\): 0: input should be greater"
    ):
        load(config, {})
    config.write_text("jornal_mib = 1\n")
    with pytest.raises(SettingsError, match=r"^jornal_mib \(in .*\): no such setting\. Did you mean"):
        load(config, {})
    config.write_text("enabled = true\n")  # the application's, and no business of this file
    with pytest.raises(SettingsError, match=r"^enabled \(in .*\): no such setting\."):
        load(config, {})


def test_headers_are_percent_decoded() -> None:
    settings, _ = load(None, {P + "OTLP_HEADERS": "authorization=Bearer%20a%2Cb, x-tenant = t"})
    assert settings.otlp_headers == {"authorization": "Bearer a,b", "x-tenant": "t"}


def test_what_later_versions_know_is_a_warning_and_what_others_own_is_nothing() -> None:
    environ = {
        "SLACK_CHANNEL": "x",
        "SENTRY_AUTH_TOKEN_FILE": "/x",
        "ENABLED": "1",
        "SIDECAR": "http://x",
        "DESK": "",
    }
    # What Kubernetes sets for a Service named otel-triage, and for one named otel-triage-sidecar.
    environ |= {"SERVICE_HOST": "10.0.0.1", "SERVICE_PORT_GRPC": "4317", "PORT": "tcp://10.0.0.1:4317"}
    environ |= {"PORT_4317_TCP_ADDR": "10.0.0.1", "SIDECAR_SERVICE_PORT": "1", "SIDECAR_PORT_4317_TCP": "x"}
    _, warnings = load(None, {P + name: value for name, value in environ.items()})
    assert warnings == (
        "OTEL_TRIAGE_SENTRY_AUTH_TOKEN_FILE is set, but not available in this version; it has no effect",
        "OTEL_TRIAGE_SLACK_CHANNEL is set, but not available in this version; it has no effect",
    )


def test_both_ways_to_give_a_secret_are_one_too_many() -> None:
    assert error_of(ADMIN_TOKEN="a", ADMIN_TOKEN_FILE="b") == (
        "OTEL_TRIAGE_ADMIN_TOKEN_FILE: set together with OTEL_TRIAGE_ADMIN_TOKEN; give only one of them"
    )


def test_an_open_bind_is_allowed_with_tokens_or_on_purpose() -> None:
    load(None, {P + "GRPC_LISTEN": "0.0.0.0:1", P + "INGEST_TOKEN": "t"})
    load(None, {P + "GRPC_LISTEN": "0.0.0.0:1", P + "ALLOW_INSECURE_BIND": "true"})
    load(None, {P + "HEALTH_LISTEN": "0.0.0.0:1"})


@pytest.mark.parametrize(
    ("endpoint", "listener", "own"),
    [
        ("http://localhost:4317", "127.0.0.1:4317", True),
        ("http://127.0.0.1:4317/", "127.0.0.1:4317", True),
        ("http://127.0.0.1:4317", "0.0.0.0:4317", True),
        ("http://0.0.0.0:4317", "127.0.0.1:4317", True),
        ("http://127.3.2.1:4317", "0.0.0.0:4317", True),
        ("http://[::1]:4317", "[::]:4317", True),
        ("http://[::ffff:127.0.0.1]:4317", "127.0.0.1:4317", True),
        (f"http://{socket.gethostname().upper()}:4317", "127.0.0.1:4317", True),
        ("http://localhost", "127.0.0.1:80", True),
        ("https://localhost", "127.0.0.1:443", True),
        ("http://localhost:4317", "127.0.0.1:4318", False),
        ("http://192.0.2.7:4317", "0.0.0.0:4317", False),
        ("http://192.0.2.7:4317", "127.0.0.1:4317", False),
        ("http://no-such-host.invalid:4317", "127.0.0.1:4317", False),
    ],
)
def test_own_listener_under_any_name(endpoint: str, listener: str, own: bool) -> None:
    listen = Listen.parse(listener)
    assert own_listener(endpoint, [listen]) == (listen if own else None)


# --- the start ---


async def refused_start(data_dir: Path, **settings: object) -> str:
    """What stops the start, in this process."""
    with pytest.raises((SettingsError, DataDirError)) as caught:
        await build(data_dir, **settings).start()
    return str(caught.value)


@pytest.mark.parametrize("name", ["grpc_listen", "http_listen", "admin_listen", "health_listen"])
async def test_a_taken_port_is_said(tmp_path: Path, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert await refused_start(tmp_path, **{name: f"127.0.0.1:{port}"}) == (
            f"OTEL_TRIAGE_{name.upper()}: cannot listen on 127.0.0.1:{port}: Address already in use"
            f" (another sidecar or Collector?)."
            f" Example: OTEL_TRIAGE_{name.upper()}=127.0.0.1:0 takes a free port"
        )


async def test_port_zero_is_resolved_before_the_downstream_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as given_by_the_kernel:
        port = given_by_the_kernel.getsockname()[1]
    real = Listen.bind
    monkeypatch.setattr(Listen, "bind", lambda self: real(self if self.port else Listen(self.host, port)))
    said = await refused_start(tmp_path, grpc_listen="[::1]:0", otlp_endpoint=f"http://localhost:{port}")
    assert said == (
        f"OTEL_TRIAGE_OTLP_ENDPOINT: http://localhost:{port} is this sidecar's own listener"
        f" 127.0.0.1:{port}: a loop."
        " Give the backend's address. Example: OTEL_TRIAGE_OTLP_ENDPOINT=http://collector:4317"
    )


async def test_a_data_dir_that_cannot_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert await refused_start(tmp_path / "file" / "d") == (
        f"OTEL_TRIAGE_DATA_DIR: cannot use {tmp_path / 'file' / 'd'}: Not a directory."
        " Example: OTEL_TRIAGE_DATA_DIR=/var/lib/otel-triage"
    )


def test_the_standard_exporter_variables_are_not_read() -> None:
    assert load(None, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"})[0].otlp_endpoint is None


def test_check_says_yes_or_no(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    monkeypatch.setenv(P + "DATA_DIR", str(tmp_path / "d"))
    assert main(["--check"]) == 0
    assert capfd.readouterr().err == ""
    assert not (tmp_path / "d").exists()
    monkeypatch.setenv(P + "OTLP_ENDPOINT", "http://localhost:4317")
    assert main(["--check"]) == 2
    assert capfd.readouterr().err == (
        "OTEL_TRIAGE_OTLP_ENDPOINT: http://localhost:4317 is this sidecar's own listener"
        " 127.0.0.1:4317: a loop."
        " Give the backend's address. Example: OTEL_TRIAGE_OTLP_ENDPOINT=http://collector:4317\n"
    )


def test_a_bad_setting_ends_the_process_with_2_and_one_line(tmp_path: Path) -> None:
    with SidecarProcess(tmp_path, journal_mib="much", sentry_keys="x") as bad:
        assert bad.wait() == 2
    assert bad.lines == [
        f"OTEL_TRIAGE_JOURNAL_MIB: 'much': {NO_INTEGER}. Example: OTEL_TRIAGE_JOURNAL_MIB=1024"
    ]


def test_a_second_sidecar_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    with SidecarProcess(tmp_path / "d", slack_channel="x") as first:
        first.ready()
        assert (tmp_path / "d").stat().st_mode & 0o777 == 0o700
        assert {file.stat().st_mode & 0o777 for file in (tmp_path / "d").iterdir()} == {0o600}
        with SidecarProcess(tmp_path / "d") as second:
            assert second.wait() == 2
        assert second.lines == [
            f"OTEL_TRIAGE_DATA_DIR: {tmp_path / 'd'} is in use by another sidecar"
            f" (process {first.process.pid})."
            " Stop that one, or give this one a directory of its own."
            " Example: OTEL_TRIAGE_DATA_DIR=/var/lib/otel-triage-2"
        ]
        assert first.terminate() == 0
    assert len(first.lines) == 2
    assert "OTEL_TRIAGE_SLACK_CHANNEL is set, but not available in this version" in first.lines[0]
    assert re.fullmatch(
        r"listening grpc=127\.0\.0\.1:\d+ http=127\.0\.0\.1:\d+ admin=127\.0\.0\.1:\d+", first.lines[1]
    )


def sentries_of(tmp_path: Path, toml: str, **environ: str) -> list[tuple[str | None, tuple[str, ...]]]:
    file = tmp_path / "triage.toml"
    file.write_text(toml)
    settings, warnings = load(file, {P + name: value for name, value in environ.items()})
    assert warnings == ()
    return [(entry.upstream, entry.keys) for entry in settings.sentries]


def test_several_sentries(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("t")
    toml = f"""
        [[sentry]]
        keys = ["a1", "a2"]
        upstream = "https://one.example/"
        org = "acme"
        token_file = "{token}"
        [[sentry]]
        keys = ["b"]
        upstream = "https://two.example"
    """
    two = [("https://one.example", ("a1", "a2")), ("https://two.example", ("b",))]
    assert sentries_of(tmp_path, toml) == two
    one = {"SENTRY_UPSTREAM": "https://three.example", "SENTRY_KEYS": "c,d"}
    assert sentries_of(tmp_path, toml, **one) == [*two, ("https://three.example", ("c", "d"))]
    assert sentries_of(tmp_path, "", SENTRY_UPSTREAM="https://x.example") == [("https://x.example", ())]
    assert sentries_of(tmp_path, "") == []


@pytest.mark.parametrize(
    ("toml", "fault"),
    [
        (
            '[[sentry]]\nkeys = ["a"]\n[[sentry]]\nupstream = "http://x"',
            "with several Sentries each one needs",
        ),
        ('[[sentry]]\nkeys = ["a"]\n[[sentry]]\nkeys = ["a"]', "a key is named twice"),
        ('[[sentry]]\nkey = ["a"]', "extra inputs are not permitted"),
        ('[[sentry]]\ntoken_file = "/no/token"', "no file /no/token"),
    ],
)
def test_bad_sentries(tmp_path: Path, toml: str, fault: str) -> None:
    with pytest.raises(SettingsError) as caught:
        sentries_of(tmp_path, toml)
    assert str(caught.value).startswith("sentry (in ")
    assert fault in str(caught.value)
