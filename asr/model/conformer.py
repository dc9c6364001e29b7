"""The conformer's block: a transformer's, with a convolution that sees neighbouring frames.

Shapes: B batch, T' encoder frames, D model dim.
"""

from __future__ import annotations

from torch import Tensor, nn

from asr.model.config import EncoderConfig
from asr.model.convolution import ConvolutionModule
from asr.model.transformer import FeedForward, SelfAttention


class ConformerBlock(nn.Module):
    """Half feed-forward, self-attention, convolution, half feed-forward, norm (Gulati et al. 2020, section 2.4)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        dim, dropout = config.dim, config.dropout
        self.norms = nn.ModuleList([nn.LayerNorm(dim) for _ in range(4)])
        self.first_half = FeedForward(dim, config.feed_forward, dropout)
        self.attention = SelfAttention(config)
        self.convolution = ConvolutionModule(dim, config.kernel, dropout, config.norm)
        self.second_half = FeedForward(dim, config.feed_forward, dropout)
        self.out_norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """Transform x (B, T', D); mask (B, T') is True at valid frames; positions as made by the encoder."""
        x = x + 0.5 * self.first_half(self.norms[0](x))
        x = x + self.attention(self.norms[1](x), mask, positions)
        x = x + self.convolution(self.norms[2](x), mask)
        x = x + 0.5 * self.second_half(self.norms[3](x))
        return self.out_norm(x)
