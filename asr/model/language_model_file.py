"""One safetensors file holds a neural language model: weights, sizes, tokens, where it came from.

tensors    the model's state
metadata   format, config (JSON), pieces (JSON: the tokens by id), about (JSON: provenance and metrics)
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from asr.config import build
from asr.errors import AsrError, CheckpointError
from asr.files import replacing
from asr.model.checkpoint import read_tensors
from asr.model.language_model import LanguageModelConfig, NeuralLanguageModel
from asr.tokenizer import Tokenizer

FORMAT = "asr-lm-1"


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
        CheckpointError: the file cannot be written.
    """
    path = Path(path)
    metadata = {
        "format": FORMAT,
        "config": json.dumps(asdict(model.config)),
        "pieces": json.dumps([tokenizer.piece(token) for token in range(len(tokenizer))]),
        "about": json.dumps(about),
    }
    state = {name: tensor.detach().cpu().half().contiguous() for name, tensor in model.state_dict().items()}
    try:
        with replacing(path) as temporary:
            save_file(state, temporary, metadata)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written: {error.strerror or error}") from error


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
    metadata, state = read_tensors(Path(path))
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path}: a safetensors file, but no language model of this package")
    try:
        pieces = json.loads(metadata["pieces"])
        about = json.loads(metadata["about"])
        config = build(LanguageModelConfig, json.loads(metadata["config"]), "config")
        if pieces != [tokenizer.piece(token) for token in range(len(tokenizer))]:
            raise CheckpointError("its tokens are not this recogniser's: train one with tokenizer_from=MODEL")
        if config.layers > len(state):
            raise CheckpointError("the configuration has more layers than the file has tensors")
        with torch.device("meta"):  # shapes without memory
            expected = NeuralLanguageModel(len(pieces), config).state_dict()
        for name, tensor in expected.items():
            if state[name].shape != tensor.shape:
                raise CheckpointError(f"{name} has shape {list(state[name].shape)}, not {list(tensor.shape)}")
        model = NeuralLanguageModel(len(pieces), config)
        model.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    except (AsrError, LookupError, TypeError, ValueError, RuntimeError) as error:
        cause = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{path}: the language model cannot be used: {cause}") from error
    return model.eval(), about
