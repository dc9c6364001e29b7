"""How a step is put together: over micro-batches, over ranks, and when a gradient is not a number."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from runs import TINY, composed, gradients_apart

from asr.errors import DataError
from asr.manifest import Manifest
from asr.model.recognizer import Recognizer
from asr.training.fit import train
from asr.training.module import RecognizerModule
from asr.training.resume import checkpoints_in

SMALL = [override for override in TINY if "batch_seconds" not in override]
PLAIN = (
    *SMALL,
    "data.speeds=[1.0]",
    "model.spec_augment.time_masks=0",
    "model.spec_augment.frequency_masks=0",
    "model.encoder.stochastic_depth=0",
    "model.decoder.dropout=0",
    "optimizer.warmup_steps=1",
    "training.average_decay=0",
    "training.epochs=3",
)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(checkpoints_in(run / "checkpoints")[0], weights_only=True)["state_dict"]


def moved(run: Path, other: Path) -> float:
    one, two = weights(run), weights(other)
    # torch's maximum, not Python's: of something that is not a number, that must be the answer.
    return torch.stack([(one[name] - two[name]).abs().max() for name in one]).max().item()


def test_four_small_batches_make_the_step_of_one_large_one(eight, tmp_path):
    train(composed("mini_librispeech", eight, tmp_path / "one", *PLAIN, "data.batch_seconds=1000"))
    small = ("data.batch_seconds=9", "optimizer.accumulate=100")
    train(composed("mini_librispeech", eight, tmp_path / "four", *PLAIN, *small))
    steps = [torch.load(checkpoints_in(tmp_path / run / "checkpoints")[0])["global_step"] for run in ("one", "four")]
    assert steps == [3, 3]
    assert moved(tmp_path / "one", tmp_path / "four") < 1e-5


def test_two_ranks_make_the_step_of_one(eight, tmp_path):
    """Real processes over gloo, with unequal shares of audio and tokens."""
    for ranks in (1, 2):
        overrides = [f"data.train=[{eight}]", f"data.valid=[{eight}]", f"run={tmp_path}/{ranks}", *PLAIN]
        overrides += [f"training.devices={ranks}", "training.accelerator=cpu", "data.batch_seconds=1000"]
        overrides += ["training.precision=64-true"]  # in 32 bits Adam makes whole steps of gradients that are rounding
        command = [sys.executable, "-m", "asr.cli", "train", "--config", "mini_librispeech", *overrides]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        assert done.returncode == 0, done.stderr
        state = torch.load(checkpoints_in(tmp_path / f"{ranks}" / "checkpoints")[0])
        assert state["global_step"] == 3
    assert gradients_apart(tmp_path / "1", tmp_path / "2") < 1e-9
    assert moved(tmp_path / "1", tmp_path / "2") < 1e-9


def poison(monkeypatch, steps: set[int]) -> None:
    """Let the loss be no number at some steps."""
    real = RecognizerModule.training_step

    def step(self, batch, batch_index):
        loss = real(self, batch, batch_index)
        if self.global_step in steps:
            self.losses = self.losses._replace(total=self.losses.total * float("nan"))
        return loss

    monkeypatch.setattr(RecognizerModule, "training_step", step)


def test_a_step_without_finite_gradient_changes_nothing_and_names_its_utterances(eight, tmp_path, monkeypatch):
    one, two = tmp_path / "one", tmp_path / "two"
    steps = ("data.batch_seconds=1000", "optimizer.schedule=inverse_sqrt")
    train(composed("mini_librispeech", eight, one, *PLAIN, *steps, "training.epochs=1"))
    poison(monkeypatch, {1})
    train(composed("mini_librispeech", eight, two, *PLAIN, *steps, "training.epochs=2"))
    assert moved(one, two) == 0
    lines = [json.loads(line) for line in (two / "nonfinite.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1]
    assert sorted(lines[0]["ids"]) == sorted(utterance.id for utterance in Manifest.load(eight))


def test_bad_steps_with_good_ones_between_end_no_run(eight, tmp_path, monkeypatch):
    poison(monkeypatch, {0, 2, 4})
    steps = ("data.batch_seconds=1000", "training.epochs=6", "training.most_skipped=2")
    train(composed("mini_librispeech", eight, tmp_path / "run", *PLAIN, *steps))
    lines = (tmp_path / "run" / "nonfinite.jsonl").read_text().splitlines()
    assert len(lines) == 3


def test_a_run_of_bad_steps_is_given_up_with_advice(eight, tmp_path, monkeypatch):
    poison(monkeypatch, set(range(100)))
    steps = ("data.batch_seconds=9", "training.most_skipped=3")
    with pytest.raises(DataError, match=r"3 steps in a row had no finite gradient: .*asr check"):
        train(composed("mini_librispeech", eight, tmp_path / "run", *PLAIN, *steps))


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_a_batch_that_does_not_fit_is_split_and_gives_the_same_step(eight, tmp_path, monkeypatch, rows):
    """An artificial cap on utterances: far over it the forward pass fails, a little over it the backward pass."""
    one, two = tmp_path / "one", tmp_path / "two"
    steps = ("data.batch_seconds=30", "optimizer.accumulate=2")
    train(composed("mini_librispeech", eight, one, *PLAIN, *steps))
    real = Recognizer.loss

    def capped(self, batch):
        if self.training and len(batch.ids) > 2 * rows:
            raise torch.OutOfMemoryError
        losses = real(self, batch)
        if self.training and len(batch.ids) > rows:

            def fail(gradient):
                raise torch.OutOfMemoryError

            losses.total.register_hook(fail)
        return losses

    monkeypatch.setattr(Recognizer, "loss", capped)
    train(composed("mini_librispeech", eight, two, *PLAIN, *steps))
    assert moved(one, two) < 1e-5


def test_an_utterance_that_never_fits_is_left_out(eight, tmp_path, monkeypatch, caplog):
    """One outlier among shorter ones: training goes on without it."""
    longest = max(Manifest.load(eight), key=lambda utterance: utterance.duration).id
    real = Recognizer.loss

    def capped(self, batch):
        if self.training and longest in batch.ids:
            raise torch.OutOfMemoryError
        return real(self, batch)

    monkeypatch.setattr(Recognizer, "loss", capped)
    train(composed("mini_librispeech", eight, tmp_path / "run", *PLAIN, "data.batch_seconds=1000"))
    assert caplog.text.count(f"{longest} does not fit into memory even alone") == 3  # once in each epoch
    assert all(torch.isfinite(weight).all() for weight in weights(tmp_path / "run").values())
