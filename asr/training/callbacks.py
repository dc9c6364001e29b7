"""What Lightning does not have: writing the averaged model as one safetensors file whenever it is the best so far."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from asr.model import checkpoint as checkpoints
from asr.model.recognizer import Recognizer

PREFIX = "model."  # the recogniser's name inside the LightningModule


class ExportBest(Callback):
    """Keep `model.safetensors` equal to the best validated weights.

    Lightning's checkpoints hold the averaged weights under `state_dict` once its weight averaging has written there;
    this callback must stand after it in the list.

    Args:
        path: the file to write.
        model: a recogniser of the same configuration, used as scratch space.
        about: provenance to write beside the metrics.
    """

    def __init__(self, path: Path, model: Recognizer, about: Callable[[], dict[str, Any]]) -> None:
        self.path = path
        self.model = model
        self.about = about
        self.best = float("inf")

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Export the weights that are being saved, if their word error rate is the lowest so far."""
        wer = trainer.callback_metrics.get("valid/wer")
        if wer is None or float(wer) >= self.best:
            return
        self.best = float(wer)
        if not trainer.is_global_zero:
            return
        weights = checkpoint["state_dict"].items()
        self.model.load_state_dict(
            {name.removeprefix(PREFIX): weight for name, weight in weights if name.startswith(PREFIX)}
        )
        about = self.about()
        about["metrics"] = {name: round(float(trainer.callback_metrics[f"valid/{name}"]), 6) for name in ("wer", "cer")}
        about["training"] |= {"epoch": trainer.current_epoch + 1, "steps": trainer.global_step}
        checkpoints.save(self.path, self.model, about)

    def state_dict(self) -> dict[str, Any]:
        """Remember the best rate, so that a resumed run does not overwrite a better model."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the best rate of the run being resumed."""
        self.best = state_dict["best"]
