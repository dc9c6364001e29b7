from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import soundfile

from asr.augment import (
    CODECS,
    KINDS,
    AugmentConfig,
    Augmenter,
    add_noise,
    change_speed,
    reverberate,
    simulate_room,
    telephone_band,
    transcode,
)
from asr.errors import ConfigError
from asr.manifest import Manifest, Utterance, write_manifest


@pytest.fixture
def waveform(data) -> np.ndarray:
    return soundfile.read(data / "6848-252323-0001.flac", dtype="float32")[0]


@pytest.fixture
def recordings(tmp_path) -> dict[str, Manifest]:
    """A second of noise and a decaying room, as manifests."""
    draw = np.random.default_rng(0)
    sounds = {"noise": draw.standard_normal(16000) / 20, "room": simulate_room(0.3, 3, draw)}
    for name, sound in sounds.items():
        soundfile.write(tmp_path / f"{name}.wav", sound, 16000, subtype="FLOAT")
        row = Utterance(name, str(tmp_path / f"{name}.wav"), len(sound) / 16000)
        write_manifest(tmp_path / f"{name}.jsonl", [row])
    return {name: Manifest.load(tmp_path / f"{name}.jsonl") for name in sounds}


def everything(share: float, **more) -> AugmentConfig:
    return AugmentConfig(noise=["noise.jsonl"], **{f"{kind}_probability": share for kind in KINDS}, **more)


def level(sound: np.ndarray) -> float:
    return 10 * np.log10(np.square(sound, dtype=np.float64).mean())


@pytest.mark.parametrize("factor", [0.9, 1.1, 1.25])
def test_speed_moves_a_tones_pitch_and_length(factor):
    time = np.arange(16000) / 16000
    tone = np.sin(2 * np.pi * 500 * time).astype(np.float32)
    changed = change_speed(tone, factor)
    assert changed.dtype == np.float32
    assert len(changed) == pytest.approx(16000 / factor, abs=1)
    peak = np.abs(np.fft.rfft(changed)).argmax() * 16000 / len(changed)
    assert peak == pytest.approx(500 * factor, abs=2)


def test_speed_one_changes_nothing():
    waveform = np.ones(10, dtype=np.float32)
    assert change_speed(waveform, 1.0) is waveform


@pytest.mark.parametrize("snr", [-5.0, 0.0, 12.3, 30.0])
@pytest.mark.parametrize("seconds", [0.3, 30.0])
def test_noise_is_added_at_the_ratio_asked_for(waveform, snr, seconds):
    noise = np.random.default_rng(1).standard_normal(int(16000 * seconds)).astype(np.float32)
    noisy = add_noise(waveform, noise, snr)
    added = noisy.astype(np.float64) - waveform
    assert level(waveform) - level(added) == pytest.approx(snr, abs=0.1)
    assert np.corrcoef(added, np.resize(noise, len(added)))[0, 1] > 0.999
    assert noisy.dtype == np.float32


def test_silence_is_left_alone(waveform):
    silence = np.zeros(1000, dtype=np.float32)
    assert add_noise(waveform, silence, 10) is waveform
    assert add_noise(silence, waveform, 10) is silence
    assert reverberate(waveform, silence) is waveform
    assert reverberate(silence, waveform) is silence


def test_reverberation_is_convolution_from_the_direct_sound_on(waveform):
    response = np.concatenate([np.full(50, 1e-3), simulate_room(0.4, 6, np.random.default_rng(2))]).astype(np.float32)
    wet = reverberate(waveform, response)
    expected = scipy.signal.fftconvolve(waveform.astype(np.float64), response[50:])[: len(waveform)]
    expected *= np.sqrt(np.square(waveform, dtype=np.float64).sum() / np.square(expected).sum())
    np.testing.assert_allclose(wet, expected, atol=1e-5)
    assert level(wet) == pytest.approx(level(waveform), abs=0.01)


@pytest.mark.parametrize(("seconds", "ratio"), [(0.3, 0.0), (0.8, 10.0)])
def test_a_simulated_room_decays_and_is_as_reverberant_as_asked(seconds, ratio):
    response = simulate_room(seconds, ratio, np.random.default_rng(3)).astype(np.float64)
    energy = np.square(response)
    assert 10 * np.log10(energy[0] / energy[1:].sum()) == pytest.approx(ratio, abs=0.1)
    left = 10 * np.log10(np.cumsum(energy[:0:-1])[::-1])  # Schroeder's backward integration
    left -= left[0]
    time = np.arange(len(left)) / 16000
    straight = (left < -5) & (left > -35)
    slope = np.polyfit(time[straight], left[straight], 1)[0]
    assert -60 / slope == pytest.approx(seconds, rel=0.1)


