"""Looking inside: every attention weight of a forward pass, from the explicit path, without a word in the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from asr.model.attention import MultiHeadAttention


@contextmanager
def attention_weights(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Record what each attention layer weighs, while this context lasts.

    Args:
        model: any part of a recogniser.

    Yields:
        A dictionary that fills while the model runs: a layer's name, such as `encoder.blocks.0.attention.attention` or
        `decoder.blocks.1.cross_attention`, to its latest weights (B, H, Q, K). Each row sums to 1, or to 0 where all is
        padding.
    """
    weights: dict[str, Tensor] = {}

    def ask(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return args, kwargs | {"return_weights": True}

    def keeper(name: str) -> Any:
        def keep(layer: nn.Module, args: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
            weights[name] = output[1].detach()

        return keep

    layers = [(name, part) for name, part in model.named_modules() if isinstance(part, MultiHeadAttention)]
    hooks = [part.register_forward_pre_hook(ask, with_kwargs=True) for _, part in layers]
    hooks += [part.register_forward_hook(keeper(name)) for name, part in layers]
    try:
        yield weights
    finally:
        for hook in hooks:
            hook.remove()
