"""Looking inside: every attention weight of a forward pass, from the explicit path, without a word in the model."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from asr.features import length_mask
from asr.model.attention import MultiHeadAttention


@contextmanager
def attention_weights(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Record what each attention layer weighs, while this context lasts.

    Args:
        model: any part of a recogniser. Other threads may run it meanwhile; they are not recorded.

    Yields:
        A dictionary that fills while the model runs: a layer's name, such as `encoder.blocks.0.attention.attention` or
        `decoder.blocks.1.cross_attention`, to its latest weights (B, H, Q, K). Each row sums to 1, or to 0 where all is
        padding.
    """
    weights: dict[str, Tensor] = {}
    thread = threading.get_ident()

    def ask(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Any:
        # Torch gives no keywords to a hook that another thread removes at this moment.
        if kwargs is None or threading.get_ident() != thread:
            return None
        return args, kwargs | {"return_weights": True}

    def keeper(name: str) -> Any:
        def keep(layer: nn.Module, args: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
            if threading.get_ident() == thread:
                weights[name] = output[1].detach()

        return keep

    with ExitStack() as hooks:
        for name, part in model.named_modules():
            if isinstance(part, MultiHeadAttention):
                hooks.callback(part.register_forward_pre_hook(ask, with_kwargs=True).remove)
                hooks.callback(part.register_forward_hook(keeper(name)).remove)
        yield weights


def cross_attention(weights: dict[str, Tensor]) -> Tensor:
    """Pick the decoder's looks at the audio out of what was recorded: every head of every layer, (B, N, U, T')."""
    return torch.cat([weight for name, weight in weights.items() if name.endswith("cross_attention")], dim=1)


def mean_frames(heads: Tensor) -> Tensor:
    """Tell the mean frame that each head looks at for each token: (B, N, U, T') becomes (B, N, U), float32."""
    return heads.float() @ torch.arange(heads.shape[-1], device=heads.device, dtype=torch.float32)


def progress(looks: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Fit a straight line to where heads look, token by token.

    Args:
        looks: from `mean_frames`, shape (B, N, U).
        counts: tokens of each text, shape (B,).

    Returns:
        Correlation of looks and tokens' numbers, 1 for a head that moves forward all the time, and frames that the line
        moves on over the text; each (B, N).
    """
    number = torch.arange(looks.shape[2], device=looks.device, dtype=torch.float32)
    valid = length_mask(counts, looks.shape[2])[:, None]  # (B, 1, U)
    total = counts.clamp(min=1)[:, None, None]
    x = (number - (number * valid).sum(dim=2, keepdim=True) / total) * valid
    y = (looks - (looks * valid).sum(dim=2, keepdim=True) / total) * valid
    shared, square = (x * y).sum(dim=2), (x * x).sum(dim=2)
    correlation = shared / (square * (y * y).sum(dim=2)).sqrt().clamp(min=1e-6)
    return correlation, shared / square.clamp(min=1e-6) * counts[:, None]
