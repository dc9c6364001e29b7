"""Checkpoints to go on from: whole or not at all; every few minutes, after each epoch, and when told to stop."""

from __future__ import annotations

import logging
import signal
import threading
import time
import zipfile
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import lightning
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback

from asr.datamodule import STOP_SIGNALS
from asr.errors import CheckpointError, StoppedError, WriteError
from asr.files import replacing

log = logging.getLogger(__name__)

ONE_STOP = 2.0  # seconds: schedulers, launchers and `asr recipe` pass a signal on that the group has got already


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write beside the file, then rename; a full disk costs that checkpoint, not the run."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write one file, or say why not."""
        path = Path(path)
        try:
            with replacing(path) as temporary:
                torch.save(checkpoint, temporary)
        except (WriteError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError, without the path
            said = error if isinstance(error, WriteError) else f"{path}: cannot be written: {error}"
            log.error("%s; training goes on, the checkpoint before it stays", said)


class KeepCheckpoints(Callback):
    """Save RUN/checkpoints/step-N.ckpt; it must be the last callback, so that the others have done their part.

    The first SIGTERM or Ctrl-C lets the step come to its end, saves, and stops; another, seconds later, stops at once.

    Args:
        folder: where to.
        minutes: time between checkpoints inside an epoch.
        keep: how many are kept.
    """

    def __init__(self, folder: Path, minutes: float, keep: int) -> None:
        self.folder = folder
        self.minutes = minutes
        self.keep = keep
        self.signal = 0
        self.signalled_at = 0.0
        self.saved_at = time.monotonic()
        self.step = 0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Listen for signals, in Lightning's place."""
        self.saved_at, self.step = time.monotonic(), trainer.global_step
        if trainer.is_global_zero:
            for left in self.folder.glob(".*-step-*.ckpt"):  # by a process that was killed while it wrote
                left.unlink(missing_ok=True)
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                signal.signal(number, self._note)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is time to, or if the run is to stop.

        Raises:
            StoppedError: the run was told to stop, and is saved.
        """
        stepped = trainer.global_step > self.step
        self.step = trainer.global_step
        if not stepped:  # gradients that wait for the next batch are not saved
            return
        if batch_idx + 1 >= trainer.num_training_batches:  # saved here, the epoch would count as done, not validated
            return
        late = time.monotonic() - self.saved_at > 60 * self.minutes
        if _any_rank(trainer, bool(self.signal)):
            self._stop(self._save(trainer))
        if _any_rank(trainer, late):
            self._save(trainer)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Save the end of an epoch, validation included.

        Raises:
            StoppedError: the run was told to stop, is saved, and has another epoch before it.
        """
        saved = self._save(trainer)
        if _any_rank(trainer, bool(self.signal)) and trainer.current_epoch + 1 != trainer.max_epochs:
            self._stop(saved)

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Give the signals back."""
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal:
            if time.monotonic() - self.signalled_at > ONE_STOP:
                raise KeyboardInterrupt
            return
        self.signal, self.signalled_at = number, time.monotonic()
        log.warning("stopping after this step; once more to stop at once")

    def _stop(self, saved: bool) -> NoReturn:
        how = "saved; go on" if saved else "not saved (see above); go on from the checkpoint before"
        raise StoppedError(f"{self.folder.parent}: stopped and {how} with --resume", self.signal)

    def _save(self, trainer: lightning.Trainer) -> bool:
        """Save, and tell whether it is there: on the first rank, which alone can know."""
        path = self.folder / f"step-{trainer.global_step:09}.ckpt"
        trainer.save_checkpoint(path, weights_only=False)
        self.saved_at = time.monotonic()
        if not trainer.is_global_zero:
            return True
        if saved := path.is_file():  # it is not, if the disk is full
            for old in checkpoints_in(self.folder)[self.keep :]:
                old.unlink()
        return saved


class RescaleSchedule(Callback):
    """Let the learning rate go on at the same share of its way where an epoch has another number of steps than before.

    So it is with another number of devices, `optimizer.accumulate` or `data.batch_seconds`: the schedule counts steps.
    """

    def __init__(self) -> None:
        self.epoch_steps = 0.0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Count the steps so far as if there had always been as many in an epoch as now."""
        steps = int(trainer.estimated_stepping_batches) / max(1, trainer.max_epochs or 1)
        schedule = trainer.lr_scheduler_configs[0].scheduler
        schedule.last_epoch = round(schedule.last_epoch * steps / (self.epoch_steps or steps))
        self.epoch_steps = steps

    def state_dict(self) -> dict[str, Any]:
        """Remember the steps of an epoch."""
        return {"epoch_steps": self.epoch_steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them from the run that goes on."""
        self.epoch_steps = state_dict["epoch_steps"]


def checkpoints_in(folder: Path) -> list[Path]:
    """List a run's checkpoints, newest first."""
    return sorted(folder.glob("step-*.ckpt"), reverse=True)


def newest_whole(folder: Path) -> Path:
    """Find the newest checkpoint that is not damaged.

    Raises:
        CheckpointError: there is none.
    """
    for path in checkpoints_in(folder):
        try:
            with zipfile.ZipFile(path) as file:
                damaged = file.testzip()
        except (OSError, zipfile.BadZipFile) as error:
            damaged = str(error)
        if damaged is None:
            return path
        log.warning("%s is damaged (%s): taking the one before it", path, damaged)
        with suppress(OSError):  # out of the way, or it would count as the newest and push out whole ones
            path.rename(path.with_name(f"{path.name}.damaged"))
    raise CheckpointError(f"{folder}: holds no whole checkpoint to resume from")


def _any_rank(trainer: lightning.Trainer, here: bool) -> bool:
    """Tell all ranks what one of them wants."""
    return here if trainer.world_size == 1 else trainer.strategy.reduce_boolean_decision(here, all=False)
