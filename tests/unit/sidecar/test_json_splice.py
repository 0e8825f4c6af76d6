"""Members changed in a JSON text: the rest of it is the same text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_triage.sidecar.json_splice import Remove, members, spliced


@pytest.mark.parametrize(
    ("text", "changes", "after"),
    [
        (
            '{ "n" : 1.10 , "tags":{"x":1}, "b":[1E400,"\\u00e9", 9007199254740993]}',
            {"tags": '{"y":2}', "new": "[1]"},
            '{"new":[1], "n" : 1.10 , "tags":{"y":2}, "b":[1E400,"\\u00e9", 9007199254740993]}',
        ),
        ("{}", {"a": "1", "b": "2"}, '{"a":1,"b":2}'),
        (" { }", {"a": "1"}, ' {"a":1 }'),
        ('{"a":1,"b":2,"c":3}', {"b": Remove}, '{"a":1,"c":3}'),
        ('{"a":1 , "b":2}', {"b": Remove}, '{"a":1 }'),
        ('{"a":1}', {"a": Remove}, "{}"),
        ('{"a":1}', {"a": Remove, "b": "2"}, '{"b":2}'),
        ('{"a":1}', {"x": Remove}, '{"a":1}'),
        ('{"a":1,"a":2}', {"a": "3"}, '{"a":1,"a":3}'),
        ('{"a":"}\\"","b":{"a":0}}', {"a": "1"}, '{"a":1,"b":{"a":0}}'),
    ],
)
def test_spliced(text: str, changes: dict[str, Any], after: str) -> None:
    assert spliced(text, changes) == after
    json.loads(after)


@pytest.mark.parametrize(
    "text", ["", "[]", "1", '{"a"}', '{"a":}', '{"a":1', '{"a":1,}', "{1:2}", '{"a":1 "b":2}']
)
def test_what_is_no_object(text: str) -> None:
    with pytest.raises(ValueError, match=r"due|Expecting|Unterminated"):
        members(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    before=st.dictionaries(st.text(max_size=3), JSON, max_size=4),
    changes=st.dictionaries(st.text(max_size=3), st.none() | JSON, max_size=2),
    indent=st.sampled_from([None, 0, 2]),
)
def test_as_if_it_were_read_changed_and_written(
    before: dict[str, Any], changes: dict[str, Any], indent: int | None
) -> None:
    expected = dict(before)
    told: dict[str, Any] = {}
    for key, value in changes.items():
        if value is None:
            if Remove in told.values():
                continue  # one at a time: that is all that is needed
            told[key] = Remove
            expected.pop(key, None)
        else:
            told[key] = json.dumps(value)
            expected[key] = value
    assert json.loads(spliced(json.dumps(before, indent=indent), told)) == expected
