"""The encoder: every frame of audio looks at every other frame.

Shapes: B batch, T feature frames, M mel bins, T' encoder frames, D model dim.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from asr.features import length_mask
from asr.model.attention import MultiHeadAttention
from asr.model.config import EncoderConfig
from asr.model.convolution import ConvolutionModule
from asr.model.rotary import rotations
from asr.model.subsampling import Subsampling


class FeedForward(nn.Sequential):
    """Two linear layers with swish between them, (..., D) to (..., D)."""

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__(nn.Linear(dim, hidden), nn.SiLU(), nn.Linear(hidden, dim), nn.Dropout(dropout))


class SelfAttention(nn.Module):
    """Attention of a sequence to itself, with rotary positions."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(dim, heads)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor, rotary: Tensor) -> Tensor:
        """Attend from x (B, T', D) to the frames of x that the mask (B, T') allows."""
        memory = self.attention.project(x, rotary)
        out, _ = self.attention(x, memory, mask[:, None, None, :], rotary)
        return self.dropout(out)


class ConformerBlock(nn.Module):
    """Half feed-forward, self-attention, convolution, half feed-forward, norm (Gulati et al. 2020, section 2.4)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        dim, dropout = config.dim, config.dropout
        self.norms = nn.ModuleList([nn.LayerNorm(dim) for _ in range(4)])
        self.first_half = FeedForward(dim, config.feed_forward, dropout)
        self.attention = SelfAttention(dim, config.heads, dropout)
        self.convolution = ConvolutionModule(dim, config.kernel, dropout)
        self.second_half = FeedForward(dim, config.feed_forward, dropout)
        self.out_norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, mask: Tensor, rotary: Tensor) -> Tensor:
        """Transform x (B, T', D); mask (B, T') is True at valid frames."""
        x = x + 0.5 * self.first_half(self.norms[0](x))
        x = x + self.attention(self.norms[1](x), mask, rotary)
        x = x + self.convolution(self.norms[2](x), mask)
        x = x + 0.5 * self.second_half(self.norms[3](x))
        return self.out_norm(x)


class TransformerBlock(nn.Module):
    """Pre-norm self-attention and feed-forward (Vaswani et al. 2017; norm first as in Xiong et al. 2020)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(config.dim) for _ in range(2)])
        self.attention = SelfAttention(config.dim, config.heads, config.dropout)
        self.feed_forward = FeedForward(config.dim, config.feed_forward, config.dropout)

    def forward(self, x: Tensor, mask: Tensor, rotary: Tensor) -> Tensor:
        """Transform x (B, T', D); mask (B, T') is True at valid frames."""
        x = x + self.attention(self.norms[0](x), mask, rotary)
        return x + self.feed_forward(self.norms[1](x))


BLOCKS = {"conformer": ConformerBlock, "transformer": TransformerBlock}


class Encoder(nn.Module):
    """Features to encoder frames, the same interface for every kind of block.

    Args:
        mels: mel bins M of the features.
        config: kind and sizes.
    """

    def __init__(self, mels: int, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.subsampling = Subsampling(
            mels, config.dim, config.subsampling, config.subsampling_channels, config.dropout
        )
        self.blocks = nn.ModuleList([BLOCKS[config.kind](config) for _ in range(config.layers)])
        # A conformer block ends in a norm of its own; pre-norm transformer blocks leave theirs to the stack.
        self.norm = nn.LayerNorm(config.dim) if config.kind == "transformer" else nn.Identity()

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Encode normalised features.

        Args:
            features: shape (B, T, M), zero in the padding.
            lengths: frames of each row, shape (B,).

        Returns:
            encoder_out of shape (B, T', D), zero in the padding, and lengths in encoder frames (B,).
        """
        x, lengths = self.subsampling(features, lengths)
        mask = length_mask(lengths, x.shape[1])
        rotary = rotations(x.shape[1], self.config.dim // self.config.heads, x.device)
        for depth, block in enumerate(self.blocks, start=1):
            if not self._skip(depth):
                x = block(x, mask, rotary)
        return self.norm(x) * mask[:, :, None], lengths

    def _skip(self, depth: int) -> bool:
        if not self.training or self.config.stochastic_depth == 0.0:
            return False
        return torch.rand(()).item() < self.config.stochastic_depth * depth / self.config.layers
