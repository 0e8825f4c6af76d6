"""The text model at run time: what it reads, how it hashes, what it answers, what it needs."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from otel_triage.model import Candidate, Cause, LLMError
from otel_triage.verdict import taxonomy, text_model, train
from otel_triage.verdict.text_model import BITS, TextModel, document, features, packaged, predict

CHAIN = LLMError(
    status=429,
    code="Rate_Limited",
    type="tokens",
    error_type="openai.RateLimitError",
    finish_reasons=("length",),
    message="Limit  of 40,000\nTPM",
    causes=(
        Cause("openai.RateLimitError", "Limit"),
        Cause("httpx.HTTPStatusError", "Client error 429"),
    ),
)


def test_document() -> None:
    assert document(CHAIN) == (
        " s429 s4xx c:rate_limited t:tokens e:ratelimiterror e:httpstatuserror f:length"
        " | limit of 00,000 tpm | client error 000 "
    )
    assert document(LLMError()) == ""
    assert len(document(LLMError(message="x" * 10_000))) < 600


def reference_buckets(data: bytes) -> list[int]:
    """The hash as a loop over n-grams with whole numbers: an independent statement of it."""
    buckets = []
    for size in range(2, 5):
        for at in range(len(data) - size + 1):
            total = sum((data[at + i] + 1) * pow(0x9E3779B1, i, 2**32) for i in range(size))
            number = (total + size) % 2**32
            number ^= number >> 15
            number = number * 0x85EBCA6B % 2**32
            number ^= number >> 13
            number = number * 0xC2B2AE35 % 2**32
            buckets.append(number >> (32 - BITS))
    return sorted(buckets)


@pytest.mark.parametrize("text", ["", "a", "ab", "rate limit", "上下文长度超限", "aaaaaaaaaa"])
def test_every_ngram_is_hashed_alike_wherever_it_stands(text: str) -> None:
    expected = reference_buckets(text.encode())
    buckets, weights = features(text)
    assert buckets.tolist() == sorted(set(expected))
    counts = np.log1p(np.array([expected.count(bucket) for bucket in buckets.tolist()], np.float64))
    assert weights == pytest.approx(counts / max(np.linalg.norm(counts), 1e-9), rel=1e-5)


def test_probabilities_are_those_of_a_softmax() -> None:
    """Two classes; the first has weight 0.1 on every bucket, the second none; both have a bias of 1."""
    matrix = np.zeros((1 << BITS, 2), np.float32)
    matrix[:, 0] = 0.1
    model = TextModel(("a/b", "c/d"), matrix, np.ones(2, np.float32), 0.5)
    _, weights = features("rate limit")
    first = 1 / (1 + np.exp(-0.1 * weights.sum() / 0.5))
    assert model.probabilities("rate limit") == pytest.approx([first, 1 - first], rel=1e-5)


def test_a_file_holds_the_model_to_a_step_of_its_scale() -> None:
    dice = np.random.default_rng(1)
    matrix = dice.normal(size=(1 << BITS, 3)).astype(np.float32)
    model = TextModel(
        ("a/b", "c/d", "e/f"), matrix, np.arange(3, dtype=np.float32), 0.75, "1a2b", frozenset({3, 5})
    )
    read = TextModel.from_bytes(model.to_bytes())
    assert (read.classes, read.temperature, read.inputs) == (model.classes, 0.75, "1a2b")
    assert read.known == {3, 5}
    assert read.bias.tolist() == [0, 1, 2]
    assert np.abs(read.matrix - matrix).max() <= np.abs(matrix).max() / 127 / 2 + 1e-6
    assert model.to_bytes() == model.to_bytes()


def test_three_candidates_best_first() -> None:
    found = predict(CHAIN)
    probabilities = packaged().probabilities(document(CHAIN))
    assert [one.confidence for one in found] == sorted(probabilities.tolist(), reverse=True)[:3]
    assert all(isinstance(one, Candidate) for one in found)
    assert probabilities.sum() == pytest.approx(1, abs=1e-5)
    for one in found:
        assert taxonomy.reason(one.category, one.reason)
    assert (found[0].category, found[0].reason) == ("rate_limit", "tokens")
    assert predict(CHAIN) == found


@pytest.mark.parametrize(
    "text",
    ["the frobnicator is sad", "my wombat sleeps", "the overloaded frobnicator sniggers", "木蘭從軍", "42"],
)
def test_of_unknown_words_nothing_is_said(text: str) -> None:
    """Letters alone resemble something always: it must not be guessed from them."""
    assert predict(LLMError(message=text)) == ()


@pytest.mark.parametrize("text", ["The service is overloaded", "账户余额不足", "сервис временно недоступен"])
def test_of_known_words_something_is_said(text: str) -> None:
    assert predict(LLMError(message=text)) != ()


def test_nothing_known_is_nothing_said() -> None:
    assert predict(LLMError()) == ()
    assert predict(LLMError(provider="openai", message=" \n ")) == ()


@pytest.mark.parametrize("message", ["\ud800 broken", "\x00" * 5000, "語" * 5000, "a"])
def test_any_text_is_read(message: str) -> None:
    probabilities = packaged().probabilities(document(LLMError(message=message)))
    assert probabilities.sum() == pytest.approx(1, abs=1e-5)
    assert len(predict(LLMError(message=message))) in (0, 3)


def test_the_text_decides_and_digits_do_not() -> None:
    told = LLMError(message="the request ran over 128000 tokens of context")
    assert predict(told) == predict(replace(told, message="the request ran over 936475 tokens of context"))
    assert predict(told) != predict(replace(told, message="the request ran over the allowed time"))


def test_packaged_weights_are_small_and_of_known_verdicts() -> None:
    assert (train.HERE / text_model.FILE).stat().st_size <= 300_000
    known = {reason.key for reason in taxonomy.all_reasons()}
    assert set(packaged().classes) <= {key for key in known if not key.startswith("unclassified/")}
    assert packaged().matrix.shape == (1 << BITS, len(packaged().classes))


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_is_lazy_and_without_numpy_the_extra_is_named() -> None:
    """A finder that refuses numpy: the module loads, a prediction says what to install."""
    out = run(
        "import sys\n"
        "class No:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'numpy': raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, No())\n"
        "from otel_triage.model import LLMError\n"
        "from otel_triage.verdict.text_model import predict\n"
        "try: predict(LLMError(message='x'))\n"
        "except ModuleNotFoundError as error: print(error)\n"
    )
    assert out == "the local text model needs numpy: install otel-triage[cli]\n"
    out = run("import sys, otel_triage.verdict.text_model\nprint('numpy' in sys.modules)")
    assert out == "False\n"
