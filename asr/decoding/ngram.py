"""N-gram language models: a list of n-grams becomes an automaton that answers for many hypotheses at once.

A state is the longest end of the text that the model knows as a context. Each state has arcs for the tokens that were
seen after it, and one shorter state to fall back to, at a cost (Katz 1987). All arcs lie in one sorted array, so that
states answer with no loop over rows or tokens: with the scores of the next tokens, and the states that these lead to.
A search comes to the same states again and again; it keeps their answers.

This is numpy, on the CPU wherever the search is: so many small steps take a third of the time that they do as tensors.

Shapes: R rows, V vocabulary; M n-grams of one order; N answers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asr.decoding.arpa import NGrams
from asr.tokenizer import BLANK, START

UNSEEN = -100.0  # natural log-probability of a token that not even the unigrams hold
MOST_SCORES = 2**22  # that a search keeps: 50 MB with the states

States = NDArray[np.int64]


class NGramState(NamedTuple):
    """Where a search is."""

    answers: _Answers
    """Of all states that it came to; shared by what follows on this state."""
    places: NDArray[np.int32]
    """Where the answer of each row is, shape (R,)."""
    device: torch.device
    """Where the search is told."""


class NGramLanguageModel:
    """An n-gram model over the recogniser's tokens; see `asr.decoding.language_model.LanguageModel`.

    Args:
        orders: the n-grams of order 1, 2, ...
        vocabulary: number of tokens V.
    """

    def __init__(self, orders: list[NGrams], vocabulary: int) -> None:
        self.vocabulary = vocabulary
        self._order = len(orders)
        self.states = 1 + sum(len(grams.log_probs) for grams in orders[:-1])
        self._keys = np.zeros(0, dtype=np.int64)  # of each arc: its state x V + its token; sorted
        self._targets = np.zeros(0, dtype=np.int64)  # the state that it leads to
        self._log_probs = np.zeros(0, dtype=np.float32)
        self._fallback = np.zeros(self.states, dtype=np.int64)
        self._weight = np.zeros(self.states, dtype=np.float32)  # natural logarithm of what falling back costs
        nodes = np.zeros(1, dtype=np.int64)  # states of the order below
        for order, grams in enumerate(orders, start=1):
            nodes = self._add(order, grams, nodes)
        self._tokens = (self._keys % vocabulary).astype(np.int32)
        self._log_probs[self._tokens == START] = UNSEEN  # KenLM's files give it 1, though it follows on nothing
        bounds = np.searchsorted(self._keys, np.arange(self.states + 1) * vocabulary)
        first = slice(bounds[1])  # the unigrams
        self._unigrams = np.full(vocabulary, UNSEEN, dtype=np.float32)
        self._unigrams[self._tokens[first]] = self._log_probs[first]
        self._after = np.zeros(vocabulary, dtype=np.int64)  # the state after one token alone
        self._after[self._tokens[first]] = self._targets[first]
        bounds[0] = bounds[1]  # they have a row of their own
        self._begin, self._count = bounds[:-1], np.diff(bounds)

    def _add(self, order: int, grams: NGrams, nodes: States) -> States:
        """Append the arcs of one order, and the states that they lead to.

        Args:
            order: n.
            grams: the n-grams, M of them.
            nodes: state of each n-gram of the order below.

        Returns:
            The states, shape (M,).
        """
        keys = nodes[grams.contexts] * self.vocabulary + grams.tokens
        sorting = keys.argsort(kind="stable")
        keys = keys[sorting]
        parents, last = np.divmod(keys, self.vocabulary)
        # Where the text without its first token leads; all shorter n-grams are in place already.
        shorter = self._next(self._fallback[parents], last) if order > 1 else np.zeros_like(last)
        targets = shorter
        if order < self._order:
            targets = np.arange(len(self._keys), len(self._keys) + len(last)) + 1  # state 0 is the empty context
            self._fallback[targets] = shorter
            self._weight[targets] = grams.backoffs[sorting]
        self._keys = np.concatenate((self._keys, keys))
        self._targets = np.concatenate((self._targets, targets))
        self._log_probs = np.concatenate((self._log_probs, grams.log_probs[sorting].astype(np.float32)))
        unsorted = np.empty_like(targets)
        unsorted[sorting] = targets
        return unsorted

    def start(self, rows: int, device: torch.device) -> tuple[Tensor, NGramState]:
        """Begin `rows` texts with the start token."""
        answers = _Answers(self, MOST_SCORES // self.vocabulary + rows + 1)
        return _told(NGramState(answers, answers.find(self._after[START].repeat(rows)), device))

    def step(self, tokens: Tensor, state: NGramState) -> tuple[Tensor, NGramState]:
        """Append one token, shape (R,), to each row; rows with BLANK stand still."""
        nodes = state.answers.targets[state.places, tokens.cpu().numpy()]
        return _told(state._replace(places=state.answers.find(nodes)))

    def select(self, rows: Tensor, state: NGramState) -> NGramState:
        """Keep the texts `rows`, shape (R,), in that order."""
        return state._replace(places=state.places[rows.cpu().numpy()])

    def futures(self, state: NGramState) -> States:
        """Number the rows, shape (R,), by what of their texts the model still knows."""
        return state.places.astype(np.int64)

    def _next(self, nodes: States, tokens: States) -> States:
        """States after one more token each."""
        result, looking = np.zeros_like(nodes), np.arange(len(nodes))
        for _ in range(self._order):  # of ever shorter ends of the text; most are found at once
            key = nodes * self.vocabulary + tokens
            place = np.searchsorted(self._keys, key).clip(max=len(self._keys) - 1)
            hit = self._keys[place] == key
            result[looking[hit]] = self._targets[place[hit]]
            looking, nodes, tokens = looking[~hit], self._fallback[nodes[~hit]], tokens[~hit]
            if not len(looking):
                break
        return result

    def answer(self, nodes: States) -> tuple[NDArray[np.float32], States]:
        """Score every next token of states, shape (R,), and say where it leads; the longest context wins.

        Returns:
            Log-probabilities and states, both of shape (R, V).
        """
        depth, rows = max(1, self._order - 1), len(nodes)
        states = np.empty((depth, rows), dtype=np.int64)  # shortest contexts first, so that longer ones overwrite them
        states[-1] = nodes
        for place in range(depth - 1, 0, -1):
            states[place - 1] = self._fallback[states[place]]
        weights = self._weight[states]
        costs = weights[::-1].cumsum(axis=0)[::-1]
        counts = self._count[states].ravel()
        first = self._begin[states].ravel() - counts.cumsum() + counts
        contexts = np.arange(depth * rows)
        links = contexts.repeat(counts)  # context of each arc
        arcs = first[links] + np.arange(len(links))
        cells = (contexts % rows * self.vocabulary)[links] + self._tokens[arcs]
        paid = (costs - weights).ravel()[links]  # for falling back from longer ones
        log_probs = self._unigrams + costs[0, :, None]
        log_probs.ravel()[cells] = self._log_probs[arcs] + paid
        targets = self._after[None].repeat(rows, axis=0)
        targets.ravel()[cells] = self._targets[arcs]
        targets[:, BLANK] = nodes  # stands still
        return log_probs, targets


class _Answers:
    """What the states that a search comes to answer, looked up once.

    Args:
        model: the automaton.
        most: answers kept, N; more begin anew.
    """

    def __init__(self, model: NGramLanguageModel, most: int) -> None:
        self.model = model
        self.log_probs = np.empty((most, model.vocabulary), dtype=np.float32)
        self.targets = np.empty((most, model.vocabulary), dtype=np.int64)
        self._place = np.zeros(model.states, dtype=np.int32)  # of each state's answer; 0 has none
        self._used = 1

    def find(self, nodes: States) -> NDArray[np.int32]:
        """Tell where the answers of states, shape (R,), are; places told before may hold no longer."""
        places = self._place[nodes]
        missing = nodes[places == 0]
        if not len(missing):
            return places
        if self._used + len(missing) > len(self.targets):
            self._used, missing = 1, nodes
            self._place.fill(0)
        added = slice(self._used, self._used + len(missing))
        self._place[missing] = np.arange(added.start, added.stop)
        self._used = added.stop
        self.log_probs[added], self.targets[added] = self.model.answer(missing)
        return self._place[nodes]


def _told(state: NGramState) -> tuple[Tensor, NGramState]:
    return torch.from_numpy(state.answers.log_probs[state.places]).to(state.device), state
