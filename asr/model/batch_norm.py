"""Batch normalisation that does not see the padding (Ioffe and Szegedy 2015, arXiv:1502.03167).

torch's own counts padded frames as data: the statistics, and with them every utterance's output, would depend on how
much padding the batch happens to have.

Shapes: B batch, T' encoder frames, D channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

MOMENTUM = 0.1  # the newest batch's share of the running statistics, as in torch
EPSILON = 1e-5


class MaskedBatchNorm(nn.Module):
    """Mean 0 and variance 1 of each channel over the valid frames of a batch; over all batches so far in evaluation.

    With several ranks each one normalises by its own batch.

    Args:
        dim: channels D.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.register_buffer("running_mean", torch.zeros(dim))
        self.register_buffer("running_var", torch.ones(dim))
        self.remembers = True

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Normalise x of shape (B, T', D); mask (B, T') is True at valid frames."""
        mean, variance = self._measure(x.float(), mask) if self.training else (self.running_mean, self.running_var)
        scale = self.weight * (variance + EPSILON).rsqrt()  # (D,)
        return (x * scale + (self.bias - mean * scale)).to(x.dtype)

    def _measure(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        valid = mask[:, :, None]
        frames = valid.sum()
        mean = (x * valid).sum(dim=(0, 1)) / frames  # (D,)
        variance = ((x - mean).square() * valid).sum(dim=(0, 1)) / frames
        if self.remembers:
            with torch.no_grad():  # nothing of this may be recorded: the second pass of checkpointing leaves it out
                unbiased = variance * frames / (frames - 1).clamp_min(1)
                finite = (mean + unbiased).isfinite()  # others would stay for ever, though the step is skipped
                self.running_mean.lerp_(torch.where(finite, mean, self.running_mean), MOMENTUM)
                self.running_var.lerp_(torch.where(finite, unbiased, self.running_var), MOMENTUM)
        return mean, variance


@contextmanager
def forgetful(module: nn.Module) -> Iterator[None]:
    """Leave running statistics as they are: activation checkpointing sees each batch twice, which must count once."""
    norms = [part for part in module.modules() if isinstance(part, MaskedBatchNorm)]
    for norm in norms:
        norm.remembers = False
    try:
        yield
    finally:
        for norm in norms:
            norm.remembers = True
