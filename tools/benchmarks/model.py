"""Size, operations and memory of every architecture in conf/model."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
import yaml
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from asr.config import build, resource
from asr.features import FRAME_SHIFT, SAMPLE_RATE
from asr.losses import decoder_inputs
from asr.model.config import ModelConfig
from asr.model.decoder import Decoder
from asr.model.encoder import Encoder

TOKENS_PER_SECOND = 4  # of read English, in a thousand word pieces


def size_up(name: str, vocabulary: int, seconds: float, batch: int) -> tuple[str, ...]:
    """Count one architecture on torch's meta device, which has shapes but neither numbers nor memory.

    Args:
        name: a file of conf/model without its ending.
        vocabulary: number of tokens.
        seconds: audio of each utterance.
        batch: utterances side by side.

    Returns:
        A row of the table that `model` prints.
    """
    text = (resource("conf") / "model" / f"{name}.yaml").read_text(encoding="utf-8")
    config = build(ModelConfig, yaml.safe_load(text), name)
    with torch.device("meta"):
        encoder, head = Encoder(config.mels, config.encoder), nn.Linear(config.encoder.dim, vocabulary)
        decoder = Decoder(vocabulary, config.encoder.dim, config.decoder)
        frames = int(seconds * SAMPLE_RATE) // FRAME_SHIFT + 1
        features, lengths = torch.empty(batch, frames, config.mels), torch.full((batch,), frames)
        tokens = torch.ones(batch, int(seconds * TOKENS_PER_SECOND), dtype=torch.int64)

    def listen() -> tuple[Tensor, Tensor]:
        return encoder(features, lengths)

    def everything() -> tuple[Tensor, Tensor]:
        encoder_out, frames_out = listen()
        return head(encoder_out).log_softmax(dim=-1), decoder(decoder_inputs(tokens), encoder_out, frames_out)

    parts = nn.ModuleList([encoder, head, decoder])
    weights = sum(weight.numel() for weight in parts.parameters())
    audio = seconds * batch
    return (
        name,
        f"{weights / 1e6:.1f}",
        f"{weights * 4 / 1e6:.0f}",
        f"{_operations(listen) / audio / 1e9:.2f}",
        f"{_operations(everything) / audio / 1e9:.2f}",
        f"{_kept(everything, parts) / 1e6:.0f}",
    )


def _operations(run: Callable[[], object]) -> int:
    """Floating-point operations of matrix products and convolutions, two for each multiplication and addition."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        run()
    return counter.get_total_flops()


def _kept(run: Callable[[], object], model: nn.Module) -> int:
    """Bytes that a forward pass keeps for the backward pass, each tensor once and without the weights."""
    weights = {weight.untyped_storage()._cdata for weight in model.parameters()}
    kept: dict[int, Tensor] = {}  # holding the tensors keeps their addresses from being used again

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage()._cdata not in weights:
            kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what can be chosen."""
    parser.add_argument("--vocabulary", type=int, default=1024, help="number of tokens")
    parser.add_argument("--seconds", type=float, default=10.0, help="audio of each utterance")
    parser.add_argument("--batch", type=int, default=8, help="utterances side by side")


def run(arguments: argparse.Namespace) -> None:
    """Print a table of every shipped architecture."""
    table = Table(title=f"vocabulary {arguments.vocabulary}, {arguments.batch} x {arguments.seconds:g} s, float32")
    for column in ("model", "parameters (M)", "weights (MB)", "encoder", "forward", "activations (MB)"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for path in sorted((resource("conf") / "model").glob("*.yaml")):
        table.add_row(*size_up(path.stem, arguments.vocabulary, arguments.seconds, arguments.batch))
    table.caption = (
        "encoder, forward: GFLOP for each second of audio; a training step takes three times the forward pass. "
        "activations: kept for the backward pass, with unfused attention; fused kernels keep up to a tenth less."
    )
    Console().print(table)
