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


def test_spec_augment_config_refuses_nonsense():
    with pytest.raises(ConfigError, match="time_ratio"):
        SpecAugmentConfig(time_ratio=2.0)
