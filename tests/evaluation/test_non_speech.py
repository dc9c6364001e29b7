from __future__ import annotations

import numpy as np
import pytest
import soundfile

import asr
from asr.errors import AudioError, DataError
from asr.evaluation.non_speech import measure_non_speech, synthetic_signals
from asr.manifest import Manifest, Utterance, write_manifest


@pytest.fixture(scope="module")
def english():
    return asr.load(device="cpu")


@pytest.fixture(scope="module")
def signals():
    return synthetic_signals(8.0)


@pytest.mark.parametrize("name", list(synthetic_signals(0.1)))
def test_signals_without_speech_have_no_words(name, english, signals):
    transcript = english.transcribe((signals[name], 16_000))
    assert transcript.text == ""
    assert [span.kind for span in transcript.spans] == ["non_speech"]


@pytest.mark.parametrize("seconds", [0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7])
def test_short_signals_without_speech_are_not_decoded(seconds, english):
    """A file may be nothing but the end of a hum: too short for a fall in power, and for the high-pass to judge."""
    time_axis = np.arange(int(seconds * 16_000)) / 16_000
    tones = {f"{frequency} Hz": 0.3 * np.sin(2 * np.pi * frequency * time_axis) for frequency in (100, 150, 220, 440)}
    for name, waveform in (synthetic_signals(seconds) | tones).items():
        transcript = english.transcribe((waveform.astype(np.float32), 16_000))
        assert [span.kind for span in transcript.spans] == ["non_speech"], name


def test_the_colours_of_noise(signals):
    """Power falls by 0, 3 and 6 dB an octave: to 1, 1/2 and 1/4 from 500 to 1000 Hz."""
    for name, fall in (("white noise", 1), ("pink noise", 2), ("brown noise", 4)):
        power = np.abs(np.fft.rfft(signals[name])) ** 2
        low, high = (power[int(8 * f * 0.9) : int(8 * f * 1.1)].mean() for f in (500, 1000))
        assert low / high == pytest.approx(fall, rel=0.25)
    assert all(wave.dtype == np.float32 and np.abs(wave).max() <= 0.31 for wave in signals.values())


def test_words_are_counted(english, data, signals, tmp_path):
    """Speech declared to be none is the only way to know that the count is not always nought."""
    soundfile.write(tmp_path / "rain.wav", signals["pink noise"], 16_000)
    rows = [
        Utterance("gone", str(tmp_path / "gone.wav"), 1.0),
        Utterance("rain", str(tmp_path / "rain.wav"), 8.0),
        Utterance("talk", str(data / "1737-146161-0009.flac"), 2.175),
    ]
    write_manifest(tmp_path / "noise.jsonl", rows)
    result = measure_non_speech(english, Manifest.load(tmp_path / "noise.jsonl"))
    heard = english.transcribe(data / "1737-146161-0009.flac").text.split()
    assert result["words"] == len(heard) > 0
    assert result["words_per_hour"] == pytest.approx(len(heard) * 3600 / 10.175)
    assert [row["text"] for row in result["results"]] == ["", " ".join(heard)]
    assert result["synthetic"]["words"] == 0
    assert [line.startswith(f"{tmp_path / 'gone.wav'}: ") for line in result["unreadable"]] == [True]
    with pytest.raises(AudioError, match=r"gone.wav"):
        measure_non_speech(english, Manifest.load(tmp_path / "noise.jsonl").select(np.array([True, False, False])))
    with pytest.raises(DataError, match="no recording"):
        measure_non_speech(english, Manifest.load(tmp_path / "noise.jsonl").select(np.zeros(3, dtype=bool)))
