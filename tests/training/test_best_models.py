"""The best models of a run are kept, whatever validation comes to."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace
from typing import Any

import torch
from runs import TINY, composed

from asr import files
from asr.errors import WriteError
from asr.training.best_models import ExportBest
from asr.training.fit import train
from asr.training.resume import checkpoints_in


def test_the_lowest_are_kept_and_what_is_no_number_never_is_the_best(tmp_path):
    model = torch.nn.Linear(1, 1)

    def save(path, about):
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps([about["metrics"]["rate"], model.bias.item(), about["training"]["hours"]]))

    def kept(export: ExportBest) -> tuple[list[str], float]:
        best = json.loads((tmp_path / "model.safetensors").read_text())
        return sorted(name[6:9] for name in os.listdir(tmp_path / "best")), best[1]

    def make() -> ExportBest:
        return ExportBest(tmp_path, 2, model, ["rate"], lambda: {"training": {"hours": 0.5}}, save)

    export = make()
    expected = [
        (["001"], 1.0),
        (["001", "002"], 2.0),
        (["002", "003"], 3.0),
        (["002", "003"], 3.0),
        (["003", "005"], 3.0),
    ]
    for epoch, (rate, then) in enumerate(zip([float("nan"), 5.0, 3.0, float("inf"), 4.0], expected, strict=True)):
        weights = {"model.weight": torch.zeros(1, 1), "model.bias": torch.tensor([epoch + 1.0]), "other": torch.ones(1)}
        trainer: Any = SimpleNamespace(
            sanity_checking=False, state=SimpleNamespace(fn="fit"), callback_metrics={"valid/rate": torch.tensor(rate)},
            current_epoch=epoch, global_step=epoch, is_global_zero=True,
        )  # fmt: skip
        export.on_validation_end(trainer, trainer)
        export.on_save_checkpoint(trainer, trainer, {"state_dict": weights})
        assert kept(export) == then
        if (tmp_path / "best" / (latest := f"epoch-{epoch + 1:03}.safetensors")).exists():
            assert json.loads((tmp_path / "best" / latest).read_text())[2] == 0.5 * (epoch + 1)  # of all sittings
        resumed = make()
        resumed.load_state_dict(export.state_dict())
        export = resumed


def test_the_last_epoch_is_validated_also_where_it_was_begun_before(tmp_path):
    export = ExportBest(tmp_path, 1, torch.nn.Linear(1, 1), ["rate"], dict, lambda *_: None)
    for epoch, every in ((3, 2), (4, 1)):
        trainer: Any = SimpleNamespace(current_epoch=epoch, max_epochs=5, check_val_every_n_epoch=2)
        export.on_train_start(trainer, None)  # a sitting that begins within an epoch begins none
        assert trainer.check_val_every_n_epoch == every


def test_a_checkpoint_knows_the_model_that_was_exported_with_it(eight, tmp_path):
    train(composed("mini_librispeech", eight, tmp_path / "run", *TINY, "training.epochs=1"))
    state = torch.load(checkpoints_in(tmp_path / "run" / "checkpoints")[0], weights_only=True)
    assert list(state["callbacks"]["ExportBest"]["best"]) == ["epoch-001.safetensors"]


def test_a_full_disk_costs_an_export_and_not_the_run(tmp_path, caplog, monkeypatch):
    def full(path, about):
        raise WriteError(f"{path}: cannot be written: No space left on device")

    export = ExportBest(tmp_path, 2, torch.nn.Linear(1, 1), ["rate"], lambda: {"training": {"hours": 0.5}}, full)
    trainer: Any = SimpleNamespace(
        sanity_checking=False, state=SimpleNamespace(fn="fit"), callback_metrics={"valid/rate": torch.tensor(1.0)},
        current_epoch=0, global_step=0, is_global_zero=True,
    )  # fmt: skip
    export.on_validation_end(trainer, trainer)
    weights = {"model.weight": torch.zeros(1, 1), "model.bias": torch.zeros(1)}
    export.on_save_checkpoint(trainer, trainer, {"state_dict": weights})
    assert "No space left on device; training goes on" in caplog.text
    assert export.best == {}
    caplog.clear()
    (tmp_path / "best").mkdir()
    (tmp_path / "model.safetensors").write_text("old")
    monkeypatch.setattr(files, "uuid4", lambda: SimpleNamespace(hex="a"))
    (tmp_path / ".a-model.safetensors").symlink_to("/dev/full")
    export.save = lambda path, about: path.write_text("new")
    export.on_validation_end(trainer, trainer)
    export.on_save_checkpoint(trainer, trainer, {"state_dict": weights})
    assert "model.safetensors: cannot be written: No space left on device" in caplog.text
    assert (tmp_path / "model.safetensors").read_text() == "old"
