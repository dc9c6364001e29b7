"""Long audio to chunks that fit the model, planned at pauses, in memory that does not grow with the duration.

Silero VAD rates each frame of 32 ms. Frames in which someone speaks, with a margin on either side, become chunks; the
rest is not decoded, so that noise and music do not become words. Speech without a pause for longer than LONGEST is cut
in its longest pause, or else where it is quietest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torchaudio.functional import highpass_biquad

from asr.samples import SAMPLE_RATE
from asr.voice_activity import FRAME, VoiceActivity

LONGEST = 20.0  # seconds: training utterances are rarely longer, and attention's cost grows with the square
# Silero's own hysteresis: speech begins at the higher probability and lasts until it falls below the lower.
BEGINS = 0.5
LASTS = 0.35
# A stretch that never gets as probable as this, or for fewer frames than that, is noise. All of 668 short utterances
# but one, which is silent, get there; half of 36 stretches of noise do not.
CERTAIN = 0.6
SHORTEST = 3  # frames (96 ms)
# Rumble, such as oars and windscreen wipers, can pass for a voice. Without what lies below 400 Hz, at an even level, at
# least 82 % of the frames of 359 real stretches stay speech, and at most 36 % of such noise. Stretches of fewer frames
# than LONG_ENOUGH are single words, of which the high-pass may leave too little to judge; but a word ends in a fall of
# the power, which is 6,500-fold in 302 real ones, and the beginning of a hum, which can pass for one, does not.
HIGH_PASS = 400.0  # Hz
SPAN = 256  # samples, within which an impulse dies away in the filters (1e-11)
LEAST_KEPT = 0.5
LONG_ENOUGH = 20  # frames (0.64 s)
JUDGED = 64  # frames (2 s) that are judged at once
FALL = 2.0
# In a stretch that is long enough, speech is rarely in doubt: of 254 utterances, with noise of up to 0 dB mixed in, the
# mean over the frames is at least 0.75. Machines, birds and bells that get over BEGINS here and there lie lower.
LEAST_MEAN = 0.7
# Speech may share its stretch with longer noise, and is heard for a run of LONG_ENOUGH frames that are as probable as
# this on average, with and without what lies below HIGH_PASS: at least 0.98 in each of 29 mixtures of utterances with a
# pulsing buzz of a tenth to a third of their level, at most 0.65 in 1.2 hours of recorded noise.
BEYOND_DOUBT = 0.85
# A hum or a tone that fills a short file has no fall and is too short for the high-pass, but its spectrum stands still:
# it varies by 0.2 dB at most, that of 544 cuttings of 0.1 to 0.2 s out of words by 0.6 at least, whole words by 3.6.
STEADY = 0.5  # dB
STEADY_WINDOW = 1024  # samples (64 ms), which part the harmonics of a hum
MARGIN = 20  # frames (0.64 s) of context kept around speech: weak first and last sounds lie there
PAUSE = 48  # frames (1.5 s): a longer pause ends a chunk; over twice MARGIN, so that margins do not meet
QUIET = 0.2  # seconds over which loudness is measured when a place to cut is sought
# What a cut leaves over of a stretch is too little to be judged by itself, if it is shorter than this.
LEAST_JUDGED = 160  # frames (5 s)

LIMIT = int(LONGEST * SAMPLE_RATE) // FRAME  # frames


@dataclass(frozen=True)
class Chunk:
    """A stretch of audio: to decode in one piece, or one in which no one speaks."""

    first: int
    """Samples of the file before it."""
    waveform: NDArray[np.float32]
    """Mono samples at 16 kHz, shape (S,)."""
    speech: bool
    """Whether someone may be speaking in it."""

    @property
    def start(self) -> float:
        """Seconds from the beginning of the file."""
        return self.first / SAMPLE_RATE

    @property
    def end(self) -> float:
        """Seconds from the beginning of the file; exactly the next chunk's start."""
        return (self.first + len(self.waveform)) / SAMPLE_RATE


