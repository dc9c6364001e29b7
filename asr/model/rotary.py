"""Rotary positions (Su et al. 2021, arXiv:2104.09864).

Each pair of a head's channels is turned by an angle that grows with the position. The dot product of a turned query
and a turned key then depends on their distance alone, so attention becomes relative with no extra parameters and no
additive bias, and the fused attention kernels stay usable.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rotations(length: int, head_dim: int, device: torch.device, start: int = 0) -> Tensor:
    """Compute the rotation of each position.

    Args:
        length: number of positions.
        head_dim: channels of one head, even.
        device: where the table is needed.
        start: first position.

    Returns:
        Cosine and signed sine of each channel's angle, shape (length, head_dim, 2), float32.
    """
    positions = torch.arange(start, start + length, device=device, dtype=torch.float32)
    exponents = torch.arange(0, head_dim, 2, device=device, dtype=torch.float32) / head_dim
    angles = positions[:, None] / 10_000.0**exponents  # (length, head_dim / 2)
    cosine, sine = angles.cos(), angles.sin()
    # Stacked in front: each of the two is then contiguous, which `rotate` reads faster.
    both = torch.stack((torch.cat((cosine, cosine), dim=-1), torch.cat((-sine, sine), dim=-1)))
    return both.movedim(0, -1)


def rotate(x: Tensor, table: Tensor | None) -> Tensor:
    """Turn each position of x by its rotation.

    Args:
        x: queries or keys, shape (batch, heads, time, head_dim).
        table: rotations of shape (time, head_dim, 2), or None to leave x as it is.

    Returns:
        A tensor like x.
    """
    if table is None:
        return x
    cosine, sine = table.to(x.dtype).unbind(-1)
    partner = x.roll(x.shape[-1] // 2, dims=-1)  # channel i turns together with channel i + head_dim / 2
    return torch.addcmul(x * cosine, partner, sine)
