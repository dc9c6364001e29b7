"""Transcripts: what is odd and what is not, and how fast someone speaks."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize

from asr.check.duplicates import Keys, find_duplicates, find_leaks
from asr.check.findings import soften
from asr.check.text import judge_texts, rate_deviations

PLAIN = [
    "The quick brown fox - it's \u201cquick\u201d.",
    "Jumps over; the lazy dog!",
    "Na\u00efve caf\u00e9s, \u0141\u00f3d\u017a?",
]


def odd(texts: list[str]) -> list[int]:
    found = judge_texts(texts, np.full(len(texts), 3.0), 0, None)
    return sorted(finding.row for finding in found if finding.kind == "odd_characters")


@pytest.mark.parametrize(
    "text",
    [
        "a <unk> b",
        "[noise] a",
        "caf\u00c3\u00a9",
        "don\u00e2\u20ac\u2122t",
        "in 1984",
        "R&D",
        "a\ufffdb",
        "a\x07b",
        "\u0441at",
        "&quot;a",
        "5 \u20ac",
    ],
)
def test_one_odd_transcript_among_many_is_named(text):
    texts = PLAIN * 100 + [text]
    assert odd(texts) == [300]


def test_what_a_corpus_does_throughout_is_not_odd():
    assert odd(PLAIN * 100) == []
    assert odd(["number 5 & 6"] * 10 + PLAIN * 30) == []
    assert odd(["\u043f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440"] * 50) == []
    assert odd(["a\ufffdb"] * 50) == list(range(50)), "broken encoding is never right"


@pytest.mark.parametrize("text", ["a <unk> b", "[laughter] a", "so {NOISE} what", "well <COMMA> yes"])
def test_markup_is_said_even_where_it_is_common(text):
    found = list(judge_texts([text] * 10 + PLAIN * 10 + ["R&D " + text], np.full(41, 3.0), 0, None))
    odd = [(each.row, each.severity) for each in found if each.kind == "odd_characters"]
    assert odd == [*((row, "notice") for row in range(10)), (40, "warning")]


@pytest.mark.parametrize("text", ["", "  ", "...", "-", "?!"])
def test_nothing_to_say_is_no_text(text):
    kinds = {finding.kind for finding in judge_texts([*PLAIN, text], np.full(4, 3.0), 0, None) if finding.row == 3}
    assert "no_text" in kinds


def test_deviations_are_from_the_line_of_least_absolute_residuals():
    rng = np.random.default_rng(0)
    lengths = rng.integers(10, 200, 400)
    seconds = (1.5 + 0.06 * lengths) * np.exp(rng.normal(0, 0.15, 400))
    seconds[:40] *= 8  # a tenth is wrong: the line must not bend

    def residuals(line):
        return np.abs(seconds - line[0] - line[1] * lengths).sum()

    line = scipy.optimize.minimize(residuals, (1.0, 0.05), method="Nelder-Mead").x
    ratios = np.log(seconds / (line[0] + line[1] * lengths))
    ratios -= np.median(ratios)
    deviations = rate_deviations(lengths, seconds)
    assert np.corrcoef(deviations, ratios)[0, 1] > 0.99
    assert (np.abs(deviations[40:]) < 5).all()
    assert (deviations[:40] > 5).all()


def test_transcripts_that_are_far_too_long_do_not_bend_the_line():
    rng = np.random.default_rng(0)
    lengths = rng.integers(10, 200, 400)
    seconds = (1.5 + 0.06 * lengths) * np.exp(rng.normal(0, 0.15, 400))
    lengths[:40] *= 10
    deviations = rate_deviations(lengths, seconds)
    assert (deviations[:40] < -5).all()
    assert (np.abs(deviations[40:]) < 5).all()


def test_durations_that_are_all_alike_do_no_harm():
    assert np.isfinite(rate_deviations(np.full(30, 20), np.full(30, 2.0))).all()


def test_duplicates_and_contradictions_by_brute_force():
    rng = np.random.default_rng(1)
    texts = [f"text {n}" for n in rng.integers(0, 12, 40)]
    audio = rng.integers(0, 30, 40).tolist()
    keys = Keys([str(n) for n in range(40)], [""] * 40, texts, audio)
    found = {(finding.kind, finding.row) for finding in find_duplicates(keys, 0)}
    for row in range(40):
        same = [other for other in range(40) if other != row and audio[other] == audio[row] and audio[row]]
        contradicted = any(texts[other] != texts[row] for other in same)
        assert (("contradiction", row) in found) == contradicted
        assert (("duplicate_audio", row) in found) == (not contradicted and any(other < row for other in same))
        if ("duplicate_text", row) in found:
            assert texts[row] in texts[:row]


def test_stretches_of_one_file_leak_by_brute_force():
    rng = np.random.default_rng(2)

    def draw(count: int, first_hash: int) -> Keys:
        begins, seconds = rng.integers(0, 200, count) / 10, rng.gamma(2, 1, count)
        paths = [f"{n}.wav" for n in rng.integers(0, 3, count)]
        names = [f"{first_hash + n}" for n in range(count)]
        audio = [0, *range(first_hash + 1, first_hash + count)]
        return Keys(names, names, names, audio, list(zip(paths, begins, begins + seconds, strict=True)))

    def shared(one: tuple[str, float, float], two: tuple[str, float, float]) -> bool:
        seconds = min(one[2], two[2]) - max(one[1], two[1])
        return one[0] == two[0] and seconds > 0.5 * min(one[2] - one[1], two[2] - two[1])

    train, test = draw(60, 0), draw(30, 1000)
    leaks = [(finding.kind, finding.row) for finding in find_leaks([train, test], ["train", "test"])]
    expected = [row for row in range(1, 60) if any(shared(train.stretches[row], each) for each in test.stretches[1:])]
    assert leaks == [("leak_audio", row) for row in expected]
    assert 10 < len(expected) < 50


def test_rounding_does_not_hide_a_duplicate():
    stretches = [("a", 0.0, 2.204), ("a", 0.004, 2.2), ("b", 0.0, 2.2), ("a", 0.0, 4.0), ("a", 1.0, 2.2)]
    keys = Keys([*"12345"], [""] * 5, [""] * 5, [11, 12, 12, 13, 14], stretches)  # b is a copy of the second
    assert [(finding.kind, finding.row) for finding in find_duplicates(keys, 0)] == [
        ("duplicate_audio", 1),
        ("duplicate_audio", 2),
    ]


def test_a_leak_is_a_notice_where_the_corpus_is_made_so():
    def severities(train: Keys, test: Keys) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for finding in find_leaks([train, test], ["train", "test"]):
            found.setdefault(finding.kind, set()).add(finding.severity)
        return found

    long = "a sentence of five words"
    train = Keys(["1", "2"], ["a", "b"], [long, "yes"], [11, 12])
    assert severities(train, Keys(["3", "4", "5"], ["b", "c", "c"], [long, "x", "y"], [13, 14, 15])) == {
        "leak_speaker": {"warning"},
        "leak_text": {"warning"},
    }
    prompts = Keys(["3", "4"], ["c", "c"], [long, "yes"], [13, 14])
    assert severities(train, prompts) == {"leak_text": {"notice"}}
    short = Keys(["3", "4", "5"], ["c", "c", "c"], ["yes", "x", "y"], [13, 14, 15])
    assert severities(train, short) == {"leak_text": {"notice"}}
    for words, severity in (
        ("gefeliciteerd allemaal", "notice"),
        ("不客气", "notice"),
        ("而对楼市成交抑制作用最大的限购", "warning"),  # AISHELL-1
        ("วันนี้อากาศดีมากเราไปเดินเล่นกันเถอะ", "warning"),
    ):
        one, two = Keys(["1"], ["a"], [words], [11]), Keys([*"345"], [*"ccc"], [words, "x", "y"], [13, 14, 15])
        assert severities(one, two) == {"leak_text": {severity}}
    few_voices = [Keys([*"123"], [*"aab"], ["x"] * 3, [1, 2, 3]), Keys(["4"], ["a"], ["y"], [4])]
    found = soften(find_leaks(few_voices, ["train", "test"]), [3, 1])  # as utterances were dealt out, not speakers
    assert [(finding.row, finding.offends) for finding in found] == [(0, False), (1, False)]
    one_voice = Keys(["1"], ["a"], ["x"], [11]), Keys(["2"], ["a"], ["y"], [12])
    assert severities(*one_voice) == {"leak_speaker": {"notice"}}
    nameless = Keys(["1"], [""], [""], [0])
    assert severities(nameless, Keys(["2"], [""], [""], [0])) == {}
    assert severities(nameless, Keys(["1"], [""], [""], [0])) == {"leak_id": {"error"}}
