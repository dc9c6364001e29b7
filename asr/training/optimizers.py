"""AdamW over two groups of weights, and the learning rate's way up and down."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from asr.training.config import OptimizerConfig


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """Make AdamW; only matrices decay, since norms, biases and embeddings have scales of their own."""
    spared = {
        id(weight) for module in model.modules() if isinstance(module, nn.Embedding) for weight in [module.weight]
    }
    decayed, free = [], []
    for weight in model.parameters():
        (free if weight.ndim < 2 or id(weight) in spared else decayed).append(weight)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98), fused=True)


def make_schedule(optimizer: torch.optim.Optimizer, config: OptimizerConfig, steps: int) -> LambdaLR:
    """Make the schedule of the learning rate, one value for each optimiser step.

    Args:
        optimizer: holds the peak rate.
        config: which schedule.
        steps: optimiser steps of the whole run.
    """
    return LambdaLR(optimizer, lambda step: rate_share(step, config, steps))


def rate_share(step: int, config: OptimizerConfig, steps: int) -> float:
    """Give the learning rate at a step (from 0) as a share of its peak."""
    warmup = min(config.warmup_steps, max(1, steps // 2))  # a short run must reach its peak, too
    if step < warmup:
        return (step + 1) / warmup
    if config.schedule == "inverse_sqrt":
        return math.sqrt(warmup / (step + 1))
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return config.final_share + (1 - config.final_share) * 0.5 * (1 + math.cos(math.pi * progress))
