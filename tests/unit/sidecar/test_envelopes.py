"""The envelope format, by its specification's own examples, and whatever else may arrive."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_triage.sidecar.envelopes import MAX_HEADER, MAX_ITEMS, dump, read_envelope
from otel_triage.sidecar.refusals import Refused, Why

HEAD = b'{"event_id":"9ec79c33ec9942ab8353589fcb2e04dc"}'


def read(body: bytes) -> list[tuple[str, bytes]]:
    envelope = read_envelope(body)
    return [(item.type, envelope.payload(item)) for item in envelope.items]


@pytest.mark.parametrize(
    ("body", "items"),
    [
        # Examples of the specification (data-model/envelopes, "Full examples")
        (
            HEAD + b'\n{"type":"attachment","length":10,"filename":"hello.txt"}\n\xef\xbb\xbfHello\r\n\n'
            b'{"type":"event","length":41,"content_type":"application/json"}\n'
            b'{"message":"hello world","level":"error"}\n',
            [
                ("attachment", b"\xef\xbb\xbfHello\r\n"),
                ("event", b'{"message":"hello world","level":"error"}'),
            ],
        ),
        (
            HEAD + b'\n{"type":"attachment","length":0}\n\n{"type":"attachment","length":0}\n\n',
            [("attachment", b""), ("attachment", b"")],
        ),
        (
            HEAD + b'\n{"type":"attachment","length":0}\n\n{"type":"attachment","length":0}\n',
            [("attachment", b""), ("attachment", b"")],
        ),
        (
            HEAD + b'\n{"type":"attachment"}\nhelloworld\n',
            [("attachment", b"helloworld")],
        ),
        (HEAD + b'\n{"type":"attachment"}\nhelloworld', [("attachment", b"helloworld")]),
        (HEAD + b'\n{"type":"attachment"}\n', [("attachment", b"")]),
        (HEAD + b'\n{"type":"attachment"}', [("attachment", b"")]),
        (
            b'{}\n{"type":"session"}\n{"started": "2020-02-07T14:16:00Z","attrs":{}}',
            [("session", b'{"started": "2020-02-07T14:16:00Z","attrs":{}}')],
        ),
        (HEAD, []),
        (HEAD + b"\n", []),
        (HEAD + b"\n\n\n", []),
        (b'{}\n{"type":"new one","x":[1]}\n\x00\x01', [("new one", b"\x00\x01")]),
        (b'{} \r\n{"type":"a","length":3} \r\na\nb\n', [("a", b"a\nb")]),
    ],
)
def test_whole_envelopes(body: bytes, items: list[tuple[str, bytes]]) -> None:
    assert read(body) == items
    assert read_envelope(body).replaced({}) == body


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "the envelope's headers are not JSON"),
        (b"\n{}", "the envelope's headers are not JSON"),
        (b"[]", "the envelope's headers are not a JSON object"),
        (b"\xff", "the envelope's headers are not JSON"),
        (b"{}\n{}", "item 1 has no `type`"),
        (b'{}\n{"type":1}\n', "item 1 has no `type`"),
        (b'{}\n{"type":"a"}\nx\n[1]\n', "the headers of item 2 are not a JSON object"),
        (b'{}\n{"type":"a","length":5}\nabc\n', "item 1 says 5 bytes, and 4 are left"),
        (b'{}\n{"type":"a","length":2}\nabc\n', "item 1 goes on behind its `length` of 2 bytes"),
        (b'{}\n{"type":"a","length":-1}\nabc\n', "`length` of item 1 is no number of bytes"),
        (b'{}\n{"type":"a","length":true}\nabc\n', "`length` of item 1 is no number of bytes"),
        (b'{}\n{"type":"a","length":"3"}\nabc\n', "`length` of item 1 is no number of bytes"),
        (b'{}\n{"type":"a","length":99999999999999999999}\n', "item 1 says 99999999999999999999 bytes"),
        (b'{}\n\n{"type":"a"}\nx', "an empty line where the headers of item 1 are due"),
        (b'{}\n{"type":' + b"[" * 60_000, "the headers of item 1 are"),
    ],
)
def test_broken_envelopes_are_refused_with_a_reason(body: bytes, says: str) -> None:
    with pytest.raises(Refused) as caught:
        read_envelope(body)
    assert caught.value.why is Why.INVALID
    assert caught.value.text.startswith("not a Sentry envelope: ")
    assert says in caught.value.text


@pytest.mark.parametrize(
    "body", [b'{"a":"' + b"x" * MAX_HEADER + b'"}', b"{}\n" + b'{"type":"a"}\n\n' * (MAX_ITEMS + 1)]
)
def test_too_much_of_headers(body: bytes) -> None:
    with pytest.raises(Refused) as caught:
        read_envelope(body)
    assert caught.value.why is Why.TOO_LARGE


def test_a_replaced_payload_has_its_length_and_nothing_else_changes() -> None:
    body = (
        b'{"dsn" : "x"}\n{"type":"attachment","length":3}\n{\n}\n'
        b'{"type":"event" ,"filename":"\\u00e4"}\n{"a":1}\n{"type":"new"}\n\x00\x01\n\n'
    )
    assert read_envelope(body).replaced({1: b'{"a":\n2}'}) == (
        b'{"dsn" : "x"}\n{"type":"attachment","length":3}\n{\n}\n'
        b'{"type":"event","filename":"\xc3\xa4","length":8}\n{"a":\n2}\n{"type":"new"}\n\x00\x01\n\n'
    )


HEADERS = st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=3)
ITEMS = st.lists(st.tuples(HEADERS, st.text(max_size=8), st.binary(max_size=40), st.booleans()), max_size=6)


@given(head=HEADERS, items=ITEMS, ended=st.booleans())
def test_any_envelope_is_read_as_it_was_written(
    head: dict[str, Any], items: list[tuple[dict[str, Any], str, bytes, bool]], ended: bool
) -> None:
    lines = [dump(head)]
    for headers, kind, payload, sized in items:
        length = {"length": len(payload)} if sized or b"\n" in payload else {}
        rest = {key: value for key, value in headers.items() if key not in ("length", "type")}
        lines += [dump({**rest, "type": kind, **length}), payload]
    body = b"\n".join(lines) + b"\n" * ended
    if not ended and items and not items[-1][2]:
        body += b"\n"
    envelope = read_envelope(body)
    assert [(item.type, envelope.payload(item)) for item in envelope.items] == [
        (kind, payload) for _, kind, payload, _ in items
    ]
    assert envelope.headers == json.loads(dump(head))
    assert envelope.replaced({}) == body
    again = read_envelope(envelope.replaced(dict.fromkeys(range(len(items)), b"new\npayload")))
    assert [again.payload(item) for item in again.items] == [b"new\npayload"] * len(items)


@given(
    st.binary(max_size=300)
    | st.lists(
        st.sampled_from([b"{}", b"\n", b'{"type":"a"}', b'{"type":"event","length":', b"7}", b"x"])
    ).map(b"".join)
)
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    try:
        same = read_envelope(body).replaced({})
    except Refused as refused:
        same = body if refused.text else b"without a reason"
    assert same == body


def test_memory_stays_flat_however_many_items() -> None:
    body = b"{}\n" + b'{"type":"a"}\n\n' * 1_000_000
    tracemalloc.start()
    try:
        with pytest.raises(Refused):
            read_envelope(body)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
