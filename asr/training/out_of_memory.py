"""A batch that does not fit into memory is split until it does; the step's gradient is the same.

The gradient is that of a sum over utterances, so halves give what the whole would have given. Ranks exchange gradients
once, after all their batches, so that one rank can split while the others wait for it as usual.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

import torch
from lightning.pytorch.utilities.memory import garbage_collection_cuda, is_oom_error
from torch import Tensor, nn

from asr.losses import Losses
from asr.model.recognizer import Batch

log = logging.getLogger(__name__)


class Scored(NamedTuple):
    """A batch, or a part of one, after its forward pass."""

    loss: Tensor
    """What the backward pass begins with: the total, scaled as the precision asks for."""
    losses: Losses
    """As the model gave them."""


class Outcome(NamedTuple):
    """What became of a batch."""

    losses: list[Losses]
    """Of the parts that went through; they add up to those of the batch."""
    failures: int
    """How often memory ran out."""
    left_out: list[str]
    """Ids of utterances that do not fit even alone."""


def ran_out(error: RuntimeError) -> bool:
    """Tell whether an error says that a GPU's or the CPU's memory ran out."""
    return isinstance(error, torch.OutOfMemoryError) or is_oom_error(error)


def backward_in_parts(model: nn.Module, batch: Batch, whole: list[Scored], again: Callable[[Batch], Scored]) -> Outcome:
    """Add the gradient of a batch to that of the batches before it, in as many parts as memory asks for.

    Args:
        model: owns the weights.
        batch: the whole batch.
        whole: it alone, after its forward pass, or nothing if that has failed already. It is taken out of the list, so
            that nobody holds on to what the pass has kept while its parts are tried.
        again: runs the forward pass of a part.

    Returns:
        What was heard and what was not. Where nothing was, gradients are zero rather than absent: the other ranks wait
        for this one's, and a gradient scaler wants to see some.
    """
    heard: list[Losses] = []
    left_out: list[str] = []
    failures = 0
    waiting = [batch]
    while waiting:
        part = waiting.pop()
        earlier = _take_gradients(model)
        fits = bool(whole) or failures > 0 or part is not batch
        try:
            if fits:
                scored = whole.pop() if whole else again(part)
                scored.loss.backward()
                heard.append(Losses(*(value.detach() for value in scored.losses)))
        except RuntimeError as error:
            if not ran_out(error):
                raise
            fits = False
        scored = None  # holds what the forward pass has kept
        if not fits:
            failures += 1
            _take_gradients(model)  # what a broken backward pass has left
            garbage_collection_cuda()
            waiting += _halve(part)
            left_out += part.ids if len(part.ids) == 1 else []
        _give_gradients(model, earlier)
    if not heard:
        _give_gradients(model, [torch.zeros_like(w) if w.requires_grad else None for w in model.parameters()])
    return Outcome(heard, failures, left_out)


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
