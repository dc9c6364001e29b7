"""Changes to a waveform that keep its words: other voices, rooms, noises and channels out of the same recordings.

Every draw for an utterance comes from one seed, and each kind draws on its own: turning one off changes no other.
Waveforms are mono at 16 kHz, shape (S,), float32.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import soundfile
import torch
import torchaudio
from numpy.typing import NDArray

from asr.audio import load_mono
from asr.errors import ConfigError
from asr.manifest import Manifest
from asr.samples import SAMPLE_RATE

Waveform = NDArray[np.float32]
TELEPHONE_BAND = 300.0, 3400.0  # Hz: what a telephone line lets through (ITU-T G.712)
TELEPHONE_TAPS = 511  # of the filter: its slopes are 100 Hz wide
DIRECT_TO_REVERBERANT = 0.0, 12.0  # dB: a talker across the room, a talker close by
CODECS = {
    "mulaw": ("WAV", "ULAW"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "opus": ("OGG", "OPUS"),
    "vorbis": ("OGG", "VORBIS"),
}
COMPRESSION = 0.5, 0.95  # of libsndfile's 0..1: Opus from 130 down to about 18 kbit/s


@dataclass(frozen=True)
class AugmentConfig:
    """How often each change is made to an utterance, and how strongly; all are off by default."""

    noise: list[str] = field(default_factory=list)
    """Manifests of noise recordings; their texts are not read."""
    noise_probability: float = 0.0
    """Share of utterances to which noise is added."""
    noise_snr: list[float] = field(default_factory=lambda: [5.0, 25.0])
    """Least and greatest signal-to-noise ratio, in dB."""
    reverberation: list[str] = field(default_factory=list)
    """Manifests of recorded room impulse responses; without any, rooms are simulated."""
    reverberation_probability: float = 0.0
    """Share of utterances that are heard in a room."""
    reverberation_seconds: list[float] = field(default_factory=lambda: [0.1, 0.8])
    """Shortest and longest time in which a simulated room's sound decays by 60 dB."""
    gain_probability: float = 0.0
    """Share of utterances that are made louder or softer."""
    gain_decibels: list[float] = field(default_factory=lambda: [-15.0, 6.0])
    """Least and greatest gain, in dB."""
    telephone_probability: float = 0.0
    """Share of utterances that are limited to a telephone's band, 300 to 3400 Hz."""
    codec_probability: float = 0.0
    """Share of utterances that are encoded and decoded."""
    codecs: list[str] = field(default_factory=lambda: ["mulaw", "mp3", "opus"])
    """Codecs to draw from: mulaw, mp3, opus, vorbis."""

    def __post_init__(self) -> None:
        """Check every number and name."""
        for kind in KINDS:
            if not 0 <= self.probability(kind) <= 1:
                raise ConfigError(f"augment.{kind}_probability must lie in 0..1, got {self.probability(kind)}")
        for name in ("noise_snr", "reverberation_seconds", "gain_decibels"):
            limits = getattr(self, name)
            if len(limits) != 2 or limits[0] > limits[1]:
                raise ConfigError(f"augment.{name} must be the least and the greatest value, got {limits}")
        if not 0.01 <= self.reverberation_seconds[0] <= self.reverberation_seconds[1] <= 10:
            raise ConfigError(f"augment.reverberation_seconds must lie in 0.01..10, got {self.reverberation_seconds}")
        if not self.codecs or not set(self.codecs) <= set(CODECS):
            raise ConfigError(f"augment.codecs must be of {', '.join(CODECS)}, got {self.codecs}")
        if self.noise_probability and not self.noise:
            raise ConfigError("augment.noise_probability is over 0, but augment.noise names no manifest of noises")

    def probability(self, kind: str) -> float:
        """Give the share of utterances that one of `KINDS` changes."""
        return getattr(self, f"{kind}_probability")


