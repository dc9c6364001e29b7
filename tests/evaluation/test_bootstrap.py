from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.stats import norm

from asr.evaluation.bootstrap import difference, interval
from asr.evaluation.wer import score
from asr.normalize import get_normalizer

DRAW = np.random.default_rng(7)


def corpus(utterances: int, rate: float) -> list[tuple[str, str]]:
    pairs = []
    for _ in range(utterances):
        words = DRAW.choice(list("abcdefghij"), DRAW.integers(3, 20)).tolist()
        heard = ["wrong" if DRAW.random() < rate else word for word in words]
        pairs.append((" ".join(words), " ".join(heard)))
    return pairs


def counts(pairs):
    found = score(pairs, get_normalizer("none")).counts
    return found[:, :3].sum(axis=1), found[:, [0, 1, 3]].sum(axis=1)


def test_intervals_and_improvement_equal_kaldialigns():
    kaldialign = pytest.importorskip("kaldialign")
    first = corpus(400, 0.2)
    second = [(reference, heard.replace("wrong", "a", 1)) for reference, heard in first]
    errors, words = counts(first)
    others, _ = counts(second)
    sides = [[text.split() for text in side] for side in (*zip(*first, strict=True), [h for _, h in second])]
    theirs = kaldialign.bootstrap_wer_ci(*sides, replications=10_000)
    for found, expected in ((errors, theirs["system1"]), (others, theirs["system2"])):
        ours = interval(found, words, [""] * len(words))
        assert (ours.low + ours.high) / 2 == pytest.approx(expected["wer"], abs=0.001)
        # The deviation of a deviation from 10,000 draws is 0.7 %; four of them, on both sides, are 4 %.
        assert 1.96 * ours.deviation == pytest.approx(expected["ci95"], rel=0.04)
        assert (ours.high - ours.low) / 2 == pytest.approx(expected["ci95"], rel=0.06)
        assert (ours.blocks, ours.unit) == (400, "utterance")
    found = difference(errors, others, words, [""] * len(words))
    assert found.value < 0
    assert theirs["p_s2_improv_over_s1"] > 0.99
    assert found.p_value < 0.02


def test_few_speakers_are_drawn_as_counting_all_draws_says():
    errors, words = np.array([3, 1, 8, 2, 2]), np.array([10, 10, 10, 20, 5])
    speakers = ["a", "a", "b", "c", "c"]
    sums = {"a": (4, 20), "b": (8, 10), "c": (4, 25)}
    rates = [sum(sums[s][0] for s in draw) / sum(sums[s][1] for s in draw) for draw in product("abc", repeat=3)]
    found = interval(errors, words, speakers)
    assert (found.blocks, found.unit) == (3, "speaker")
    assert found.deviation == pytest.approx(np.std(rates), rel=0.04)
    assert found.low == pytest.approx(min(rates))  # one draw in 27 each: more than 2.5 %
    assert found.high == pytest.approx(max(rates))


def test_speakers_who_differ_make_the_interval_wider():
    rates = np.repeat(np.linspace(0.05, 0.5, 20), 30)
    words = np.full(600, 20)
    errors = DRAW.binomial(words, rates)
    speakers = [f"s{number // 30}" for number in range(600)]
    assert interval(errors, words, speakers).deviation > 2 * interval(errors, words, [""] * 600).deviation


def test_unknown_speakers_are_drawn_one_by_one():
    errors, words = np.array([1, 2, 3, 0]), np.array([9, 9, 9, 9])
    assert interval(errors, words, ["a", "a", "a", "a"]).unit == "utterance"
    mixed = interval(errors, words, ["a", "a", "", ""])
    assert (mixed.blocks, mixed.unit) == (3, "speaker or utterance")


def test_order_changes_nothing():
    errors, words = counts(corpus(50, 0.3))
    speakers = [f"s{number % 7}" for number in range(50)]
    order = DRAW.permutation(50)
    shuffled = [speakers[row] for row in order]
    assert interval(errors, words, speakers) == interval(errors[order], words[order], shuffled)