def test_a_telephone_lets_its_band_through_and_nothing_else():
    noise = np.random.default_rng(4).standard_normal(160_000).astype(np.float32)
    frequency, before = scipy.signal.welch(noise, 16000, nperseg=2048)
    _, after = scipy.signal.welch(telephone_band(noise), 16000, nperseg=2048)
    gain = 10 * np.log10(after / before)
    assert np.abs(gain[(frequency > 400) & (frequency < 3300)]).max() < 0.5
    assert gain[((frequency > 30) & (frequency < 200)) | (frequency > 3500)].max() < -35
    assert gain[np.abs(frequency - 3400).argmin()] == pytest.approx(-6, abs=1.5)


def test_a_telephone_does_not_delay():
    time = np.arange(16000) / 16000
    tone = np.sin(2 * np.pi * 1000 * time).astype(np.float32)
    np.testing.assert_allclose(telephone_band(tone)[1000:-1000], tone[1000:-1000], atol=0.01)


@pytest.mark.parametrize("codec", sorted(CODECS))
@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_codecs_keep_length_place_and_loudness_but_not_every_bit(waveform, codec, scale):
    """Beyond full scale too, where a codec alone would clip."""
    loud = waveform * np.float32(scale)
    decoded = transcode(loud, codec, 0.5)
    assert decoded.shape == loud.shape
    assert decoded.dtype == np.float32
    assert not np.array_equal(decoded, loud)
    assert np.corrcoef(decoded, loud)[0, 1] > 0.98  # a shift by a millisecond makes it fall below 0.9
    assert level(decoded) == pytest.approx(level(loud), abs=0.5)


def test_mu_law_is_that_of_the_telephone(waveform):
    """Companding with mu = 255 to 8 bits: each error is below half a step, which grows with the sample (G.711)."""
    decoded = transcode(waveform, "mulaw", 0.5)
    assert len(np.unique(decoded)) <= 256
    step = np.log(256) * (np.abs(waveform) + 1 / 255) / 128
    assert (np.abs(decoded - waveform) <= step).all()


def test_smaller_files_sound_worse(waveform):
    fine, coarse = (np.corrcoef(transcode(waveform, "opus", share), waveform)[0, 1] for share in (0.5, 0.95))
    assert coarse < fine < 1


@pytest.mark.parametrize("size", [0, 1, 7, 400])
def test_the_shortest_sounds_pass(recordings, size):
    sound = np.linspace(-1, 1, size, dtype=np.float32)
    for rooms in (None, recordings["room"]):
        changed, _ = Augmenter(everything(1.0), recordings["noise"], rooms)(sound, 5)
        assert changed.shape == sound.shape
        assert np.isfinite(changed).all()


def test_the_draw_hangs_on_the_seed_alone(waveform, recordings):
    augmenter = Augmenter(everything(0.5), recordings["noise"], recordings["room"])
    original = waveform.copy()
    first = [augmenter(waveform, seed) for seed in range(8)]
    again = [augmenter(waveform, seed) for seed in reversed(range(8))][::-1]
    for (one, made), (other, made_again) in zip(first, again, strict=True):
        assert made == made_again
        assert np.array_equal(one, other)
    assert len({tuple(made) for _, made in first}) > 3
    assert np.array_equal(waveform, original)


def test_each_kind_fires_as_often_as_asked_and_alone(recordings):
    sound = np.random.default_rng(0).standard_normal(200).astype(np.float32) / 10
    shares = {"noise": 0.1, "reverberation": 0.3, "gain": 0.6, "telephone": 0.2}
    config = AugmentConfig(noise=["noise.jsonl"], **{f"{kind}_probability": share for kind, share in shares.items()})
    augmenter = Augmenter(config, recordings["noise"])
    made = [augmenter(sound, seed)[1] for seed in range(1000)]
    for kind, share in shares.items():
        assert sum(kind in kinds for kinds in made) / 1000 == pytest.approx(share, abs=0.05)  # over 3 deviations
    only = Augmenter(AugmentConfig(gain_probability=0.6))
    assert [("gain" in kinds) for kinds in made] == [bool(only(sound, seed)[1]) for seed in range(1000)]


def test_gain_stays_within_its_limits(waveform):
    augmenter = Augmenter(AugmentConfig(gain_probability=1.0, gain_decibels=[-10.0, 3.0]))
    gains = [level(augmenter(waveform, seed)[0]) - level(waveform) for seed in range(40)]
    assert -10.01 < min(gains) < -7
    assert 0 < max(gains) < 3.01


def test_nothing_is_on_by_default(waveform):
    augmenter = Augmenter(AugmentConfig())
    changed, made = augmenter(waveform, 1)
    assert augmenter.kinds == made == []
    assert changed is waveform


@pytest.mark.parametrize(
    "values",
    [
        {"gain_probability": 1.5},
        {"noise_probability": 0.5},
        {"noise_snr": [20.0, 5.0]},
        {"gain_decibels": [1.0]},
        {"reverberation_seconds": [0.0, 1.0]},
        {"codecs": ["g729"]},
        {"codecs": []},
    ],
)
def test_nonsense_is_refused(values):
    with pytest.raises(ConfigError, match="augment"):
        AugmentConfig(**values)
