from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from asr.batching import Budget, group_by_length, neighbour_overlap, padding_share, plan_epoch
from asr.errors import ConfigError, DataError

lengths = st.lists(st.floats(0.1, 30), min_size=8, max_size=200)


def librispeech_like(count: int) -> np.ndarray:
    """Durations shaped like train-clean-100's: most between 12 and 16 s, a tail of short ones."""
    draw = np.random.default_rng(0)
    long = np.clip(draw.normal(14.2, 1.4, count), 2, 24.5)
    return np.where(draw.random(count) < 0.75, long, draw.uniform(2, 14, count))


@given(lengths=st.lists(st.floats(0.1, 30), max_size=50), limit=st.floats(0.1, 200))
def test_groups_hold_every_row_once_longest_first_and_as_many_as_fit(lengths: list[float], limit: float) -> None:
    groups = group_by_length(lengths, limit)
    order = [row for group in groups for row in group]
    assert sorted(order) == list(range(len(lengths)))
    assert [lengths[row] for row in order] == sorted(lengths, reverse=True)
    assert all(len(group) == 1 or max(lengths[row] for row in group) * len(group) <= limit for group in groups)
    for group in groups[:-1]:  # one more would have been too much
        assert lengths[group[0]] * (len(group) + 1) > limit


def weave(plan: list[list[np.ndarray]]) -> list[np.ndarray]:
    """The global order of batches: step by step, rank by rank."""
    return [rows for step in zip(*plan, strict=True) for rows in step]


@settings(max_examples=60, deadline=None)
@given(durations=lengths, ranks=st.integers(1, 8), seed=st.integers(0, 5), epoch=st.integers(0, 5))
def test_every_rank_has_equally_many_batches_within_budget_and_every_row_once(durations, ranks, seed, epoch):
    seconds = np.array(durations)
    plan = plan_epoch(seconds, 60.0, seed, epoch, ranks)
    assert len(plan) == ranks
    assert len({len(batches) for batches in plan}) == 1
    batches = [rows for batches in plan for rows in batches]
    assert all(len(rows) for rows in batches)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(seconds)))
    assert all(seconds[rows].max() * len(rows) <= 60.0 + 1e-9 for rows in batches)


@settings(max_examples=60, deadline=None)
@given(durations=lengths, ranks=st.integers(1, 8), epoch=st.integers(0, 5), draw=st.randoms())
def test_every_epoch_has_as_many_steps_and_one_heard_faster_too(durations, ranks, epoch, draw):
    longest = np.array(durations)
    heard = longest * [draw.choice((1.0, 0.9, 0.8)) for _ in durations]
    steps = len(plan_epoch(longest, 60, 1, 0, ranks)[0])
    plan = plan_epoch(longest, 60, 1, epoch, ranks, heard=heard)
    assert {len(batches) for batches in plan} == {steps}
    assert all(heard[rows].max() * len(rows) <= 60 + 1e-9 for rows in weave(plan))


@settings(max_examples=60, deadline=None)
@given(durations=lengths, seed=st.integers(0, 5), data=st.data())
def test_ranks_may_change_at_any_step_and_every_row_is_heard_once(durations, seed, data):
    """A chain of runs, each on some ranks for some steps; the place is one integer."""
    seconds, done, heard = np.array(durations), 0, []
    while done < len(seconds):
        ranks = data.draw(st.integers(1, min(4, len(seconds) - done)))
        plan = plan_epoch(seconds, 60, seed, 1, ranks, done=done)
        steps = data.draw(st.integers(1, len(plan[0])))
        rows = np.concatenate(weave(plan)[: steps * ranks])
        heard += rows.tolist()
        done += len(rows)
    assert heard == np.concatenate(plan_epoch(seconds, 60, seed, 1)[0]).tolist()  # once, and in one global order


