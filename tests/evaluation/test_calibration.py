"""Confidence figures against scikit-learn and brute force, and on the embedded model."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.evaluation.calibration import BINS, auroc, calibration_error, fit_power, measure_confidence
from asr.evaluation.evaluate import evaluate
from asr.manifest import Manifest
from asr.normalize import get_normalizer
from asr.transcriber import Transcriber

BASIC = get_normalizer("basic")
OUTCOMES = st.lists(
    st.tuples(st.sampled_from((0.0, 0.1, 1 / 15, 0.5, 0.999, 1.0)) | st.floats(0, 1), st.booleans()), min_size=1
)


@settings(deadline=None)
@given(OUTCOMES)
def test_auroc_is_scikit_learns(outcomes: list[tuple[float, bool]]) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    confidences, right = np.array([each[0] for each in outcomes]), np.array([each[1] for each in outcomes])
    if right.all() or not right.any():
        assert auroc(confidences, right) is None
    else:
        assert auroc(confidences, right) == pytest.approx(metrics.roc_auc_score(right, confidences), abs=1e-9)


@settings(deadline=None)
@given(OUTCOMES)
def test_calibration_error_is_the_sum_over_bins(outcomes: list[tuple[float, bool]]) -> None:
    error, bins = calibration_error(np.array([each[0] for each in outcomes]), np.array([each[1] for each in outcomes]))
    expected = 0.0
    for place in range(BINS):
        last = place == BINS - 1
        inside = [each for each in outcomes if place <= each[0] * BINS < place + 1 or (last and each[0] == 1)]
        expected += abs(sum(each[0] for each in inside) - sum(each[1] for each in inside)) / len(outcomes)
    assert error == pytest.approx(expected, abs=1e-9)
    assert sum(each["words"] for each in bins) == len(outcomes)


def test_perfect_and_worthless_confidences() -> None:
    right = np.array([True, False, True, False])
    assert auroc(np.array([0.9, 0.1, 0.8, 0.2]), right) == 1.0
    assert auroc(np.full(4, 0.5), right) == 0.5
    assert calibration_error(np.full(4, 0.5), right)[0] == 0.0
    assert calibration_error(np.full(4, 0.9), right)[0] == pytest.approx(0.4)


def test_words_are_right_where_the_alignment_has_a_hit() -> None:
    rows = [
        {"reference": "The cat sat.", "word_confidences": [("the", 0.9), ("hat", 0.2), ("sat", 0.8)]},
        {"reference": "rock and roll", "word_confidences": [("rock-and", 0.7), ("...", 0.1), ("roll", 0.6)]},
        {"reference": "not heard", "error": "no such file"},
        {"reference": "", "word_confidences": [("invented", 0.3)]},
    ]
    result = measure_confidence(rows, BASIC)
    assert result is not None
    assert (result["words"], result["right"]) == (7, pytest.approx(5 / 7))
    assert result["auroc"] == 1.0
    assert result["confidence"] == pytest.approx((0.9 + 0.2 + 0.8 + 0.7 + 0.7 + 0.6 + 0.3) / 7)
    assert measure_confidence([{"reference": "a", "word_confidences": []}], BASIC) is None


@pytest.mark.parametrize("power", [0.25, 0.5, 1.0, 2.0])
def test_the_power_that_made_the_truth_is_found(power: float) -> None:
    generator = np.random.default_rng(0)
    confidences = generator.random(5000)
    hits = generator.random(5000) < confidences**power
    rows = [
        {"reference": "yes" if hit else "no", "word_confidences": [("yes", confidence)]}
        for hit, confidence in zip(hits, confidences, strict=True)
    ]
    assert fit_power(rows, BASIC) == power
    assert fit_power([{"reference": "a", "word_confidences": []}], BASIC) == 1.0


@pytest.mark.parametrize("mode", [None, "ctc"])
def test_the_embedded_model_knows_what_it_knows(manifest: Manifest, mode: str | None) -> None:
    result = evaluate(Transcriber.load(mode=mode, vad=False), manifest)
    confidence = result["confidence"]
    assert confidence["words"] == sum(len(row["word_confidences"]) for row in result["results"]) > 150
    assert all([word for word, _ in row["word_confidences"]] == row["hypothesis"].split() for row in result["results"])
    hits = confidence["right"] * confidence["words"]
    assert round(hits) == result["words"] - result["substitutions"] - result["deletions"]
    assert confidence["auroc"] > 0.75
    assert confidence["ece"] < chance(result["results"]) + 0.06


def chance(rows: list[dict]) -> float:
    """The calibration error that so few words would have if their confidences were the truth itself, on average."""
    confidences = np.array([each for row in rows for _, each in row["word_confidences"]])
    draws = np.random.default_rng(0).random((200, len(confidences))) < confidences
    return float(np.mean([calibration_error(confidences, right)[0] for right in draws]))


def test_words_that_are_normalised_together_are_judged_together() -> None:
    confidences = [("twenty", 0.9), ("five", 0.7), ("dollars", 0.8), ("ok", 0.6)]
    rows = [{"reference": "twenty five dollars ok", "word_confidences": confidences}]
    found = measure_confidence(rows, get_normalizer("english"))  # $25 okay
    assert found is not None
    assert (found["words"], found["right"]) == (2, 1.0)
    assert found["confidence"] == pytest.approx((0.7 + 0.6) / 2)
