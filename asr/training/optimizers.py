"""AdamW or Muon over groups of weights, and the learning rate's way up and down."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from asr.training.config import OptimizerConfig

VECTORS = ("_bias", ".energy")  # names that end so hold one vector for each head
BETAS = (0.9, 0.98)  # the usual choice for transformers: the second moment follows within fifty steps


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon for matrices and AdamW for the rest, as one optimiser with one list of groups.

    Args:
        matrices: groups for Muon; it takes two-dimensional weights only.
        others: groups for AdamW.
        learning_rate: of groups that name none.
    """

    def __init__(self, matrices: list[dict[str, Any]], others: list[dict[str, Any]], learning_rate: float) -> None:
        self.parts: list[torch.optim.Optimizer] = []  # torch refuses an optimiser of nothing
        if matrices:
            self.parts.append(torch.optim.Muon(matrices, lr=learning_rate, adjust_lr_fn="match_rms_adamw"))
        if others:  # adapters alone are all matrices
            self.parts.append(torch.optim.AdamW(others, lr=learning_rate, betas=BETAS, fused=True))
        super().__init__([group for part in self.parts for group in part.param_groups], {})
        # A schedule changes the groups it is given: they must be the very ones that the parts read.
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Run the closure once, then let both take their step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Give the states of both."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the states of both."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self.parts for group in part.param_groups]


def make_optimizer(model: nn.Module, config: OptimizerConfig, fused: bool = True) -> torch.optim.Optimizer:
    """Make the optimiser over the weights that learn.

    Only matrices decay, since norms, biases and embeddings have scales of their own.

    Args:
        model: the recogniser.
        config: which optimiser, and its rates.
        fused: let AdamW take its step in one kernel; with mixed precision Lightning refuses to clip gradients for it,
            since with fp16 that kernel undoes their scaling only afterwards.
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    top = max(_block(name) for name, _ in model.named_parameters())
    groups: dict[tuple[bool, bool, float], dict[str, Any]] = {}
    for name, weight in model.named_parameters():
        if not weight.requires_grad:
            continue
        matrix = weight.ndim >= 2 and id(weight) not in embeddings and not name.endswith(VECTORS)
        # Convolutions' filters are matrices, too, but Muon takes no stacks; its papers leave it no output head either.
        flat = matrix and weight.ndim == 2 and not name.startswith("ctc_head.")
        below = name.startswith(("encoder.subsampling.", "encoder.blocks."))  # a norm after the blocks is above them
        share = config.layer_decay ** (top - _block(name)) if below else 1.0
        decay = config.weight_decay if matrix else 0.0
        rate = config.learning_rate * share
        group = groups.setdefault((flat, matrix, share), {"params": [], "weight_decay": decay, "lr": rate})
        group["params"].append(weight)
    if config.name == "muon":
        matrices = [group for (flat, _, _), group in groups.items() if flat]
        others = [group for (flat, _, _), group in groups.items() if not flat]
        return MuonWithAdamW(matrices, others, config.learning_rate)
    return torch.optim.AdamW(list(groups.values()), lr=config.learning_rate, betas=BETAS, fused=fused)


def _block(name: str) -> int:
    """Give the encoder block a weight belongs to, from 0; subsampling counts as the first."""
    found = re.match(r"encoder\.blocks\.(\d+)\.", name)
    return int(found[1]) if found else 0


def make_schedule(optimizer: torch.optim.Optimizer, config: OptimizerConfig, steps: int) -> LambdaLR:
    """Make the schedule of the learning rate, one value for each optimiser step.

    Args:
        optimizer: holds the peak rates.
        config: which schedule.
        steps: optimiser steps of the whole run.
    """
    return LambdaLR(optimizer, lambda step: rate_share(step, config, steps))


def set_rates(schedule: LambdaLR, rates: list[tuple[float, float]]) -> None:
    """Let a run that goes on take its rates from its configuration: its checkpoint has brought those of before.

    Args:
        schedule: at the step where the run goes on; it and its optimiser have loaded their states.
        rates: peak learning rate and weight decay of each group, as `configured_rates` gave them.
    """
    schedule.base_lrs = [rate for rate, _ in rates]
    for group, (rate, decay), share in zip(schedule.optimizer.param_groups, rates, schedule.lr_lambdas, strict=True):
        group["initial_lr"], group["weight_decay"] = rate, decay
        group["lr"] = rate * share(schedule.last_epoch)


def configured_rates(optimizer: torch.optim.Optimizer) -> list[tuple[float, float]]:
    """Give peak learning rate and weight decay of each group of an optimiser that has its schedule."""
    return [(group["initial_lr"], group["weight_decay"]) for group in optimizer.param_groups]


def warmup(config: OptimizerConfig, steps: int) -> int:
    """Give the steps in which the rate rises, of so many: a short run must reach its peak, too."""
    return min(config.warmup_steps, max(1, steps // 2))


def rate_share(step: int, config: OptimizerConfig, steps: int) -> float:
    """Give the learning rate at a step (from 0) as a share of its peak."""
    rising = warmup(config, steps)
    if step < rising:
        return (step + 1) / rising
    if config.schedule == "inverse_sqrt":
        return math.sqrt(rising / (step + 1))
    if config.schedule == "wsd":
        decaying = max(1, int(config.decay_share * (steps - rising)))
        left = min(1.0, max(0.0, (steps - step) / decaying))
        return config.final_share + (1 - config.final_share) * left
    progress = min(1.0, (step - rising) / max(1, steps - rising))
    return config.final_share + (1 - config.final_share) * 0.5 * (1 + math.cos(math.pi * progress))
