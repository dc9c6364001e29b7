"""Real recordings and small models that tests build on."""

from __future__ import annotations

from pathlib import Path

import soundfile
import torch

from asr.model.config import DecoderConfig, EncoderConfig, ModelConfig

DATA = Path(__file__).parent / "data"


def small_config(**encoder: object) -> ModelConfig:
    """A model of a few thousand weights; keyword arguments go to the encoder."""
    sizes = {"layers": 2, "dim": 32, "heads": 2, "feed_forward": 48, "kernel": 31, "subsampling_channels": 8} | encoder
    decoder = DecoderConfig(layers=2, heads=2, feed_forward=48)
    return ModelConfig(encoder=EncoderConfig(**sizes), decoder=decoder)


def waveforms(*names: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Read shipped utterances by their file names and pad them: waveform (B, S), lengths (B,)."""
    rows = [torch.from_numpy(soundfile.read(DATA / f"{name}.flac", dtype="float32")[0]) for name in names]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), torch.tensor([len(row) for row in rows])
