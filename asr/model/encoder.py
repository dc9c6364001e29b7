"""The encoder: every frame of audio looks at every other frame.

    features (B, T, M) ─ Subsampling ─ (B, T', D) ─ block 1 ─ ... ─ block N ─ [norm] ─ encoder_out (B, T', D)
                                      positions ──────┴────────────────┘

Shapes: B batch, T feature frames, M mel bins, T' encoder frames, D model dim.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import nullcontext
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from asr.features import length_mask
from asr.model.batch_norm import forgetful
from asr.model.config import EncoderConfig
from asr.model.conformer import ConformerBlock
from asr.model.e_branchformer import EBranchformerBlock
from asr.model.relative import sinusoids
from asr.model.rotary import rotations
from asr.model.subsampling import Subsampling
from asr.model.transformer import TransformerBlock

BLOCKS = {"conformer": ConformerBlock, "transformer": TransformerBlock, "e_branchformer": EBranchformerBlock}


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
        # The other blocks end in a norm of their own; pre-norm transformer blocks leave theirs to the stack.
        self.norm = nn.LayerNorm(config.dim) if config.kind == "transformer" else nn.Identity()

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Encode normalised features.

        Args:
            features: shape (B, T, M), zero in the padding.
            lengths: frames of each row, shape (B,).

        Returns:
            encoder_out of shape (B, T', D), zero in the padding, and lengths in encoder frames (B,).
        """
        outputs, lengths = self.outputs(features, lengths)
        return outputs[-1], lengths

    def outputs(self, features: Tensor, lengths: Tensor, layers: Collection[int] = ()) -> tuple[list[Tensor], Tensor]:
        """Encode, and give what stands after some of the blocks, too.

        Args:
            features: shape (B, T, M), zero in the padding.
            lengths: frames of each row, shape (B,).
            layers: blocks, counted from 1.

        Returns:
            Outputs after those blocks and, last, encoder_out, each (B, T', D), normalised and zero in the padding; and
            lengths in encoder frames (B,).
        """
        x, lengths = self.subsampling(features, lengths)
        mask = length_mask(lengths, x.shape[1])
        positions = self._positions(x.shape[1], x.device)
        outputs = []
        for depth, block in enumerate(self.blocks, start=1):
            if not self._skip(depth):
                x = self._run(block, x, mask, positions)
            if depth in layers:
                outputs.append(self.norm(x) * mask[:, :, None])
        return [*outputs, self.norm(x) * mask[:, :, None]], lengths

    def _positions(self, length: int, device: torch.device) -> Tensor:
        if self.config.positions == "relative":
            return sinusoids(length, self.config.dim, device)
        return rotations(length, self.config.dim // self.config.heads, device)

    def _run(self, block: nn.Module, x: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """Run one block; with checkpointing only its input is kept, and the rest is computed again on the way back."""
        if not (self.training and self.config.activation_checkpointing):
            return block(x, mask, positions)
        out = checkpoint(
            block,
            x,
            mask,
            positions,
            use_reentrant=False,
            context_fn=lambda: (nullcontext(), forgetful(block)),
        )
        return cast("Tensor", out)  # torch types it as anything

    def _skip(self, depth: int) -> bool:
        if not self.training or self.config.stochastic_depth == 0.0:
            return False
        return torch.rand(()).item() < self.config.stochastic_depth * depth / self.config.layers
