"""The training script: its weights are of the present data, it repeats, and it learns."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from otel_triage.model import LLMError
from otel_triage.verdict import build, table, train
from otel_triage.verdict.samples import samples
from otel_triage.verdict.text_model import document, packaged

MESSAGES = {
    "timeout/read": ["Request timed out.", "the read operation timed out", "no answer within 30 s"],
    "rate_limit/tokens": ["too many tokens per minute", "TPM limit reached", "token rate limit"],
}


def test_the_packaged_weights_are_of_the_present_data() -> None:
    assert packaged().inputs == train.inputs_hash(), "run: python -m otel_triage.verdict.train"


def test_the_hash_is_of_all_data_and_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rules").mkdir()
    sources = [path for path in train.HERE.rglob("*") if path.suffix in (".tsv", ".toml", ".py")]
    for path in sources:
        copy = tmp_path / path.relative_to(train.HERE)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes())
    monkeypatch.setattr(train, "HERE", tmp_path)
    seen = {train.inputs_hash()}
    changed = ["facts.tsv", "text_model.py", "samples.py", "train.py", "rules/common.toml", "taxonomy.toml"]
    for name in changed:
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes() + b"\n")
        seen.add(train.inputs_hash())
    assert len(seen) == len(changed) + 1


def test_samples_hold_every_row_and_example_and_repeat() -> None:
    found = samples()
    assert found == samples()
    written = {(document(one.error), one.verdict) for one in found if one.real}
    for rule in build.rule_rows():
        if not rule["verdict"].startswith("unclassified/"):
            for record in rule["true_positives"]:
                assert (document(build.error_of(record)), rule["verdict"]) in written
    rows = {row.verdict for row in table.rows()} - {"unclassified/cancelled", "unclassified/unknown"}
    assert rows <= {one.verdict for one in found}
    assert not any(one.verdict.startswith("unclassified/") for one in found)


def test_a_fit_repeats_and_separates() -> None:
    labelled = [(text, verdict) for verdict, texts in MESSAGES.items() for text in texts]
    classes = tuple(MESSAGES)
    rows = train.Matrix([document(LLMError(message=text)) for text, _ in labelled])
    labels = np.array([classes.index(verdict) for _, verdict in labelled])
    chosen = np.arange(len(labelled))
    model = train.fit(rows, labels, chosen, classes)
    assert model.to_bytes() == train.fit(rows, labels, chosen, classes).to_bytes()
    for text, verdict in labelled:
        found = model.probabilities(document(LLMError(message=text)))
        assert classes[int(found.argmax())] == verdict
    swapped = train.fit(rows, 1 - labels, chosen, classes)
    assert swapped.to_bytes() != model.to_bytes()


def test_the_table_of_figures_counts_model_and_rules() -> None:
    read, connect = "timeout/read", "timeout/connect"
    text = train.table_of(
        [
            train.Scored(read, "NONE", "", read, 0.95),
            train.Scored(read, "NONE", "", connect, 0.75),
            train.Scored(read, "KIND", "network_error/dns", read, 0.55),
            train.Scored(read, "SAID", read, "network_error/dns", 0.15),
        ]
    )
    figures = {
        (line[:14].strip(), *line[14:].split()[:1]): line[14:].split()[1:] for line in text.split("\n")
    }
    assert figures["all", "0.0"] == ["4", "3", "2", "1", "1"]
    assert figures["rules abstain", "0.7"] == ["2", "2", "1", "0", "0"]
    assert figures["rules abstain", "0.9"] == ["1", "1", "1", "0", "0"]
    assert figures["tier KIND", "0.5"] == ["1", "1", "1", "0", "0"]
    # (0.05 + 0.75 + 0.45 + 0.15) / 4
    assert text.endswith("0.350")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "labelled.jsonl, line 1: no JSON"),
        ("\n[]", "labelled.jsonl, line 2: an object with category and reason is needed"),
        ('{"category": "timeout"}', "line 1: an object with category and reason is needed"),
        (json.dumps({"category": "unclassified", "reason": "cancelled"}), "no labelled error"),
    ],
)
def test_a_bad_file_is_named(
    content: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "labelled.jsonl"
    path.write_text(content)
    assert train.main(["--evaluate", str(path)]) == 1
    assert complaint in capsys.readouterr().err
    assert train.main(["--evaluate", str(tmp_path / "none.jsonl")]) == 1
    assert "none.jsonl" in capsys.readouterr().err
