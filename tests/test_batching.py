from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.batching import padding_share, plan_epoch
from asr.errors import DataError


def librispeech_like(count: int) -> np.ndarray:
    """Durations shaped like train-clean-100's: most between 12 and 16 s, a tail of short ones."""
    draw = np.random.default_rng(0)
    long = np.clip(draw.normal(14.2, 1.4, count), 2, 24.5)
    return np.where(draw.random(count) < 0.75, long, draw.uniform(2, 14, count))


@settings(max_examples=60, deadline=None)
@given(
    durations=st.lists(st.floats(0.1, 30), min_size=8, max_size=200),
    ranks=st.integers(1, 8),
    seed=st.integers(0, 5),
    epoch=st.integers(0, 5),
)
def test_every_rank_has_equally_many_batches_within_budget_and_every_row_once(durations, ranks, seed, epoch):
    seconds = np.array(durations)
    plan = plan_epoch(seconds, 60.0, seed, epoch, ranks)
    assert len(plan) == ranks
    assert len({len(batches) for batches in plan}) == 1
    batches = [rows for batches in plan for rows in batches]
    assert all(len(rows) for rows in batches)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(seconds)))
    assert all(seconds[rows].max() * len(rows) <= 60.0 + 1e-9 for rows in batches)


def test_padding_is_small_and_the_order_changes_with_the_epoch():
    seconds = librispeech_like(5000)
    first, again, second = (plan_epoch(seconds, 160, 1, epoch)[0] for epoch in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert padding_share(seconds, first) < 0.05
    neighbours = {frozenset(rows.tolist()) for rows in first} & {frozenset(rows.tolist()) for rows in second}
    assert not neighbours


def test_the_first_epoch_goes_from_short_to_long():
    seconds = librispeech_like(2000)
    longest = [seconds[rows].max() for rows in plan_epoch(seconds, 160, 1, 0)[0]]
    assert np.corrcoef(longest, np.arange(len(longest)))[0, 1] > 0.8
    longest = [seconds[rows].max() for rows in plan_epoch(seconds, 160, 1, 1)[0]]
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.3


def test_ranks_share_one_global_order():
    seconds = librispeech_like(999)
    alone = plan_epoch(seconds, 160, 1, 3, ranks=1)[0]
    pair = plan_epoch(seconds, 160, 1, 3, ranks=2)
    woven = [rows for step in zip(*pair, strict=True) for rows in step]
    assert np.array_equal(np.concatenate(alone), np.concatenate(woven))


def test_what_cannot_be_planned_is_refused():
    with pytest.raises(DataError, match="over the budget"):
        plan_epoch(np.array([1.0, 40.0]), 30, 1, 0)
    with pytest.raises(DataError, match="cannot be shared"):
        plan_epoch(np.array([1.0]), 30, 1, 0, ranks=2)