class Augmenter:
    """Changes utterances as a configuration says.

    Args:
        config: how often and how strongly.
        noises: the recordings of `config.noise`.
        rooms: the recordings of `config.reverberation`; None simulates rooms.
    """

    def __init__(self, config: AugmentConfig, noises: Manifest | None = None, rooms: Manifest | None = None) -> None:
        self.config = config
        self.noises = noises
        self.rooms = rooms
        self.kinds = [kind for kind in KINDS if config.probability(kind) > 0]
        """What is turned on, in the order in which it happens to the sound."""

    def __call__(self, waveform: Waveform, seed: int) -> tuple[Waveform, list[str]]:
        """Change one utterance.

        Args:
            waveform: the utterance; it is left as it is.
            seed: seed of all draws.

        Returns:
            An utterance of the same length, and which kinds of change were made to it.
        """
        made = []
        for kind in self.kinds:
            draw = np.random.default_rng([seed, KINDS.index(kind)])
            if draw.random() < self.config.probability(kind):
                changed = _CHANGES[kind](self, waveform, draw)
                if changed is not waveform:
                    made.append(kind)
                waveform = changed
        return waveform, made

    def _reverberation(self, waveform: Waveform, draw: np.random.Generator) -> Waveform:
        if self.rooms is not None:
            room = self.rooms[int(draw.integers(len(self.rooms)))]
            return reverberate(waveform, room.waveform())
        seconds, ratio = _within(self.config.reverberation_seconds, draw), _within(DIRECT_TO_REVERBERANT, draw)
        return reverberate(waveform, simulate_room(seconds, ratio, draw))

    def _noise(self, waveform: Waveform, draw: np.random.Generator) -> Waveform:
        assert self.noises is not None
        noise = self.noises[int(draw.integers(len(self.noises)))]
        wanted = max(len(waveform), 1) / SAMPLE_RATE
        start = noise.offset + draw.uniform(0, max(0.0, noise.duration - wanted))
        stretch = load_mono(noise.audio_filepath, start, min(wanted, noise.duration))
        return add_noise(waveform, stretch, _within(self.config.noise_snr, draw))

    def _gain(self, waveform: Waveform, draw: np.random.Generator) -> Waveform:
        return waveform * np.float32(10 ** (_within(self.config.gain_decibels, draw) / 20))

    def _telephone(self, waveform: Waveform, draw: np.random.Generator) -> Waveform:
        return telephone_band(waveform)

    def _codec(self, waveform: Waveform, draw: np.random.Generator) -> Waveform:
        return transcode(waveform, str(draw.choice(self.config.codecs)), _within(COMPRESSION, draw))


_CHANGES: dict[str, Callable[[Augmenter, Waveform, np.random.Generator], Waveform]] = {
    "reverberation": Augmenter._reverberation,
    "noise": Augmenter._noise,
    "gain": Augmenter._gain,
    "telephone": Augmenter._telephone,
    "codec": Augmenter._codec,
}
KINDS = tuple(_CHANGES)
"""Every kind of change, from the talker to the file: room, noise at the microphone, its gain, the line, the codec."""


def change_speed(waveform: Waveform, factor: float) -> Waveform:
    """Play a waveform faster or slower; pitch and tempo change together (Ko et al. 2015, "Audio augmentation").

    Args:
        waveform: mono samples, shape (S,), float32.
        factor: 1.1 is ten per cent faster; in hundredths.

    Returns:
        Samples, shape (about S / factor,), float32; the input itself when the factor is 1.
    """
    hundredths = round(100 * factor)
    if hundredths == 100:
        return waveform
    # Reading a signal as if it had been recorded at `factor` times its rate, then resampling to the true rate.
    return torchaudio.functional.resample(torch.from_numpy(waveform), hundredths, 100).numpy()


def add_noise(waveform: Waveform, noise: Waveform, snr: float) -> Waveform:
    """Add noise at a ratio of mean powers.

    Args:
        waveform: the utterance, shape (S,).
        noise: shape (N,); repeated or cut to S samples.
        snr: signal-to-noise ratio over the whole utterance, in dB.

    Returns:
        The sum, shape (S,); the input itself where either is silent.
    """
    noise = np.resize(noise, len(waveform))
    signal_power, noise_power = (float(np.square(sound, dtype=np.float64).sum()) for sound in (waveform, noise))
    if not (signal_power > 0 and noise_power > 0):
        return waveform
    scale = np.float32(math.sqrt(signal_power / noise_power) * 10 ** (-snr / 20))
    return np.asarray(waveform + noise * scale, dtype=np.float32)


