"""The plain encoder block, and the two modules that every kind of block is made of.

Shapes: B batch, T' encoder frames, D model dim.
"""

from __future__ import annotations

from torch import Tensor, nn

from asr.model.attention import MultiHeadAttention
from asr.model.config import EncoderConfig
from asr.model.dropout import Dropout
from asr.model.relative import RelativeAttention


class FeedForward(nn.Sequential):
    """Two linear layers with swish between them, (..., D) to (..., D)."""

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__(nn.Linear(dim, hidden), nn.SiLU(), nn.Linear(hidden, dim), Dropout(dropout))


class SelfAttention(nn.Module):
    """Attention of a sequence to itself, with positions of the configured kind."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        kind = RelativeAttention if config.positions == "relative" else MultiHeadAttention
        self.attention = kind(config.dim, config.heads)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """Attend from x (B, T', D) to the frames of x that the mask (B, T') allows."""
        memory = self.attention.project(x, positions)
        out, _ = self.attention(x, memory, mask[:, None, None, :], positions)
        return self.dropout(out)


class TransformerBlock(nn.Module):
    """Pre-norm self-attention and feed-forward (Vaswani et al. 2017; norm first as in Xiong et al. 2020)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(config.dim) for _ in range(2)])
        self.attention = SelfAttention(config)
        self.feed_forward = FeedForward(config.dim, config.feed_forward, config.dropout)

    def forward(self, x: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """Transform x (B, T', D); mask (B, T') is True at valid frames; positions as made by the encoder."""
        x = x + self.attention(self.norms[0](x), mask, positions)
        return x + self.feed_forward(self.norms[1](x))
