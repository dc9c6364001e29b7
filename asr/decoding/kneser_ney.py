"""Estimating n-gram models: interpolated modified Kneser-Ney (Chen and Goodman 1998, section 3), in a few sorts.

An n-gram is named by the rank of its beginning among the shorter ones and its last token, so that whole corpora are
counted with `numpy.unique` and memory stays a few numbers for each token of text.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asr.decoding.arpa import NGrams
from asr.errors import DataError
from asr.tokenizer import BLANK, END, START

NEVER = -99.0 * float(np.log(10))  # what ARPA files write for the start token, which is never predicted


@dataclass(frozen=True)
class _Counted:
    """The distinct n-grams of one order; M of them, M' of the order below."""

    tokens: NDArray[np.int64]
    """Shape (M, n)."""
    context: NDArray[np.int64]
    """Rank of each one's first n - 1 tokens in the order below, shape (M,)."""
    suffix: NDArray[np.int64]
    """Rank of each one's last n - 1 tokens in the order below, shape (M,)."""
    seen: NDArray[np.int64]
    """How often it is in the text, shape (M,)."""


def estimate(texts: Iterable[list[int]], order: int, vocabulary: int, cutoff: int = 0) -> list[NGrams]:
    """Estimate a model.

    Args:
        texts: token ids of each sentence, without start and end.
        order: longest n-gram, at least 2.
        vocabulary: number of tokens V; all but the blank get a probability.
        cutoff: n-grams of three tokens and more that were seen so often or less are left out; their probability goes
            to the shorter ones. 0 keeps all.

    Returns:
        The n-grams of order 1, 2, ...

    Raises:
        DataError: there is no text.
    """
    levels = _count([tokens for tokens in texts if tokens], order, vocabulary)
    predicted = np.ones(vocabulary)
    predicted[[BLANK, START]] = 0
    below = predicted / predicted.sum()  # the order 0: all tokens alike
    kept, probabilities, backoffs = [], [], []
    for n, level in enumerate(levels, start=1):
        counts = _adjusted(level, levels[n] if n < order else None)
        if n == 1:
            counts = counts * predicted.astype(np.int64)
        keep = level.seen > cutoff if n > 2 else np.ones(len(counts), dtype=bool)
        discounts = _discounts(counts)[np.minimum(counts, 3)]
        contexts = len(levels[n - 2].tokens) if n > 1 else 1
        totals = np.bincount(level.context, counts, contexts)
        spared = np.bincount(level.context, np.where(keep, discounts, counts), contexts)
        weights = np.divide(spared, totals, out=np.ones(contexts), where=totals > 0)
        own = np.divide(counts - discounts, totals[level.context], out=np.zeros(len(counts)), where=counts > 0)
        below = own + weights[level.context] * below[level.suffix]
        kept.append(keep)
        probabilities.append(below)
        backoffs.append(weights)
    backoffs = [*backoffs[1:], np.ones(len(levels[-1].tokens))]
    kept[0][BLANK] = False
    return [_ngrams(*parts) for parts in zip(levels, probabilities, backoffs, kept, strict=True)]


def _count(texts: list[list[int]], order: int, vocabulary: int) -> list[_Counted]:
    """Find the distinct n-grams of every order; those of order 1 are the vocabulary, seen or not."""
    if not texts:
        raise DataError("there is no text to estimate a language model from")
    stream = np.concatenate([np.array([START, *tokens, END], dtype=np.int64) for tokens in texts])
    sentence = np.repeat(np.arange(len(texts)), [len(tokens) + 2 for tokens in texts])
    every = np.arange(vocabulary)
    levels = [_Counted(every[:, None], 0 * every, every, np.bincount(stream, minlength=vocabulary))]
    ranks = stream  # of the n-gram that begins at each place
    for n in range(2, order + 1):
        places = np.flatnonzero(sentence[: max(0, len(stream) - n + 1)] == sentence[n - 1 :])
        keys = ranks[places] * vocabulary + stream[places + n - 1]
        names, first, inverse, seen = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
        context, last = names // vocabulary, names % vocabulary
        tokens = np.column_stack((levels[-1].tokens[context], last))
        levels.append(_Counted(tokens, context, ranks[places[first] + 1], seen))
        ranks = np.full(len(stream), -1)
        ranks[places] = inverse
    return levels


def _adjusted(level: _Counted, above: _Counted | None) -> NDArray[np.int64]:
    """Count in how many contexts an n-gram was seen; those of the highest order, or at the start, how often."""
    if above is None:
        return level.seen
    counts = np.bincount(above.suffix, minlength=len(level.tokens))
    return np.where(level.tokens[:, 0] == START, level.seen, counts)


def _discounts(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """What is taken off counts of 0, 1, 2 and more (Chen and Goodman 1998, equation 26)."""
    ones, twos, threes, fours = (int((counts == count).sum()) for count in (1, 2, 3, 4))
    if min(ones, twos, threes, fours) > 0:
        y = ones / (ones + 2 * twos)
        found = np.array([0, 1 - 2 * y * twos / ones, 2 - 3 * y * threes / twos, 3 - 4 * y * fours / threes])
        if (found[1:] > 0).all() and (found[1:] < [1, 2, 3]).all():
            return found
    return np.array([0, 0.5, 1.0, 1.5])  # too few n-grams to tell, as with the letters of an alphabet


def _ngrams(
    level: _Counted, probabilities: NDArray[np.float64], weights: NDArray[np.float64], keep: NDArray[np.bool_]
) -> NGrams:
    tokens, positive = level.tokens[keep], probabilities[keep] > 0
    logs = np.log(probabilities[keep], out=np.full(len(tokens), NEVER), where=positive)
    return NGrams(tokens, logs, np.log(weights[keep], out=np.full(len(tokens), NEVER), where=weights[keep] > 0))
