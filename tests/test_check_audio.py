"""The facts that are measured, against other ways to find them, and at the edges."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import soundfile

from asr import audio
from asr.check import audio as check_audio
from asr.check.audio import CLIFF, find_cliff, measure


def spectrum(waveform, rate):
    return scipy.signal.welch(waveform, rate, "hann", int(0.032 * rate), noverlap=0, scaling="spectrum")[1]


def test_facts_are_what_the_samples_say(data):
    path = data / "1737-146161-0010.flac"
    waveform, rate = soundfile.read(path)
    fact, reason = measure(str(path), 0.0, 4.275)
    assert not reason
    assert fact["rate"] == rate == 16_000
    assert fact["seconds"] == fact["file_seconds"] == pytest.approx(4.275)
    assert fact["mean"] == pytest.approx(waveform.mean(), abs=1e-7)
    assert fact["rms"] == pytest.approx(waveform.std(), rel=1e-5)
    share = np.mean(np.abs(waveform) >= 0.99 * np.abs(waveform).max())
    assert fact["near_peak"] == pytest.approx(share, rel=1e-5)
    frames = waveform[: len(waveform) // 512 * 512].reshape(-1, 512)
    assert fact["level"] == pytest.approx(20 * np.log10(frames.std(axis=1).max()), abs=1e-3)


def test_reading_in_pieces_changes_nothing(data, monkeypatch, tmp_path):
    speech = np.concatenate([soundfile.read(path)[0] for path in sorted(data.glob("*.flac"))[:3]])
    soundfile.write(tmp_path / "long.wav", speech, 16_000)
    seconds = len(speech) / 16_000
    whole, _ = measure(str(tmp_path / "long.wav"), 0.0, seconds)
    monkeypatch.setattr(check_audio, "PIECE", 0.032 * 100)
    opened = []
    real = audio._open_soundfile
    monkeypatch.setattr(audio, "_open_soundfile", lambda file: opened.append(file) or real(file))
    pieces, _ = measure(str(tmp_path / "long.wav"), 0.0, seconds)
    assert len(opened) <= 2  # for its length, and to read it: some files are decoded from their beginning each time
    for name in ("hash", "rate", "seconds", "mean", "rms"):
        assert pieces[name] == pytest.approx(whole[name], rel=1e-6)
    for name in ("level", "range", "cliff"):
        assert pieces[name] == pytest.approx(whole[name], abs=0.1)


def test_the_hash_is_of_the_samples_not_of_the_file(data, tmp_path):
    path = data / "1737-146161-0009.flac"
    waveform, rate = soundfile.read(path)
    soundfile.write(tmp_path / "same.wav", waveform, rate, subtype="PCM_24")
    soundfile.write(tmp_path / "stereo.wav", np.stack((waveform, waveform), 1), rate)
    waveform[1000] += 1 / 32768
    soundfile.write(tmp_path / "other.wav", waveform, rate)
    files = (path, *(tmp_path / f"{name}.wav" for name in ("same", "stereo", "other")))
    first, same, stereo, other = (measure(str(file), 0.0, 9.0)[0]["hash"] for file in files)
    assert first == same == stereo != other


@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.parametrize("low", [8000, 11_025])
def test_the_edge_of_upsampled_speech_is_where_it_was_cut(data, low, rate):
    waveform, _ = soundfile.read(data / "6848-252323-0006.flac")
    whole = scipy.signal.resample(waveform, len(waveform) * rate // 16_000)
    narrow = scipy.signal.resample(waveform, len(waveform) * low // 16_000)
    upsampled = scipy.signal.resample(narrow, len(whole)) + np.random.default_rng(0).normal(0, 1e-5, len(whole))
    depth, cut = find_cliff(spectrum(upsampled, rate), rate)
    assert depth > CLIFF
    assert abs(cut - low / 2) <= 250
    assert find_cliff(spectrum(whole, rate), rate)[0] < CLIFF


def test_noise_that_falls_steeply_but_steadily_has_no_edge():
    rng = np.random.default_rng(0)
    brown = np.cumsum(rng.normal(size=160_000))  # 6 dB an octave
    assert find_cliff(spectrum(np.cumsum(brown - brown.mean()), 16_000), 16_000)[0] < CLIFF / 2


@pytest.mark.parametrize("samples", [1, 2, 15, 160, 511, 513])
def test_a_few_samples_are_measured_too(samples, tmp_path):
    soundfile.write(tmp_path / "short.wav", np.full(samples, 0.25), 16_000)
    fact, reason = measure(str(tmp_path / "short.wav"), 0.0, 1.0)
    assert not reason
    assert fact["seconds"] == samples / 16_000
    assert all(np.isfinite(fact[name]) for name in fact.dtype.names)


def test_an_offset_beyond_the_end_reads_nothing(data):
    fact, reason = measure(str(data / "1737-146161-0009.flac"), 60.0, 1.0)
    assert not reason
    assert fact["seconds"] == 0
    assert fact["file_seconds"] == pytest.approx(2.175)
