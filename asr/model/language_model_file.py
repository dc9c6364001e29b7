"""One safetensors file holds a neural language model: weights, sizes, tokens, where it came from.

tensors    the model's state
metadata   format, config (JSON), pieces (JSON: the tokens by id), about (JSON: provenance and metrics)
"""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import save

from asr.config import build
from asr.errors import CheckpointError
from asr.files import write_file
from asr.model.checkpoint import check_sizes, fitting_together, read_tensors, restore
from asr.model.language_model import LanguageModelConfig, NeuralLanguageModel
from asr.tokenizer import Tokenizer

FORMAT = "asr-lm-1"
KIND = "language model"


def save_language_model(
    path: Path | str, model: NeuralLanguageModel, tokenizer: Tokenizer, about: dict[str, Any]
) -> None:
    """Write a language model atomically, its weights in float16.

    Args:
        path: where to.
        model: the model.
        tokenizer: names its tokens.
        about: provenance and metrics, anything JSON can hold.

    Raises:
        WriteError: the file cannot be written.
    """
    metadata = {
        "format": FORMAT,
        "config": json.dumps(asdict(model.config)),
        "pieces": json.dumps(tokenizer.pieces),
        "about": json.dumps(about),
    }
    state = {name: tensor.detach().cpu().half().contiguous() for name, tensor in model.state_dict().items()}
    write_file(path, save(state, metadata))


def load_neural_language_model(path: Path | str, tokenizer: Tokenizer) -> tuple[NeuralLanguageModel, dict[str, Any]]:
    """Read a language model for a recogniser.

    Args:
        path: a file that `save_language_model` wrote.
        tokenizer: the recogniser's; the model's tokens must be the same ones.

    Returns:
        The model in float32 and in evaluation mode, and what `save_language_model` was told about it.

    Raises:
        CheckpointError: the file is missing, damaged, or made for other tokens.
    """
    metadata, state = read_tensors(path, FORMAT, KIND)
    with fitting_together(path, KIND):
        pieces = json.loads(metadata["pieces"])
        about = json.loads(metadata["about"])
        config = build(LanguageModelConfig, json.loads(metadata["config"]), "config")
        if pieces != tokenizer.pieces:
            raise CheckpointError("its tokens are not this recogniser's: train one with tokenizer_from=MODEL")
        make = partial(NeuralLanguageModel, len(pieces), config)
        check_sizes(config.layers, make, state)
        return restore(make, state), about
