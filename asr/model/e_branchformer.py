"""The E-Branchformer's block: attention and convolution side by side, then merged (Kim et al. 2022, arXiv:2210.00077).

    x ─ ½ feed-forward ─┬─ self-attention ─┬─ depthwise ─ merge ─ ½ feed-forward ─ norm
                        └─ gated conv ─────┘

Shapes: B batch, T' encoder frames, D model dim, G hidden width of the gated convolution.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from asr.model.batch_norm import MaskedBatchNorm
from asr.model.config import EncoderConfig
from asr.model.convolution import DepthwiseConvolution
from asr.model.dropout import Dropout
from asr.model.transformer import FeedForward, SelfAttention


class GatedConvolution(nn.Module):
    """The cgMLP branch: half of the channels, filtered over time, gates the other half (figure 2 of the paper).

    The gate begins as all ones: near-zero filters with bias one, so that an untrained branch is a plain feed-forward.
    Its norm is `layer` or `batch`; the padding is cleared between norm and filter, because a norm's bias fills it.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        half = config.gated // 2
        self.expand = nn.Linear(config.dim, config.gated)
        self.norm = MaskedBatchNorm(half) if config.norm == "batch" else nn.LayerNorm(half)
        self.depthwise = DepthwiseConvolution(half, config.kernel)
        nn.init.normal_(self.depthwise.weight, std=1e-6)
        nn.init.ones_(self.depthwise.bias)
        self.project = nn.Linear(half, config.dim)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Filter x of shape (B, T', D) over time; mask (B, T') is True at valid frames."""
        kept, gate = functional.gelu(self.expand(x)).chunk(2, dim=-1)  # (B, T', G / 2) each
        gate = self.norm(gate, mask) if isinstance(self.norm, MaskedBatchNorm) else self.norm(gate)
        gate = self.depthwise(gate * mask[:, :, None])  # (B, T', G / 2)
        return self.dropout(self.project(kept * gate))


class EBranchformerBlock(nn.Module):
    """Half feed-forward, two branches merged through a depthwise convolution, half feed-forward, norm."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        dim, dropout = config.dim, config.dropout
        self.norms = nn.ModuleList([nn.LayerNorm(dim) for _ in range(4)])
        self.first_half = FeedForward(dim, config.feed_forward, dropout)
        self.attention = SelfAttention(config)
        self.convolution = GatedConvolution(config)
        self.depthwise = DepthwiseConvolution(2 * dim, config.kernel)
        self.merge = nn.Linear(2 * dim, dim)
        self.dropout = Dropout(dropout)
        self.second_half = FeedForward(dim, config.feed_forward, dropout)
        self.out_norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """Transform x (B, T', D); mask (B, T') is True at valid frames; positions as made by the encoder."""
        x = x + 0.5 * self.first_half(self.norms[0](x))
        whole = self.attention(self.norms[1](x), mask, positions)  # (B, T', D): the whole utterance
        near = self.convolution(self.norms[2](x), mask)  # (B, T', D): the neighbouring frames
        both = torch.cat((whole, near), dim=-1)  # (B, T', 2D)
        x = x + self.dropout(self.merge(both + self.depthwise(both * mask[:, :, None])))
        x = x + 0.5 * self.second_half(self.norms[3](x))
        return self.out_norm(x)
