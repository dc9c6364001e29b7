"""The running average of weights: of the last tenth of a short run, and over 1 / (1 - decay) steps of a long one."""

from __future__ import annotations

import pytest
import torch
from torch.optim.swa_utils import AveragedModel

from asr.training.averaging import RunningAverage, ramped


@pytest.mark.parametrize(("steps", "left"), [(36, 1e-6), (1_000, 1e-8)])
def test_a_short_run_does_not_ship_what_it_began_with(steps, left):
    model = torch.nn.Linear(1, 1, bias=False)
    average = AveragedModel(model, **RunningAverage(0.999)._kwargs)
    for step in range(steps):
        model.weight.data.fill_(1.0 if step == 0 else 0.0)  # how much of the first step's weights there is
        average.update_parameters(model)
    assert 0 <= float(average.module.weight) < left


def test_a_long_run_is_averaged_as_it_is_told():
    assert ramped(0.999, 100_000) == 0.999
    assert [ramped(0.9, steps) for steps in (0, 10, 1000)] == [0.1, pytest.approx(11 / 20), 0.9]


def test_it_is_the_average_that_the_ramp_says():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    average = AveragedModel(model, use_buffers=True, **RunningAverage(0.9)._kwargs)
    expected = None
    for step in range(50):
        for weight in model.parameters():
            weight.data.normal_()
        model[1].num_batches_tracked += 1
        weights = model[0].weight.detach().double()
        kept = min(0.9, (1 + step) / (10 + step))  # of the weights so far; the first are taken as they are
        expected = weights if expected is None else kept * expected + (1 - kept) * weights
        average.update_parameters(model)
    torch.testing.assert_close(average.module[0].weight.detach().double(), expected, atol=1e-5, rtol=0)
    assert int(average.module[1].num_batches_tracked) == 50
