from __future__ import annotations

import pytest
import torch

from asr.model.dropout import Dropout


@pytest.mark.parametrize("share", [0.05, 0.1, 0.5, 0.9])
def test_drops_the_share_and_keeps_the_mean(share):
    torch.manual_seed(0)
    out = Dropout(share).train()(torch.ones(1001, 999))
    error = 4 * (share * (1 - share) / out.numel()) ** 0.5  # four standard deviations
    assert (out == 0).float().mean().item() == pytest.approx(share, abs=error + 2**-16)
    torch.testing.assert_close(out[out != 0], torch.full_like(out[out != 0], 1 / (1 - share)))


def test_neighbours_are_dropped_independently():
    """Four decisions come from one draw: none may tell anything of the next."""
    torch.manual_seed(0)
    kept = (Dropout(0.5).train()(torch.ones(1_000_000)) != 0).double()
    for distance in range(1, 9):
        both = (kept[:-distance] * kept[distance:]).mean().item()
        assert both == pytest.approx(0.25, abs=0.002)


def test_gradient_passes_where_the_number_passed():
    torch.manual_seed(0)
    x = torch.randn(7, 5, 3, requires_grad=True)
    out = Dropout(0.3).train()(x)
    out.sum().backward()
    torch.testing.assert_close(x.grad, out.detach() / x.detach())


def test_same_seed_same_masks_and_nothing_in_evaluation():
    x = torch.randn(4, 6)
    masks = [torch.manual_seed(3) and Dropout(0.5).train()(x) for _ in range(2)]
    assert torch.equal(*masks)
    assert Dropout(0.5).eval()(x) is x


def test_keeps_the_type_under_autocast():
    x = torch.randn(4, 6, dtype=torch.bfloat16)
    assert Dropout(0.5).train()(x).dtype == torch.bfloat16
