"""Checkpoints to go on from: whole or not at all; every few minutes, after each epoch, and when told to stop."""

from __future__ import annotations

import logging
import signal
import threading
import time
import zipfile
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import lightning
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback

from asr.errors import CheckpointError, StoppedError, WriteError
from asr.files import replacing

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)


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

    The first SIGTERM or Ctrl-C lets the step come to its end, saves, and stops; the second stops at once.

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
        self.saved_at = time.monotonic()
        self.step = 0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Listen for signals, in Lightning's place."""
        self.saved_at, self.step = time.monotonic(), trainer.global_step
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
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
            self._save(trainer)
            self._stop()
        if _any_rank(trainer, late):
            self._save(trainer)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Save the end of an epoch, validation included.

        Raises:
            StoppedError: the run was told to stop, is saved, and has another epoch before it.
        """
        self._save(trainer)
        if _any_rank(trainer, bool(self.signal)) and trainer.current_epoch + 1 != trainer.max_epochs:
            self._stop()

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Give the signals back."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal:
            raise KeyboardInterrupt
        self.signal = number
        log.warning("stopping after this step; once more to stop at once")

    def _stop(self) -> NoReturn:
        raise StoppedError(f"{self.folder.parent}: stopped and saved; go on with --resume", self.signal)

    def _save(self, trainer: lightning.Trainer) -> None:
        path = self.folder / f"step-{trainer.global_step:09}.ckpt"
        trainer.save_checkpoint(path, weights_only=False)
        self.saved_at = time.monotonic()
        if trainer.is_global_zero and path.is_file():  # it is not, if the disk is full
            for old in checkpoints_in(self.folder)[self.keep :]:
                old.unlink()


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
    raise CheckpointError(f"{folder}: holds no whole checkpoint to resume from")


def _any_rank(trainer: lightning.Trainer, here: bool) -> bool:
    """Tell all ranks what one of them wants."""
    return here if trainer.world_size == 1 else trainer.strategy.reduce_boolean_decision(here, all=False)
