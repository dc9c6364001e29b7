from __future__ import annotations

import random

import jiwer
import pytest

from asr.errors import DataError
from asr.evaluation.wer import score
from asr.normalize import get_normalizer

BASIC = get_normalizer("basic")
WORDS = ["one", "two", "three", "four", "it's"]


def distance(reference: list[str], hypothesis: list[str]) -> int:
    """Levenshtein's distance by dynamic programming, one row at a time."""
    row = list(range(len(hypothesis) + 1))
    for i, word in enumerate(reference, start=1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(hypothesis, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other))
    return row[-1]


def random_pairs(seed: int) -> list[tuple[str, str]]:
    draw = random.Random(seed)
    return [
        (" ".join(draw.choices(WORDS, k=draw.randint(1, 9))), " ".join(draw.choices(WORDS, k=draw.randint(0, 9))))
        for _ in range(draw.randint(1, 5))
    ]


@pytest.mark.parametrize("seed", range(0, 300, 10))
def test_counts_equal_jiwer_and_the_textbook(seed):
    for pairs in map(random_pairs, range(seed, seed + 10)):
        references, hypotheses = map(list, zip(*pairs, strict=True))
        result = score(pairs, BASIC)
        assert result.wer.rate == pytest.approx(jiwer.wer(references, hypotheses))
        assert result.cer.rate == pytest.approx(jiwer.cer(references, hypotheses))
        errors = sum(distance(reference.split(), hypothesis.split()) for reference, hypothesis in pairs)
        assert result.wer.substitutions + result.wer.deletions + result.wer.insertions == errors
        assert result.wer.reference_length == sum(len(reference.split()) for reference in references)


def test_a_known_example():
    result = score([("the cat sat on the mat", "well the cat sit on mat")], BASIC)
    assert (result.wer.substitutions, result.wer.deletions, result.wer.insertions, result.wer.hits) == (1, 1, 1, 4)
    assert result.to_dict()["wer"] == 0.5


def test_the_rate_is_the_corpus_not_the_mean_of_utterances():
    pairs = [("one", "two"), ("one two three four one two three four one", "one two three four one two three four one")]
    assert score(pairs, BASIC).wer.rate == pytest.approx(0.1)


def test_order_does_not_matter():
    pairs = random_pairs(1) + random_pairs(2) + random_pairs(3)
    assert score(pairs, BASIC).to_dict() == score(pairs[::-1], BASIC).to_dict()


def test_raw_and_normalised_are_told_apart():
    result = score([("Hello, World!", "hello world")], BASIC)
    assert result.wer.rate == 0
    assert result.raw_wer == 1
    assert result.to_dict()["normalizer"] == {"name": "basic", "version": "1", "hash": BASIC.hash}


def test_any_white_space_parts_words():
    result = score([("one\ttwo\u00a0three\nfour", "one two three four")], get_normalizer("none"))
    assert (result.wer.hits, result.wer.errors, result.cer.errors, result.raw_wer) == (4, 0, 0, 0)


def test_empty_references_are_counted_apart():
    result = score([("", "made up words"), ("...", ""), ("one two", "one two")], BASIC)
    assert result.wer.rate == 0
    assert result.utterances == 1
    assert result.empty_references == 2
    assert result.words_on_empty_references == 3
    with pytest.raises(DataError, match="no reference holds a word"):
        score([("", "word"), (" ", "")], BASIC)


def test_many_utterances_are_counted_right():
    pairs = [("one two three four five six", "one two tree four five")] * 20_000
    assert score(pairs, BASIC).wer.rate == pytest.approx(2 / 6)
