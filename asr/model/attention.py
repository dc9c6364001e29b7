"""Attention in three lines: score, weigh, aggregate.

A query is compared with every key (score), the scores become probabilities (weigh), and the values are summed by
them (aggregate): Bahdanau et al. 2015 (arXiv:1409.0473), with several heads side by side and, unless told otherwise,
the scaled dot product of Vaswani et al. 2017 (arXiv:1706.03762, section 3.2) as the score.

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


def additive_score(query: Tensor, key: Tensor, energy: Tensor) -> Tensor:
    """Compare by a small network, e = v . tanh(q + k) (Bahdanau et al. 2015, section A.1.2).

    Args:
        query: W s of the paper, shape (B, H, Q, d).
        key: U h of the paper, shape (B, H, K, d).
        energy: v of each head, shape (H, d).

    Returns:
        Scores (B, H, Q, K). The network's hidden layer takes B x H x Q x K x d numbers on the way.
    """
    hidden = torch.tanh(query[:, :, :, None] + key[:, :, None])  # (B, H, Q, K, d)
    return (hidden @ energy[:, None, :, None]).squeeze(-1)


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


def fused(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, bias: Tensor | None) -> Tensor:
    """Do all three with the dot product in one kernel, which never stores the weights; shapes as above."""
    if bias is None or mask is None:
        mask = mask if bias is None else bias
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    # The kernel takes one mask, so padding goes into the bias: as a finite minimum, since a row of nothing but minus
    # infinity is not a number in some kernels. Such a row would then average the padding, so it is cleared.
    scores = torch.where(mask, bias, torch.finfo(bias.dtype).min)
    context = functional.scaled_dot_product_attention(query, key, value, attn_mask=scores)
    return context.masked_fill(~mask.any(dim=-1, keepdim=True), 0.0)


class KeyValue(NamedTuple):
    """Keys and values of one attention layer, ready to be attended to; each (B, H, K, d)."""

    key: Tensor
    value: Tensor


class MultiHeadAttention(nn.Module):
    """Self-, causal and cross-attention: what differs is only where keys and values come from, and the mask.

    Args:
        dim: model dim D.
        heads: number of heads H; D must be a multiple of it.
        scoring: `dot`, or `additive`, which has no fused kernel.
    """

    def __init__(self, dim: int, heads: int, scoring: str = "dot") -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim, bias=False)  # a bias here is either removed by softmax or adds to the query's
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)
        energy = torch.randn(heads, dim // heads) if scoring == "additive" else None
        self.energy = None if energy is None else nn.Parameter(energy * (dim // heads) ** -0.5)  # (H, d)

    def project(self, memory: Tensor, positions: Tensor | None = None) -> KeyValue:
        """Make keys and values of what will be attended to.

        Args:
            memory: shape (B, K, D).
            positions: rotation of each position, shape (K, d, 2), or None for no positions.
        """
        return KeyValue(rotate(self.split(self.key(memory)), positions), self.split(self.value(memory)))

    def forward(
        self,
        x: Tensor,
        memory: KeyValue,
        mask: Tensor | None = None,
        positions: Tensor | None = None,
        return_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Let every position of x look at the memory.

        Args:
            x: queries before projection, shape (B, Q, D).
            memory: keys and values from `project`, each (B, H, K, d).
            mask: bool, broadcastable to (B, H, Q, K), True where the key may be seen.
            positions: rotation of each query position, shape (Q, d, 2).
            return_weights: take the explicit path and return its weights; otherwise the fused kernel runs.

        Returns:
            Output (B, Q, D), and the weights (B, H, Q, K) if asked for.
        """
        return self.attend(rotate(self.split(self.query(x)), positions), memory, mask, None, return_weights)

    def attend(
        self, query: Tensor, memory: KeyValue, mask: Tensor | None, bias: Tensor | None, return_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Attend with projected queries (B, H, Q, d); the bias, broadcastable to (B, H, Q, K), is added to scores."""
        weights = None
        if return_weights or self.energy is not None:
            key, energy = memory.key, self.energy
            scores = score(query, key) if energy is None else additive_score(query, key, energy)
            weights = weigh(scores if bias is None else scores + bias, mask)
            context = aggregate(weights, memory.value)
        else:
            context = fused(query, memory.key, memory.value, mask, bias)
        return self.out(context.transpose(1, 2).flatten(2)), weights if return_weights else None  # (B, Q, D)

    def split(self, x: Tensor) -> Tensor:
        """Deal the channels out to the heads: (B, time, D) to (B, H, time, d)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
