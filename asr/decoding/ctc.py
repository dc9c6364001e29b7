"""CTC search: the best path through the frames (Graves et al. 2006, section 3.2)."""

from __future__ import annotations

from torch import Tensor

from asr.decoding.options import Hypothesis
from asr.features import length_mask
from asr.tokenizer import BLANK


def best_paths(log_probs: Tensor, lengths: Tensor) -> list[list[Hypothesis]]:
    """Take the best token of each frame, merge repeats, drop blanks.

    Args:
        log_probs: CTC's, shape (B, T', V), float32.
        lengths: frames of each row, shape (B,).

    Returns:
        One hypothesis for each utterance. A token's probability is the largest over its frames; the score is the sum
        over all frames.
    """
    best, tokens = log_probs.max(dim=-1)  # (B, T')
    best = best * length_mask(lengths, best.shape[1])
    scores = best.sum(dim=1).tolist()
    rows = zip(tokens.tolist(), best.tolist(), lengths.tolist(), scores, strict=True)
    return [[_collapse(path[:frames], peaks[:frames], score)] for path, peaks, frames, score in rows]


def _collapse(path: list[int], log_probs: list[float], score: float) -> Hypothesis:
    tokens: list[int] = []
    peaks: list[float] = []
    previous = BLANK
    for token, log_prob in zip(path, log_probs, strict=True):
        if token == previous and token != BLANK:
            peaks[-1] = max(peaks[-1], log_prob)
        elif token != BLANK:
            tokens.append(token)
            peaks.append(log_prob)
        previous = token
    return Hypothesis(tuple(tokens), tuple(peaks), score, ctc=score)
