"""Relative positions of Transformer-XL (Dai et al. 2019, arXiv:1901.02860, section 3.3), as in the conformer's paper.

The score of query i and key j has a part for what the key is and a part for how far away it is:

    (q_i + u) . k_j / sqrt(d)  +  (q_i + v) . W r_{i-j} / sqrt(d)

with r the sinusoids of the distance. The second part does not depend on the key's content: it is an additive bias, and
the fused kernels take it as a floating-point mask.

Shapes: B batch, H heads, T positions, D model dim, d = D / H head dim.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from asr.model.attention import KeyValue, MultiHeadAttention


def sinusoids(length: int, dim: int, device: torch.device) -> Tensor:
    """Compute sine and cosine of every distance between two of `length` positions.

    Args:
        length: number of positions T.
        dim: model dim D, even.
        device: where the table is needed.

    Returns:
        Shape (2T - 1, D), float32: distances T - 1 (the key lies far before the query) down to -(T - 1).
    """
    distances = torch.arange(length - 1, -length, -1, device=device, dtype=torch.float32)
    exponents = torch.arange(0, dim, 2, device=device, dtype=torch.float32) / dim
    angles = distances[:, None] / 10_000.0**exponents  # (2T - 1, D / 2)
    return torch.cat((angles.sin(), angles.cos()), dim=-1)


def rel_shift(x: Tensor) -> Tensor:
    """Turn columns that are distances into columns that are keys, without gathering.

    Row i needs the distances i, i - 1, ..., i - T + 1, which are its columns T - 1 - i onwards: each row begins one
    column earlier than the row above. With one column put in front, reading the same numbers in rows that are one
    shorter moves each row by one more place.

    Args:
        x: shape (B, H, T, 2T - 1); column c of row i belongs to distance T - 1 - c.

    Returns:
        Shape (B, H, T, T); column j of row i belongs to distance i - j.
    """
    batch, heads, time, distances = x.shape
    x = functional.pad(x, (1, 0)).view(batch, heads, distances + 1, time)  # (B, H, 2T, T)
    return x[:, :, 1:].reshape(batch, heads, time, distances)[..., :time]


class RelativeAttention(MultiHeadAttention):
    """Self-attention whose scores know the distance of query and key.

    Args:
        dim: model dim D.
        heads: number of heads H.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__(dim, heads)
        self.distance = nn.Linear(dim, dim, bias=False)  # W
        self.content_bias = nn.Parameter(torch.zeros(heads, 1, dim // heads))  # u
        self.distance_bias = nn.Parameter(torch.zeros(heads, 1, dim // heads))  # v

    def project(self, memory: Tensor, positions: Tensor | None = None) -> KeyValue:
        """Make keys and values of memory (B, T, D); they carry no positions, whatever `positions` says."""
        return super().project(memory)

    def forward(
        self,
        x: Tensor,
        memory: KeyValue,
        mask: Tensor | None = None,
        positions: Tensor | None = None,
        return_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Let every position of x look at every other.

        Args:
            x: queries before projection, shape (B, T, D).
            memory: keys and values of the same positions from `project`, each (B, H, T, d).
            mask: bool, broadcastable to (B, H, T, T), True where the key may be seen.
            positions: `sinusoids` of the distances, shape (2T - 1, D); None for content alone.
            return_weights: take the explicit path and return its weights.

        Returns:
            Output (B, T, D), and the weights (B, H, T, T) if asked for.
        """
        query = self.split(self.query(x))  # (B, H, T, d)
        bias = None
        if positions is not None:
            distance = self.split(self.distance(positions)[None])  # (1, H, 2T - 1, d)
            bias = rel_shift((query + self.distance_bias) @ distance.transpose(-2, -1)) / math.sqrt(query.shape[-1])
        return self.attend(query + self.content_bias, memory, mask, bias, return_weights)
