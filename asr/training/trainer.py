"""What runs of every kind have in common: how they begin, go on, and Lightning's trainer."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lightning
import torch
import yaml
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback

from asr.errors import ConfigError
from asr.training.config import OptimizerConfig, TrainingConfig
from asr.training.progress import on_terminal
from asr.training.resume import AtomicCheckpointIO, KeepCheckpoints, RescaleSchedule, checkpoints_in, newest_whole

log = logging.getLogger(__name__)

KEPT = ("model.", "tokenizer.", "finetune.", "optimizer.name", "optimizer.layer_decay")


def begin(run: Path, resume: bool, seed: int) -> None:
    """Make sure that the run folder is what it is taken for, and seed every generator.

    Raises:
        ConfigError: the folder holds a run already and `resume` is not asked for, or holds none and it is.
    """
    begun = bool(checkpoints_in(run / "checkpoints"))
    if resume and not begun:
        raise ConfigError(f"{run}: nothing to resume, there is no checkpoints/step-*.ckpt")
    if not resume and (begun or (run / "model.safetensors").is_file()):
        raise ConfigError(f"{run}: holds a run already; go on with --resume, or name another folder with run=FOLDER")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # it advertises, and repeats what the bar says
    lightning.seed_everything(seed, workers=True, verbose=False)


def keep_optimizer(config: OptimizerConfig, begun: Mapping[str, Any]) -> OptimizerConfig:
    """Keep what the saved moments hang on; `begun` is what RUN/config.yaml has under `optimizer`."""
    return replace(config, name=begun["name"], layer_decay=begun["layer_decay"])


def tell_changes(config: Any, begun: Mapping[str, Any]) -> None:
    """Say what a run goes on with that is not as it was: a forgotten override changes the whole plan.

    Args:
        config: as the run goes on.
        begun: what RUN/config.yaml holds.
    """
    for name, value in _flat(yaml.safe_load(yaml.safe_dump(asdict(config)))).items():  # as it will stand there
        before = _flat(begun).get(name, value)
        if before != value:
            log.warning("%s is %s from here on, it was %s", name, value, before)


def refuse_kept(overrides: Sequence[str], config: Any) -> None:
    """Refuse changes to what a run that goes on keeps as it began.

    Args:
        overrides: the changes, as on the command line; those that say what the run has are welcome.
        config: composed with them.

    Raises:
        ConfigError: it names the first of them.
    """
    begun = Path(config.run) / "config.yaml"
    if not begun.is_file():  # there is nothing to go on with, as `begin` says
        return
    keys = tuple(f"{override.partition('=')[0]}." for override in overrides)
    now, before = (_flat(yaml.safe_load(text)) for text in (yaml.safe_dump(asdict(config)), begun.read_text()))
    for name, value in now.items():
        if f"{name}.".startswith(keys) and name.startswith(KEPT) and before.get(name, value) != value:
            raise ConfigError(
                f"{name}={value}: a run keeps what it began with, {before[name]}: leave it out, or begin another run"
            )


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


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


def hardware(training: TrainingConfig) -> str:
    """Name what trains: `auto` is CUDA where there is any, else the CPU, since Apple's GPUs lack CTC's loss."""
    if training.accelerator != "auto":
        return training.accelerator
    return "cuda" if torch.cuda.is_available() else "cpu"


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
    plugins: list[Any] = [AtomicCheckpointIO()]
    if SLURMEnvironment.detect():  # KeepCheckpoints saves; Lightning would do so, too, elsewhere and within a step
        plugins.append(SLURMEnvironment(auto_requeue=False))
    try:
        return lightning.Trainer(
            accelerator=hardware(training),
            plugins=plugins,
            default_root_dir=run,
            max_epochs=training.epochs,
            limit_train_batches=training.batches or None,
            check_val_every_n_epoch=min(training.validate_every, training.epochs),
            accumulate_grad_batches=optimizer.accumulate,
            gradient_clip_val=optimizer.gradient_clip or None,
            use_distributed_sampler=False,  # the plan already gives each rank its share
            num_sanity_val_steps=0,
            log_every_n_steps=10,
            callbacks=[
                RescaleSchedule(),
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
