"""Waveforms to log-mel features, their normalisation, and SpecAugment.

Shapes: B batch, S samples, T feature frames, M mel bins. Lengths travel beside every padded tensor; masks are made
by `length_mask` and nowhere else, and True means valid.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torchaudio
from torch import Tensor, nn

from asr.errors import ConfigError
from asr.samples import SAMPLE_RATE

FRAME_SHIFT = 160  # samples: 10 ms
FRAME_LENGTH = 400  # samples: 25 ms
FFT_SIZE = 512
LOWEST, HIGHEST = 0.0, SAMPLE_RATE / 2  # Hz: the edges of the mel bands
# Power below which a mel bin counts as silence. 16-bit rounding noise lies near 1e-7; a floor above it keeps digital
# silence from becoming an outlier twenty standard deviations away from the quietest recorded room.
FLOOR = 1e-6


def length_mask(lengths: Tensor, size: int) -> Tensor:
    """Mark the valid positions of a padded batch; the only place where masks are made.

    Args:
        lengths: valid positions of each row, shape (B,), int64.
        size: padded length.

    Returns:
        Mask of shape (B, size), bool, True where the position is valid.
    """
    return torch.arange(size, device=lengths.device) < lengths[:, None]


class LogMel(nn.Module):
    """Log-mel filterbank energies: 25 ms Hann windows every 10 ms, Slaney mel scale and area normalisation.

    Equal to `log(max(librosa.feature.melspectrogram(..., center=True), FLOOR))` to 1e-4. The signal is padded with
    zeros at both ends, so an utterance gives the same frames alone and next to a longer one.
    """

    window: Tensor
    filterbank: Tensor

    def __init__(self, mels: int = 80) -> None:
        super().__init__()
        filterbank = torchaudio.functional.melscale_fbanks(
            FFT_SIZE // 2 + 1, LOWEST, HIGHEST, mels, SAMPLE_RATE, norm="slaney", mel_scale="slaney"
        )
        self.register_buffer("window", torch.hann_window(FRAME_LENGTH), persistent=False)
        self.register_buffer("filterbank", filterbank, persistent=False)  # (frequencies, M)

    def forward(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the features of a padded batch.

        Args:
            waveform: mono samples at 16 kHz, shape (B, S), float32, zero after each row's length.
            lengths: samples of each row, shape (B,), int64.

        Returns:
            Features of shape (B, T, M), float32, zero in the padding, and their lengths in frames (B,).
        """
        with torch.autocast(waveform.device.type, enabled=False):  # spectra in half precision lose the quiet sounds
            spectrum = torch.stft(
                waveform.float(),
                FFT_SIZE,
                FRAME_SHIFT,
                FRAME_LENGTH,
                self.window,
                pad_mode="constant",
                return_complex=True,
            )  # (B, frequencies, T)
            power = spectrum.real.square() + spectrum.imag.square()
            features = (power.transpose(1, 2) @ self.filterbank).clamp_min(FLOOR).log()  # (B, T, M)
        frames = lengths // FRAME_SHIFT + 1
        return features * length_mask(frames, features.shape[1])[:, :, None], frames


class FeatureNorm(nn.Module):
    """Subtract the training data's mean from each mel bin and divide by its deviation; both are in the checkpoint."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, mels: int = 80) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(mels))
        self.register_buffer("deviation", torch.ones(mels))

    def fit(self, features: list[Tensor]) -> None:
        """Take the statistics from features of real speech.

        Args:
            features: one tensor of shape (frames, M) for each utterance.
        """
        frames = torch.cat(features).double()
        self.mean.copy_(frames.mean(dim=0))
        self.deviation.copy_(frames.std(dim=0).clamp_min(1e-3))

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Normalise features of shape (B, T, M) with lengths (B,); the padding stays zero."""
        normal = (features - self.mean) / self.deviation
        return normal * length_mask(lengths, features.shape[1])[:, :, None]


