"""Word error rate, corpus level, with its parts and its alignments.

The alignment is Levenshtein's with unit costs: jiwer's, and where only its counts are wanted, straight from rapidfuzz,
which is what jiwer aligns with, without an object for every word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import jiwer
import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein

from asr.errors import DataError
from asr.normalize import Normalizer

Alignment = list[tuple[str, str]]
"""(reference word, hypothesis word) in order; a deletion has no hypothesis, an insertion no reference: `""`."""


@dataclass(frozen=True)
class ErrorCounts:
    """Counts over a corpus, in words or characters."""

    substitutions: int
    deletions: int
    insertions: int
    hits: int

    @property
    def reference_length(self) -> int:
        """Words or characters of the references."""
        return self.hits + self.substitutions + self.deletions

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors divided by the references' length; may exceed 1."""
        return self.errors / self.reference_length


@dataclass(frozen=True)
class WerResult:
    """How far hypotheses are from references."""

    wer: ErrorCounts
    """Words, both sides normalised."""
    cer: ErrorCounts
    """Characters, both sides normalised."""
    raw: ErrorCounts
    """Words of the texts as they are."""
    raw_cer: float
    """Character error rate of the texts as they are."""
    utterances: int
    """Utterances in the rates."""
    empty_references: int
    """Utterances left out because nothing of their reference is left after normalisation."""
    words_on_empty_references: int
    """Words that hypotheses hold for them: all of them invented."""
    normalizer: Normalizer
    counts: NDArray[np.int64]
    """Substitutions, deletions, insertions and hits of each utterance in words, shape (utterances given, 4)."""
    character_counts: NDArray[np.int64]
    """The same in characters."""

    @property
    def raw_wer(self) -> float:
        """Word error rate of the texts as they are."""
        return self.raw.rate

    def to_dict(self) -> dict[str, Any]:
        """Give plain values, the rate under `wer` first."""
        return {
            "wer": self.wer.rate,
            "cer": self.cer.rate,
            "raw_wer": self.raw_wer,
            "raw_cer": self.raw_cer,
            "substitutions": self.wer.substitutions,
            "deletions": self.wer.deletions,
            "insertions": self.wer.insertions,
            "words": self.wer.reference_length,
            "utterances": self.utterances,
            "empty_references": self.empty_references,
            "words_on_empty_references": self.words_on_empty_references,
            "normalizer": {
                "name": self.normalizer.name,
                "version": self.normalizer.version,
                "hash": self.normalizer.hash,
            },
        }


@dataclass(frozen=True)
class Confusions:
    """What was taken for what, counted over a corpus."""

    hits: Counter[str] = field(default_factory=Counter)
    """Words that were found."""
    substitutions: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(reference word, hypothesis word)."""
    deletions: Counter[str] = field(default_factory=Counter)
    """Reference words that are missing."""
    insertions: Counter[str] = field(default_factory=Counter)
    """Hypothesis words that nobody said."""


def score(pairs: Sequence[tuple[str, str]], normalizer: Normalizer) -> WerResult:
    """Compare texts.

    Args:
        pairs: (reference, hypothesis) of each utterance.
        normalizer: what both go through first.

    Returns:
        Counts summed over the corpus; never a mean of rates.

    Raises:
        DataError: no reference holds a word.
    """
    normal = [(normalizer(reference), normalizer(hypothesis)) for reference, hypothesis in pairs]
    if not any(reference for reference, _ in normal):
        raise DataError("no reference holds a word: there is nothing to measure a word error rate against")
    counts = _counts((reference.split(), hypothesis.split()) for reference, hypothesis in normal)
    spoken = counts[:, [0, 1, 3]].any(axis=1)
    characters = _counts((_spaced(reference.split()), _spaced(hypothesis.split())) for reference, hypothesis in normal)
    raw = [(reference.split(), hypothesis.split()) for reference, hypothesis in pairs if reference.strip()]
    return WerResult(
        wer=_sum(counts[spoken]),
        cer=_sum(characters[spoken]),
        raw=_sum(_counts(raw)),
        raw_cer=_character_rate((_spaced(r), _spaced(h)) for r, h in raw),
        utterances=int(spoken.sum()),
        empty_references=int((~spoken).sum()),
        words_on_empty_references=int(counts[~spoken, 2].sum()),
        normalizer=normalizer,
        counts=counts,
        character_counts=characters,
    )


def align(reference: str, hypothesis: str) -> Alignment:
    """Lay the words of two normalised texts side by side, with as few errors as can be."""
    true, said = reference.split(), hypothesis.split()
    aligned: Alignment = []
    for part in jiwer.process_words(" ".join(true), " ".join(said)).alignments[0]:
        words, others = true[part.ref_start_idx : part.ref_end_idx], said[part.hyp_start_idx : part.hyp_end_idx]
        aligned += zip_longest(words, others, fillvalue="")
    return aligned


def count_confusions(alignments: Iterable[Alignment]) -> Confusions:
    """Count hits, substitutions, deletions and insertions word by word."""
    found = Confusions()
    for reference, hypothesis in (pair for alignment in alignments for pair in alignment):
        if reference == hypothesis:
            found.hits[reference] += 1
        elif not hypothesis:
            found.deletions[reference] += 1
        elif not reference:
            found.insertions[hypothesis] += 1
        else:
            found.substitutions[reference, hypothesis] += 1
    return found


def _counts(pairs: Iterable[tuple[Sequence[str], Sequence[str]]]) -> NDArray[np.int64]:
    """Align each pair; one row of substitutions, deletions, insertions and hits for each."""
    rows = []
    for reference, hypothesis in pairs:
        row = [0, 0, 0, 0]
        for part in Levenshtein.opcodes(reference, hypothesis):
            row[_KINDS[part.tag]] += part.src_end - part.src_start or part.dest_end - part.dest_start
        rows.append(row)
    return np.array(rows, dtype=np.int64).reshape(-1, 4)


def _character_rate(pairs: Iterable[tuple[str, str]]) -> float:
    distances, lengths = zip(*((Levenshtein.distance(*pair), len(pair[0])) for pair in pairs), strict=True)
    return sum(distances) / sum(lengths)


_KINDS = {"replace": 0, "delete": 1, "insert": 2, "equal": 3}


def _sum(counts: NDArray[np.int64]) -> ErrorCounts:
    return ErrorCounts(*counts.sum(axis=0).tolist())


def _spaced(words: list[str]) -> str:
    # Any white space parts words, for characters as well: a tab or a no-break space counts as one U+0020.
    return " ".join(words)
