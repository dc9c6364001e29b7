"""What runs of every kind have in common: how they begin, go on, and Lightning's trainer."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lightning
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback

from asr.errors import ConfigError
from asr.training.config import OptimizerConfig, TrainingConfig
from asr.training.progress import on_terminal
from asr.training.resume import AtomicCheckpointIO, KeepCheckpoints, checkpoints_in, newest_whole

log = logging.getLogger(__name__)


def begin(run: Path, resume: bool, seed: int) -> None:
    """Make sure that the run folder is what it is taken for, and seed every generator.

    Raises:
        ConfigError: the folder holds a run already and `resume` is not asked for, or holds none and it is.
    """
    begun = bool(checkpoints_in(run / "checkpoints"))
    if resume and not begun:
        raise ConfigError(f"{run}: nothing to resume, there is no checkpoints/step-*.ckpt")
    if begun and not resume:
        raise ConfigError(f"{run}: holds a run already; go on with --resume, or name another folder with run=FOLDER")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # it advertises, and repeats what the bar says
    lightning.seed_everything(seed, workers=True, verbose=False)


def keep_optimizer(config: OptimizerConfig, begun: Mapping[str, Any]) -> OptimizerConfig:
    """Keep what the saved moments hang on; numbers may change, and a line says which do.

    Args:
        config: as the run is told to go on.
        begun: what RUN/config.yaml has under `optimizer`.
    """
    config = replace(config, name=begun["name"], layer_decay=begun["layer_decay"])
    for key, value in asdict(config).items():
        if key in begun and begun[key] != value:
            log.warning("optimizer.%s is %s from here on, it was %s", key, value, begun[key])
    return config


def go_on(run: Path) -> Path:
    """Give the newest whole checkpoint; the metrics so far move aside, as the logger would begin their file again.

    Raises:
        CheckpointError: there is none.
    """
    newest = newest_whole(run / "checkpoints")
    sitting = len(list(run.glob("metrics-*.csv"))) + 1
    with suppress(FileNotFoundError):  # there are none yet, or another rank was first
        (run / "metrics.csv").replace(run / f"metrics-{sitting:03}.csv")
    return newest


def make_trainer(
    run: Path, training: TrainingConfig, optimizer: OptimizerConfig, callbacks: list[Callback], **more: Any
) -> lightning.Trainer:
    """Make a trainer that writes its checkpoints to the run folder.

    Args:
        run: the folder.
        training: how long, and what is kept.
        optimizer: how weights move.
        callbacks: what else is to happen.
        more: arguments of Lightning's that are not the same in every kind of run.

    Raises:
        ConfigError: there is no such device, precision or strategy.
    """
    try:
        return lightning.Trainer(
            accelerator=training.accelerator,
            plugins=[AtomicCheckpointIO()],
            max_epochs=training.epochs,
            limit_train_batches=training.batches or None,
            check_val_every_n_epoch=min(training.validate_every, training.epochs),
            accumulate_grad_batches=optimizer.accumulate,
            gradient_clip_val=optimizer.gradient_clip or None,
            use_distributed_sampler=False,  # the plan already gives each rank its share
            num_sanity_val_steps=0,
            log_every_n_steps=10,
            callbacks=[
                *callbacks,
                KeepCheckpoints(run / "checkpoints", training.checkpoint_minutes, training.keep_last),
            ],
            enable_checkpointing=False,  # KeepCheckpoints does it
            enable_model_summary=False,
            enable_progress_bar=on_terminal(),
            **more,
        )
    except (MisconfigurationException, ValueError) as error:
        raise ConfigError(f"training: {' '.join(str(error).split())}") from error