def plan_chunks(blocks: Iterable[NDArray[np.float32]], voice: VoiceActivity | None) -> Iterator[Chunk]:
    """Cut a stream into chunks of at most LONGEST seconds.

    Args:
        blocks: consecutive stretches of mono samples at 16 kHz; all but the last must be whole frames of 512. Equal
            streams in equal blocks give equal chunks.
        voice: finds speech; None takes everything for speech.

    Yields:
        Chunks in order; together they are the stream, sample for sample.
    """
    held = np.zeros(0, dtype=np.float32)  # samples that are in no chunk yet
    active = np.zeros(0, dtype=np.float32)  # the probability of each of their frames where someone speaks, else 0
    first = 0
    goes_on = False  # whether the last chunk was cut off a stretch that had passed for a voice
    for waveform, speaking, ended in _rated(blocks, voice):
        held, active = np.concatenate((held, waveform)), np.concatenate((active, speaking))
        while piece := _first_piece(held, active, ended):
            frames, speech, cut = piece
            size = min(frames * FRAME, len(held))
            if speech and voice and not (goes_on and frames < LEAST_JUDGED):
                speech = _is_voice(held[:size], active[:frames], voice)
            goes_on = cut and speech
            yield Chunk(first, held[:size], speech)
            held, active, first = held[size:], active[frames:], first + size


