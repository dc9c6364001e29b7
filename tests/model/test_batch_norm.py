from __future__ import annotations

import pytest
import torch

from asr.features import length_mask
from asr.model.batch_norm import MaskedBatchNorm, forgetful
from asr.training.module import average_over_ranks


@pytest.fixture
def padded() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(3, 7, 4) * 3 + 1, length_mask(torch.tensor([7, 2, 5]), 7)


def test_it_equals_torchs_own_on_the_valid_frames_alone(padded):
    x, mask = padded
    ours, theirs = MaskedBatchNorm(4), torch.nn.BatchNorm1d(4)
    with torch.no_grad():
        for norm in (ours, theirs):
            norm.weight.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]))
            norm.bias.copy_(torch.tensor([0.0, 1.0, 0.0, -1.0]))
    for training in (True, True, False):
        one, other = x.clone().requires_grad_(), x.clone().requires_grad_()
        mine, expected = ours.train(training)(one, mask)[mask], theirs.train(training)(other[mask])
        torch.testing.assert_close(mine, expected, atol=1e-5, rtol=1e-5)
        mine.pow(3).sum().backward()
        expected.pow(3).sum().backward()
        torch.testing.assert_close(one.grad, other.grad, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(ours.running_mean, theirs.running_mean, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(ours.running_var, theirs.running_var, atol=1e-6, rtol=1e-5)


def test_what_stands_in_the_padding_does_not_matter(padded):
    x, mask = padded
    other = x.masked_fill(~mask[:, :, None], 1e3)
    one, another = MaskedBatchNorm(4), MaskedBatchNorm(4)
    torch.testing.assert_close(one(x, mask)[mask], another(other, mask)[mask])
    torch.testing.assert_close(one.running_var, another.running_var)


def test_a_forgetful_norm_keeps_its_statistics_until_it_is_released(padded):
    norm = MaskedBatchNorm(4)
    with forgetful(norm):
        norm(*padded)
    assert not norm.running_mean.any()
    norm(*padded)
    assert norm.running_mean.any()


def test_ranks_share_the_mean_of_their_statistics(monkeypatch):
    norms = [MaskedBatchNorm(3), MaskedBatchNorm(2)]
    for norm in norms:
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2.0)
    before = [part.clone() for norm in norms for part in norm.buffers()]
    other = torch.arange(10.0)  # of a second rank, one behind the other
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda together: together.add_(other))
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    average_over_ranks([part for norm in norms for part in norm.buffers()])
    found = torch.cat([part for norm in norms for part in norm.buffers()])
    torch.testing.assert_close(found, (torch.cat(before) + other) / 2)


def test_what_is_no_number_does_not_stay_in_the_running_statistics():
    norm, mask = MaskedBatchNorm(3).train(), torch.ones(2, 4, dtype=torch.bool)
    x = torch.randn(2, 4, 3)
    x[0, 0, 1] = torch.inf
    norm(x, mask)
    norm(torch.randn(2, 4, 3), mask)
    assert torch.isfinite(torch.stack((norm.running_mean, norm.running_var))).all()
    assert (norm.running_mean != 0).all()
