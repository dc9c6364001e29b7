from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from asr.config import compose, resource
from asr.decoding import DecodingOptions
from asr.errors import ConfigError
from asr.evaluation.evaluate import evaluate
from asr.manifest import Manifest, write_manifest
from asr.model import checkpoint
from asr.training.config import TrainConfig
from asr.training.fit import train
from asr.transcriber import Transcriber

RECIPES = sorted(path.stem for path in (resource("conf") / "recipe").glob("*.yaml"))
MODELS = sorted(path.stem for path in (resource("conf") / "model").glob("*.yaml"))


@pytest.fixture
def eight(manifest, tmp_path) -> Path:
    """The eight shortest shipped utterances as a manifest."""
    shortest = sorted(manifest, key=lambda utterance: utterance.duration)[:8]
    write_manifest(tmp_path / "eight.jsonl", shortest)
    return tmp_path / "eight.jsonl"


def composed(recipe: str, manifest: Path, run: Path, *more: str) -> TrainConfig:
    overrides = [f"data.train=[{manifest}]", f"data.valid=[{manifest}]", f"run={run}", "data.workers=0"]
    return compose(TrainConfig, recipe, [*overrides, "training.accelerator=cpu", *more])


OVERFIT = (
    "model.encoder.layers=3",
    "model.encoder.dim=96",
    "model.encoder.feed_forward=192",
    "model.encoder.stochastic_depth=0",
    "model.encoder.subsampling=4",
    "model.encoder.subsampling_channels=16",
    "model.decoder.layers=1",
    "model.decoder.dropout=0",
    "model.decoder.feed_forward=192",
    "model.spec_augment.time_masks=0",
    "model.spec_augment.frequency_masks=0",
    "model.loss.label_smoothing=0",
    "tokenizer.kind=char",
    "data.speeds=[1.0]",
    "data.batch_seconds=25",
    "optimizer.learning_rate=2e-3",
    "optimizer.warmup_steps=20",
    "training.average_decay=0",
    "training.epochs=100",
    "training.validate_every=100",
)


def test_eight_real_utterances_are_learnt_by_heart(eight, tmp_path):
    model, about = checkpoint.load(train(composed("mini_librispeech", eight, tmp_path / "run", *OVERFIT)))
    for mode in ("ctc", "attention"):
        result = evaluate(Transcriber(model, DecodingOptions(mode=mode)), Manifest.load(eight))
        assert result["wer"] == 0.0, (mode, result["results"])
    assert about["metrics"]["wer"] == 0.0
