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
    """The distinct n-grams of one order; M of them, M' of the order below. They are sorted by context, then token."""

    context: NDArray[np.int64]
    """Rank of each one's first n - 1 tokens in the order below, shape (M,)."""
    token: NDArray[np.int64]
    """Its last token, shape (M,)."""
    suffix: NDArray[np.int64]
    """Rank of each one's last n - 1 tokens in the order below, shape (M,)."""
    seen: NDArray[np.int64]
    """How often it is in the text, shape (M,)."""
    begins: NDArray[np.bool_]
    """Whether it stands at the start of a sentence, shape (M,)."""


def estimate(
    texts: Iterable[list[int]], order: int, vocabulary: int, cutoff: int = 0, pruning: float = 0.0
) -> list[NGrams]:
    """Estimate a model.

    Args:
        texts: token ids of each sentence, without start and end.
        order: longest n-gram, at least 2.
        vocabulary: number of tokens V; all but the blank get a probability.
        cutoff: n-grams of three tokens and more that were seen so often or less are left out; their probability goes
            to the shorter ones. 0 keeps all.
        pruning: n-grams of two tokens and more are left out that change the model's perplexity by less than this
            share (Stolcke 1998). 0 keeps all; 1e-8 to 1e-6 are of use.

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
        contexts = len(levels[n - 2].token) if n > 1 else 1
        totals = np.bincount(level.context, counts, contexts)
        spared = np.bincount(level.context, np.where(keep, discounts, counts), contexts)
        weights = np.divide(spared, totals, out=np.ones(contexts), where=totals > 0)
        own = np.divide(counts - discounts, totals[level.context], out=np.zeros(len(counts)), where=keep & (counts > 0))
        below = own + weights[level.context] * below[level.suffix]
        kept.append(keep)
        probabilities.append(below)
        backoffs.append(weights)
    if pruning:
        backoffs = _prune(levels, probabilities, kept, pruning)
    backoffs = [*backoffs[1:], np.ones(len(levels[-1].token))]
    kept[0][BLANK] = False
    ranks = np.zeros(1, dtype=np.int64)  # of what is kept in the order below
    grams = []
    for level, probability, weights, keep in zip(levels, probabilities, backoffs, kept, strict=True):
        logs = (_logarithms(values[keep]) for values in (probability, weights))
        grams.append(NGrams(ranks[level.context[keep]], level.token[keep], *logs))
        ranks = np.cumsum(keep) - 1
    return grams


def _count(texts: list[list[int]], order: int, vocabulary: int) -> list[_Counted]:
    """Find the distinct n-grams of every order; those of order 1 are the vocabulary, seen or not."""
    if not texts:
        raise DataError("there is no text to estimate a language model from")
    stream = np.concatenate([np.array([START, *tokens, END], dtype=np.int64) for tokens in texts])
    sentence = np.repeat(np.arange(len(texts)), [len(tokens) + 2 for tokens in texts])
    every = np.arange(vocabulary)
    levels = [_Counted(0 * every, every, every, np.bincount(stream, minlength=vocabulary), every == START)]
    ranks = stream  # of the n-gram that begins at each place
    for n in range(2, order + 1):
        places = np.flatnonzero(sentence[: max(0, len(stream) - n + 1)] == sentence[n - 1 :])
        keys = ranks[places] * vocabulary + stream[places + n - 1]
        names, first, inverse, seen = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
        context, last = names // vocabulary, names % vocabulary
        levels.append(_Counted(context, last, ranks[places[first] + 1], seen, levels[-1].begins[context]))
        ranks = np.full(len(stream), -1)
        ranks[places] = inverse
    return levels


def _prune(
    levels: list[_Counted],
    probabilities: list[NDArray[np.float64]],
    kept: list[NDArray[np.bool_]],
    threshold: float,
) -> list[NDArray[np.float64]]:
    """Leave out what the model hardly misses, from the longest n-grams down, and weigh the shorter ones anew.

    How often a context comes is taken from the text, as Kneser-Ney's own short n-grams do not tell (Chelba et al.
    2010, "Study on interaction between entropy pruning and Kneser-Ney smoothing").

    Args:
        levels: the n-grams.
        probabilities: of each order; those of what is left out are replaced.
        kept: of each order; changed in place.
        threshold: smallest relative change of perplexity that is worth an n-gram.

    Returns:
        Weight of falling back from each context; the one of order 1 is 1.
    """
    needed = np.zeros(len(levels[-1].token), dtype=bool)  # the beginning of a longer one
    total = levels[0].seen.sum()
    for level, shorter, own, below, keep in reversed(
        list(zip(levels[1:], levels, probabilities[1:], probabilities, kept[1:], strict=False))
    ):
        context, lower = level.context, below[level.suffix]
        left, left_below = _left(level, own, lower, keep, len(shorter.token))
        without = (left[context] + own) / (left_below[context] + lower)
        change = own * (np.log(own) - np.log(lower) - np.log(without))
        change += left[context] * (np.log(left / left_below)[context] - np.log(without))
        keep &= (np.expm1((shorter.seen / total)[context] * change) >= threshold) | needed
        needed = np.bincount(context, keep, len(shorter.token)) > 0
    weights = [np.ones(1)]
    for n, level in enumerate(levels[1:], start=1):
        lower = probabilities[n - 1][level.suffix]
        left, left_below = _left(level, probabilities[n], lower, kept[n], len(levels[n - 1].token))
        weights.append(left / left_below)
        probabilities[n] = np.where(kept[n], probabilities[n], weights[n][level.context] * lower)
    return weights


def _left(
    level: _Counted, own: NDArray[np.float64], lower: NDArray[np.float64], keep: NDArray[np.bool_], contexts: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Tell what each context leaves to tokens not kept after it, by its own probabilities and by the shorter ones'."""
    both = (1 - np.bincount(level.context, np.where(keep, p, 0), contexts) for p in (own, lower))
    left, left_below = (np.maximum(part, 1e-9) for part in both)
    return left, left_below


def _adjusted(level: _Counted, above: _Counted | None) -> NDArray[np.int64]:
    """Count in how many contexts an n-gram was seen; those of the highest order, or at the start, how often."""
    if above is None:
        return level.seen
    return np.where(level.begins, level.seen, np.bincount(above.suffix, minlength=len(level.token)))


def _discounts(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """What is taken off counts of 0, 1, 2 and more (Chen and Goodman 1998, equation 26)."""
    ones, twos, threes, fours = (int((counts == count).sum()) for count in (1, 2, 3, 4))
    if min(ones, twos, threes, fours) > 0:
        y = ones / (ones + 2 * twos)
        found = np.array([0, 1 - 2 * y * twos / ones, 2 - 3 * y * threes / twos, 3 - 4 * y * fours / threes])
        if (found[1:] > 0).all() and (found[1:] < [1, 2, 3]).all():
            return found
    return np.array([0, 0.5, 1.0, 1.5])  # too few n-grams to tell, as with the letters of an alphabet


def _logarithms(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.log(values, out=np.full(len(values), NEVER), where=values > 0)
