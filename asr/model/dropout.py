"""Dropout (Srivastava et al. 2014) that does not hold a CPU up.

torch draws one random double for each number, which takes a tenth of a training step on a CPU. Sixteen random bits say
as well whether a number is kept, and four times sixteen come with each draw: three times as fast.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Dropout(nn.Dropout):
    """Set numbers to zero with probability p, to the nearest 1/65536, and scale the rest by 1 / (1 - p)."""

    def forward(self, input: Tensor) -> Tensor:
        """Drop from a tensor of any shape while training; otherwise give it back as it is."""
        if not self.training or self.p == 0.0 or input.device.type != "cpu":
            return super().forward(input)
        draws = torch.empty((input.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        bits = draws.view(torch.int16)[: input.numel()].view(input.shape)
        keep = bits >= round(self.p * 2**16) - 2**15
        return input * (keep * (1 / (1 - self.p))).to(input.dtype)
