"""Attention in three lines: score, weigh, aggregate.

A query is compared with every key (score), the scores become probabilities (weigh), and the values are summed by
them (aggregate): Bahdanau et al. 2015 (arXiv:1409.0473), in the scaled dot-product form with several heads side by
side of Vaswani et al. 2017 (arXiv:1706.03762, section 3.2).

Shapes: B batch, H heads, Q queries, K keys, D model dim, d = D / H head dim.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from asr.model.rotary import rotate


def score(query: Tensor, key: Tensor) -> Tensor:
    """Compare every query with every key: (B, H, Q, d) and (B, H, K, d) give scores (B, H, Q, K)."""
    return query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])


def weigh(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Turn scores into probabilities over the keys that the mask allows.

    Args:
        scores: shape (B, H, Q, K).
        mask: bool, broadcastable to the scores, True where the key may be seen; None allows all.

    Returns:
        Weights with the scores' shape. Each row sums to 1, or is all 0 where the mask allows no key.
    """
    if mask is None:
        return scores.softmax(dim=-1)
    weights = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(dim=-1)
    return weights.masked_fill(~mask, 0.0)  # a row without any key would otherwise spread over the padding


def aggregate(weights: Tensor, value: Tensor) -> Tensor:
    """Sum the values by their weights: (B, H, Q, K) and (B, H, K, d) give contexts (B, H, Q, d)."""
    return weights @ value


class KeyValue(NamedTuple):
    """Keys and values of one attention layer, ready to be attended to; each (B, H, K, d)."""

    key: Tensor
    value: Tensor


class MultiHeadAttention(nn.Module):
    """Self-, causal and cross-attention: what differs is only where keys and values come from, and the mask.

    Args:
        dim: model dim D.
        heads: number of heads H; D must be a multiple of it.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim, bias=False)  # a bias here adds the same to every score, which softmax removes
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def project(self, memory: Tensor, rotary: Tensor | None = None) -> KeyValue:
        """Make keys and values of what will be attended to.

        Args:
            memory: shape (B, K, D).
            rotary: rotation of each position, shape (K, d/2, 2), or None for no positions.
        """
        key = self._split(self.key(memory))
        return KeyValue(rotate(key, rotary), self._split(self.value(memory)))

    def forward(
        self,
        x: Tensor,
        memory: KeyValue,
        mask: Tensor | None = None,
        rotary: Tensor | None = None,
        return_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Let every position of x look at the memory.

        Args:
            x: queries before projection, shape (B, Q, D).
            memory: keys and values from `project`, each (B, H, K, d).
            mask: bool, broadcastable to (B, H, Q, K), True where the key may be seen.
            rotary: rotation of each query position, shape (Q, d/2, 2).
            return_weights: take the explicit path and return its weights; otherwise the fused kernel runs.

        Returns:
            Output (B, Q, D), and the weights (B, H, Q, K) if asked for.
        """
        query = rotate(self._split(self.query(x)), rotary)  # (B, H, Q, d)
        weights = None
        if return_weights:
            weights = weigh(score(query, memory.key), mask)
            context = aggregate(weights, memory.value)
        else:
            context = functional.scaled_dot_product_attention(query, memory.key, memory.value, attn_mask=mask)
        return self.out(context.transpose(1, 2).flatten(2)), weights  # (B, Q, D)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, time, D) -> (B, H, time, d)
