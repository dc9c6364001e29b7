"""N-gram language models: a list of n-grams becomes an automaton that answers for many hypotheses at once.

A state is the longest end of the text that the model knows as a context. Each state has arcs for the tokens that were
seen after it, and one shorter state to fall back to, at a cost (Katz 1987). All arcs lie in one sorted array, so that
a step is a few gathers, with no loop over rows or tokens: it finds the next states together with their scores.

Shapes: R rows, V vocabulary, A arcs, S states, L states of a chain of fallbacks; M n-grams of one order.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from asr.decoding.arpa import NGrams
from asr.tokenizer import BLANK, START

UNSEEN = -100.0  # natural log-probability of a token that not even the unigrams hold


class NGramState(NamedTuple):
    """What each row may go on with."""

    log_probs: Tensor
    """The answer for each next token, shape (R, V)."""
    targets: Tensor
    """The automaton's state after it, shape (R, V)."""

    def at(self, rows: Tensor) -> NGramState:
        """Take rows, shape (R,), in that order."""
        return NGramState(*(field[rows] for field in self))


class NGramLanguageModel:
    """An n-gram model over the recogniser's tokens; see `asr.decoding.language_model.LanguageModel`.

    Args:
        orders: the n-grams of order 1, 2, ...
        vocabulary: number of tokens V.
    """

    def __init__(self, orders: list[NGrams], vocabulary: int) -> None:
        self.vocabulary = vocabulary
        self._order = len(orders)
        states = 1 + sum(len(grams.log_probs) for grams in orders[:-1])
        none = torch.zeros(0, dtype=torch.int64)
        self._keys = none  # of each arc: its state x V + its token; sorted
        self._targets = none  # the state that it leads to
        self._log_probs = torch.zeros(0)
        self._fallback = torch.zeros(states, dtype=torch.int64)
        self._weight = torch.zeros(states)  # natural logarithm of what falling back costs
        nodes = torch.zeros(1, dtype=torch.int64)  # states of the order below
        for order, grams in enumerate(orders, start=1):
            nodes = self._add(order, grams, nodes)
        self._tokens = self._keys % vocabulary
        bounds = torch.searchsorted(self._keys, torch.arange(states + 1) * vocabulary)
        self._unigrams = torch.full((vocabulary,), UNSEEN)
        self._unigrams[self._tokens[: bounds[1]]] = self._log_probs[: bounds[1]]
        self._after = torch.zeros(vocabulary, dtype=torch.int64)  # the state after one token alone
        self._after[self._tokens[: bounds[1]]] = self._targets[: bounds[1]]
        bounds[0] = bounds[1]  # they have a row of their own
        self._begin, self._count = bounds[:-1], bounds.diff()

    def _add(self, order: int, grams: NGrams, nodes: Tensor) -> Tensor:
        """Append the arcs of one order, and the states that they lead to.

        Args:
            order: n.
            grams: the n-grams, M of them.
            nodes: state of each n-gram of the order below.

        Returns:
            The states, shape (M,).
        """
        parents, last = nodes[torch.from_numpy(grams.contexts)], torch.from_numpy(grams.tokens)
        keys, sorting = (parents * self.vocabulary + last).sort()
        parents, last = parents[sorting], last[sorting]
        # Where the text without its first token leads; all shorter n-grams are in place already.
        shorter = self._next(self._fallback[parents], last) if order > 1 else torch.zeros_like(last)
        targets = shorter
        if order < self._order:
            targets = torch.arange(len(self._keys), len(self._keys) + len(last)) + 1  # state 0 is the empty context
            self._fallback[targets] = shorter
            self._weight[targets] = torch.from_numpy(grams.backoffs).float()[sorting]
        self._keys = torch.cat((self._keys, keys))
        self._targets = torch.cat((self._targets, targets))
        self._log_probs = torch.cat((self._log_probs, torch.from_numpy(grams.log_probs).float()[sorting]))
        return torch.empty_like(targets).index_copy(0, sorting, targets)

    def start(self, rows: int, device: torch.device) -> tuple[Tensor, NGramState]:
        """Begin `rows` texts with the start token."""
        for name, table in vars(self).items():
            if isinstance(table, Tensor) and table.device != device:
                setattr(self, name, table.to(device))
        state = self._answer(self._after[START][None]).at(torch.zeros(rows, dtype=torch.int64, device=device))
        return state.log_probs, state

    def step(self, tokens: Tensor, state: NGramState) -> tuple[Tensor, NGramState]:
        """Append one token, shape (R,), to each row; rows with BLANK stand still."""
        moving = (tokens != BLANK).nonzero()[:, 0]
        if len(moving):
            answer = self._answer(state.targets[moving, tokens[moving]])
            state = NGramState(*(old.index_copy(0, moving, new) for old, new in zip(state, answer, strict=True)))
        return state.log_probs, state

    def select(self, rows: Tensor, state: NGramState) -> NGramState:
        """Keep the texts `rows`, shape (R,), in that order."""
        return state.at(rows)

    def _next(self, nodes: Tensor, tokens: Tensor) -> Tensor:
        """States after one more token each."""
        result, looking = torch.zeros_like(nodes), torch.arange(len(nodes))
        for _ in range(self._order):  # of ever shorter ends of the text; most are found at once
            key = nodes * self.vocabulary + tokens
            place = torch.searchsorted(self._keys, key).clamp(max=len(self._keys) - 1)
            hit = self._keys[place] == key
            result[looking[hit]] = self._targets[place[hit]]
            looking, nodes, tokens = looking[~hit], self._fallback[nodes[~hit]], tokens[~hit]
            if not len(looking):
                break
        return result

    def _answer(self, nodes: Tensor) -> NGramState:
        """Score every next token of states, shape (R,), and say where it leads; the longest context wins."""
        chain = [nodes]
        for _ in range(self._order - 2):
            chain.append(self._fallback[chain[-1]])
        states = torch.stack(chain, dim=1)  # (R, L), longest contexts first
        costs = self._weight[states].cumsum(dim=1)
        counts = self._count[states].flatten()
        first = self._begin[states].flatten() - counts.cumsum(0) + counts
        links = torch.repeat_interleave(counts)  # row and place in the chain, as one number, of each arc of the chains
        arcs = first[links] + torch.arange(len(links), device=nodes.device)
        rows, places = links // len(chain), links % len(chain)
        cells = rows * self.vocabulary + self._tokens[arcs]
        longest = torch.full((len(nodes) * self.vocabulary,), len(chain), device=nodes.device)
        wins = longest.scatter_reduce(0, cells, places, "amin")[cells] == places
        arcs, cells, links = arcs[wins], cells[wins], links[wins]
        paid = costs.flatten()[links] - self._weight[states].flatten()[links]  # for falling back from longer ones
        log_probs = self._unigrams + costs[:, -1:]
        log_probs.view(-1)[cells] = self._log_probs[arcs] + paid
        targets = self._after.repeat(len(nodes), 1)
        targets.view(-1)[cells] = self._targets[arcs]
        return NGramState(log_probs, targets)
