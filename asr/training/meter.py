"""How fast a run is, and what the time is lost to."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from asr.model.recognizer import Batch
from asr.samples import SAMPLE_RATE

log = logging.getLogger(__name__)

EVERY = 10  # steps between log lines
MOST_WAITING = 0.2  # share of an epoch's time that may go to waiting for data without a word about it


class Meter(Callback):
    """Log audio hours each hour, the shares of padding and of waiting for data, and the most memory used so far."""

    def __init__(self) -> None:
        self._clear()
        self.ended = time.perf_counter()

    def _clear(self) -> None:
        self.audio = self.padded = self.waited = self.worked = 0.0
        self.batches = 0

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Leave out what lies between epochs: validation, and the workers' start."""
        self._clear()

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Take the time since the batch before as waiting, except for an epoch's first."""
        self.began = time.perf_counter()
        if self.batches:
            self.waited += self.began - self.ended

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Add a batch, and log now and then."""
        self.ended = time.perf_counter()
        self.worked += self.ended - self.began
        self.audio += float(batch.lengths.sum()) / SAMPLE_RATE
        self.padded += batch.waveform.numel() / SAMPLE_RATE
        self.batches += 1
        if self.batches % EVERY:
            return
        spent = self.worked + self.waited
        rate, waiting = self.audio * trainer.world_size / spent, self.waited / spent
        pl_module.log("hours/hour", rate, prog_bar=True, logger=False)
        pl_module.log("waiting", waiting, prog_bar=True, logger=False)
        pl_module.log("speed/audio_hours_per_hour", rate)
        pl_module.log("speed/data_wait", waiting)
        pl_module.log("speed/padding", 1 - self.audio / self.padded)
        pl_module.log("speed/peak_gigabytes", peak_gigabytes())

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Say what helps if the data are too slow for the model."""
        share = self.waited / max(1e-9, self.worked + self.waited)
        if self.batches >= EVERY and share > MOST_WAITING and trainer.is_global_zero:
            log.warning(
                "epoch %d: %.0f %% of the time went by waiting for data; more data.workers help, or audio that is "
                "quick to read: FLAC or WAV at 16 kHz, on a local disk",
                trainer.current_epoch + 1,
                100 * share,
            )


def peak_gigabytes() -> float:
    """Most memory so far: the GPU's where there is one, else this process's."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    if sys.platform == "win32":  # where Python does not know it
        return 0.0
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
