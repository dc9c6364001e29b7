"""The epoch plan: which utterances go together, in which order, on which rank.

The plan is a pure function of the data, the budget, the seed, the epoch and the number of ranks. Nothing is drawn while
training runs, so a position in an epoch is one integer and resuming costs nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asr.errors import DataError

# Utterances are sorted by a length blurred by this much before they are packed: enough to meet other neighbours in each
# epoch, little enough to keep padding low.
LENGTH_JITTER = 0.05


def plan_epoch(
    durations: NDArray[np.float64], budget: float, seed: int, epoch: int, ranks: int = 1
) -> list[list[NDArray[np.int64]]]:
    """Plan one epoch.

    Args:
        durations: seconds of each utterance as it will be loaded, augmentation's longest stretch included.
        budget: most seconds of padded audio (longest utterance x utterances) in one batch.
        seed: draws the order.
        epoch: draws another order each epoch.
        ranks: number of processes that train together.

    Returns:
        For each rank its batches, each an array of row numbers. Every rank has equally many batches and every row is in
        exactly one of them. Step s of rank r is batch s x ranks + r of one global order.

    Raises:
        DataError: there is no utterance, fewer utterances than ranks, or one is longer than the budget.
    """
    if len(durations) < ranks or len(durations) == 0:
        raise DataError(f"{len(durations)} utterances cannot be shared by {ranks} ranks")
    longest = int(np.argmax(durations))
    if durations[longest] > budget:
        raise DataError(
            f"utterance in row {longest} lasts {durations[longest]:.1f} s with augmentation, over the budget of "
            f"{budget:g} s a batch: raise data.batch_seconds or lower data.max_seconds"
        )
    draw = np.random.default_rng([seed, epoch])
    blurred = durations * (1 + LENGTH_JITTER * draw.uniform(-1, 1, len(durations)))
    batches = _pack(np.argsort(blurred, kind="stable"), durations, budget)
    if epoch > 0:
        # The first epoch stays sorted, short to long: short texts teach CTC to align ("SortaGrad", Amodei et al. 2016).
        draw.shuffle(batches)  # type: ignore[arg-type]
    _even_out(batches, ranks)
    return [batches[rank::ranks] for rank in range(ranks)]


def padding_share(durations: NDArray[np.float64], batches: list[NDArray[np.int64]]) -> float:
    """Measure the share of padded audio that is padding, 0 to 1."""
    padded = sum(durations[rows].max() * len(rows) for rows in batches)
    return 1 - sum(durations[rows].sum() for rows in batches) / padded


def _pack(order: NDArray[np.int64], durations: NDArray[np.float64], budget: float) -> list[NDArray[np.int64]]:
    """Cut an order into the fewest runs whose padded length stays within the budget."""
    batches, start, widest = [], 0, 0.0
    for position, duration in enumerate(durations[order].tolist()):
        widest_with = max(widest, duration)
        if widest_with * (position + 1 - start) > budget:
            batches.append(order[start:position])
            start, widest_with = position, duration
        widest = widest_with
    batches.append(order[start:])
    return batches


def _even_out(batches: list[NDArray[np.int64]], ranks: int) -> None:
    """Halve the largest batches where they stand until their number divides among the ranks; rows keep their order."""
    while len(batches) % ranks:
        largest = max(range(len(batches)), key=lambda index: len(batches[index]))
        rows = batches[largest]
        batches[largest : largest + 1] = [rows[: len(rows) // 2], rows[len(rows) // 2 :]]
