"""`pattern.search` finds what `re.search` finds."""

from __future__ import annotations

import re

import pytest

from otel_triage.verdict import build, pattern, rules
from otel_triage.verdict.grams import ANY, gram_of, grams_of
from otel_triage.verdict.names import plain

CASES = [
    # Both alternatives match: the leftmost place counts, and at one place the first alternative.
    ("credits gone|no credits", "there are no credits gone", "no credits"),
    ("token limit|token", "the token limit", "token limit"),
    # What may be missing is no word that must stand there.
    ("credits? left", "one credit left", "credit left"),
    ("(?:free )?quota used{0,3}", "quota use", "quota use"),
    ("limits{0}x", "limitx", "limitx"),
    ("abcd*e", "abce", "abce"),
    ("aa{2,3}bb+c", "aaabbbc", "aaabbbc"),
    ("(?:a|bcdef)x", "say ax", "ax"),
    ("(?:|bcdef) x", " x", " x"),
    # Classes, escapes, brackets and bars in them.
    (r"tool[|(\])]name", "tool]name", "tool]name"),
    (r"what\?|\(reached max\)", "why (reached max)", "(reached max)"),
    (r"caf\xe9 closed", "the caf\u00e9 closed", "caf\u00e9 closed"),
    # What is looked at but not taken, and what must not stand there.
    ("rate(?! limit)", "rate card", "rate"),
    ("(?<!out )of (?=credits)", "full of credits", "of "),
    ("(?>limit) reached", "limit reached", "limit reached"),
    # Both of two choices are needed.
    ("(?:limit|quota).{0,9}(?:reset|renew)", "quota will renew", "quota will renew"),
    ("(?:limit|quota).{0,9}(?:reset|renew)", "quota will do", None),
    # Shorter than four bytes, in other scripts, and half a surrogate pair beside it.
    ("tpm", "a tpm", "tpm"),
    ("\u4f59\u989d|\u6b20\u8d39", "\u8d26\u6237\u6b20\u8d39", "\u6b20\u8d39"),
    ("limit", "limit \ud83d", "limit"),
]


@pytest.mark.parametrize(("wanted", "text", "found"), CASES)
def test_search(wanted: str, text: str, found: str | None) -> None:
    assert pattern.search(wanted, text, grams_of(text)) == found
    assert pattern.occurs(wanted, text, grams_of(text)) is (found is not None)


def test_packaged_patterns_find_what_re_finds() -> None:
    texts = [
        plain(record.get("message") or "")
        for row in build.rule_rows()
        for record in row["true_positives"] + row.get("false_positives", [])
    ][::7]
    known = [(text, grams_of(text)) for text in texts if text]
    found = 0
    for rule in rules.rule_set().rules:
        for wanted in filter(None, (rule.pattern, rule.veto, rule.stack)):
            compiled = re.compile(wanted)
            for text, grams in known:
                hit = compiled.search(text)
                assert pattern.search(wanted, text, grams) == (hit[0] if hit else None), wanted
                found += hit is not None
    assert found > 1000


def test_grams() -> None:
    assert grams_of("abcde") == {ANY, 0x64636261, 0x65646362}
    assert grams_of("abc") == grams_of("") == {ANY}
    assert gram_of("abc") == ANY
    assert gram_of("abcdef") == 0x65646362
    assert gram_of("abcde", {0x64636261: 2, 0x65646362: 1}.__getitem__) == 0x65646362


@pytest.mark.parametrize("wanted", ["(?i)limit", "(?P<limit>x) limit", r"(limit) \1", "limit(?i:x)"])
def test_a_pattern_has_no_flags_and_names_no_group(wanted: str) -> None:
    row = {"keywords": ["limit"], "pattern": wanted}
    assert any("flags" in problem for problem in build._check_text(row))
