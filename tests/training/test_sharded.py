"""Weights sharded over two processes on the CPU (FSDP2 over gloo) learn what one process learns."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from runs import TINY, composed, gradients_apart

from asr.config import compose
from asr.errors import ConfigError
from asr.model import checkpoint
from asr.training.config import TrainConfig
from asr.training.fit import train
from asr.training.resume import checkpoints_in

SETTINGS = [setting for setting in TINY if "batch_seconds" not in setting] + [
    "data.speeds=[1.0]",
    "data.batch_seconds=1000",
    "model.spec_augment.time_masks=0",
    "model.spec_augment.frequency_masks=0",
    "model.encoder.stochastic_depth=0",
    "model.decoder.dropout=0",
    "optimizer.warmup_steps=1",
    "optimizer.gradient_clip=0.1",  # far below the norms here: every step is clipped
    "training.average_decay=0",
    "training.epochs=3",
]


def run(manifest: Path, folder: Path, *more: str) -> None:
    """Train on two processes."""
    overrides = [f"data.train=[{manifest}]", f"data.valid=[{manifest}]", f"run={folder}", "data.workers=0"]
    overrides += [*SETTINGS, "training.accelerator=cpu", "training.strategy=fsdp", "training.devices=2"]
    command = [sys.executable, "-m", "asr.cli", "train", "--config", "mini_librispeech", *overrides, *more]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr


def state(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(checkpoints_in(folder / "checkpoints")[0], weights_only=True)["state_dict"]


def test_two_shards_learn_what_one_process_learns_clip_alike_and_resume(eight, tmp_path):
    train(composed("mini_librispeech", eight, tmp_path / "one", *SETTINGS))
    run(eight, tmp_path / "two")
    one, two = state(tmp_path / "one"), state(tmp_path / "two")
    assert {name: weight.shape for name, weight in one.items()} == {name: weight.shape for name, weight in two.items()}
    assert gradients_apart(tmp_path / "one", tmp_path / "two") < 1e-5  # after clipping
    assert all((one[name] - two[name]).abs().max() < 1e-4 for name in one)  # false of what is no number
    for path in checkpoints_in(tmp_path / "two" / "checkpoints")[:1]:
        path.unlink()  # back to the end of the second epoch
    run(eight, tmp_path / "two", "--resume")
    again = state(tmp_path / "two")
    assert all((again[name] - two[name]).abs().max() < 1e-6 for name in two)
    model, _ = checkpoint.load(tmp_path / "two" / "best" / "epoch-003.safetensors")
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(weight, two[f"model.{name}"], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "wrong",
    ["training.average_decay=0.9", "optimizer.name=muon", "model.encoder.stochastic_depth=0.1", "finetune.lora_rank=4"],
)
def test_what_shards_do_not_go_with_is_refused(wrong):
    plain = ["training.strategy=fsdp", "training.average_decay=0", "model.encoder.stochastic_depth=0"]
    compose(TrainConfig, "mini_librispeech", plain)
    with pytest.raises(ConfigError, match=f"shards the weights: {wrong.split('=')[0]}"):
        compose(TrainConfig, "mini_librispeech", [*plain, wrong])