@dataclass(frozen=True)
class SpecAugmentConfig:
    """Masks drawn over the features in training (Park et al. 2019, arXiv:1904.08779; adaptive: 1912.05533)."""

    frequency_masks: int = 2
    """Bands hidden in each utterance; 0 turns them off."""
    frequency_width: int = 27
    """Widest band, in mel bins."""
    time_masks: int = 5
    """Stretches hidden in each utterance, or the most of them if their number adapts; 0 turns them off."""
    adaptive_masks: float = 0.0
    """Stretches for each frame of the utterance, 0.04 in 1912.05533: long ones then hide more; 0 hides `time_masks`."""
    time_ratio: float = 0.05
    """Longest stretch, as a share of the utterance."""
    time_warp: int = 0
    """Most frames by which a point of the utterance moves in time, the rest being stretched with it; 0 is off."""

    def __post_init__(self) -> None:
        """Refuse negative counts and shares beyond the utterance."""
        counts = self.frequency_masks, self.frequency_width, self.time_masks, self.time_warp, self.adaptive_masks
        if not all(count >= 0 for count in counts):
            raise ConfigError("spec_augment: counts and widths must be 0 or more")
        if not 0 <= self.time_ratio <= 1:
            raise ConfigError(f"spec_augment.time_ratio must lie in 0..1, got {self.time_ratio}")


def spec_augment(features: Tensor, lengths: Tensor, seeds: Tensor, config: SpecAugmentConfig) -> Tensor:
    """Warp time, then hide random bands and stretches, drawn for each utterance from its own seed.

    Because the draw depends on the seed alone, it is the same whatever the batch, the worker or the rank.

    Args:
        features: normalised features, shape (B, T, M); hidden places become 0, the training mean.
        lengths: frames of each row, shape (B,).
        seeds: one seed for each row, shape (B,), int64. A seed and its complement are two views of one utterance:
            they are warped alike and hidden differently, so that they can be compared frame by frame.
        config: how many masks, how wide.

    Returns:
        Features with the same shape.
    """
    batch, time, mels = features.shape
    keep_time = torch.ones(batch, time, dtype=torch.bool)
    keep_mel = torch.ones(batch, mels, dtype=torch.bool)
    if config.time_warp:
        features = features.clone()
    for row, (seed, frames) in enumerate(zip(seeds.tolist(), lengths.tolist(), strict=True)):
        draw = torch.Generator().manual_seed(seed)
        for _ in range(config.frequency_masks):
            _hide(keep_mel[row], config.frequency_width, mels, draw)
        masks = (
            min(config.time_masks, int(config.adaptive_masks * frames)) if config.adaptive_masks else config.time_masks
        )
        for _ in range(masks):
            _hide(keep_time[row], int(config.time_ratio * frames), frames, draw)
        if config.time_warp:
            features[row, :frames] = _warp(features[row, :frames], config.time_warp, max(seed, ~seed))
    keep = (keep_time[:, :, None] & keep_mel[:, None, :]).to(features.device)
    return features * keep


def _warp(features: Tensor, farthest: int, seed: int) -> Tensor:
    """Move one frame of (T, M) by up to `farthest` and stretch what lies on either side of it; T stays."""
    frames = len(features)
    if frames <= 2 * farthest + 1:  # too short to keep a frame on either side
        return features
    draw = torch.Generator().manual_seed(seed)
    point = int(torch.randint(farthest + 1, frames - farthest, (), generator=draw))
    moved = point + int(torch.randint(-farthest, farthest + 1, (), generator=draw))
    sides = ((features[:point], moved), (features[point:], frames - moved))
    stretched = [nn.functional.interpolate(side.T[None], size, mode="linear")[0].T for side, size in sides]
    return torch.cat(stretched)


def _hide(keep: Tensor, widest: int, size: int, draw: torch.Generator) -> None:
    width = int(torch.randint(0, min(widest, size) + 1, (), generator=draw))
    start = int(torch.randint(0, size - width + 1, (), generator=draw))
    keep[start : start + width] = False
