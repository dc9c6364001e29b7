"""How far a run is: a bar on a terminal, a line each minute in a log file."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback, RichProgressBar

EVERY = 60.0  # seconds between lines


def on_terminal() -> bool:
    """Tell whether someone looks on; a trainer must be told to make no bar of its own where nobody does."""
    return sys.stderr.isatty()


def show_progress() -> Callback:
    """Give the bar on a terminal, else the lines."""
    return RichProgressBar(leave=True) if on_terminal() else ProgressLines()


class ProgressLines(Callback):
    """Print a line each minute, and one after each validation, to standard error of the first rank."""

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the clock: a resumed run is not to be taken for a fast one."""
        self.began = self.printed = time.monotonic()
        self.first = trainer.global_step

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Print if a minute has gone by."""
        if time.monotonic() - self.printed >= EVERY:
            self._print(trainer)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Print what came out."""
        if trainer.state.fn == "fit":
            self._print(trainer)

    def _print(self, trainer: lightning.Trainer) -> None:
        self.printed = time.monotonic()
        if not trainer.is_global_zero:
            return
        step, steps = trainer.global_step, trainer.estimated_stepping_batches
        left = (self.printed - self.began) / max(1, step - self.first) * (steps - step)
        values = [f"{name} {float(value):.4g}" for name, value in trainer.progress_bar_metrics.items()]
        place = f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}, step {step} of {steps:g}"
        end = f"{timedelta(seconds=round(left))} left"
        print(", ".join((place, *values, end)), file=sys.stderr, flush=True)
