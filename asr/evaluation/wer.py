"""Word error rate, corpus level, with its parts (jiwer does the alignment)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jiwer

from asr.errors import DataError
from asr.normalize import Normalizer


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
    raw_wer: float
    """Word error rate of the texts as they are."""
    utterances: int
    """Utterances in the rates."""
    empty_references: int
    """Utterances left out because nothing of their reference is left after normalisation."""
    words_on_empty_references: int
    """Words that hypotheses hold for them: all of them invented."""
    normalizer: Normalizer

    def to_dict(self) -> dict[str, Any]:
        """Give plain values, the rate under `wer` first."""
        return {
            "wer": self.wer.rate,
            "cer": self.cer.rate,
            "raw_wer": self.raw_wer,
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
    spoken = [pair for pair in normal if pair[0]]
    if not spoken:
        raise DataError("no reference holds a word: there is nothing to measure a word error rate against")
    empty = [hypothesis for reference, hypothesis in normal if not reference]
    raw = [pair for pair in pairs if pair[0].strip()]
    return WerResult(
        wer=_count(jiwer.process_words, spoken),
        cer=_count(jiwer.process_characters, spoken),
        raw_wer=_count(jiwer.process_words, raw).rate,
        utterances=len(spoken),
        empty_references=len(empty),
        words_on_empty_references=sum(len(hypothesis.split()) for hypothesis in empty),
        normalizer=normalizer,
    )


def _count(process: Any, pairs: list[tuple[str, str]]) -> ErrorCounts:
    # jiwer parts words at U+0020 only; a tab or a no-break space parts them as well.
    references, hypotheses = ([" ".join(text.split()) for text in side] for side in zip(*pairs, strict=True))
    output = process(references, hypotheses)
    return ErrorCounts(output.substitutions, output.deletions, output.insertions, output.hits)
