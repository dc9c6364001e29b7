"""How far word confidences can be trusted: calibration error, and how well they tell right words from wrong ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein

from asr.normalize import Normalizer

BINS = 15  # of equal width; as many as in Guo et al. 2017
POWERS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0)


def measure_confidence(rows: Iterable[Mapping[str, Any]], normalizer: Normalizer) -> dict[str, Any] | None:
    """Compare the confidences of recognised words with whether they are right.

    A word is right if the alignment with the reference that counts the word errors takes it for a hit. Where
    normalising makes several words of one, each has its confidence; where it makes one of several, as of numbers, it
    has the least of theirs; and where it leaves none, none counts.

    Args:
        rows: `reference`, and `word_confidences`: the words of the hypothesis, each with its confidence. Rows without
            them are left out.
        normalizer: what both texts go through first.

    Returns:
        `ece` and `auroc` (None if all words are right, or none), `words`, the share that is `right`, the mean
        `confidence`, and the `bins` of the calibration error; None where there is no word.
    """
    confidences, right = _outcomes(rows, normalizer)
    if not len(right):
        return None
    error, bins = calibration_error(confidences, right)
    return {
        "ece": error,
        "auroc": auroc(confidences, right),
        "words": len(right),
        "right": float(right.mean()),
        "confidence": float(confidences.mean()),
        "bins": bins,
    }


def calibration_error(confidences: NDArray[np.float64], right: NDArray[np.bool_]) -> tuple[float, list[dict[str, Any]]]:
    """Give the expected calibration error (Guo et al. 2017, arXiv:1706.04599, equation 3).

    Words are put into BINS bins by their confidence; the error is the mean distance, over all words, between a bin's
    mean confidence and the share of its words that are right.

    Args:
        confidences: 0 to 1, shape (words,).
        right: shape (words,).

    Returns:
        The error, 0 to 1, and for each bin with words its bounds, words, mean confidence and share of right words.
    """
    number = np.minimum((confidences * BINS).astype(int), BINS - 1)
    bins = [
        {
            "low": place / BINS,
            "high": (place + 1) / BINS,
            "words": int((number == place).sum()),
            "confidence": float(confidences[number == place].mean()),
            "right": float(right[number == place].mean()),
        }
        for place in np.unique(number).tolist()
    ]
    error = sum(each["words"] * abs(each["confidence"] - each["right"]) for each in bins) / len(confidences)
    return error, bins


def auroc(confidences: NDArray[np.float64], right: NDArray[np.bool_]) -> float | None:
    """Give the area under the ROC curve: how often a right word has more confidence than a wrong one.

    Ties count half (Mann and Whitney 1947).

    Args:
        confidences: shape (words,).
        right: shape (words,).

    Returns:
        0.5 for chance, 1 for perfect; None if all words are right, or none.
    """
    hits, misses = int(right.sum()), int((~right).sum())
    if not hits or not misses:
        return None
    _, place, counts = np.unique(confidences, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]  # from 1, equal values share the mean of theirs
    return float((ranks[right].sum() - hits * (hits + 1) / 2) / (hits * misses))


def fit_power(rows: Iterable[Mapping[str, Any]], normalizer: Normalizer) -> float:
    """Find the power that makes confidences, raised to it, the best forecast of which words are right.

    Args:
        rows: as for `measure_confidence`, of a set that nothing is reported on.
        normalizer: what both texts go through first.

    Returns:
        The one of POWERS with the least mean squared error (Brier 1950); 1 where there is no word.
    """
    confidences, right = _outcomes(rows, normalizer)
    if not len(right):
        return 1.0
    return min(POWERS, key=lambda power: np.square(confidences**power - right).mean())


def _outcomes(
    rows: Iterable[Mapping[str, Any]], normalizer: Normalizer
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Confidence of each word of the hypotheses, and whether it is right."""
    scored = [outcome for row in rows if "word_confidences" in row for outcome in _outcomes_of(row, normalizer)]
    return np.array([value for value, _ in scored], dtype=np.float64), np.array([hit for _, hit in scored], dtype=bool)


def _outcomes_of(row: Mapping[str, Any], normalizer: Normalizer) -> list[tuple[float, bool]]:
    """Confidence of each word of one hypothesis, and whether it is right."""
    alone: list[tuple[str, float]] = []
    for word, confidence in row["word_confidences"]:
        alone += [(each, confidence) for each in normalizer(word).split()]
    hypothesis = normalizer(" ".join(word for word, _ in row["word_confidences"])).split()
    confidences: dict[int, float] = {}
    source = destination = 0
    for same in Levenshtein.opcodes([word for word, _ in alone], hypothesis).as_matching_blocks():
        if changed := [confidence for _, confidence in alone[source : same.a]]:
            confidences |= dict.fromkeys(range(destination, same.b), min(changed))
        source, destination = same.a + same.size, same.b + same.size
        confidences |= zip(range(same.b, destination), (value for _, value in alone[same.a : source]), strict=True)
    hits: set[int] = set()
    for part in Levenshtein.opcodes(normalizer(row["reference"]).split(), hypothesis):
        if part.tag == "equal":
            hits.update(range(part.dest_start, part.dest_end))
    return [(confidence, place in hits) for place, confidence in confidences.items()]
