"""Writing the averaged model as a safetensors file whenever it is among the best so far."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from asr.files import replacing
from asr.model import checkpoint as checkpoints
from asr.model.recognizer import Recognizer

PREFIX = "model."  # the recogniser's name inside the LightningModule


class ExportBest(Callback):
    """Keep the best validated models in RUN/best, and the very best as RUN/model.safetensors.

    Lightning's checkpoints hold the averaged weights under `state_dict` once its weight averaging has written there;
    this callback must stand after it in the list.

    Args:
        run: the run's folder.
        keep: how many models RUN/best holds.
        model: a recogniser of the same configuration, used as scratch space.
        plain: turns the weights that were trained into those of a plain recogniser.
        about: provenance to write beside the metrics.
    """

    def __init__(
        self,
        run: Path,
        keep: int,
        model: Recognizer,
        plain: Callable[[dict[str, Tensor]], dict[str, Tensor]],
        about: Callable[[], dict[str, Any]],
    ) -> None:
        self.run = run
        self.keep = keep
        self.model = model
        self.plain = plain
        self.about = about
        self.best: dict[str, float] = {}  # file name and word error rate, lowest first
        self.fresh = False

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Take note that there is something new to export with the next checkpoint."""
        self.fresh = not trainer.sanity_checking and trainer.state.fn == "fit"

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Export the weights that are being saved, if they were validated and are good enough."""
        if not self.fresh:
            return
        self.fresh = False
        wer = float(trainer.callback_metrics["valid/wer"])
        name = f"epoch-{trainer.current_epoch + 1:03}.safetensors"
        ranked = dict(sorted((self.best | {name: wer}).items(), key=lambda item: item[1]))
        kept = dict(list(ranked.items())[: self.keep])
        if name in kept and trainer.is_global_zero:
            self._write(name, trainer, checkpoint)
            if next(iter(kept)) == name:
                with replacing(self.run / "model.safetensors") as temporary:
                    shutil.copyfile(self.run / "best" / name, temporary)
            for dropped in self.best.keys() - kept.keys():
                (self.run / "best" / dropped).unlink(missing_ok=True)
        self.best = kept

    def _write(self, name: str, trainer: lightning.Trainer, checkpoint: dict[str, Any]) -> None:
        weights = checkpoint["state_dict"].items()
        trained = {key.removeprefix(PREFIX): weight for key, weight in weights if key.startswith(PREFIX)}
        self.model.load_state_dict(self.plain(trained))
        about = self.about()
        metrics = trainer.callback_metrics
        about["metrics"] = {rate: round(float(metrics[f"valid/{rate}"]), 6) for rate in ("wer", "cer")}
        about["training"] |= {"epoch": trainer.current_epoch + 1, "steps": trainer.global_step}
        (self.run / "best").mkdir(exist_ok=True)
        checkpoints.save(self.run / "best" / name, self.model, about)

    def state_dict(self) -> dict[str, Any]:
        """Remember the best rates, so that a resumed run does not overwrite a better model."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the best rates of the run being resumed."""
        self.best = state_dict["best"]
