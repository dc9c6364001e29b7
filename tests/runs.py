"""Small training runs that several tests make."""

from __future__ import annotations

from pathlib import Path

import torch

from asr.config import compose
from asr.training.config import TrainConfig
from asr.training.resume import checkpoints_in


def composed(recipe: str, manifest: Path, run: Path, *more: str) -> TrainConfig:
    overrides = [f"data.train=[{manifest}]", f"data.valid=[{manifest}]", f"run={run}", "data.workers=0"]
    return compose(TrainConfig, recipe, [*overrides, "training.accelerator=cpu", *more])


def gradients_apart(run: Path, other: Path) -> float:
    """Largest difference of the optimiser's running means of gradients, as a share of the largest of them.

    Weights say less: Adam makes a whole step of a gradient that is nothing but rounding.
    """
    means = []
    for folder in (run, other):
        saved = torch.load(checkpoints_in(folder / "checkpoints")[0], weights_only=True)
        moments = saved["optimizer_states"][0]["state"].values()
        means.append(torch.cat([moment["exp_avg"].flatten() for moment in moments]))
    one, two = means
    return float((one - two).abs().max() / one.abs().max())


TINY = (
    "model.encoder.layers=1",
    "model.encoder.dim=16",
    "model.encoder.feed_forward=16",
    "model.encoder.subsampling_channels=4",
    "model.decoder.feed_forward=16",
    "data.batch_seconds=60",
    "tokenizer.vocabulary=60",
)
