"""The best texts of a search that kept only one of those that its language model no longer told apart.

Whatever follows on two such texts, they stay as far apart as they were: putting a dropped one back in the place of the
one that was kept gives a text whose score is known. Putting them back one after the other, always where it costs
least, gives the best texts in order.

Shapes: R rows, B batch, T' frames, N texts of each utterance, M dropped texts.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from itertools import count
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr.tokenizer import BLANK

NEVER = -np.inf

Scores = NDArray[np.float64]
Numbers = NDArray[np.int64]


class Merge(NamedTuple):
    """Texts that were dropped in one frame; each field (M,)."""

    dropped: Numbers
    """Their rows."""
    kept: Numbers
    """Row of the text with the same future that each was dropped for."""
    change: Scores
    """What putting it back adds to CTC's, the language model's and the bonus' score, shape (M, 3)."""


class _Path(NamedTuple):
    """One text that may be among the best, ordered by what it costs."""

    cost: float
    order: int
    """Of its making, so that nothing below is ever compared."""
    frame: int
    """The last frame in which it goes its own way."""
    row: int
    """Where it is in that frame."""
    parts: Scores
    """Scores by CTC, the language model and the bonus, shape (3,)."""
    after: list[int]
    """Tokens of the frames after that one, or BLANK."""


def unfold(
    history: Sequence[tuple[Numbers, Numbers]],
    merges: Mapping[int, Merge],
    parts: Scores,
    lm_weight: float,
    batch: int,
    most: int,
) -> tuple[Numbers, Scores]:
    """Find the best texts.

    Args:
        history: for each frame the row that each row comes from and the token that it was given, or BLANK, (R,).
        merges: what was dropped, by frame.
        parts: scores of the last frame's rows by CTC, the language model and the bonus, shape (3, R).
        lm_weight: of the language model.
        batch: number of utterances B, with equally many rows each.
        most: texts wanted for each utterance.

    Returns:
        Their tokens by frame, or BLANK, shape (B, N, T'), best first, and their scores, (3, B, N). Where there are
        fewer texts, CTC's is NEVER.
    """
    come_from, written = (np.stack(field).tolist() for field in zip(*history, strict=True))
    returns: dict[tuple[int, int], list[tuple[int, Scores]]] = {}
    for frame, merge in merges.items():
        for dropped, kept, change in zip(merge.dropped.tolist(), merge.kept.tolist(), merge.change, strict=True):
            returns.setdefault((frame, kept), []).append((dropped, change))
    weights = np.array([1.0, lm_weight, 1.0])
    order = count()
    texts = np.full((batch, most, len(history)), BLANK)
    scores = np.zeros((3, batch, most))
    scores[0] = NEVER
    for utterance, rows in enumerate(np.arange(parts.shape[1]).reshape(batch, -1).tolist()):
        queue = [
            _Path(-float(weights @ parts[:, row]), next(order), len(history) - 1, row, parts[:, row], [])
            for row in rows
            if parts[0, row] > NEVER
        ]
        heapq.heapify(queue)
        found: set[tuple[int, ...]] = set()
        while queue and len(found) < most:
            best = heapq.heappop(queue)
            frames, row, returning = [], best.row, []
            for frame in range(best.frame, -1, -1):
                returning += [(frame, *other) for other in returns.get((frame, row), ())]
                frames.append(written[frame][row])
                row = come_from[frame][row]
            path = frames[::-1] + best.after
            for frame, row, change in returning:
                cost = best.cost - float(weights @ change)
                heapq.heappush(queue, _Path(cost, next(order), frame, row, best.parts + change, path[frame + 1 :]))
            text = tuple(token for token in path if token != BLANK)
            if text not in found:
                texts[utterance, len(found)] = path
                scores[:, utterance, len(found)] = best.parts
                found.add(text)
    return texts, scores
