"""A checkpoint's encoder and CTC head as an ONNX file, for programs without torch.

    features (batch, time, mels) float32, lengths (batch,) int64
        ─ norm ─ encoder ─ CTC head ─ log_probs (batch, frames, tokens) float32, frames (batch,) int64

The features are log-mel energies before normalisation; how to make them is in the file's metadata (`features`), as are
the tokens in order (`tokens`), the id of CTC's blank (`blank`) and the seconds between two frames (`frame_seconds`).
The best token of each frame, without repeats, then without blanks, is the text; U+2581 stands for a space.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from asr.errors import ConfigError
from asr.features import FFT_SIZE, FLOOR, FRAME_LENGTH, FRAME_SHIFT, HIGHEST, LOWEST, SAMPLE_RATE
from asr.files import replacing
from asr.tokenizer import BLANK

if TYPE_CHECKING:
    from asr.model.recognizer import Recognizer

SHORTEST, LONGEST = 16, 100_000  # feature frames that the file takes


class Posteriors(nn.Module):
    """The part of a recogniser that is exported: log-mel features to CTC log-probabilities."""

    def __init__(self, model: Recognizer) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Turn features (B, T, M) with lengths (B,) into log-probabilities (B, T', V) and their lengths (B,)."""
        encoded, frames = self.model.encoder(self.model.norm(features, lengths), lengths)
        return self.model.ctc_log_probs(encoded), frames


def export_onnx(model: Recognizer, path: Path) -> None:
    """Write the ONNX file, atomically.

    Args:
        model: a recogniser on the CPU, in evaluation mode.
        path: where to write it.

    Raises:
        ConfigError: the packages that write ONNX are not installed.
        WriteError: the file cannot be written.
    """
    try:
        import onnxscript  # noqa: F401 (torch's exporter needs it)
    except ImportError as error:
        raise ConfigError("ONNX files are written with onnx and onnxscript: pip install 'asr[onnx]'") from error
    batch, time = torch.export.Dim("batch"), torch.export.Dim("time", min=SHORTEST, max=LONGEST)
    features, lengths = torch.zeros(2, 501, model.config.mels), torch.tensor([501, 333])
    program = torch.onnx.export(
        Posteriors(model).eval(),
        (features, lengths),
        dynamo=True,
        verbose=False,
        input_names=["features", "lengths"],
        output_names=["log_probs", "frames"],
        dynamic_shapes={"features": {0: batch, 1: time}, "lengths": {0: batch}},
    )
    assert program is not None  # what the exporter gives with dynamo=True
    program.model.metadata_props.update(describe(model))
    with replacing(path) as temporary:
        program.save(temporary)


def describe(model: Recognizer) -> dict[str, str]:
    """Tell what a program needs to know to make the features and to read the posteriors; each value is JSON."""
    features = {
        "sample_rate": SAMPLE_RATE, "fft_size": FFT_SIZE, "frame_length": FRAME_LENGTH, "frame_shift": FRAME_SHIFT,
        "mels": model.config.mels, "mel_scale": "slaney", "mel_norm": "slaney", "mel_hertz": [LOWEST, HIGHEST],
        "window": "hann, periodic", "window_start": (FFT_SIZE - FRAME_LENGTH) // 2,  # torch puts it in the middle
        "padding": "zeros, half an FFT at both ends", "value": f"natural log of max(power, {FLOOR})",
        "frames": "samples // frame_shift + 1", "fewest_frames": SHORTEST, "most_frames": LONGEST,
    }  # fmt: skip
    values = {
        "features": features,
        "tokens": model.tokenizer.pieces,
        "blank": BLANK,
        "frame_seconds": model.frame_seconds,
    }
    return {name: json.dumps(value) for name, value in values.items()}
