"""One safetensors file holds a whole recogniser: weights, configuration, tokenizer, where it came from, how good it is.

Nothing in it is executed: safetensors has no pickle. Reading needs neither Lightning nor a network.

    tensors    the recogniser's state, and `tokenizer` (uint8): the serialised SentencePiece model
    metadata   format, config (JSON), normalizer (its name), about (JSON: provenance and metrics)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from asr.config import build
from asr.errors import AsrError, CheckpointError
from asr.files import write_file
from asr.model.config import ModelConfig
from asr.model.decoder import Decoder
from asr.model.encoder import Encoder
from asr.model.recognizer import Recognizer
from asr.tokenizer import Tokenizer

FORMAT = "asr-1"
TOKENIZER = "tokenizer"
KIND = "checkpoint"
MOST_LAYERS = 1000  # of any model; a file of nothing but empty tensors may claim more
DRAWS = ("normal_", "uniform_", "kaiming_uniform_")  # what draws first weights

Module = TypeVar("Module", bound=nn.Module)


def save(path: Path | str, model: Recognizer, about: dict[str, Any], dtype: torch.dtype = torch.float32) -> None:
    """Write a checkpoint atomically: the file is there whole, or not at all.

    Args:
        path: where to write it.
        model: the recogniser.
        about: provenance and metrics, anything JSON can hold.
        dtype: type the weights are stored in; float16 halves the file. Normalisation statistics stay float32.

    Raises:
        WriteError: the file cannot be written.
    """
    state = {name: _stored(name, tensor, dtype) for name, tensor in model.state_dict().items()}
    state[TOKENIZER] = torch.frombuffer(bytearray(model.tokenizer.model), dtype=torch.uint8)
    metadata = {
        "format": FORMAT,
        "config": json.dumps(asdict(model.config)),
        "normalizer": model.tokenizer.normalizer.name,
        "about": json.dumps(about),
    }
    write_file(path, to_bytes(state, metadata))


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
    metadata, state = read_tensors(path, FORMAT, KIND)
    with fitting_together(path, KIND):
        config = build(ModelConfig, json.loads(metadata["config"]), "config")
        tokenizer = Tokenizer(state.pop(TOKENIZER).numpy().tobytes(), metadata["normalizer"])
        layers = config.encoder.layers + config.decoder.layers
        check_sizes(layers, lambda: _skeleton(config, len(tokenizer)), state)
        model = restore(lambda: Recognizer(config, tokenizer), state)
        about = _object(metadata["about"])
    return model.to(device), about


def describe(path: Path | str) -> dict[str, Any]:
    """Tell what is in a checkpoint without building the model.

    Returns:
        File size in megabytes, parameters, configuration, tokenizer, and what `save` was told: provenance and metrics.

    Raises:
        CheckpointError: as `load`.
    """
    path = Path(path)
    metadata, state = read_tensors(path, FORMAT, KIND)
    with fitting_together(path, KIND):
        tokenizer = Tokenizer(state.pop(TOKENIZER).numpy().tobytes(), metadata["normalizer"])
        return {
            "file": path.name,
            "megabytes": round(path.stat().st_size / 1e6, 2),
            "parameters": sum(tensor.numel() for name, tensor in state.items() if not _is_statistic(name)),
            "stored_as": str(state["ctc_head.weight"].dtype).removeprefix("torch."),
            "tokenizer": {"tokens": len(tokenizer), "normalizer": tokenizer.normalizer.name},
            "config": json.loads(metadata["config"]),
            "about": _object(metadata["about"]),
        }


def _object(text: str) -> dict[str, Any]:
    about = json.loads(text)
    if not isinstance(about, dict):
        raise ValueError(f"what is said about it is no object but {type(about).__name__}")
    return about


@contextmanager
def fitting_together(path: Path | str, kind: str) -> Iterator[None]:
    """Make one line of whatever turns out to be wrong with a file's content; arguments as of `read_tensors`."""
    try:
        yield
    except (AsrError, LookupError, TypeError, ValueError, RuntimeError) as error:
        cause = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{path}: the {kind} does not fit together: {cause}") from error


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


def check_sizes(layers: int, make: Callable[[], nn.Module], state: dict[str, Tensor]) -> None:
    """Refuse a configuration that the tensors do not bear out, before memory is spent on it.

    Args:
        layers: how many the configuration has.
        make: gives a module of the configured sizes.
        state: the tensors.

    Raises:
        CheckpointError: there are fewer of them, or of other shapes.
    """
    if layers > min(len(state), MOST_LAYERS):
        raise CheckpointError(f"the configuration has more layers than the file has tensors, or than {MOST_LAYERS}")
    with _Undrawn(), torch.device("meta"):  # shapes without memory
        expected = make().state_dict()
    for name, tensor in expected.items():
        if state[name].shape != tensor.shape:
            raise CheckpointError(f"{name} has shape {list(state[name].shape)}, not {list(tensor.shape)}")


def restore(make: Callable[[], Module], state: dict[str, Tensor]) -> Module:
    """Make a module of stored tensors, in float32 and evaluation mode, without drawing first weights for it."""
    with _Undrawn():
        model = make()
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    return model.eval()


def read_tensors(path: Path | str, format: str, kind: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Read metadata and tensors of a safetensors file of this package.

    Args:
        path: the file.
        format: what its metadata has under `format`.
        kind: what messages call such a file.

    Raises:
        CheckpointError: it is missing, damaged, or of another kind.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"{path}: no such {kind}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (the file is no mapping)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a safetensors file, or damaged: {error}") from error
    if metadata.get("format") != format:
        raise CheckpointError(f"{path}: a safetensors file, but no {kind} of this package")
    return metadata, state


def _skeleton(config: ModelConfig, vocabulary: int) -> nn.Module:
    """Make the parts of a recogniser whose sizes are configured."""
    return nn.ModuleDict(
        {
            "encoder": Encoder(config.mels, config.encoder),
            "ctc_head": nn.Linear(config.encoder.dim, vocabulary),
            "decoder": Decoder(vocabulary, config.encoder.dim, config.decoder),
        }
    )


def _stored(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.detach().cpu().to(torch.float32 if _is_statistic(name) else dtype).contiguous()


def _is_statistic(name: str) -> bool:
    """Tell what normalises, features or a batch, from what is learnt: its range may be wider than float16's."""
    return name.startswith("norm.") or name.endswith(("running_mean", "running_var"))
