from __future__ import annotations

import librosa
import numpy as np
import pytest
import soundfile
import torch

from asr.errors import ConfigError
from asr.features import FLOOR, FeatureNorm, LogMel, SpecAugmentConfig, length_mask, spec_augment


@pytest.fixture
def waveform(data) -> np.ndarray:
    return soundfile.read(data / "6848-252323-0001.flac", dtype="float32")[0]


def librosa_log_mel(waveform: np.ndarray, mels: int) -> np.ndarray:
    power = librosa.feature.melspectrogram(
        y=waveform, sr=16000, n_fft=512, win_length=400, hop_length=160, n_mels=mels, pad_mode="constant"
    )
    return np.log(np.maximum(power, FLOOR)).T


@pytest.mark.parametrize("mels", [40, 80])
def test_log_mel_equals_librosa(waveform, mels):
    ours, lengths = LogMel(mels)(torch.from_numpy(waveform)[None], torch.tensor([len(waveform)]))
    theirs = librosa_log_mel(waveform, mels)
    assert ours.shape[1:] == theirs.shape
    assert lengths.tolist() == [len(theirs)]
    np.testing.assert_allclose(ours[0].numpy(), theirs, atol=1e-4)


@pytest.mark.parametrize("shorter", [1, 159, 160, 161, 8000, 60000])
def test_alone_equals_batched(waveform, shorter):
    long = torch.from_numpy(waveform)
    short = long[: len(long) - shorter]
    padded = torch.stack((long, torch.nn.functional.pad(short, (0, shorter))))
    batched, lengths = LogMel()(padded, torch.tensor([len(long), len(short)]))
    alone, frames = LogMel()(short[None], torch.tensor([len(short)]))
    assert lengths[1] == frames[0]
    torch.testing.assert_close(batched[1, : lengths[1]], alone[0], atol=1e-5, rtol=0)
    assert not batched[1, lengths[1] :].any()


def test_an_empty_waveform_has_one_frame():
    features, lengths = LogMel()(torch.zeros(1, 0), torch.tensor([0]))
    assert features.shape == (1, 1, 80)
    assert lengths.tolist() == [1]


def test_norm_gives_mean_zero_and_deviation_one(waveform):
    features, lengths = LogMel()(torch.from_numpy(waveform)[None], torch.tensor([len(waveform)]))
    norm = FeatureNorm()
    norm.fit([features[0]])
    normal = norm(features, lengths)[0]
    assert normal.mean(0).abs().max() < 1e-4
    assert (normal.std(0) - 1).abs().max() < 1e-4


def test_length_mask():
    assert length_mask(torch.tensor([0, 2, 3]), 3).tolist() == [[False] * 3, [True, True, False], [True] * 3]


def test_spec_augment_hides_as_much_as_it_says_and_depends_on_the_seed_alone():
    config = SpecAugmentConfig(frequency_masks=2, frequency_width=10, time_masks=3, time_ratio=0.1)
    features = torch.ones(2, 200, 80)
    lengths, seeds = torch.tensor([200, 100]), torch.tensor([5, 9])
    augmented = spec_augment(features, lengths, seeds, config)
    alone = spec_augment(features[1:, :100], lengths[1:], seeds[1:], config)
    assert torch.equal(augmented[1, :100], alone[0])
    hidden_bins = (augmented[0] == 0).all(dim=0).sum()
    hidden_frames = (augmented[0] == 0).all(dim=1).sum()
    assert 0 < hidden_bins <= 20
    assert 0 < hidden_frames <= 60
    assert not torch.equal(augmented[0], spec_augment(features, lengths, seeds + 1, config)[0])


def test_the_number_of_time_masks_adapts_to_the_length():
    """As many masks as Park et al. (2019, arXiv:1912.05533) give, never more than asked for."""

    def hidden(frames: int, **more) -> float:
        config = SpecAugmentConfig(frequency_masks=0, time_ratio=1e-9 + 1 / frames, **more)  # masks of 0 or 1 frame
        rows = torch.ones(200, frames, 2)
        augmented = spec_augment(rows, torch.full((200,), frames), torch.arange(200), config)
        return float((augmented[:, :, 0] == 0).sum(dim=1).float().mean())

    adaptive = {"time_masks": 20, "adaptive_masks": 0.04}
    assert hidden(100, **adaptive) == pytest.approx(4 / 2, rel=0.1)
    assert hidden(250, **adaptive) == pytest.approx(10 / 2, rel=0.1)
    assert hidden(2000, **adaptive) == pytest.approx(20 / 2, rel=0.1)
    assert hidden(10, **adaptive) == 0
    assert hidden(250, time_masks=5) == pytest.approx(5 / 2, rel=0.1)


WARP = SpecAugmentConfig(frequency_masks=0, time_masks=0, time_warp=20)


def test_time_warp_moves_a_point_and_keeps_the_ends():
    ramp = torch.arange(200.0)[None, :, None].expand(8, 200, 3)  # each frame holds its own time
    warped = spec_augment(ramp, torch.full((8,), 200), torch.arange(8), WARP)
    moved = (warped - ramp).abs().amax(dim=(1, 2))
    assert (moved <= 20.5).all()
    assert (moved > 1).sum() >= 6
    assert (warped[:, 1:] >= warped[:, :-1]).all()  # time goes forward
    assert torch.allclose(warped[:, 0], ramp[:, 0], atol=1)
    assert torch.allclose(warped[:, -1], ramp[:, -1], atol=1)
    for row in warped[:, :, 0].numpy():  # two straight lines, by least squares on either side of the best break
        fits = [
            sum(np.abs(np.polyval(np.polyfit(t, v, 1), t) - v).max() for t, v in halves)
            for cut in range(2, 198)
            for halves in [((np.arange(cut), row[:cut]), (np.arange(cut, 200), row[cut:]))]
        ]
        assert min(fits) < 1.5


def test_time_warp_hangs_on_the_seed_alone_and_both_views_of_an_utterance_are_warped_alike():
    features = torch.randn(2, 200, 4, generator=torch.Generator().manual_seed(0))
    lengths, seeds = torch.tensor([200, 120]), torch.tensor([5, 9])
    warped = spec_augment(features, lengths, seeds, WARP)
    alone = spec_augment(features[1:, :120], lengths[1:], seeds[1:], WARP)
    assert torch.equal(warped[1, :120], alone[0])
    assert torch.equal(warped[1, 120:], features[1, 120:])
    assert torch.equal(warped, spec_augment(features, lengths, ~seeds, WARP))
    assert not torch.equal(warped[0], features[0])
    short = features[:, :41]
    assert torch.equal(spec_augment(short, torch.tensor([41, 30]), seeds, WARP), short)


@pytest.mark.parametrize("values", [{"time_ratio": 2.0}, {"time_warp": -1}, {"adaptive_masks": -0.1}])
def test_spec_augment_config_refuses_nonsense(values):
    with pytest.raises(ConfigError, match="spec_augment"):
        SpecAugmentConfig(**values)
