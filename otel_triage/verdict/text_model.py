"""A small local text model for wordings that no rule knows (extra `cli`: it needs numpy).

Logistic regression over hashed character n-grams: of the error's own words, digits made
equal, and of its status, code, type and exception classes. `train` makes the weights from the table
of known errors and the rules' examples. What the model says is a guess with a calibrated
probability, never a fact: rules come first.
"""

from __future__ import annotations

import importlib
import io
import pkgutil
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

from otel_triage.model import Candidate, LLMError
from otel_triage.verdict.names import short

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

FILE: Final = "text_model.npz"
BITS: Final = 12
"""Number of buckets that n-grams are hashed to, as a power of two."""

_SIZES: Final = range(2, 5)  # bytes of an n-gram
_MESSAGE: Final = 500  # characters
_CAUSE: Final = 200
_BYTES: Final = 1024
_CLASSES: Final = 4
_CANDIDATES: Final = 3
_BASE: Final = 0x9E3779B1  # odd, so that it has an inverse modulo 2**32
# A word of four letters and more; a letter of Chinese or Japanese, which do not part words.
_WORD: Final = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\d_\u3040-\u30ff\u3400-\u9fff]{4,}")
_WORD_BITS: Final = 17
_KNOWN: Final = 0.5  # of a text's words: below it the model would guess from letters
_DIGITS: Final = str.maketrans("123456789", "0" * 9)


@cache
def _numpy() -> Any:
    try:
        return importlib.import_module("numpy")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the local text model needs numpy: install otel-triage[cli]", name="numpy"
        ) from error


def document(error: LLMError) -> str:
    """What the model reads of an error; empty if nothing is known."""
    head = [f"s{error.status} s{error.status // 100}xx"] if error.status else []
    for mark, value in (("c:", error.code), ("t:", error.type), ("b:", error.broke_at)):
        if value:
            head.append(mark + value.lower())
    names = [name for name in (error.error_type, *(cause.type for cause in error.causes)) if name]
    head += ["e:" + name for name in list(dict.fromkeys(short(name).lower() for name in names))[:_CLASSES]]
    head += ["f:" + reason.lower() for reason in error.finish_reasons or ()]
    texts = [_plain(error.message or "", _MESSAGE)]
    texts += [_plain(cause.message, _CAUSE) for cause in error.causes[1:3] if cause.message != error.message]
    body = " | ".join(text for text in texts if text)
    return f" {' '.join(head)} | {body} " if head or body else ""


def _plain(text: str, length: int) -> str:
    return " ".join(text[:length].lower().split()).translate(_DIGITS)


@cache
def _powers() -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Powers of the base and of its inverse, modulo 2**32."""
    np = _numpy()
    base, inverse = (
        np.cumprod(np.full(_BYTES, number, np.uint32), dtype=np.uint32)
        for number in (_BASE, pow(_BASE, -1, 2**32))
    )
    return base, inverse


@cache
def _weights() -> Floats:
    """The weight of an n-gram by how often it stands in a document."""
    np = _numpy()
    weights: Floats = np.log1p(np.arange(len(_SIZES) * _BYTES + 1, dtype=np.float32))
    return weights


def features(text: str) -> tuple[NDArray[np.intp], Floats]:
    """The n-grams of a document: their buckets, ascending, and a weight each; the weights' norm is 1.

    A polynomial hash over the UTF-8 bytes: the hash of any n-gram is a difference of two running
    sums, brought to position 0 by the inverse of the base's power. Training and prediction both use it.
    """
    np = _numpy()
    powers, inverses = _powers()
    data = np.frombuffer(text.encode("utf-8", "replace")[:_BYTES], np.uint8)
    sums = np.zeros(len(data) + 1, np.uint32)
    np.cumsum((data + np.uint32(1)) * powers[: len(data)], out=sums[1:], dtype=np.uint32)
    hashes = np.concatenate(
        [
            (sums[size:] - sums[:-size]) * inverses[: max(len(data) - size + 1, 0)] + np.uint32(size)
            for size in _SIZES
            if size <= len(data)
        ]
        or [np.zeros(0, np.uint32)]
    )
    # A multiplication moves differences to the high bits, which choose the bucket.
    hashes ^= hashes >> np.uint32(15)
    hashes *= np.uint32(0x85EBCA6B)
    hashes ^= hashes >> np.uint32(13)
    hashes *= np.uint32(0xC2B2AE35)
    counts = np.bincount(hashes >> np.uint32(32 - BITS), minlength=1 << BITS)
    buckets = (counts > 0).nonzero()[0]  # of booleans: three times as fast
    weights = _weights()[counts[buckets]]
    weights /= max(float(np.sqrt(weights @ weights)), 1e-9)
    return buckets, weights


def words(text: str) -> set[int]:
    """The buckets of a document's words."""
    return {crc32(word.encode()) & ((1 << _WORD_BITS) - 1) for word in _WORD.findall(text)}


