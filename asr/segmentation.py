"""Long audio to chunks that fit the model, cut where it is quietest, in memory that does not grow with the duration."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asr.audio import SAMPLE_RATE

LONGEST = 20.0  # seconds: training utterances are rarely longer, and attention's cost grows with the square
# Quieter than this everywhere (about -80 dBFS) is a muted channel or digital silence: no one can have spoken.
SILENT_PEAK = 1e-4
PAUSE = 0.2  # seconds over which loudness is measured when a place to cut is sought


@dataclass(frozen=True)
class Chunk:
    """A stretch of audio to decode in one piece."""

    first: int
    """Samples of the file before it."""
    waveform: NDArray[np.float32]
    """Mono samples at 16 kHz, shape (S,)."""

    @property
    def start(self) -> float:
        """Seconds from the beginning of the file."""
        return self.first / SAMPLE_RATE

    @property
    def end(self) -> float:
        """Seconds from the beginning of the file; exactly the next chunk's start."""
        return (self.first + len(self.waveform)) / SAMPLE_RATE

    @property
    def silent(self) -> bool:
        """Whether the chunk is too quiet to hold speech."""
        return not np.any(np.abs(self.waveform) > SILENT_PEAK)


def plan_chunks(blocks: Iterable[NDArray[np.float32]]) -> Iterator[Chunk]:
    """Cut a stream into chunks of at most LONGEST seconds.

    Args:
        blocks: consecutive stretches of mono samples at 16 kHz, of any lengths.

    Yields:
        Chunks in order; together they are the stream, sample for sample.
    """
    limit = int(LONGEST * SAMPLE_RATE)
    held = np.zeros(0, dtype=np.float32)
    first = 0
    for block in blocks:
        held = np.concatenate((held, block))
        while len(held) > limit:
            cut = _quietest(held[:limit])
            yield Chunk(first, held[:cut])
            held, first = held[cut:], first + cut
    if len(held):
        yield Chunk(first, held)


def _quietest(waveform: NDArray[np.float32]) -> int:
    """Find the middle of the quietest PAUSE in the second half of a waveform."""
    width = int(PAUSE * SAMPLE_RATE)
    half = len(waveform) // 2
    energy = np.concatenate(([0.0], np.cumsum(np.square(waveform[half:], dtype=np.float64))))
    return half + int(np.argmin(energy[width:] - energy[:-width])) + width // 2
