"""Makes the text model's weights: `python -m otel_triage.verdict.train`, a minute at most.

`--evaluate FILE...` scores it on labelled errors (JSONL of error records with `source`, `category`,
`reason`): as shipped and, in folds by repository, with all samples left out that resemble a fold's errors.
A test fails while the weights are older than what they are made from.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

# One thread, set before numpy is loaded: sums are then taken in one order, and the bytes repeat.
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
from numpy.typing import NDArray

from otel_triage.facts.records import facts_of_record
from otel_triage.model import LLMError
from otel_triage.verdict import rules
from otel_triage.verdict.labelled import labelled
from otel_triage.verdict.samples import Sample, samples
from otel_triage.verdict.text_model import BITS, FILE, TextModel, document, features, words

HERE: Final = Path(__file__).parent

Floats = NDArray[np.float32]
Integers = NDArray[np.intp]

_SEED: Final = 7
_EPOCHS: Final = 6
_BATCH: Final = 256
_STEP: Final = 0.05
_DECAY: Final = 3e-6  # of the weights, times the weights, in each step's gradient
_MOMENTUM: Final = (0.9, 0.99)
_FOLDS: Final = 4
_TEMPERATURES: Final = np.linspace(0.5, 2.5, 41)
_ALIKE: Final = 0.5  # cosine of two documents above which one gives the other away
_THRESHOLDS: Final = (0.0, 0.5, 0.7, 0.9)
_SOURCES: Final = (
    "facts.tsv", "statuses.toml", "taxonomy.toml", "table.py", "text_model.py", "samples.py", "train.py",
)  # fmt: skip
_REPOSITORY: Final = re.compile(r"github\.com/([^/\s]+/[^/\s#?]+)|^[a-z]+://([^/\s]+)")


def inputs_hash() -> str:
    """Hash of the data files and the code that the weights are made from."""
    digest = hashlib.sha256()
    for path in [*(HERE / name for name in _SOURCES), *sorted((HERE / "rules").glob("*.toml"))]:
        digest.update(f"{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()


class Matrix:
    """Sparse rows: the features of documents."""

    def __init__(self, documents: Sequence[str]) -> None:
        self._rows = [features(text) for text in documents]

    def __len__(self) -> int:
        return len(self._rows)

    def dense(self, numbers: Integers) -> Floats:
        """Some of the rows, written out."""
        rows = np.zeros((len(numbers), 1 << BITS), np.float32)
        for row, number in zip(rows, numbers, strict=True):
            buckets, weights = self._rows[number]
            row[buckets] = weights
        return rows


def fit(rows: Matrix, labels: Integers, chosen: Integers, classes: tuple[str, ...]) -> TextModel:
    """Multinomial logistic regression on the chosen rows, by Adam in a fixed order."""
    weights = [np.zeros((1 << BITS, len(classes)), np.float32), np.zeros(len(classes), np.float32)]
    means = [np.zeros_like(one) for one in weights]
    squares = [np.zeros_like(one) for one in weights]
    dice = np.random.default_rng(_SEED)
    batches = [
        order[at : at + _BATCH]
        for order in (dice.permutation(chosen) for _ in range(_EPOCHS))
        for at in range(0, len(order), _BATCH)
    ]
    for number, batch in enumerate(batches, start=1):
        dense = rows.dense(batch)
        wrong = _softmax(dense @ weights[0] + weights[1])
        wrong[np.arange(len(batch)), labels[batch]] -= 1
        wrong /= len(batch)
        step = _STEP * (1 - 0.95 * number / len(batches))
        for i, gradient in enumerate((dense.T @ wrong + _DECAY * weights[0], wrong.sum(axis=0))):
            means[i] += (1 - _MOMENTUM[0]) * (gradient - means[i])
            squares[i] += (1 - _MOMENTUM[1]) * (gradient**2 - squares[i])
            mean = means[i] / (1 - _MOMENTUM[0] ** number)
            weights[i] -= step * mean / (np.sqrt(squares[i] / (1 - _MOMENTUM[1] ** number)) + 1e-8)
    return TextModel(classes, weights[0], weights[1], 1.0)


def _softmax(scores: Floats) -> Floats:
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    found: Floats = raised / raised.sum(axis=1, keepdims=True)
    return found


def _fold(name: str) -> int:
    return hashlib.sha256(name.encode()).digest()[0] % _FOLDS


@dataclass(frozen=True, slots=True)
class Prepared:
    """Samples, ready for training."""

    samples: list[Sample]
    rows: Matrix
    labels: Integers
    classes: tuple[str, ...]


def prepare() -> Prepared:
    """All samples with features and labels."""
    found = samples()
    classes = tuple(sorted({sample.verdict for sample in found}))
    numbers = {name: number for number, name in enumerate(classes)}
    rows = Matrix([document(sample.error) for sample in found])
    return Prepared(found, rows, np.array([numbers[sample.verdict] for sample in found]), classes)


def temperature(data: Prepared) -> float:
    """The temperature that fits wordings left out best: folds by wording, errors as written."""
    folds = np.array([_fold(sample.group) for sample in data.samples])
    real = np.array([sample.real for sample in data.samples])
    scores, labels = [], []
    for fold in range(_FOLDS):
        model = fit(data.rows, data.labels, np.flatnonzero(folds != fold), data.classes)
        held = np.flatnonzero((folds == fold) & real)
        scores.append(data.rows.dense(held) @ model.matrix + model.bias)
        labels.append(data.labels[held])
    every, right = np.concatenate(scores), np.concatenate(labels)
    at = np.arange(len(right))
    losses = [-np.log(_softmax(every / one)[at, right] + 1e-9).mean() for one in _TEMPERATURES]
    return float(_TEMPERATURES[int(np.argmin(losses))])


def train() -> TextModel:
    """The model that is shipped."""
    data = prepare()
    model = fit(data.rows, data.labels, np.arange(len(data.rows)), data.classes)
    known = frozenset().union(*(words(document(sample.error)) for sample in data.samples))
    return replace(model, temperature=temperature(data), inputs=inputs_hash(), known=known)


@dataclass(frozen=True, slots=True)
class Scored:
    """One labelled error: what the rules and the model say of it."""

    expected: str
    tier: str
    ruled: str
    predicted: str
    confidence: float


def _scored(expected: str, error: LLMError, model: TextModel) -> Scored:
    match = rules.rule_set().decide(error)
    found = model.probabilities(document(error))
    best = int(found.argmax())
    return Scored(
        expected,
        match.rank[0].name if match else "NONE",
        f"{match.rule.category}/{match.rule.reason}" if match else "",
        model.classes[best],
        float(found[best]),
    )


def _category(verdict: str) -> str:
    return verdict.partition("/")[0]


def _ece(found: list[Scored]) -> float:
    """Expected calibration error, ten bins."""
    bins: list[list[Scored]] = [[] for _ in range(10)]
    for one in found:
        bins[min(int(one.confidence * 10), 9)].append(one)
    gaps = [
        abs(sum(o.predicted == o.expected for o in part) - sum(o.confidence for o in part)) for part in bins
    ]
    return sum(gaps) / len(found)


def table_of(found: list[Scored]) -> str:
    """Model and rules side by side: all errors, and those that the rules know little of."""
    lines = [
        f"{'errors':<14}{'conf >=':>8}{'n':>5}"
        f"{'model category':>16}{'reason':>8}{'rules category':>16}{'reason':>8}"
    ]
    parts = {
        "all": found,
        "rules abstain": [one for one in found if one.tier == "NONE"],
        "tier STATUS": [one for one in found if one.tier == "STATUS"],
        "tier KIND": [one for one in found if one.tier == "KIND"],
    }
    for name, part in parts.items():
        for threshold in _THRESHOLDS:
            kept = [one for one in part if one.confidence >= threshold]
            counts = (
                sum(_category(one.predicted) == _category(one.expected) for one in kept),
                sum(one.predicted == one.expected for one in kept),
                sum(_category(one.ruled) == _category(one.expected) for one in kept),
                sum(one.ruled == one.expected for one in kept),
            )
            lines.append(
                f"{name:<14}{threshold:>8}{len(kept):>5}{counts[0]:>16}{counts[1]:>8}{counts[2]:>16}{counts[3]:>8}"
            )
    return "\n".join([*lines, f"ECE of the model, category and reason: {_ece(found):.3f}"])


def evaluate(records: list[dict[str, Any]]) -> str:
    """Both tables as text: with all samples, and without those that resemble a fold's errors."""
    data = prepare()
    heat = TextModel.from_bytes((HERE / FILE).read_bytes()).temperature
    errors = [facts_of_record(record) for record in records]
    expected = [f"{record['category']}/{record['reason']}" for record in records]
    tested = Matrix([document(error) for error in errors])
    every = np.arange(len(data.rows))
    whole = replace(fit(data.rows, data.labels, every, data.classes), temperature=heat)
    folds = [_fold(_repository(record)) for record in records]
    unseen = []
    for fold in sorted(set(folds)):
        held = np.array([number for number, of in enumerate(folds) if of == fold])
        alike = np.concatenate(
            [
                (data.rows.dense(part) @ tested.dense(held).T).max(axis=1)
                for part in np.array_split(every, len(every) // _BATCH + 1)
            ]
        )
        model = replace(
            fit(data.rows, data.labels, np.flatnonzero(alike < _ALIKE), data.classes), temperature=heat
        )
        unseen += [_scored(expected[number], errors[number], model) for number in held]
    seen = [_scored(label, error, whole) for label, error in zip(expected, errors, strict=True)]
    return (
        f"as shipped ({len(data.samples)} samples)\n{table_of(seen)}\n\n"
        f"wordings left out (folds by repository; no sample with cosine >= {_ALIKE})\n{table_of(unseen)}"
    )


def _repository(record: dict[str, Any]) -> str:
    found = _REPOSITORY.search(str(record.get("source", "")))
    return (found[1] or found[2]).lower() if found else str(record.get("source", ""))


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the weights, or scores them; returns 1 with the reason on stderr if a file is wrong."""
    parser = argparse.ArgumentParser(prog="python -m otel_triage.verdict.train", description=__doc__)
    parser.add_argument("--evaluate", nargs="+", type=Path, metavar="FILE", help="score on labelled errors")
    asked = parser.parse_args(arguments)
    try:
        if asked.evaluate:
            print(evaluate([record for path in asked.evaluate for record in labelled(path)]))
        else:
            (HERE / FILE).write_bytes(train().to_bytes())
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
