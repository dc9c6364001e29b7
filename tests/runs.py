"""Small training runs that several tests make."""

from __future__ import annotations

from pathlib import Path

from asr.config import compose
from asr.training.config import TrainConfig


def composed(recipe: str, manifest: Path, run: Path, *more: str) -> TrainConfig:
    overrides = [f"data.train=[{manifest}]", f"data.valid=[{manifest}]", f"run={run}", "data.workers=0"]
    return compose(TrainConfig, recipe, [*overrides, "training.accelerator=cpu", *more])


TINY = (
    "model.encoder.layers=1",
    "model.encoder.dim=16",
    "model.encoder.feed_forward=16",
    "model.encoder.subsampling_channels=4",
    "model.decoder.feed_forward=16",
    "data.batch_seconds=60",
    "tokenizer.vocabulary=60",
)