def reverberate(waveform: Waveform, response: Waveform) -> Waveform:
    """Let an utterance sound in a room.

    Args:
        waveform: the utterance, shape (S,).
        response: the room's impulse response; its strongest sample is taken for the direct sound.

    Returns:
        Their convolution from the direct sound on, shape (S,), as loud as the input; the input itself where either is
        silent.
    """
    # Sound before the direct one can only be the recording's own noise, and would move the words in time.
    response = response[int(np.abs(response).argmax()) :] if len(response) else response
    wet = _convolve(waveform, response)[: len(waveform)] if len(waveform) and len(response) else waveform
    before, after = (float(np.square(sound, dtype=np.float64).sum()) for sound in (waveform, wet))
    return wet * np.float32(math.sqrt(before / after)) if before > 0 and after > 0 else waveform


def simulate_room(seconds: float, ratio: float, draw: np.random.Generator) -> Waveform:
    """Draw a room's impulse response: direct sound, then noise that decays exponentially (Polack 1988).

    Args:
        seconds: time in which the reverberation decays by 60 dB.
        ratio: energy of the direct sound over that of the reverberation, in dB.
        draw: the source of noise.

    Returns:
        The response, shape (seconds x 16 kHz,); its first sample is the direct sound, 1.
    """
    time = np.arange(max(2, round(seconds * SAMPLE_RATE))) / SAMPLE_RATE
    response = draw.standard_normal(len(time)) * 10 ** (-3 * time / seconds)
    response[0] = 0
    response *= 10 ** (-ratio / 20) / np.sqrt(np.square(response).sum())
    response[0] = 1
    # Where the reverberation is much stronger than the direct sound, its loudest sample must not be taken for it.
    return np.clip(response, -1, 1).astype(np.float32)


def telephone_band(waveform: Waveform) -> Waveform:
    """Leave what a telephone line lets through, 300 to 3400 Hz, without delay; shape (S,) as it was."""
    if not len(waveform):
        return waveform
    return _convolve(waveform, _telephone_filter())[TELEPHONE_TAPS // 2 :][: len(waveform)]


def transcode(waveform: Waveform, codec: str, compression: float) -> Waveform:
    """Encode and decode in memory.

    Args:
        waveform: the utterance, shape (S,).
        codec: one of `CODECS`.
        compression: 0 is best, 1 smallest; mulaw has but one size.

    Returns:
        What is left, shape (S,).
    """
    if not len(waveform):
        return waveform
    kind, subtype = CODECS[codec]
    peak = max(1.0, float(np.abs(waveform).max()))  # codecs clip beyond full scale
    file = io.BytesIO()
    level = None if kind == "WAV" else compression
    soundfile.write(file, waveform / np.float32(peak), SAMPLE_RATE, subtype, format=kind, compression_level=level)
    file.seek(0)
    decoded = soundfile.read(file, len(waveform), dtype="float32", fill_value=0.0)[0]
    return np.asarray(decoded * np.float32(peak), dtype=np.float32)


@cache
def _telephone_filter() -> Waveform:
    """A windowed-sinc band pass with linear phase, shape (TELEPHONE_TAPS,)."""
    time = np.arange(TELEPHONE_TAPS) - TELEPHONE_TAPS // 2
    low, high = (2 * edge / SAMPLE_RATE * np.sinc(2 * edge / SAMPLE_RATE * time) for edge in TELEPHONE_BAND)
    return ((high - low) * np.hamming(TELEPHONE_TAPS)).astype(np.float32)


def _within(limits: Sequence[float], draw: np.random.Generator) -> float:
    return float(draw.uniform(limits[0], limits[1]))


def _convolve(waveform: Waveform, response: Waveform) -> Waveform:
    return torchaudio.functional.fftconvolve(torch.from_numpy(waveform), torch.from_numpy(response)).numpy()
