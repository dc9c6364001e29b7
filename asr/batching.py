"""The epoch plan: which utterances go together, in which order, on which rank.

The plan is a pure function of the data, the budget, the seed and the epoch. Nothing is drawn while training runs, so a
position in an epoch is one integer, the number of utterances that all ranks have done, and resuming costs nothing.
The order of utterances does not depend on the number of ranks, so another number may go on from that position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from asr.errors import ConfigError, DataError

# Utterances are sorted by a length blurred by this much before they are packed: enough to meet other neighbours in each
# epoch, little enough to keep padding low. It is also the share of batches beyond the fewest that an epoch may have.
LENGTH_JITTER = 0.05


@dataclass(frozen=True)
class Budget:
    """What one batch may cost: rows x (per_second x longest + per_second_squared x longest^2).

    The longest utterance counts. With the defaults a cost is in seconds of padded audio.
    """

    limit: float
    """The most that a batch may cost."""
    per_second: float = 1.0
    """Cost of a second of padded audio."""
    per_second_squared: float = 0.0
    """Cost that grows with the square of the length, as explicit attention weights do."""

    def __post_init__(self) -> None:
        """Refuse costs that do not grow with the batch."""
        if self.per_second_squared < 0 or min(self.limit, self.per_second) <= 0:
            raise ConfigError(f"a batch budget needs a limit and a cost per second over 0, and no cost below 0: {self}")

    def cost(self, seconds: NDArray[np.float64]) -> NDArray[np.float64]:
        """Tell what utterances of so many seconds cost, each alone; any shape."""
        return seconds * (self.per_second + self.per_second_squared * seconds)


def plan_epoch(
    durations: NDArray[np.float64],
    budget: float | Budget,
    seed: int,
    epoch: int,
    ranks: int = 1,
    *,
    heard: NDArray[np.float64] | None = None,
    done: int = 0,
    short_first: bool = True,
) -> list[list[NDArray[np.int64]]]:
    """Plan one epoch, or what is left of it.

    Args:
        durations: most seconds that each utterance can last, augmentation's longest stretch included.
        budget: what one batch may cost; a number is the most seconds of padded audio (longest utterance x utterances).
        seed: draws the order.
        epoch: draws another order each epoch.
        ranks: number of processes that train together.
        heard: seconds that each utterance lasts in this epoch, at most `durations`; utterances that will be equally
            long then go together. Without it, `durations`.
        done: utterances of the epoch that were trained on already, by any number of ranks.
        short_first: let the first epoch go from short to long.

    Returns:
        For each rank its batches, each an array of row numbers. Every rank has equally many batches and every row that
        is not done is in exactly one of them. Step s of rank r is batch s x ranks + r of one global order. A whole
        epoch has the same number of steps whatever the seed and the epoch.

    Raises:
        DataError: fewer utterances than ranks are left, or one is over the budget.
    """
    if len(durations) == 0:
        raise DataError("there is no utterance to plan: the manifest is empty, or all of it was filtered out")
    budget = budget if isinstance(budget, Budget) else Budget(budget)
    batches = _plan_batches(durations, durations if heard is None else heard, budget, seed, epoch, short_first)
    batches = _drop(batches, done)
    _even_out(batches, ranks)
    return [batches[rank::ranks] for rank in range(ranks)]


def group_by_length(lengths: Sequence[float], limit: float) -> list[list[int]]:
    """Put rows of like lengths together, where order and seed do not matter: all but training.

    Args:
        lengths: of each row, in any unit.
        limit: the most that a group of several may come to, padding included (its longest row x rows).

    Returns:
        Row numbers, longest first.
    """
    groups: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if groups and lengths[groups[-1][0]] * (len(groups[-1]) + 1) <= limit:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def padding_share(durations: NDArray[np.float64], batches: list[NDArray[np.int64]]) -> float:
    """Measure the share of padded audio that is padding, 0 to 1."""
    padded = sum(durations[rows].max() * len(rows) for rows in batches)
    return 1 - sum(durations[rows].sum() for rows in batches) / padded


def neighbour_overlap(first: list[NDArray[np.int64]], second: list[NDArray[np.int64]]) -> float:
    """Measure how little two epochs are shuffled: the share of pairs within batches that are together again, 0 to 1."""

    def pairs(counts: NDArray[np.int64]) -> int:
        return int((counts * (counts - 1) // 2).sum())

    batch_of = [np.repeat(np.arange(len(plan)), [len(rows) for rows in plan]) for plan in (first, second)]
    where = [batches[np.argsort(np.concatenate(plan))] for batches, plan in zip(batch_of, (first, second), strict=True)]
    together = np.unique(where[0] * len(second) + where[1], return_counts=True)[1]
    return pairs(together) / max(1, pairs(np.bincount(where[0])))


def _plan_batches(
    durations: NDArray[np.float64],
    heard: NDArray[np.float64],
    budget: Budget,
    seed: int,
    epoch: int,
    short_first: bool,
) -> list[NDArray[np.int64]]:
    """Make the batches of a whole epoch in their global order; their number hangs on durations and budget alone."""
    draw = np.random.default_rng([seed, epoch])
    blur = draw.uniform(-1, 1, len(durations))
    alone = budget.cost(durations)
    _check(durations, alone, budget)
    fewest = len(_pack(np.sort(alone), budget.limit)) - 1
    # Trainers fix the number of steps before the first epoch, so each epoch is made to have just as many.
    count = min(len(durations), round((1 + LENGTH_JITTER) * fewest))
    # In an epoch that is heard faster than it may be, batches a little under the budget keep the count even. Where a
    # blurred order does not fit the count, as with a handful of utterances, a less blurred one does.
    even = budget.limit * heard.sum() / durations.sum()
    for jitter, limit in ((LENGTH_JITTER, even), (LENGTH_JITTER / 2, budget.limit), (0.0, budget.limit)):
        order = np.argsort(budget.cost(heard * (1 + jitter * blur)), kind="stable")
        edges = _pack(budget.cost(heard)[order], limit)
        if len(edges) - 1 <= count:
            break
    batches = [order[start:end] for start, end in pairwise(_split(edges, count).tolist())]
    if short_first and epoch == 0:  # short texts teach CTC to align ("SortaGrad", Amodei et al. 2016)
        return batches
    return [batches[index] for index in draw.permutation(len(batches))]


def _check(durations: NDArray[np.float64], alone: NDArray[np.float64], budget: Budget) -> None:
    worst = int(np.argmax(alone))
    if alone[worst] > budget.limit:
        raise DataError(
            f"utterance in row {worst} lasts {durations[worst]:.1f} s with augmentation, over the budget of "
            f"{budget.limit:g} s a batch: raise data.batch_seconds or lower data.max_seconds"
            if budget == Budget(budget.limit)
            else f"utterance in row {worst} ({durations[worst]:.1f} s with augmentation) alone costs "
            f"{alone[worst] / budget.limit:.2f} times the budget of a batch: lower data.max_seconds"
        )


def _pack(costs: NDArray[np.float64], limit: float) -> NDArray[np.int64]:
    """Cut costs, in order, into the fewest runs within the limit; give the runs' edges, 0 and the end too.

    A plain loop takes a quarter of a second for a million rows, less than array operations that find all runs at once.
    """
    edges, start, longest = [0], 0, 0.0
    for position, cost in enumerate(costs.tolist()):
        longest = cost if cost > longest else longest
        if longest * (position + 1 - start) > limit and position > start:
            edges.append(position)
            start, longest = position, cost
    return np.array([*edges, len(costs)])


def _split(edges: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Halve the largest runs until there are `count`."""
    while (missing := count + 1 - len(edges)) > 0:
        sizes = np.diff(edges)
        largest = np.argsort(-sizes, kind="stable")[: min(missing, np.count_nonzero(sizes > 1))]
        edges = np.sort(np.append(edges, edges[largest] + sizes[largest] // 2))
    return edges


def _drop(batches: list[NDArray[np.int64]], done: int) -> list[NDArray[np.int64]]:
    """Leave out the first `done` utterances; a batch may be left in part, where other ranks had cut it."""
    if not done:
        return batches
    ends = np.cumsum([len(rows) for rows in batches])
    first = int(np.searchsorted(ends, done, side="right"))
    if first == len(batches):
        return []
    return [batches[first][done - int(ends[first]) :], *batches[first + 1 :]]


def _even_out(batches: list[NDArray[np.int64]], ranks: int) -> None:
    """Cut the last batches finer until their number divides among the ranks; utterances keep their order.

    Only the end changes, and in the same way from wherever the epoch is entered.
    """
    missing, index = -len(batches) % ranks, len(batches)
    while missing:
        index -= 1
        if index < 0:
            left = sum(map(len, batches))
            raise DataError(f"{left} utterances cannot be shared by {ranks} ranks: train on {left} devices or fewer")
        parts = min(missing + 1, len(batches[index]))
        batches[index : index + 1] = np.array_split(batches[index], parts)
        missing -= parts - 1