@settings(max_examples=60, deadline=None)
@given(durations=lengths, ranks=st.integers(1, 8), epoch=st.integers(0, 2), data=st.data())
def test_a_plan_entered_at_a_step_is_the_rest_of_the_whole_one(durations, ranks, epoch, data):
    seconds = np.array(durations)
    whole = weave(plan_epoch(seconds, 60, 1, epoch, ranks))
    first = ranks * data.draw(st.integers(0, len(whole) // ranks))
    rest = weave(plan_epoch(seconds, 60, 1, epoch, ranks, done=sum(map(len, whole[:first]))))
    assert [rows.tolist() for rows in rest] == [rows.tolist() for rows in whole[first:]]


def test_padding_is_small():
    seconds = librispeech_like(5000)
    assert padding_share(seconds, plan_epoch(seconds, 160, 1, 1)[0]) < 0.05
    heard = seconds / np.random.default_rng(2).choice([0.9, 1.0, 1.1], len(seconds))
    assert padding_share(heard, plan_epoch(seconds / 0.9, 160, 1, 1, heard=heard)[0]) < 0.05
    assert padding_share(heard, plan_epoch(seconds / 0.9, 160, 1, 1)[0]) > 0.08  # what not knowing the speeds costs


def test_the_plan_is_a_function_of_seed_and_epoch():
    seconds = librispeech_like(2000)
    first, again = (plan_epoch(seconds, 160, 1, 1)[0] for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    for seed, epoch in ((2, 1), (1, 2)):
        assert np.concatenate(first).tolist() != np.concatenate(plan_epoch(seconds, 160, seed, epoch)[0]).tolist()


def test_epochs_are_shuffled_enough():
    """Place in the epoch says nothing of length or of place in the manifest, and neighbours seldom meet again."""
    seconds = librispeech_like(20_000)
    plans = [plan_epoch(seconds, 160, 1, epoch)[0] for epoch in (1, 2)]
    for plan in plans:
        order = np.concatenate(plan)
        place = np.arange(len(order))
        assert abs(spearmanr(place, seconds[order]).statistic) < 0.1
        assert abs(spearmanr(place, order).statistic) < 0.05
    assert neighbour_overlap(*plans) < 0.05
    assert abs(spearmanr(*(np.argsort(np.concatenate(plan)) for plan in plans)).statistic) < 0.05


def test_neighbour_overlap_counts_pairs():
    first = [np.array([0, 1, 2]), np.array([3, 4])]  # pairs 01 02 12 34
    second = [np.array([0, 1]), np.array([2, 3, 4])]  # of them 01 34
    assert neighbour_overlap(first, second) == pytest.approx(0.5)
    assert neighbour_overlap(first, first) == 1


@pytest.mark.parametrize(("epoch", "short_first", "sorted_"), [(0, True, True), (0, False, False), (1, True, False)])
def test_the_first_epoch_goes_from_short_to_long_unless_told_otherwise(epoch, short_first, sorted_):
    seconds = librispeech_like(2000)
    longest = [seconds[rows].max() for rows in plan_epoch(seconds, 160, 1, epoch, short_first=short_first)[0]]
    correlation = np.corrcoef(longest, np.arange(len(longest)))[0, 1]
    assert correlation > 0.8 if sorted_ else abs(correlation) < 0.3


def test_ranks_share_one_global_order():
    seconds = librispeech_like(999)
    alone = plan_epoch(seconds, 160, 1, 3, ranks=1)[0]
    for ranks in (2, 7):
        assert np.array_equal(np.concatenate(alone), np.concatenate(weave(plan_epoch(seconds, 160, 1, 3, ranks))))


@settings(max_examples=40, deadline=None)
@given(durations=lengths, square=st.floats(0, 2), seed=st.integers(0, 3))
def test_a_budget_holds_for_lengths_squared(durations, square, seed):
    seconds = np.array(durations)
    for rows in plan_epoch(seconds, Budget(4000, 1.0, square), seed, 1)[0]:
        longest = seconds[rows].max()
        assert len(rows) * (longest + square * longest**2) <= 4000 * (1 + 1e-9)


def test_long_utterances_get_smaller_batches_where_cost_grows_with_the_square():
    seconds = np.repeat([5.0, 20.0], 500)
    plan = plan_epoch(seconds, Budget(401, 0.0001, 1.0), 1, 1)[0]
    assert {len(rows) for rows in plan if seconds[rows].max() == 20} == {1}
    assert max(len(rows) for rows in plan if seconds[rows].max() == 5) == 16


def test_what_cannot_be_planned_is_refused():
    with pytest.raises(DataError, match="over the budget"):
        plan_epoch(np.array([1.0, 40.0]), 30, 1, 0)
    with pytest.raises(DataError, match=r"row 1 \(40.0 s with augmentation\) alone costs 1.78 times"):
        plan_epoch(np.array([1.0, 40.0]), Budget(900, 0.001, 1), 1, 0)
    with pytest.raises(DataError, match="cannot be shared"):
        plan_epoch(np.array([1.0]), 30, 1, 0, ranks=2)
    with pytest.raises(DataError, match="no utterance"):
        plan_epoch(np.array([]), 30, 1, 0)
    with pytest.raises(ConfigError, match="budget"):
        Budget(10, per_second=0)