@dataclass(frozen=True, slots=True, eq=False)
class TextModel:
    """Trained weights: `matrix` has a row a bucket and a column a class (`category/reason`).

    `temperature` makes probabilities of scores; `inputs` is the hash of what it was trained on; `known`
    holds the `words` of that.
    """

    classes: tuple[str, ...]
    matrix: Floats
    bias: Floats
    temperature: float
    inputs: str = ""
    known: frozenset[int] = frozenset()

    def knows(self, text: str) -> bool:
        """Whether at least half of a document's words are ones that it was trained on."""
        found = words(text)
        return bool(found) and len(found & self.known) >= _KNOWN * len(found)

    def probabilities(self, text: str) -> Floats:
        """The calibrated probability of each class for a document."""
        np = _numpy()
        buckets, weights = features(text)
        scores = (weights @ self.matrix.take(buckets, axis=0) + self.bias) / self.temperature
        raised = np.exp(scores - scores.max())
        found: Floats = raised / raised.sum()
        return found

    def to_bytes(self) -> bytes:
        """As a file: the matrix in steps of 1/127 of each column's largest weight."""
        np = _numpy()
        scale = np.maximum(np.abs(self.matrix).max(axis=0), 1e-9) / 127
        file = io.BytesIO()
        np.savez(
            file,
            classes=np.array(self.classes),
            matrix=np.rint(self.matrix / scale).astype(np.int8),
            scale=scale.astype(np.float32),
            bias=self.bias.astype(np.float32),
            temperature=np.float32(self.temperature),
            inputs=np.array(self.inputs),
            known=np.array(sorted(self.known), np.uint32),
        )
        return file.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> TextModel:
        """The model that `to_bytes` wrote."""
        with _numpy().load(io.BytesIO(content), allow_pickle=False) as file:
            return cls(
                tuple(str(name) for name in file["classes"]),
                file["matrix"] * file["scale"],
                file["bias"],
                float(file["temperature"]),
                str(file["inputs"]),
                frozenset(file["known"].tolist()),
            )


@cache
def packaged() -> TextModel:
    """The model that comes with the package.

    Raises:
        ModuleNotFoundError: numpy is not installed; the text names the extra that brings it.
        FileNotFoundError: the package lacks the weights.
    """
    _numpy()
    content = pkgutil.get_data(__package__, FILE)
    if content is None:
        raise FileNotFoundError(f"{__package__}/{FILE} is missing: reinstall otel-triage")
    return TextModel.from_bytes(content)


def predict(error: LLMError) -> tuple[Candidate, ...]:
    """The three likeliest verdicts by the error's text, best first; none where its words are unknown.

    `confidence` is the calibrated probability that category and reason are both right. Pure, no clock.

    Raises:
        ModuleNotFoundError: numpy is not installed; the text names the extra that brings it.
    """
    model = packaged()
    text = document(error)
    if not model.knows(text):
        return ()
    found: list[float] = model.probabilities(text).tolist()
    candidates = []
    for number in sorted(range(len(found)), key=found.__getitem__)[: -_CANDIDATES - 1 : -1]:
        category, _, reason = model.classes[number].partition("/")
        candidates.append(Candidate(category=category, reason=reason, confidence=found[number]))
    return tuple(candidates)


def if_installed() -> Callable[[LLMError], tuple[Candidate, ...]] | None:
    """`predict`, ready to use, or None where numpy is not installed."""
    try:
        packaged()
    except ModuleNotFoundError:
        return None
    return predict
