"""One model out of several checkpoints of a run: the mean of their weights (Izmailov et al. 2018, arXiv:1803.05407)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from asr.errors import CheckpointError
from asr.model import checkpoint
from asr.model.config import ModelConfig
from asr.model.recognizer import Recognizer


def average(paths: Sequence[Path]) -> tuple[Recognizer, dict[str, Any]]:
    """Average checkpoints of one architecture and one vocabulary.

    Args:
        paths: checkpoints of this package, at least one.

    Returns:
        The averaged recogniser in evaluation mode, and what the first checkpoint says of its making, without metrics:
        an averaged model has to be evaluated anew.

    Raises:
        CheckpointError: a file cannot be read, or does not fit the first.
    """
    model, about = checkpoint.load(paths[0])
    total = {name: weight.double() for name, weight in model.state_dict().items()}
    for path in paths[1:]:
        other, _ = checkpoint.load(path)
        if _when_used(other) != _when_used(model):
            raise CheckpointError(f"{path}: has another architecture or tokenizer than {paths[0]}")
        for name, weight in other.state_dict().items():
            total[name] += weight
    model.load_state_dict({name: (weight / len(paths)).float() for name, weight in total.items()})
    about = {key: value for key, value in about.items() if key != "metrics"}
    return model, about | {"averaged": [path.name for path in paths]}


def _when_used(model: Recognizer) -> tuple[ModelConfig, bytes, str]:
    """Give what a model is when it is used: losses, masks and what is dropped are of training alone."""
    config, usual = model.config, ModelConfig()
    encoder = replace(config.encoder, dropout=0.0, stochastic_depth=0.0, activation_checkpointing=False)
    decoder = replace(config.decoder, dropout=0.0)
    used = replace(config, encoder=encoder, decoder=decoder, loss=usual.loss, spec_augment=usual.spec_augment)
    return used, model.tokenizer.model, model.tokenizer.normalizer.name
