"""A minute among utterances of ten seconds, under an artificial cap on what fits into memory: nothing ever crashes."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import weakref
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import soundfile
import torch
from runs import TINY, composed

from asr.audio import SAMPLE_RATE, load_mono
from asr.decoding import DecodingOptions
from asr.errors import DataError
from asr.manifest import Utterance, write_manifest
from asr.model.recognizer import Batch, Recognizer
from asr.training import memory
from asr.training.config import OptimizerConfig
from asr.training.fit import train
from asr.training.module import RecognizerModule

CAP = 25  # seconds of padded audio that fit
SETTINGS = [setting for setting in TINY if "batch_seconds" not in setting]
SETTINGS += ["data.max_seconds=100", "data.speeds=[1.0]", "training.epochs=2", "training.average_decay=0"]

# Far over the cap the forward pass fails as a GPU does, a little over it the backward pass as the CPU does.
CAPPED = f"""
import torch
from asr.model.recognizer import Recognizer

real = Recognizer.loss

def capped(self, batch):
    held = batch.waveform.numel() / {SAMPLE_RATE}
    if self.training and held > {2 * CAP}:
        raise torch.OutOfMemoryError("CUDA out of memory.")
    losses = real(self, batch)
    if self.training and held > {CAP}:
        def fail(gradient):
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory")
        losses.total.register_hook(fail)
    return losses

Recognizer.loss = capped
"""
MAIN = """
from asr.cli import main
main()
"""


@pytest.fixture
def outlier(manifest, tmp_path) -> tuple[Path, Path]:
    """Six utterances of ten seconds and one of a minute, joined from real ones; and the six alone, for validation."""
    speech = np.concatenate([load_mono(each.audio_filepath) for each in manifest])
    texts, written = " ".join(each.text for each in manifest).split(), []
    for place, seconds in enumerate([10] * 6 + [60]):
        name = f"joined-{seconds}-{place}"
        path = tmp_path / f"{name}.flac"
        soundfile.write(path, np.resize(np.roll(speech, -place * 20_000), seconds * SAMPLE_RATE), SAMPLE_RATE)
        text = " ".join(texts[place * 20 : place * 20 + 2 * seconds])
        written.append(Utterance(id=name, audio_filepath=str(path), duration=float(seconds), text=text))
    write_manifest(tmp_path / "all.jsonl", written)
    write_manifest(tmp_path / "short.jsonl", written[:6])
    return tmp_path / "all.jsonl", tmp_path / "short.jsonl"


def counted(run: Path, name: str) -> list[float]:
    with open(run / "metrics.csv", encoding="utf-8", newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


@pytest.mark.parametrize("ranks", [1, 2])
def test_batches_are_split_and_the_outlier_is_left_out_of_its_step(outlier, tmp_path, ranks):
    """`asr train` itself; with two ranks one has nothing but the outlier in a step, and neither waits for ever."""
    script = tmp_path / "capped.py"
    script.write_text(CAPPED + MAIN)
    every, short = outlier
    run = tmp_path / "run"
    overrides = [f"data.train=[{every}]", f"data.valid=[{short}]", f"run={run}", "training.accelerator=cpu"]
    overrides += ["data.workers=0", "data.batch_seconds=60", f"training.devices={ranks}"]
    command = [sys.executable, str(script), "train", "--config", "mini_librispeech", *overrides, *SETTINGS]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "300"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 0, said
    assert (run / "model.safetensors").is_file()
    assert said.count("joined-60-6 does not fit into memory even alone") == 2  # once in each epoch
    assert "joined-10" not in said  # all others were heard
    assert counted(run, "train/left_out") == [1, 1]
    splits = counted(run, "train/out_of_memory")
    assert min(splits) >= 2  # the outlier, and a batch of six
    assert counted(run, "train/audio_hours") == pytest.approx([120 / 3600] * 2)
    assert f"epoch 2: memory ran out {splits[1]:.0f} times" in said


def test_a_measured_budget_drops_the_outlier_before_the_first_step(outlier, tmp_path, monkeypatch, caplog):
    """Memory of which each padded second takes its share, and that holds CAP seconds."""
    held = [0]
    share = 1e7  # bytes for each second: the weights' own memory is little beside it
    real = Recognizer.loss

    def capped(self, batch):
        held[0] = max(held[0], batch.waveform.numel())
        if self.training and batch.waveform.numel() > CAP * SAMPLE_RATE:
            raise torch.OutOfMemoryError
        return real(self, batch)

    @contextmanager
    def peak(device):
        held[0], used = 0, [0.0]
        yield used
        used[0] = share * held[0] / SAMPLE_RATE

    monkeypatch.setattr(Recognizer, "loss", capped)
    monkeypatch.setattr(memory, "_peak", peak)
    monkeypatch.setattr(memory, "_free", lambda device: share * CAP / memory.CPU_SHARE)
    every, short = outlier
    auto = ("data.batch_seconds=auto", f"data.valid=[{short}]")
    train(composed("mini_librispeech", every, tmp_path / "run", *SETTINGS, *auto))
    assert "joined-60-6 does not fit into memory even alone" in caplog.text
    assert caplog.text.count("does not fit into memory") == 1
    assert counted(tmp_path / "run", "train/out_of_memory") == [0, 0]
    assert counted(tmp_path / "run", "train/left_out") == [0, 0]


def test_nothing_holds_what_a_failed_pass_has_kept_while_its_halves_are_tried(model, monkeypatch):
    """The first backward pass runs out at its beginning, where everything that the forward pass kept is there."""
    module = RecognizerModule(model.train(), OptimizerConfig(), DecodingOptions(), {})
    precision = SimpleNamespace(forward_context=nullcontext, pre_backward=lambda loss, _: loss)
    module.trainer = Mock(precision_plugin=precision, accumulate_grad_batches=1, current_epoch=0, global_rank=0)
    module.log = Mock()
    real, kept, alive = model.loss, [], []

    def loss(batch):
        losses = real(batch)
        if kept:
            alive.append(kept[0]() is not None)
            return losses
        held = torch.zeros(1000)
        kept.append(weakref.ref(held))

        def fail(gradient, held=held):
            raise torch.OutOfMemoryError("CUDA out of memory.")

        losses.total.register_hook(fail)
        return losses

    monkeypatch.setattr(model, "loss", loss)
    tokens = torch.full((4, 3), 4)
    lengths = torch.full((4,), 16_000)
    batch = Batch(list("abcd"), torch.randn(4, 16_000), lengths, tokens, torch.full((4,), 3), torch.arange(4))
    module.backward(module.training_step(batch, 0))
    assert alive == [False, False]
    assert module.counts.tolist()[2:] == [1, 0]


def test_a_recording_of_validation_that_does_not_fit_is_named(model, monkeypatch):
    def fail(_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(model, "loss", fail)
    module = RecognizerModule(model, OptimizerConfig(), DecodingOptions(), {})
    samples = torch.tensor([90 * SAMPLE_RATE])
    long = Batch(["talk"], torch.zeros(1, int(samples)), samples, torch.full((1, 3), 4), torch.tensor([3]), samples)
    with pytest.raises(DataError, match=r"data\.valid: talk \(90 s\) .* do not fit into memory"):
        module.validation_step(long, 0)
