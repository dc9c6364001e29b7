"""A neural language model: a causal transformer over the recogniser's own tokens, on the recogniser's own attention.

Searches ask it as they ask an n-gram model (`asr.decoding.language_model`). Keys and values of every token that any
hypothesis has written lie in one pool, and a hypothesis is a row of places in it: a step computes the new tokens only,
and hypotheses are kept, copied and dropped without moving what was computed.

Shapes: B batch, U tokens, V vocabulary, D model dim, H heads, d head dim; R hypotheses, M of which move on, P places.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from asr.errors import ConfigError
from asr.features import length_mask
from asr.model.attention import KeyValue, MultiHeadAttention
from asr.model.dropout import Dropout
from asr.model.rotary import rotate, rotations
from asr.model.transformer import FeedForward
from asr.tokenizer import BLANK, START

IMPOSSIBLE = -1e4  # logit of what is never written; finite, so that a weight of 0 makes it 0
ROOM = 1024  # places of a new pool


@dataclass(frozen=True)
class LanguageModelConfig:
    """Sizes of a neural language model."""

    layers: int = 4
    """Blocks."""
    dim: int = 256
    """Width; a multiple of 2 x `heads`."""
    heads: int = 4
    """Attention heads."""
    feed_forward: int = 1024
    """Hidden width of the feed-forward modules."""
    dropout: float = 0.0
    """Chance of dropping an output of each module, in training; over 0 where texts are few."""

    def __post_init__(self) -> None:
        """Check every field."""
        if min(self.layers, self.dim, self.heads, self.feed_forward) < 1:
            raise ConfigError("language model: layers, dim, heads and feed_forward must be at least 1")
        if self.dim % (2 * self.heads):
            raise ConfigError(f"language model: dim {self.dim} must be a multiple of 2 x heads ({2 * self.heads})")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"language model: dropout must lie in 0 <= dropout < 1, got {self.dropout}")


class _Pool:
    """Keys and values of tokens written so far, each layer's (P, H, d) twice."""

    def __init__(self, layers: list[KeyValue], used: int = 0) -> None:
        self.layers = layers
        self.used = used


@dataclass(frozen=True)
class TextState:
    """Where each hypothesis stands; a step gives a new state, and the old one stays good."""

    pool: _Pool
    """What was computed, shared by all states of a search."""
    paths: Tensor
    """Places in the pool of each hypothesis' tokens, shape (R, U), 0 behind its end."""
    lengths: Tensor
    """Tokens of each hypothesis, the start token included, shape (R,)."""
    log_probs: Tensor
    """The answer for each, shape (R, V)."""


class LanguageModelBlock(nn.Module):
    """Causal self-attention and feed-forward, each behind a norm."""

    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(config.dim) for _ in range(2)])
        self.attention = MultiHeadAttention(config.dim, config.heads)
        self.feed_forward = FeedForward(config.dim, config.feed_forward, config.dropout)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, causal: Tensor, rotary: Tensor) -> Tensor:
        """Transform x (B, U, D); causal is (U, U), True where a position may see another; rotary (U, d, 2)."""
        normal = self.norms[0](x)
        out, _ = self.attention(normal, self.attention.project(normal, rotary), causal, rotary)
        x = x + self.dropout(out)
        return x + self.feed_forward(self.norms[1](x))

    def step(self, x: Tensor, pool: KeyValue, paths: Tensor, mask: Tensor, places: Tensor, rotary: Tensor) -> Tensor:
        """Transform the newest token of M hypotheses, each at a position of its own.

        Args:
            x: shape (M, D).
            pool: this layer's keys and values, each (P, H, d); the new ones are written into it.
            paths: places of each hypothesis' tokens, shape (M, U).
            mask: which of them are there, shape (M, 1, 1, U).
            places: where the new tokens go, shape (M,).
            rotary: rotation of each hypothesis' position, shape (M, d, 2).
        """
        normal = self.norms[0](x)[None]  # (1, M, D): the hypotheses stand where positions do
        new = self.attention.project(normal, rotary)
        for kept, added in zip(pool, new, strict=True):
            kept[places] = added[0].transpose(0, 1).to(kept.dtype)  # which is another one under autocast
        written = KeyValue(pool.key[paths].transpose(1, 2), pool.value[paths].transpose(1, 2))  # (M, H, U, d)
        query = rotate(self.attention.split(self.attention.query(normal)), rotary)  # (1, H, M, d)
        out, _ = self.attention.attend(query.permute(2, 1, 0, 3), written, mask, None, False)  # (M, 1, D)
        x = x + out[:, 0]
        return x + self.feed_forward(self.norms[1](x))


