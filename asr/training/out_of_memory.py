"""A batch that does not fit into memory is split until it does; the step's gradient is the same.

The gradient is that of a sum over utterances, so halves give what the whole would have given. Ranks exchange gradients
once, after all their batches, so that one rank can split while the others wait for it as usual.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn

from asr.model.recognizer import Batch

log = logging.getLogger(__name__)


def backward_in_parts(model: nn.Module, batch: Batch, loss: Tensor | None, again: Callable[[Batch], Tensor]) -> int:
    """Add the gradient of a batch to that of the batches before it, in as many parts as memory asks for.

    Args:
        model: owns the weights.
        batch: the whole batch.
        loss: its loss, ready for the backward pass; None if the forward pass has failed already.
        again: computes the loss of a part, scaled as `loss` is.

    Returns:
        How often a part had to be split or, if it was one utterance, left out.
    """
    failures = 0
    waiting = [batch]
    while waiting:
        part = waiting.pop()
        earlier = _take_gradients(model)
        try:
            if part is batch and loss is None:
                raise torch.OutOfMemoryError
            (loss if part is batch and loss is not None else again(part)).backward()
        except torch.OutOfMemoryError:
            failures += 1
            loss = None
            _take_gradients(model)  # what a broken backward pass has left
            waiting += _halve(part)
        _give_gradients(model, earlier)
        if failures:
            gc.collect()
            torch.cuda.empty_cache()
    return failures


def _halve(batch: Batch) -> list[Batch]:
    """Split a batch by utterances; one utterance alone is given up."""
    rows = len(batch.ids)
    if rows == 1:
        log.warning("%s does not fit into memory even alone: left out of this step", batch.ids[0])
        return []
    log.warning("%d utterances do not fit into memory together: split in two", rows)
    return [_rows(batch, slice(0, rows // 2)), _rows(batch, slice(rows // 2, rows))]


def _rows(batch: Batch, rows: slice) -> Batch:
    longest, most = int(batch.lengths[rows].max()), int(batch.token_lengths[rows].max())
    return Batch(
        ids=batch.ids[rows],
        waveform=batch.waveform[rows, :longest],
        lengths=batch.lengths[rows],
        tokens=batch.tokens[rows, :most],
        token_lengths=batch.token_lengths[rows],
        seeds=batch.seeds[rows],
    )


def _take_gradients(model: nn.Module) -> list[Tensor | None]:
    gradients = [weight.grad for weight in model.parameters()]
    for weight in model.parameters():
        weight.grad = None
    return gradients


def _give_gradients(model: nn.Module, gradients: list[Tensor | None]) -> None:
    for weight, earlier in zip(model.parameters(), gradients, strict=True):
        if earlier is not None:
            weight.grad = earlier if weight.grad is None else weight.grad.add_(earlier)
