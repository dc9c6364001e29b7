"""The data side of going on inside an epoch: who is heard next, as whom, and with what result."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import lightning
import pytest
import soundfile
import torch
from examples import small_config
from lightning.pytorch.callbacks import Callback
from torch.multiprocessing import ProcessRaisedException

from asr.audio import load_mono
from asr.augment import AugmentConfig
from asr.datamodule import DataConfig, SpeechDataModule
from asr.decoding import DecodingOptions
from asr.manifest import Utterance, write_manifest
from asr.model.recognizer import Recognizer
from asr.training.config import OptimizerConfig
from asr.training.follow_data import FollowData
from asr.training.module import RecognizerModule

EPOCHS = 2


class StoppedError(Exception):
    """Ends a run there and then."""


class Diary(Callback):
    """Writes down each batch of one run and rank; saves and stops after some steps."""

    def __init__(self, path: Path, stop: int | None = None, checkpoint: Path | None = None) -> None:
        self.path = path
        self.stop = stop
        self.checkpoint = checkpoint

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        line = [trainer.current_epoch, batch_idx, batch.ids, [hash(row.numpy().tobytes()) for row in batch.waveform]]
        with open(f"{self.path}.{trainer.global_rank}", "a") as file:
            file.write(json.dumps(line) + "\n")
        if trainer.global_step == self.stop:
            trainer.save_checkpoint(self.checkpoint, weights_only=False)
            raise StoppedError

    def read(self, rank: int = 0) -> list[list]:
        path = Path(f"{self.path}.{rank}")
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def short(manifest, tmp_path) -> str:
    """Half a second from each of several places of the shipped recordings: 24 utterances that train in no time."""
    cut = [
        Utterance(f"{one.id}-{start}", one.audio_filepath, 0.5 + 0.05 * index, "a b", float(start))
        for index, one in enumerate(manifest)
        for start in (0, 1)
    ]
    write_manifest(tmp_path / "short.jsonl", cut)
    return str(tmp_path / "short.jsonl")


@pytest.fixture
def everything(tmp_path) -> AugmentConfig:
    """A configuration that turns every kind of augmentation on."""
    noise = torch.randn(16000, generator=torch.Generator().manual_seed(0)).numpy() / 10
    soundfile.write(tmp_path / "noise.wav", noise, 16000)
    write_manifest(tmp_path / "noise.jsonl", [Utterance("noise", str(tmp_path / "noise.wav"), 1.0)])
    kinds = ("noise", "reverberation", "gain", "telephone", "codec")
    shares = {f"{kind}_probability": 0.5 for kind in kinds}
    return AugmentConfig(noise=[str(tmp_path / "noise.jsonl")], **shares)


def run(short, augment, tokenizer, diary: Diary, workers=2, ranks=1, resume: Path | None = None, seconds=4) -> dict:
    """Train, from a checkpoint on if there is one; gives the weights."""
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)
    config = DataConfig([short], [short], batch_seconds=seconds, workers=workers, augment=augment)
    data = SpeechDataModule(config, tokenizer, seed=3)
    model = Recognizer(small_config(dropout=0.1, layers=1), tokenizer)
    module = RecognizerModule(model, OptimizerConfig(warmup_steps=2), DecodingOptions(), {}, 3)
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=ranks,
        strategy="ddp_fork" if ranks > 1 else "auto",
        max_epochs=EPOCHS,
        limit_val_batches=0,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[FollowData(data), diary],
    )
    with contextlib.suppress(StoppedError, ProcessRaisedException):  # the diaries show where it stopped
        trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
    return {name: weight.clone() for name, weight in model.state_dict().items()}


def test_a_run_goes_on_with_the_same_utterances_and_ends_with_the_same_bits(short, everything, tokenizer, tmp_path):
    whole = Diary(tmp_path / "whole")
    weights = run(short, everything, tokenizer, whole)
    steps = len(whole.read()) // EPOCHS
    assert steps > 3
    for stop in (2, steps + 2, steps):  # inside the first epoch, inside a later one, after an epoch's last step
        checkpoint = tmp_path / f"{stop}.ckpt"
        first, second = Diary(tmp_path / f"first-{stop}", stop, checkpoint), Diary(tmp_path / f"second-{stop}")
        run(short, everything, tokenizer, first)
        resumed = run(short, everything, tokenizer, second, workers=1, resume=checkpoint)
        assert len(first.read()) == stop
        assert first.read() + second.read() == whole.read()  # ids and sounds
        for name, weight in weights.items():
            assert torch.equal(weight, resumed[name]), (stop, name)


def test_the_checkpoint_holds_the_place_that_training_reached_not_the_workers(short, everything, tokenizer, tmp_path):
    diary = Diary(tmp_path / "diary", 2, tmp_path / "checkpoint.ckpt")
    run(short, everything, tokenizer, diary)
    state = torch.load(tmp_path / "checkpoint.ckpt", weights_only=True)["SpeechDataModule"]
    assert (state["epoch"], state["done"]) == (0, sum(len(ids) for _, _, ids, _ in diary.read()))


def test_another_plan_for_the_rest_of_an_epoch_is_told(short, everything, tokenizer, tmp_path, caplog):
    checkpoint = tmp_path / "checkpoint.ckpt"
    run(short, everything, tokenizer, Diary(tmp_path / "first", 2, checkpoint))
    for seconds, told in ((4, False), (3, True)):
        run(short, everything, tokenizer, Diary(tmp_path / f"{seconds}"), resume=checkpoint, seconds=seconds)
        assert ("some utterances are heard twice" in caplog.text) == told


def test_going_on_reads_nothing_that_was_done(short, everything, tokenizer, tmp_path, monkeypatch):
    checkpoint = tmp_path / "checkpoint.ckpt"
    run(short, everything, tokenizer, Diary(tmp_path / "first", 3, checkpoint), workers=0)
    read = []
    monkeypatch.setattr("asr.manifest.load_mono", lambda *arguments: read.append(arguments) or load_mono(*arguments))
    diary = Diary(tmp_path / "second")
    run(short, everything, tokenizer, diary, workers=0, resume=checkpoint)
    assert len(read) == sum(len(ids) for _, _, ids, _ in diary.read())


@pytest.mark.parametrize("stops", [(3, 4), (2, 4)], ids=["inside an epoch", "at the end of one"])
def test_one_rank_then_two_then_one_hear_every_utterance_once_in_each_epoch(
    short, everything, tokenizer, tmp_path, stops
):
    one, two = tmp_path / "one.ckpt", tmp_path / "two.ckpt"
    diaries = [Diary(tmp_path / "a", stops[0], one), Diary(tmp_path / "b", stops[1], two), Diary(tmp_path / "c")]
    for diary, ranks, resume in zip(diaries, (1, 2, 1), (None, one, two), strict=True):
        run(short, everything, tokenizer, diary, workers=0, ranks=ranks, resume=resume)
    assert len(diaries[1].read(0)) == len(diaries[1].read(1)) == stops[1] - stops[0]
    lines = [line for diary in diaries for rank in (0, 1) for line in diary.read(rank)]
    ids = sorted(json.loads(line)["id"] for line in Path(short).read_text().splitlines())
    for epoch in range(EPOCHS):
        assert sorted(name for line in lines if line[0] == epoch for name in line[2]) == ids
