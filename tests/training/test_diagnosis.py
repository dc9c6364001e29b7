from __future__ import annotations

import csv
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from runs import TINY, composed

from asr.augment import KINDS
from asr.config import compose
from asr.errors import ConfigError
from asr.features import spec_augment
from asr.manifest import write_manifest
from asr.training.config import TrainConfig
from asr.training.diagnosis import steadiness
from asr.training.fit import train


def test_progress_tells_a_head_that_moves_forward_from_others():
    """Ten tokens over thirty frames: one head follows, one goes back, one looks at one place, one everywhere."""
    places = torch.arange(11) * 3
    forward = torch.nn.functional.one_hot(places.clamp(max=29), 30).float()
    heads = torch.stack((forward, forward.flip(0), forward[:1].expand(11, 30), torch.full((11, 30), 1 / 30)))
    found = steadiness(heads[None], torch.tensor([10]))
    assert found.tolist() == pytest.approx([1.0, -1.0, 0.0, 0.0], abs=1e-3)


def test_short_texts_do_not_count():
    assert steadiness(torch.rand(1, 2, 3, 9), torch.tensor([2])).tolist() == [0.0, 0.0]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, request) -> Path:
    """The folder of a run of two epochs whose heads have learnt nothing yet."""
    from asr.manifest import Manifest, write_manifest

    folder = tmp_path_factory.mktemp("diagnosis")
    shipped = Manifest.load(Path(__file__).parents[1] / "data" / "manifest.jsonl")
    write_manifest(folder / "few.jsonl", sorted(shipped, key=lambda utterance: utterance.duration)[:4])
    steps = (*TINY, "training.epochs=2", "training.check_after=2", "data.batch_seconds=15", "training.profile=true")
    records: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    logging.getLogger("asr").addHandler(handler)
    train(composed("mini_librispeech", folder / "few.jsonl", folder / "run", *steps, "optimizer.learning_rate=0.03"))
    logging.getLogger("asr").removeHandler(handler)
    (folder / "said.txt").write_text("\n".join(records))
    return folder


def test_a_run_leaves_behind_what_it_heard_and_how_it_went(finished):
    run = finished / "run"
    samples = (run / "samples.txt").read_text()
    assert samples.count("  said   ") == samples.count("  heard  ") >= 4
    assert {path.name for path in (run / "pictures").iterdir()} == {"epoch-001.png", "epoch-002.png"}
    for picture in (*(run / "pictures").iterdir(), run / "curves.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")
    assert "torch==" in (run / "environment.txt").read_text()
    assert yaml.safe_load((run / "config.yaml").read_text())["training"]["check_after"] == 2
    with open(run / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    shown = {key for row in rows for key, value in row.items() if value}
    assert {"valid/wer", "valid/loss", "valid/blank_share", "valid/attention_progress"} <= shown
    assert list(run.glob("*profile*"))


def test_a_head_that_is_stuck_is_said_to_be(finished):
    said = (finished / "said.txt").read_text()
    assert "no attention head moves forward through the audio after 2 steps" in said


def test_a_run_ends_early_when_nothing_gets_better(eight, tmp_path):
    steps = (*TINY, "training.epochs=30", "training.patience=2", "optimizer.learning_rate=1e-9")
    train(composed("mini_librispeech", eight, tmp_path / "run", *steps))
    with open(tmp_path / "run" / "metrics.csv", newline="") as file:
        epochs = [int(row["epoch"]) for row in csv.DictReader(file) if row["valid/wer"]]
    assert epochs == [0, 1, 2]


@pytest.mark.parametrize("mode", ["overfit", "fast", "profile"])
def test_debug_modes_are_changes_that_later_overrides_may_change_again(mode):
    plain = compose(TrainConfig, "mini_librispeech")
    changed = compose(TrainConfig, "mini_librispeech", [f"debug={mode}", "training.seed=7"])
    assert changed.training != plain.training
    again = compose(TrainConfig, "mini_librispeech", [f"debug={mode}", "training.epochs=77"])
    assert again.training.epochs == 77
    with pytest.raises(ConfigError, match="no debug mode 'overfitt'; did you mean 'overfit'"):
        compose(TrainConfig, "mini_librispeech", ["debug=overfitt"])


def test_what_is_learnt_by_heart_is_always_the_same():
    kinds = [f"data.augment.{kind}_probability=0.5" for kind in KINDS]
    noisy = ["data.augment.noise=[n.jsonl]", "model.loss.cr_ctc_weight=0.2", "model.spec_augment.time_warp=5", *kinds]
    made = compose(TrainConfig, "mini_librispeech", [*noisy, "debug=overfit"])
    assert made.model.loss.cr_ctc_weight == 0
    assert not any(made.data.augment.probability(kind) for kind in KINDS)
    features, lengths = torch.randn(2, 300, 80), torch.tensor([300, 200])
    same = spec_augment(features, lengths, torch.tensor([1, 2]), made.model.spec_augment)
    assert torch.equal(same, features)


def test_texts_too_short_to_tell_are_no_stuck_head(manifest, tmp_path, caplog):
    write_manifest(tmp_path / "m.jsonl", [replace(utterance, text="a") for utterance in list(manifest)[:4]])
    steps = (*TINY, "tokenizer.kind=char", "training.epochs=1", "training.check_after=1")
    train(composed("mini_librispeech", tmp_path / "m.jsonl", tmp_path / "run", *steps))
    assert "no attention head" not in caplog.text
