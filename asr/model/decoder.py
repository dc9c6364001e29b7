"""The decoder: every output token looks back at the audio.

Shapes: B batch, U tokens, T' encoder frames, D model dim, V vocabulary, N hypotheses of one utterance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from asr.features import length_mask
from asr.model.attention import KeyValue, MultiHeadAttention
from asr.model.config import DecoderConfig
from asr.model.dropout import Dropout
from asr.model.rotary import rotations
from asr.model.transformer import FeedForward


@dataclass
class DecoderCache:
    """What the decoder has computed already; grows by one position with each step."""

    written: list[KeyValue]
    """For each layer the keys and values of the tokens so far, each (B x N, heads, U, head dim)."""
    audio: list[KeyValue]
    """For each layer the keys and values of the audio, each (B, heads, T', head dim); shared by all N hypotheses."""
    audio_mask: Tensor
    """Valid audio frames, shape (B, 1, 1, T'), bool."""

    def select(self, rows: Tensor) -> None:
        """Keep hypotheses `rows` (B x N,) of what is written, as a beam does; the audio side is not touched."""
        self.written = [KeyValue(key[rows], value[rows]) for key, value in self.written]


class DecoderBlock(nn.Module):
    """Causal self-attention, cross-attention, feed-forward; each behind a norm."""

    def __init__(self, dim: int, config: DecoderConfig) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(dim) for _ in range(3)])
        self.self_attention = MultiHeadAttention(dim, config.heads)
        self.cross_attention = MultiHeadAttention(dim, config.heads, config.scoring)
        self.feed_forward = FeedForward(dim, config.feed_forward, config.dropout)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, audio: KeyValue, audio_mask: Tensor, causal: Tensor, rotary: Tensor) -> Tensor:
        """Transform all positions at once.

        Args:
            x: shape (B, U, D).
            audio: keys and values of the encoder's output, each (B, heads, T', head dim).
            audio_mask: shape (B, 1, 1, T').
            causal: shape (U, U), True where a position may see another.
            rotary: rotations of the positions, shape (U, head dim, 2).
        """
        normal = self.norms[0](x)
        out, _ = self.self_attention(normal, self.self_attention.project(normal, rotary), causal, rotary)
        x = x + self.dropout(out)
        out, _ = self.cross_attention(self.norms[1](x), audio, audio_mask)
        x = x + self.dropout(out)
        return x + self.feed_forward(self.norms[2](x))

    def step(
        self, x: Tensor, written: KeyValue, audio: KeyValue, audio_mask: Tensor, rotary: Tensor
    ) -> tuple[Tensor, KeyValue]:
        """Transform the newest position, x of shape (B x N, 1, D), and append it to what is written."""
        normal = self.norms[0](x)
        new = self.self_attention.project(normal, rotary)
        written = KeyValue(torch.cat((written.key, new.key), dim=2), torch.cat((written.value, new.value), dim=2))
        out, _ = self.self_attention(normal, written, None, rotary)
        x = x + out
        # The N hypotheses of an utterance are N queries to the same audio, so its keys are never copied.
        queries = self.norms[1](x).view(audio.key.shape[0], -1, x.shape[-1])  # (B, N, D)
        out, _ = self.cross_attention(queries, audio, audio_mask)
        x = x + out.reshape(x.shape)
        return x + self.feed_forward(self.norms[2](x)), written


class Decoder(nn.Module):
    """A pre-norm transformer decoder with tied input and output embeddings.

    Args:
        vocabulary: number of tokens V.
        dim: model dim D.
        config: sizes.
    """

    def __init__(self, vocabulary: int, dim: int, config: DecoderConfig) -> None:
        super().__init__()
        self.head_dim = dim // config.heads
        self.embedding = nn.Embedding(vocabulary, dim)
        nn.init.normal_(self.embedding.weight, std=dim**-0.5)  # tied to the output: logits start near unit variance
        self.scale = dim**0.5
        self.dropout = Dropout(config.dropout)
        blocks = nn.ModuleList([DecoderBlock(dim, config) for _ in range(config.layers)])
        self.blocks = cast("list[DecoderBlock]", blocks)  # a ModuleList tells type checkers nothing of its items
        self.norm = nn.LayerNorm(dim)

    def forward(self, tokens: Tensor, encoder_out: Tensor, lengths: Tensor) -> Tensor:
        """Score every next token of known texts (teacher forcing).

        Args:
            tokens: inputs that begin with the start token, shape (B, U), int64.
            encoder_out: shape (B, T', D).
            lengths: encoder frames of each row, shape (B,).

        Returns:
            Logits of shape (B, U, V).
        """
        x = self.dropout(self.embedding(tokens) * self.scale)  # (B, U, D)
        positions = tokens.shape[1]
        rotary = rotations(positions, self.head_dim, x.device)
        causal = torch.ones(positions, positions, dtype=torch.bool, device=x.device).tril()
        audio_mask = length_mask(lengths, encoder_out.shape[1])[:, None, None, :]
        for block in self.blocks:
            x = block(x, block.cross_attention.project(encoder_out), audio_mask, causal, rotary)
        return self._logits(x)

    def start(self, encoder_out: Tensor, lengths: Tensor, hypotheses: int = 1) -> DecoderCache:
        """Prepare step-by-step decoding: keys and values of the audio are computed once.

        Args:
            encoder_out: shape (B, T', D).
            lengths: encoder frames of each row, shape (B,).
            hypotheses: N, how many hypotheses of each utterance will be stepped side by side.
        """
        audio = [block.cross_attention.project(encoder_out) for block in self.blocks]
        empty = encoder_out.new_zeros(
            encoder_out.shape[0] * hypotheses, audio[0].key.shape[1], 0, self.head_dim
        )  # (B x N, heads, 0, head dim)
        mask = length_mask(lengths, encoder_out.shape[1])[:, None, None, :]
        return DecoderCache([KeyValue(empty, empty) for _ in self.blocks], audio, mask)

    def step(self, token: Tensor, cache: DecoderCache) -> Tensor:
        """Score the next token of each hypothesis.

        Args:
            token: the newest token of each hypothesis, shape (B x N,); all N of one utterance together.
            cache: from `start` or the step before; it is updated in place.

        Returns:
            Logits of shape (B x N, V).
        """
        x = self.embedding(token)[:, None] * self.scale  # (B x N, 1, D)
        rotary = rotations(1, self.head_dim, x.device, start=cache.written[0].key.shape[2])
        for layer, block in enumerate(self.blocks):
            x, cache.written[layer] = block.step(x, cache.written[layer], cache.audio[layer], cache.audio_mask, rotary)
        return self._logits(x)[:, 0]

    def _logits(self, x: Tensor) -> Tensor:
        return nn.functional.linear(self.norm(x), self.embedding.weight)  # (B, U, V)
