"""Where someone speaks: Silero VAD, with the weights that its package brings, as a stream in constant memory.

The package's own model takes one frame of 32 ms at a time. Only the LSTM needs the frames in order: the convolutions
see one frame each and run over many at once here, which gives the same probabilities more than ten times as fast.
Nothing of the package is imported, since that would set torch to one thread for the whole program.

    waveform (S,) ─ frames (N, 576) ─ STFT ─ 4 convolutions ─ (N, 128) ─ LSTM ─ probability (N,)

Shapes: S samples, N frames.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from asr.errors import ConfigError

FRAME = 512  # samples: 32 ms at 16 kHz
CONTEXT = 64  # samples of the frame before that each frame also sees
FFT_SIZE = 256
BINS = FFT_SIZE // 2 + 1
WIDTH = 128
SILENCE = 16  # frames (0.5 s) heard before the first sample

State = tuple[Tensor, Tensor, Tensor]


class VoiceActivity(nn.Module):
    """Silero VAD 6 for 16 kHz (Silero Team 2024, github.com/snakers4/silero-vad; MIT licence)."""

    def __init__(self) -> None:
        super().__init__()
        self.stft = nn.Conv1d(1, 2 * BINS, FFT_SIZE, stride=FFT_SIZE // 2, bias=False)
        self.conv1 = nn.Conv1d(BINS, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, WIDTH, 3, padding=1)
        self.lstm = nn.LSTM(WIDTH, WIDTH)
        self.out = nn.Conv1d(WIDTH, 1, 1)

    def start(self) -> State:
        """Give the state before the first sample: context (64,), hidden and cell (1, 128), after a little silence.

        Files that begin in the middle of a word are missed without: 29 of 300 spoken digits, none of them with it.
        """
        silent = torch.zeros(CONTEXT), torch.zeros(1, WIDTH), torch.zeros(1, WIDTH)
        return self(np.zeros(SILENCE * FRAME, dtype=np.float32), silent)[1]

    @torch.inference_mode()
    def forward(self, waveform: NDArray[np.float32], state: State) -> tuple[NDArray[np.float32], State]:
        """Rate the next stretch of a stream.

        Args:
            waveform: mono samples at 16 kHz, shape (S,); all stretches but the last must be whole frames of 512.
            state: from `start`, or from the stretch before.

        Returns:
            The probability of speech in each frame, shape (N,) with N = S / 512 rounded up, and the next state.
        """
        context, hidden, cell = state
        whole = F.pad(torch.from_numpy(waveform), (0, -len(waveform) % FRAME))
        joined = torch.cat((context, whole))
        frames = joined.unfold(0, CONTEXT + FRAME, FRAME)  # (N, 576)
        x = self.stft(F.pad(frames[:, None], (0, CONTEXT), mode="reflect"))  # (N, 2 x bins, 4)
        x = (x[:, :BINS].square() + x[:, BINS:].square()).sqrt()
        x = F.relu(self.conv4(F.relu(self.conv3(F.relu(self.conv2(F.relu(self.conv1(x))))))))  # (N, 128, 1)
        x, (hidden, cell) = self.lstm(x[:, :, 0], (hidden, cell))  # (N, 128)
        probabilities = self.out(F.relu(x)[:, :, None]).sigmoid()  # (N, 1, 1)
        return probabilities[:, 0, 0].numpy(), (joined[-CONTEXT:], hidden, cell)


@cache
def load_voice_activity() -> VoiceActivity:
    """Read the weights that the silero-vad package brings; threads may share the model, since its state is outside it.

    Raises:
        ConfigError: the package is not installed.
    """
    package = importlib.util.find_spec("silero_vad")  # finds it without importing it
    if package is None or not package.submodule_search_locations:
        raise ConfigError("speech is found with silero-vad, which is not installed: pip install 'silero-vad>=6.2,<7'")
    # The package's safetensors file holds older weights than this one, which its own loader uses by default.
    scripted = torch.jit.load(Path(package.submodule_search_locations[0]) / "data" / "silero_vad.jit")
    weights = scripted._model.state_dict()  # the half for 16 kHz
    model = VoiceActivity()
    model.load_state_dict({ours: weights[theirs] for ours, theirs in _names(model)})
    return model.eval().requires_grad_(False)


def _names(model: VoiceActivity) -> Iterator[tuple[str, str]]:
    """Give each weight's name here and in the package."""
    for name in model.state_dict():
        layer, kind = name.split(".")
        if layer == "stft":
            yield name, "stft.forward_basis_buffer"
        elif layer == "lstm":
            yield name, f"decoder.rnn.{kind.removesuffix('_l0')}"
        elif layer == "out":
            yield name, f"decoder.decoder.2.{kind}"
        else:
            yield name, f"encoder.{int(layer[-1]) - 1}.reparam_conv.{kind}"
