from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from examples import small_config

from asr.errors import CheckpointError
from asr.features import SpecAugmentConfig
from asr.model import checkpoint
from asr.model.average import average
from asr.model.config import LossConfig
from asr.model.recognizer import Recognizer
from asr.tokenizer import Tokenizer


def test_the_average_is_the_mean_of_every_weight(tokenizer, tmp_path):
    states = []
    for seed in range(3):
        torch.manual_seed(seed)
        model = Recognizer(small_config(), tokenizer)
        states.append(model.state_dict())
        checkpoint.save(tmp_path / f"{seed}.safetensors", model, {"metrics": {"wer": 0.5}, "data": {"hours": 1}})
    model, about = average([tmp_path / f"{seed}.safetensors" for seed in range(3)])
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(weight, torch.stack([state[name] for state in states]).mean(0), atol=1e-6, rtol=0)
    assert about == {"data": {"hours": 1}, "averaged": ["0.safetensors", "1.safetensors", "2.safetensors"]}


def test_models_of_other_masks_and_losses_fit_together(tokenizer, tmp_path):
    other = replace(small_config(), spec_augment=SpecAugmentConfig(time_ratio=0.01), loss=LossConfig(ctc_weight=0.9))
    other = replace(
        other, encoder=replace(other.encoder, stochastic_depth=0.3), decoder=replace(other.decoder, dropout=0.3)
    )
    for name, config in (("one", small_config()), ("two", other)):
        checkpoint.save(tmp_path / f"{name}.safetensors", Recognizer(config, tokenizer), {})
    model, _ = average([tmp_path / "one.safetensors", tmp_path / "two.safetensors"])
    assert model.config == small_config()


def test_models_that_do_not_fit_together_are_refused(tokenizer, tmp_path):
    for name, config in (("one", small_config()), ("two", small_config(layers=1))):
        checkpoint.save(tmp_path / f"{name}.safetensors", Recognizer(config, tokenizer), {})
    checkpoint.save(tmp_path / "raw.safetensors", Recognizer(small_config(), Tokenizer(tokenizer.model, "none")), {})
    for name in ("two", "raw"):
        with pytest.raises(CheckpointError, match=rf"{name}\.safetensors: has another architecture or tokenizer"):
            average([tmp_path / "one.safetensors", tmp_path / f"{name}.safetensors"])
