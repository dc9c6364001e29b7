from __future__ import annotations

import random

import jiwer
import pytest

from asr.errors import DataError
from asr.evaluation.wer import align, count_confusions, score
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


@pytest.mark.parametrize("seed", range(0, 1000, 100))
def test_counts_equal_jiwer_and_the_textbook(seed):
    for pairs in map(random_pairs, range(seed, seed + 100)):
        references, hypotheses = map(list, zip(*pairs, strict=True))
        result = score(pairs, BASIC)
        for ours, theirs in (
            (result.wer, jiwer.process_words(references, hypotheses)),
            (result.cer, jiwer.process_characters(references, hypotheses)),
            (result.raw, jiwer.process_words(references, hypotheses)),
        ):
            assert (ours.substitutions, ours.deletions, ours.insertions, ours.hits) == (
                theirs.substitutions,
                theirs.deletions,
                theirs.insertions,
                theirs.hits,
            )
        assert result.raw_cer == pytest.approx(jiwer.cer(references, hypotheses))
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


@pytest.mark.parametrize("seed", range(20))
def test_an_alignment_holds_both_texts_and_the_counted_errors(seed):
    pairs = random_pairs(seed)
    counts = score(pairs, BASIC).counts
    for (reference, hypothesis), (substitutions, deletions, insertions, hits) in zip(pairs, counts, strict=True):
        aligned = align(reference, hypothesis)
        assert [said for said, _ in aligned if said] == reference.split()
        assert [heard for _, heard in aligned if heard] == hypothesis.split()
        assert not any(said == heard == "" for said, heard in aligned)
        found = count_confusions([aligned])
        assert sum(found.substitutions.values()) == substitutions
        assert sum(found.deletions.values()) == deletions
        assert sum(found.insertions.values()) == insertions
        assert sum(found.hits.values()) == hits


def test_confusions_of_a_known_example():
    found = count_confusions([align("the cat sat on the mat", "well the cat sit on mat")])
    assert found.substitutions == {("sat", "sit"): 1}
    assert found.deletions == {"the": 1}
    assert found.insertions == {"well": 1}


def test_work_grows_in_step_with_the_words(monkeypatch):
    """Counted, not timed: each utterance is aligned a fixed number of times, and nothing else is."""
    from rapidfuzz.distance import Levenshtein

    calls: list[int] = []
    opcodes = Levenshtein.opcodes
    monkeypatch.setattr(Levenshtein, "opcodes", lambda *texts: calls.append(len(texts[0])) or opcodes(*texts))
    pairs = [("one two three four five six", "one two tree four five")] * 200
    score(pairs, BASIC)
    few = sum(calls)
    calls.clear()
    score(pairs * 10, BASIC)
    assert sum(calls) == 10 * few


def test_an_alignment_parts_words_as_the_counts_do():
    assert align("one\ttwo three", "one two  three") == [("one", "one"), ("two", "two"), ("three", "three")]
