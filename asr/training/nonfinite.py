"""Steps whose loss or gradient is not a number: skipped on all ranks together, written down, and not for ever."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch.distributed.tensor import DTensor

from asr.errors import DataError
from asr.model.recognizer import Batch

log = logging.getLogger(__name__)


class SkipNonFinite(Callback):
    """Throw a step's gradient away if any of it is infinite or not a number; weights and the optimiser's state stay.

    Args:
        path: file of JSON lines that gets the ids of each skipped step's utterances; ranks after the first write to
            files of their own beside it.
        most: skipped steps in a row after which the run is given up.
    """

    def __init__(self, path: Path, most: int) -> None:
        self.path = path
        self.most = most
        self.ids: list[str] = []
        self.skipped = 0
        self.in_a_row = 0

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Take note of who is in the step."""
        self.ids += batch.ids

    def on_before_optimizer_step(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Look at the gradient before it is clipped.

        Raises:
            DataError: too many steps in a row had to be skipped.
        """
        ids, self.ids = self.ids, []
        gradients = [weight.grad for weight in pl_module.parameters() if weight.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        bad = ~torch.isfinite(norm.full_tensor() if isinstance(norm, DTensor) else norm)  # a DTensor is sharded
        bad = torch.as_tensor(trainer.strategy.reduce(bad.float(), reduce_op="sum")) > 0
        if not bad:
            self.in_a_row = 0
            return
        optimizer.zero_grad(set_to_none=True)  # without gradients an optimiser leaves weights and its state alone
        self.skipped += 1
        self.in_a_row += 1
        rank = trainer.global_rank
        path = self.path.with_name(f"{self.path.stem}-{rank}{self.path.suffix}") if rank else self.path
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": trainer.global_step, "ids": ids}) + "\n")
        log.warning("step %d skipped: its gradient is not finite; ids in %s", trainer.global_step, path)
        pl_module.log("train/skipped", float(self.skipped))
        if self.in_a_row >= self.most:
            raise DataError(
                f"{self.in_a_row} steps in a row had no finite gradient: resume with a lower optimizer.learning_rate or"
                f" training.precision=32-true, and run `asr check` on the utterances in {path}"
            )

    def state_dict(self) -> dict[str, Any]:
        """Remember the count."""
        return {"skipped": self.skipped, "in_a_row": self.in_a_row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the count of the run being resumed."""
        self.skipped, self.in_a_row = state_dict["skipped"], state_dict["in_a_row"]
