"""One safetensors file holds a whole recogniser: weights, configuration, tokenizer, where it came from, how good it is.

Nothing in it is executed: safetensors has no pickle. Reading needs neither Lightning nor a network.

    tensors    the recogniser's state, and `tokenizer` (uint8): the serialised SentencePiece model
    metadata   format, config (JSON), normalizer (its name), about (JSON: provenance and metrics)
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from asr.config import build
from asr.errors import AsrError, CheckpointError
from asr.files import replacing
from asr.model.config import ModelConfig
from asr.model.decoder import Decoder
from asr.model.encoder import Encoder
from asr.model.recognizer import Recognizer
from asr.tokenizer import Tokenizer

FORMAT = "asr-1"
TOKENIZER = "tokenizer"
DRAWS = ("normal_", "uniform_", "kaiming_uniform_")  # what draws first weights


def save(path: Path | str, model: Recognizer, about: dict[str, Any], dtype: torch.dtype = torch.float32) -> None:
    """Write a checkpoint atomically: the file is there whole, or not at all.

    Args:
        path: where to write it.
        model: the recogniser.
        about: provenance and metrics, anything JSON can hold.
        dtype: type the weights are stored in; float16 halves the file. Normalisation statistics stay float32.

    Raises:
        CheckpointError: the file cannot be written.
    """
    path = Path(path)
    state = {name: _stored(name, tensor, dtype) for name, tensor in model.state_dict().items()}
    state[TOKENIZER] = torch.frombuffer(bytearray(model.tokenizer.model), dtype=torch.uint8)
    metadata = {
        "format": FORMAT,
        "config": json.dumps(asdict(model.config)),
        "normalizer": model.tokenizer.normalizer.name,
        "about": json.dumps(about),
    }
    try:
        with replacing(path) as temporary:
            save_file(state, temporary, metadata)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written: {error.strerror or error}") from error


def load(path: Path | str, device: torch.device | str = "cpu") -> tuple[Recognizer, dict[str, Any]]:
    """Read a checkpoint.

    Args:
        path: a file that `save` wrote.
        device: where the recogniser goes.

    Returns:
        The recogniser in float32 and in evaluation mode, and what `save` was told about it.

    Raises:
        CheckpointError: the file is missing, damaged, or no checkpoint of this package.
    """
    metadata, state = _read(Path(path))
    with _fitting_together(path):
        config = build(ModelConfig, json.loads(metadata["config"]), "config")
        tokenizer = Tokenizer(state.pop(TOKENIZER).numpy().tobytes(), metadata["normalizer"])
        _check_sizes(config, len(tokenizer), state)
        with _Undrawn():
            model = Recognizer(config, tokenizer)
        model.load_state_dict({name: tensor.float() for name, tensor in state.items()})
        about = json.loads(metadata["about"])
    return model.to(device).eval(), about


def describe(path: Path | str) -> dict[str, Any]:
    """Tell what is in a checkpoint without building the model.

    Returns:
        File size in megabytes, parameters, configuration, tokenizer, and what `save` was told: provenance and metrics.

    Raises:
        CheckpointError: as `load`.
    """
    path = Path(path)
    metadata, state = _read(path)
    with _fitting_together(path):
        tokenizer = Tokenizer(state.pop(TOKENIZER).numpy().tobytes(), metadata["normalizer"])
        return {
            "file": path.name,
            "megabytes": round(path.stat().st_size / 1e6, 2),
            "parameters": sum(tensor.numel() for name, tensor in state.items() if not name.startswith("norm.")),
            "stored_as": str(state["ctc_head.weight"].dtype).removeprefix("torch."),
            "tokenizer": {"tokens": len(tokenizer), "normalizer": tokenizer.normalizer.name},
            "config": json.loads(metadata["config"]),
            "about": json.loads(metadata["about"]),
        }


@contextmanager
def _fitting_together(path: Path | str) -> Iterator[None]:
    try:
        yield
    except (AsrError, LookupError, TypeError, ValueError, RuntimeError) as error:
        cause = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{path}: the checkpoint does not fit together: {cause}") from error


class _Undrawn(TorchFunctionMode):
    """Leave first weights undrawn while this context lasts: the checkpoint's take their place.

    Drawing them takes time and, on the meta device, the import of torch's compiler, which takes seconds.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run anything but draws."""
        if function.__name__ in DRAWS:
            return args[0] if args else (kwargs or {})["tensor"]
        return function(*args, **(kwargs or {}))


def _check_sizes(config: ModelConfig, vocabulary: int, state: dict[str, Tensor]) -> None:
    """Refuse a configuration that the tensors do not bear out, before memory is spent on it."""
    if config.encoder.layers + config.decoder.layers > len(state):
        raise CheckpointError("the configuration has more layers than the file has tensors")
    with _Undrawn(), torch.device("meta"):  # shapes without memory
        parts = {
            "encoder": Encoder(config.mels, config.encoder),
            "ctc_head": nn.Linear(config.encoder.dim, vocabulary),
            "decoder": Decoder(vocabulary, config.encoder.dim, config.decoder),
        }
    for name, expected in nn.ModuleDict(parts).state_dict().items():
        if state[name].shape != expected.shape:
            raise CheckpointError(f"{name} has shape {list(state[name].shape)}, not {list(expected.shape)}")


def read_tensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Read metadata and tensors of a safetensors file.

    Raises:
        CheckpointError: it is missing, damaged, or no such file.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint")
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a safetensors file, or damaged: {error}") from error


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Read metadata and tensors, and make sure that they are ours."""
    metadata, state = read_tensors(path)
    if metadata.get("format") != FORMAT or TOKENIZER not in state:
        raise CheckpointError(f"{path}: a safetensors file, but no checkpoint of this package")
    return metadata, state


def _stored(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.detach().cpu().to(torch.float32 if name.startswith("norm.") else dtype).contiguous()
