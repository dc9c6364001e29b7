"""Writing the averaged model as a safetensors file whenever it is among the best so far."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from asr.errors import WriteError
from asr.files import write_file

log = logging.getLogger(__name__)

PREFIX = "model."  # the model's name inside the LightningModule


class ExportBest(Callback):
    """Keep the best validated models in RUN/best, and the very best as RUN/model.safetensors.

    Lightning's checkpoints hold the averaged weights under `state_dict` once its weight averaging has written there;
    this callback must stand after it in the list.

    Args:
        run: the run's folder.
        keep: how many models RUN/best holds.
        model: of the same configuration, used as scratch space.
        metrics: names of what validation logs as `valid/NAME`; by the first, the lower the better.
        about: provenance to write beside the metrics.
        save: writes `model` to a file, with what there is to say about it.
        plain: turns the weights that were trained into those of `model`.
    """

    def __init__(
        self,
        run: Path,
        keep: int,
        model: nn.Module,
        metrics: Sequence[str],
        about: Callable[[], dict[str, Any]],
        save: Callable[[Path, dict[str, Any]], None],
        plain: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict,
    ) -> None:
        self.run = run
        self.keep = keep
        self.model = model
        self.metrics = metrics
        self.about = about
        self.save = save
        self.plain = plain
        self.best: dict[str, float] = {}  # file name and first metric, lowest first
        self.fresh = False
        self.hours = 0.0  # of the run before this sitting

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Have an epoch validated that is the last and was begun before this sitting."""
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Have the last epoch validated, however many there are from one validation to the next."""
        if trainer.current_epoch + 1 == trainer.max_epochs:
            trainer.check_val_every_n_epoch = 1

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
        reached = float(trainer.callback_metrics[f"valid/{self.metrics[0]}"])
        name = f"epoch-{trainer.current_epoch + 1:03}.safetensors"
        rates = self.best | {name: float("inf") if math.isnan(reached) else reached}  # NaN is neither low nor high
        ranked = dict(sorted(rates.items(), key=lambda item: item[1]))
        kept = dict(list(ranked.items())[: self.keep])
        if name in kept and trainer.is_global_zero:
            try:
                self._write(name, trainer, checkpoint)
                if next(iter(kept)) == name:
                    write_file(self.run / "model.safetensors", (self.run / "best" / name).read_bytes())
            except WriteError as error:
                log.error("%s; training goes on, the models before it stay", error)
                return
            for dropped in self.best.keys() - kept.keys():
                (self.run / "best" / dropped).unlink(missing_ok=True)
        self.best.clear()  # in place: Lightning put this very dictionary into the checkpoint before it called this hook
        self.best.update(kept)

    def _write(self, name: str, trainer: lightning.Trainer, checkpoint: dict[str, Any]) -> None:
        weights = checkpoint["state_dict"].items()
        trained = {key.removeprefix(PREFIX): weight for key, weight in weights if key.startswith(PREFIX)}
        self.model.load_state_dict(self.plain(trained))
        about = self.about()
        found = trainer.callback_metrics
        about["metrics"] = {metric: round(float(found[f"valid/{metric}"]), 6) for metric in self.metrics}
        about["training"] |= {"hours": self._hours(), "epoch": trainer.current_epoch + 1, "steps": trainer.global_step}
        self.save(self.run / "best" / name, about)

    def _hours(self) -> float:
        return round(self.hours + self.about()["training"]["hours"], 3)

    def state_dict(self) -> dict[str, Any]:
        """Remember time spent and the best models: a resumed run adds to the one and must not overwrite the other."""
        return {"best": self.best, "hours": self._hours()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take both from the run being resumed."""
        self.best = state_dict["best"]
        self.hours = state_dict.get("hours", 0.0)  # runs begun with an earlier version did not keep them
