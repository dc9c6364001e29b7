"""Everything that is measured on texts, whoever made them: rates, intervals, slices, confusions, worst utterances."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr.errors import DataError
from asr.evaluation.bootstrap import interval
from asr.evaluation.slices import group
from asr.evaluation.wer import align, count_confusions, score
from asr.normalize import Normalizer

SLICES = ("speaker", "duration", "snr")  # told apart by default, where they are known
MOST_COMMON = 100  # confusions of each kind that a result holds
WORST = 20  # utterances that a result names
_REPLICATIONS = 1000  # for the interval of a slice


def summarise(
    rows: Sequence[dict[str, Any]], normalizer: Normalizer, slice_by: Sequence[str] | None = None
) -> dict[str, Any]:
    """Compare hypotheses with references.

    Args:
        rows: of each utterance `id`, `reference`, `hypothesis`, and what else is known, such as `speaker`.
        normalizer: what both texts go through first.
        slice_by: keys of the rows; None for `SLICES`, as far as they are known.

    Returns:
        Plain values: those of `WerResult.to_dict`, `interval` (95 %, of the WER) and `cer_interval`, `slices`,
        `confusions`, `worst` (ids, most errors first), `data` (its hash), and under `results` the rows with their
        counts of errors.

    Raises:
        DataError: no reference holds a word, or no utterance has one of the keys.
    """
    result = score([(row["reference"], row["hypothesis"]) for row in rows], normalizer)
    errors, words = _errors_and_lengths(result.counts)
    speakers = np.array([str(row.get("speaker") or "") for row in rows])
    spoken = words > 0
    blocks = speakers[spoken].tolist()
    slices = {}
    for key in SLICES if slice_by is None else slice_by:
        values = [row.get(key) for row in rows]
        if any(value not in (None, "") for value in values):
            slices[key] = _slices(key, values, errors, words, speakers)
        elif slice_by is not None:
            raise DataError(f"no utterance has {key!r} to slice by; there is: {', '.join(sorted(rows[0]))}")
    worst = [row for row in np.lexsort((-errors / np.maximum(words, 1), -errors)) if errors[row] and spoken[row]]
    return result.to_dict() | {
        "interval": asdict(interval(errors[spoken], words[spoken], blocks)),
        "cer_interval": asdict(interval(*_errors_and_lengths(result.character_counts[spoken]), blocks)),
        "slices": slices,
        "confusions": _confusions(rows, normalizer, spoken),
        "worst": [rows[row]["id"] for row in worst[:WORST]],
        "data": {"hash": data_hash(rows), "utterances": len(rows)},
        "results": [
            row | dict(zip(("substitutions", "deletions", "insertions", "words"), (*counts[:3], total), strict=True))
            for row, counts, total in zip(rows, result.counts.tolist(), words.tolist(), strict=True)
        ],
    }


def data_hash(rows: Sequence[dict[str, Any]]) -> str:
    """First 16 hexadecimal digits of SHA-256 over ids and references, in whatever order they come."""
    lines = sorted(json.dumps([row["id"], row["reference"]], ensure_ascii=False) for row in rows)
    return hashlib.sha256("\n".join(lines).encode(errors="surrogatepass")).hexdigest()[:16]


def _errors_and_lengths(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Add up the errors of each utterance, and the length of its reference."""
    return counts[:, :3].sum(axis=1), counts[:, [0, 1, 3]].sum(axis=1)


def _slices(
    key: str, values: Sequence[Any], errors: NDArray[np.int64], words: NDArray[np.int64], speakers: NDArray[np.str_]
) -> list[dict[str, Any]]:
    slices = []
    for name, members in group(key, values):
        rows = members[words[members] > 0]
        if len(rows):
            within = interval(errors[rows], words[rows], speakers[rows].tolist(), _REPLICATIONS)
            slices.append(
                {
                    "value": name,
                    "wer": float(errors[rows].sum() / words[rows].sum()),
                    "low": within.low,
                    "high": within.high,
                    "blocks": within.blocks,
                    "unit": within.unit,
                    "errors": int(errors[rows].sum()),
                    "words": int(words[rows].sum()),
                    "utterances": len(rows),
                }
            )
    return slices


def _confusions(
    rows: Sequence[dict[str, Any]], normalizer: Normalizer, spoken: NDArray[np.bool_]
) -> dict[str, list[list[Any]]]:
    found = count_confusions(
        align(normalizer(row["reference"]), normalizer(row["hypothesis"]))
        for row, has_words in zip(rows, spoken, strict=True)
        if has_words
    )
    return {
        "substitutions": [[*pair, number] for pair, number in _most_common(found.substitutions)],
        "deletions": [list(item) for item in _most_common(found.deletions)],
        "insertions": [list(item) for item in _most_common(found.insertions)],
    }


def _most_common(counter: Counter[Any]) -> list[tuple[Any, int]]:
    # Ties go by the alphabet, so that the order of the utterances does not matter.
    return sorted(counter.items(), key=lambda item: (-item[1], item[0]))[:MOST_COMMON]
