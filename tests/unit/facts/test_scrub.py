"""Nothing secret leaves in what we write, and scrubbing twice is scrubbing once."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_triage.facts.scrub import ECHO, EMAIL, SECRET, drop_echo, prompt_text, scrub, with_escapes

# The shapes are the issuers'; the values are made up.
SECRETS = {
    "openai": "sk-proj-aB3dEfGhIjKlMnOpQrStUvWx0123456789",
    "anthropic": "sk-ant-api03-AAAAbbbbCCCCdddd1111-2222",
    "masked by openai": "sk-demo**************************1234",
    "google": "AIzaSyA1234567890abcdefghijklmnopqrstuv",
    "groq": "gsk_0123456789abcdefABCDEF0123",
    "aws": "AKIAIOSFODNN7EXAMPLE",
    "github": "ghp_0123456789abcdefghijABCDEFGHIJ012345",
    "slack": "xoxb-123456789012-abcdefghij",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
}


@pytest.mark.parametrize("name", SECRETS)
def test_secrets(name: str) -> None:
    assert scrub(f"provided: {SECRETS[name]}. Find it") == f"provided: {SECRET}. Find it"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Authorization: Bearer abcdefgh12345678==", f"Authorization: Bearer {SECRET}"),
        ("https://user:hunter2@host/v1", f"https://{SECRET}@host/v1"),
        ("GET /v1?key=abcd1234&alt=sse", f"GET /v1?key={SECRET}&alt=sse"),
        ("account jo.doe@example.co.uk is over", f"account {EMAIL} is over"),
        (
            "in organization org-aBcDeFgHiJkLmNoP on tokens",
            "in organization org-[id] on tokens",
        ),
        ('{"role": "user", "content": "my \\"diary\\""}', f'{{"role": "user", "content": "{ECHO}"}}'),
        ("{'content': 'my diary', 'role': 'user'}", f"{{'content': '{ECHO}', 'role': 'user'}}"),
        (
            "[type=string_type, input_value='my diary', input_type=str]",
            f"[type=string_type, input_value={ECHO}, input_type=str]",
        ),
    ],
)
def test_scrubbed(text: str, clean: str) -> None:
    assert scrub(text) == clean


@pytest.mark.parametrize(
    "text",
    [
        "Rate limit reached for gpt-4o on tokens per min (TPM): Limit 30000, Used 14567. Try in 18.642s.",
        "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead.",
        "peer closed connection without sending complete message body (incomplete chunked read)",
        "The model `gpt-4o` does not exist",
        "Visit https://platform.openai.com/account/rate-limits to learn more.",
    ],
)
def test_left_alone(text: str) -> None:
    assert scrub(text) == text


@given(st.text(max_size=200))
def test_idempotent(text: str) -> None:
    assert scrub(scrub(text)) == scrub(text)


@pytest.mark.parametrize("name", SECRETS)
def test_idempotent_on_secrets(name: str) -> None:
    once = scrub(f"key={SECRETS[name]} Bearer {SECRETS[name]} token={SECRETS[name]}")
    assert scrub(once) == once
    assert SECRETS[name][6:] not in once


PROMPT = with_escapes(
    prompt_text(
        {
            "model": "gpt-4o-mini-2024-07-18",
            "messages": [{"role": "user", "content": "Dear diary, today I met the queen of Denmark."}],
        }
    )
)


def test_echo_is_dropped_wherever_it_begins() -> None:
    message = "Invalid prompt: today I met the queen of Denmark (policy)"
    assert drop_echo(message, PROMPT) == f"Invalid prompt:{ECHO} (policy)"


def test_settings_are_no_echo() -> None:
    message = "The model gpt-4o-mini-2024-07-18 does not exist"
    assert drop_echo(message, PROMPT) == message


def test_short_words_are_no_echo() -> None:
    message = "today the queen is out"
    assert drop_echo(message, PROMPT) == message


@given(st.text(min_size=24, max_size=80), st.text(max_size=40), st.text(max_size=40))
def test_no_echo_of_sixteen_characters_is_left(said: str, before: str, after: str) -> None:
    prompt = with_escapes(prompt_text({"messages": [{"content": said}]}))
    cleaned = drop_echo(before + said + after, prompt)
    for at in range(len(cleaned) - 16):
        piece = cleaned[at : at + 16]
        assert piece not in said or ECHO in piece


def test_prompt_text_of_a_real_body() -> None:
    body = json.loads(
        '{"input": [{"type": "input_text", "text": "sixteen characters and more"}], "model": "m"}'
    )
    assert prompt_text(body) == "sixteen characters and more"


# Texts on which a careless pattern needs seconds to hours. No clock: the test's own time-out is the limit.
HOSTILE = {
    "an escaped echo that was cut": '"content": "' + "line\\n" * 2000,
    "quotes and backslashes": '"text": "' + '\\"' * 5000,
    "escaped JSON that was cut": '\\"content\\": \\"' + "\\\\n" * 3000,
    "a run before an at sign": "a" * 19_000 + " @",
    "many at signs": "a@" * 9000,
    "many input values": "input_value=" * 1600,
    "many token starts": "-eyJaaaaaaaa" * 1600,
    "many keys": "sk-a-" * 4000,
}


@pytest.mark.timeout(5)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_scrubbed_in_time(name: str) -> None:
    scrub(HOSTILE[name])


def test_an_echo_that_was_cut_or_escaped_is_taken_out() -> None:
    assert scrub('{"content": "my diary, first p') == f'{{"content": "{ECHO}"'
    assert (
        scrub('"{\\"content\\": \\"my diary\\", \\"role\\"') == f'"{{\\"content\\": \\"{ECHO}\\", \\"role\\"'
    )