def _rated(
    blocks: Iterable[NDArray[np.float32]], voice: VoiceActivity | None
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32], bool]]:
    """Yield each block, its frames' probabilities, 0 where no one speaks, and whether it is the empty last one."""
    state = voice.start() if voice else None
    speaking = False
    for block in blocks:
        if voice is None or state is None:
            yield block, np.ones(-(-len(block) // FRAME), dtype=np.float32), False
            continue
        active, state = voice(block, state)
        for frame, probability in enumerate(active.tolist()):
            speaking = probability >= (LASTS if speaking else BEGINS)  # false for NaN
            active[frame] = probability if speaking else 0.0
        yield block, active, False
    yield np.zeros(0, dtype=np.float32), np.zeros(0, dtype=np.float32), True


def _is_voice(waveform: NDArray[np.float32], active: NDArray[np.float32], voice: VoiceActivity) -> bool:
    """Judge a stretch as a whole: what passes for speech frame by frame may still be noise."""
    spoken = np.flatnonzero(active)
    if active.max() < CERTAIN or len(spoken) < min(SHORTEST, len(active)):
        return False
    if len(spoken) >= LONG_ENOUGH:
        return _is_voice_behind_high_pass(waveform, active, voice)
    if _variation(waveform) < STEADY:
        return False
    power = np.square(waveform[: len(waveform) // FRAME * FRAME]).reshape(-1, FRAME).mean(axis=1)
    after = power[spoken[-1] + 1 :]
    return len(after) < SHORTEST or bool(power[spoken[0] : spoken[-1] + 1].mean() > FALL * after.mean())


def _variation(waveform: NDArray[np.float32]) -> float:
    """Measure how the spectrum varies: each frequency's standard deviation in dB, weighted by its power."""
    if len(waveform) < STEADY_WINDOW * 5 // 4:
        return np.inf
    frames = np.lib.stride_tricks.sliding_window_view(waveform, STEADY_WINDOW)[:: STEADY_WINDOW // 4]
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(STEADY_WINDOW)))) + 1e-10
    return float(np.average((10 * np.log10(power)).std(axis=0), weights=power.mean(axis=0)))


def _is_voice_behind_high_pass(
    waveform: NDArray[np.float32], active: NDArray[np.float32], voice: VoiceActivity
) -> bool:
    """Tell whether a stretch has a run beyond doubt, or is speech on the whole; most often its first seconds tell."""
    high = _high_passed(torch.from_numpy(waveform))
    high = high * (0.5 / high.abs().max().clamp_min(1e-4))
    spoken = active[active > 0]
    least = LEAST_KEPT * len(spoken) if spoken.mean() >= LEAST_MEAN else np.inf
    state, kept, both = voice.start(), 0, np.zeros(0, dtype=np.float32)
    for block, before in zip(
        high.split(JUDGED * FRAME), np.split(active, range(JUDGED, len(active), JUDGED)), strict=True
    ):
        behind, state = voice(block.numpy(), state)
        kept += np.count_nonzero(behind > BEGINS)
        both = np.concatenate((both[1 - LONG_ENOUGH :], np.minimum(before, behind)))
        if kept >= least or np.convolve(both, np.full(LONG_ENOUGH, 1 / LONG_ENOUGH), "valid").max() >= BEYOND_DOUBT:
            return True
    return False


def _high_passed(waveform: Tensor) -> Tensor:
    """Take out what lies below HIGH_PASS, with two second-order filters, as one matrix product: shape (S,).

    The filters' own recursion takes seven times as long.
    """
    padded = F.pad(waveform, (SPAN, -len(waveform) % SPAN))
    return (padded.unfold(0, 2 * SPAN, SPAN) @ _high_pass()).flatten()[: len(waveform)]


@cache
def _high_pass() -> Tensor:
    """Give the filters as a matrix from 2 x SPAN samples to the last SPAN of them."""
    response = F.pad(torch.ones(1), (0, SPAN - 1))
    for _ in range(2):
        response = highpass_biquad(response, SAMPLE_RATE, HIGH_PASS)
    lag = torch.arange(SPAN, 2 * SPAN) - torch.arange(2 * SPAN)[:, None]
    return torch.where((lag >= 0) & (lag < SPAN), response[lag.clamp(0, SPAN - 1)], 0.0)


def _first_piece(held: NDArray[np.float32], active: NDArray[np.float32], ended: bool) -> tuple[int, bool, bool] | None:
    """Find how many frames the next chunk takes, whether it is speech, and whether that goes on after it.

    None if that takes more of the stream.
    """
    if not len(active):
        return None
    spoken = np.flatnonzero(active)
    quiet = len(active) if ended else len(active) - MARGIN
    if len(spoken):
        quiet = min(quiet, int(spoken[0]) - MARGIN)
    elif quiet <= 0:
        return None
    if quiet > 0:
        return quiet, False, False
    end = _end_of_speech(spoken, len(active), ended)
    if end is None or end > LIMIT:
        if len(active) <= LIMIT:
            return None
        return _cut(held, active[:LIMIT]), True, True
    return end, True, False


def _end_of_speech(spoken: NDArray[np.int_], frames: int, ended: bool) -> int | None:
    """Find the frame after the speech, margin included; None if it may go on beyond what is there."""
    pauses = np.flatnonzero(np.diff(spoken) > PAUSE)
    if len(pauses):
        return int(spoken[pauses[0]]) + 1 + MARGIN
    last = int(spoken[-1]) + 1
    return min(frames, last + MARGIN) if ended or frames - last >= PAUSE else None


def _cut(held: NDArray[np.float32], active: NDArray[np.float32]) -> int:
    """Choose the frame to cut before: within the longest pause of the second half, or else where it is quietest."""
    half = len(active) // 2
    spoken = np.concatenate(([half], half + np.flatnonzero(active[half:]), [len(active)]))
    pause, begin, end = max((after - before, before, after) for before, after in pairwise(spoken.tolist()))
    if pause * FRAME > QUIET * SAMPLE_RATE:
        return (begin + end + 1) // 2
    return _quietest(held[: len(active) * FRAME]) // FRAME


def _quietest(waveform: NDArray[np.float32]) -> int:
    """Find the middle of the quietest stretch in the second half of a waveform, in samples."""
    width = int(QUIET * SAMPLE_RATE)
    half = len(waveform) // 2
    energy = np.concatenate(([0.0], np.cumsum(np.square(waveform[half:], dtype=np.float64))))
    return half + int(np.argmin(energy[width:] - energy[:-width])) + width // 2
