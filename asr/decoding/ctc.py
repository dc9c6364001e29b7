"""CTC search: the best path through the frames (Graves et al. 2006, section 3.2)."""

from __future__ import annotations

from itertools import groupby

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
        One hypothesis for each utterance; the score is the sum over all frames.
    """
    best, paths = log_probs.max(dim=-1)  # (B, T')
    scores = (best * length_mask(lengths, best.shape[1])).sum(dim=1).tolist()
    found = []
    for path, frames, score in zip(paths.tolist(), lengths.tolist(), scores, strict=True):
        tokens = tuple(token for token, _ in groupby(path[:frames]) if token != BLANK)
        found.append([Hypothesis(tokens, score, ctc=score)])
    return found
