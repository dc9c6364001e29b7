"""The running average of weights: of the last tenth of a short run, and over 1 / (1 - decay) steps of a long one."""

from __future__ import annotations

import pytest
import torch
from torch.optim.swa_utils import AveragedModel

from asr.training.averaging import RunningAverage, ramped


@pytest.mark.parametrize(("steps", "left"), [(36, 1e-6), (1_000, 1e-8)])
def test_a_short_run_does_not_ship_what_it_began_with(steps, left):
    model = torch.nn.Linear(1, 1, bias=False)
    average = AveragedModel(model, avg_fn=RunningAverage(0.999)._kwargs["avg_fn"])
    for step in range(steps):
        model.weight.data.fill_(1.0 if step == 0 else 0.0)  # how much of the first step's weights there is
        average.update_parameters(model)
    assert 0 <= float(average.module.weight) < left


def test_a_long_run_is_averaged_as_it_is_told():
    assert ramped(0.999, 100_000) == 0.999
    assert [ramped(0.9, steps) for steps in (0, 10, 1000)] == [0.1, pytest.approx(11 / 20), 0.9]