class NeuralLanguageModel(nn.Module):
    """A pre-norm transformer with rotary positions and tied embeddings; see `asr.decoding.language_model`.

    Args:
        vocabulary: number of tokens V.
        config: sizes.
    """

    never: Tensor

    def __init__(self, vocabulary: int, config: LanguageModelConfig) -> None:
        super().__init__()
        self.config = config
        self.vocabulary = vocabulary
        self.head_dim = config.dim // config.heads
        self.embedding = nn.Embedding(vocabulary, config.dim)
        nn.init.normal_(self.embedding.weight, std=config.dim**-0.5)  # tied: logits start near unit variance
        self.scale = config.dim**0.5
        self.dropout = Dropout(config.dropout)
        blocks = nn.ModuleList([LanguageModelBlock(config) for _ in range(config.layers)])
        self.blocks = cast("list[LanguageModelBlock]", blocks)
        self.norm = nn.LayerNorm(config.dim)
        never = torch.zeros(vocabulary)
        never[[BLANK, START]] = IMPOSSIBLE
        self.register_buffer("never", never, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Give the log-probabilities of every next token of known texts.

        Args:
            tokens: inputs that begin with the start token, shape (B, U), int64.

        Returns:
            Natural log-probabilities, shape (B, U, V).
        """
        x = self.dropout(self.embedding(tokens) * self.scale)  # (B, U, D)
        rotary = rotations(tokens.shape[1], self.head_dim, x.device)
        causal = torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool, device=x.device).tril()
        for block in self.blocks:
            x = block(x, causal, rotary)
        return self._log_probs(x)

    @torch.no_grad()
    def start(self, rows: int, device: torch.device) -> tuple[Tensor, TextState]:
        """Begin `rows` texts with the start token."""
        self.to(device)
        shape = (ROOM, self.config.heads, self.head_dim)
        pool = _Pool([KeyValue(*torch.zeros(2, *shape, device=device)) for _ in self.blocks])
        nothing = torch.zeros(1, 0, dtype=torch.int64, device=device)
        empty = torch.zeros(1, self.vocabulary, device=device)
        state = TextState(pool, nothing, nothing.new_zeros(1), empty)
        _, state = self.step(nothing.new_full((1,), START), state)
        state = self.select(nothing.new_zeros(rows), state)
        return state.log_probs, state

    @torch.no_grad()
    def step(self, tokens: Tensor, state: TextState) -> tuple[Tensor, TextState]:
        """Append one token, shape (R,), to each row; rows with BLANK stand still."""
        moving = (tokens != BLANK).nonzero()[:, 0]
        if not len(moving):
            return state.log_probs, state
        pool, paths = _room(state, len(moving))
        places = torch.arange(pool.used, pool.used + len(moving), device=tokens.device)
        pool.used += len(moving)
        positions = state.lengths[moving]
        longest = int(positions.max()) + 1
        paths = nn.functional.pad(paths, (0, max(0, longest - paths.shape[1])))  # a copy: the old state keeps its own
        paths = paths.index_put((moving, positions), places)
        lengths = state.lengths.index_add(0, moving, torch.ones_like(moving))
        mine, mask = paths[moving, :longest], length_mask(positions + 1, longest)[:, None, None, :]
        rotary = rotations(longest, self.head_dim, tokens.device)[positions]
        x = self.embedding(tokens[moving]) * self.scale  # (M, D)
        for block, layer in zip(self.blocks, pool.layers, strict=True):
            x = block.step(x, layer, mine, mask, places, rotary)
        log_probs = state.log_probs.index_copy(0, moving, self._log_probs(x))
        return log_probs, TextState(pool, paths, lengths, log_probs)

    def select(self, rows: Tensor, state: TextState) -> TextState:
        """Keep the texts `rows`, shape (R,), in that order."""
        return TextState(state.pool, state.paths[rows], state.lengths[rows], state.log_probs[rows])

    def futures(self, state: TextState) -> None:
        """Tell any two texts apart."""

    def _log_probs(self, x: Tensor) -> Tensor:
        logits = nn.functional.linear(self.norm(x), self.embedding.weight) + self.never
        return logits.float().log_softmax(dim=-1)


def _room(state: TextState, count: int) -> tuple[_Pool, Tensor]:
    """Make sure that the pool has `count` places left: what no hypothesis holds any more is left behind."""
    pool = state.pool
    if pool.used + count <= len(pool.layers[0].key):
        return pool, state.paths
    held, paths = torch.cat((state.paths.new_zeros(1), state.paths.flatten())).unique(return_inverse=True)
    room = max(ROOM, 2 * (len(held) + count))
    spare = room - len(held)
    layers = [
        KeyValue(*(nn.functional.pad(part[held], (0, 0, 0, 0, 0, spare)) for part in layer)) for layer in pool.layers
    ]
    return _Pool(layers, len(held)), paths[1:].view_as(state.paths)