def test_a_difference_is_paired_and_honest_about_few_speakers():
    errors, words = counts(corpus(300, 0.3))
    better = errors - (DRAW.random(300) < 0.1) * (errors > 0)
    found = difference(errors, better, words, [""] * 300)
    assert found.value == pytest.approx((better.sum() - errors.sum()) / words.sum())
    assert found.interval.low < found.value < found.interval.high < 0
    alone = interval(errors, words, [""] * 300)
    assert found.interval.deviation < alone.deviation / 2  # what both have in common cancels
    three = [f"s{row % 3}" for row in range(300)]
    assert difference(errors, better, words, three).p_value >= 0.25  # 2 / 2^3
    same = difference(errors, errors, words, three)
    assert (same.value, same.p_value, same.interval.low, same.interval.high) == (0, 1, 0, 0)


def test_the_p_value_is_rarely_small_without_a_difference():
    words = np.full(60, 20)
    values = [
        difference(DRAW.binomial(words, 0.2), DRAW.binomial(words, 0.2), words, [""] * 60, 500).p_value
        for _ in range(200)
    ]
    assert np.mean(np.array(values) < 0.05) < 0.12  # 0.05 expected; the deviation of 200 draws is 0.016


@pytest.mark.parametrize("sign", [1, -1])
def test_the_p_value_counts_both_sides(sign):
    """As the normal distribution has it, for a difference of about one deviation and two hundred speakers."""
    words = np.full(200, 20)
    change = np.resize([3, -2, 1, -1, -1, 2, 0, -1, 0, 0], 200)
    found = difference(np.full(200, 5), 5 + sign * change, words, [f"s{number}" for number in range(200)])
    size = abs(found.value) / found.interval.deviation
    assert 0.5 < size < 1.5
    assert found.p_value == pytest.approx(2 * norm.sf(size), abs=0.03)


@pytest.mark.parametrize("differing", [1, 4, 5])
def test_the_p_value_is_no_smaller_than_the_sign_tests_where_most_blocks_are_equal(differing):
    first = np.ones(1000, dtype=np.int64)
    second = first.copy()
    second[:differing] = 0
    found = difference(first, second, np.full(1000, 10), [f"s{number}" for number in range(1000)])
    assert found.p_value >= 2.0 ** (1 - differing)


def test_few_speakers_are_not_enough_for_what_flipping_signs_brings_about_easily():
    """Six speakers, of whom one got worse: of the 64 choices of signs, 6 give a sum as far from zero."""
    first, change = np.full(6, 40), np.array([-3, -4, -2, -5, -3, 2])
    found = difference(first, first + change, np.full(6, 200), list("abcdef"))
    flips = [abs(sum(s * c for s, c in zip(signs, change, strict=True))) for signs in product((1, -1), repeat=6)]
    assert found.p_value == np.mean(np.array(flips) >= 15) == 6 / 64
    assert found.interval.high < 0


@pytest.mark.parametrize("speakers", [6, 20])
def test_equal_systems_of_few_speakers_are_rarely_told_apart(speakers):
    words = np.full(speakers, 200)
    names = [f"s{number}" for number in range(speakers)]
    values = [
        difference(DRAW.binomial(words, 0.2), DRAW.binomial(words, 0.2), words, names, 500).p_value for _ in range(300)
    ]
    assert np.mean(np.array(values) < 0.05) < 0.09  # 0.05 expected at most; the deviation of 300 draws is 0.013


def test_blocks_of_known_and_unknown_speakers_are_called_so():
    words = np.full(4, 10)
    assert interval(words, words, ["a", "a", "", ""]).unit == "speaker or utterance"
    assert interval(words, words, ["a", "a", "b", "b"]).unit == "speaker"
    assert interval(words, words, [""] * 4).unit == "utterance"
