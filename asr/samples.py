"""Samples in memory, with the rate without which they mean nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from asr.errors import InputTypeError

SAMPLE_RATE = 16_000  # Hz: what every model here listens to
RATES = range(1_000, 1_000_001)  # Hz; outside it a header is damaged, and resampling would fill the memory
MOST_CHANNELS = 256  # an array with more has its axes the other way round
BLOCK = 1 << 18  # samples of all channels read at once: a few seconds, a megabyte
MISSING_SECONDS = 0.5  # headers of lossy formats are inexact; a file that ends this far early is truncated


@dataclass(frozen=True)
class Audio:
    """A whole file as it was recorded."""

    waveform: NDArray[np.float32]
    """Samples, shape (channels, samples); full scale is 1, float files may go beyond it."""
    sample_rate: int
    """Hz."""


@dataclass(frozen=True)
class Opened:
    """A file, or samples, as they are read."""

    rate: int
    """Hz."""
    channels: int
    seconds: float | None
    """Length of the whole file, where the header can be trusted."""
    blocks: Iterator[NDArray[np.float32]]
    """Samples, each (frames, channels)."""


Source = str | Path | Audio | tuple[ArrayLike, int]
"""What can be read: a file, or samples with their rate. Samples are (S,) or (channels, S), floats of full scale 1 or
signed integers of 8, 16 or 32 bits, which are scaled to it."""


def checked_audio(source: Audio | tuple[ArrayLike, int]) -> Audio:
    """Check samples that come with their rate.

    Args:
        source: samples of shape (S,) or (channels, S), as `Source` has them, and their rate in Hz.

    Returns:
        The same as float32 of shape (channels, S), integers scaled to 1.

    Raises:
        InputTypeError: it is something else, such as an array without a rate.
    """
    if isinstance(source, Audio):
        waveform, rate = source.waveform, source.sample_rate
    elif isinstance(source, tuple) and len(source) == 2 and isinstance(source[1], int | float | np.number):
        try:
            waveform, rate = np.asarray(source[0]), source[1]
        except (TypeError, ValueError, RuntimeError) as error:  # ragged rows; a tensor on a GPU, or with a gradient
            raise InputTypeError(f"samples cannot be made an array: {' '.join(str(error).split())}") from error
    elif hasattr(source, "shape"):
        raise InputTypeError("an array alone does not say its sample rate: pass (array, sample_rate)")
    else:
        raise InputTypeError(f"audio is a file's name or (array, sample_rate), got {type(source).__name__}")
    if waveform.ndim not in (1, 2) or (waveform.ndim == 2 and not 1 <= len(waveform) <= MOST_CHANNELS):
        raise InputTypeError(f"samples must have shape (samples,) or (channels, samples), got {waveform.shape}")
    if isinstance(rate, bool) or not isinstance(rate, int | np.integer) or rate not in RATES:
        raise InputTypeError(f"sample_rate must be a whole number of Hz, {RATES[0]} to {RATES[-1]}, got {rate!r}")
    if waveform.dtype.kind not in "if":
        raise InputTypeError(f"samples must be floats or signed integers, got {waveform.dtype}")
    if (
        waveform.dtype.kind == "i" and waveform.dtype.itemsize > 4
    ):  # a list of integers becomes this, whatever its scale
        raise InputTypeError(
            f"{waveform.dtype} samples do not say what full scale is: make them an int16 or int32 array"
        )
    scale = 1.0 if waveform.dtype.kind == "f" else float(1 << (8 * waveform.dtype.itemsize - 1))
    return Audio(np.atleast_2d(waveform).astype(np.float32, copy=False) / np.float32(scale), int(rate))
