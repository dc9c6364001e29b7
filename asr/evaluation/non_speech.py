"""Words written where no one speaks: on signals made here, and on recordings of noise. The target is none."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr.errors import AudioError, DataError
from asr.manifest import Manifest
from asr.samples import SAMPLE_RATE
from asr.transcriber import Transcriber


def synthetic_signals(seconds: float = 30.0) -> dict[str, NDArray[np.float32]]:
    """Make signals that hold no speech, the same at every call.

    Args:
        seconds: length of each.

    Returns:
        Mono waveforms at 16 kHz by name, each of shape (S,): silence, coloured noise, hum, tones, chords, clicks.
    """
    draw = np.random.default_rng(0)
    size = int(seconds * SAMPLE_RATE)
    time_axis = np.arange(size) / SAMPLE_RATE
    spectrum = np.fft.rfft(draw.standard_normal(size))
    slopes = {"white noise": 0.0, "pink noise": 0.5, "brown noise": 1.0}
    octaves = np.maximum(np.arange(len(spectrum)), seconds * 20)  # flat below 20 Hz
    signals = {name: np.fft.irfft(spectrum / octaves**slope, size) for name, slope in slopes.items()}
    for mains in (50, 60):
        signals[f"{mains} Hz hum"] = _tones(time_axis, *(mains * harmonic for harmonic in range(1, 12)))
    signals["tone"] = _tones(time_axis, 440.0)
    signals["dial tone"] = _tones(time_axis, 350.0, 440.0)
    signals["sweep"] = np.sin(2 * np.pi * (100 + 0.5 * 3900 * time_axis / seconds) * time_axis)
    signals["chords"] = _chords(time_axis)
    signals["clicks"] = np.where(np.arange(size) % 8000 < 16, 1.0, 0.0) * draw.standard_normal(size)
    levelled = {name: (0.3 * wave / np.abs(wave).max()).astype(np.float32) for name, wave in signals.items()}
    quiet = {f"quiet {name}": np.float32(0.01) * wave for name, wave in levelled.items()}
    return {"silence": np.zeros(size, dtype=np.float32)} | levelled | quiet


def measure_non_speech(
    transcriber: Transcriber, manifest: Manifest, progress: Callable[[int], None] = lambda recordings: None
) -> dict[str, Any]:
    """Count the words that a model writes for recordings without speech.

    Args:
        transcriber: the model, how it decodes, and whether its voice detector is on.
        manifest: recordings in which no one speaks; their texts are not looked at.
        progress: called with 1 after each recording.

    Returns:
        `words_per_hour` and `words` on the manifest and, under `synthetic`, on the signals made here; the settings;
        under `results` each recording with its words and the seconds that were decoded; and under `unreadable` why a
        recording could not be read.

    Raises:
        DataError: the manifest is empty.
        AudioError: no recording can be read.
    """
    if not len(manifest):
        raise DataError("the manifest holds no recording")
    results: list[dict[str, Any]] = []
    unreadable: list[str] = []
    for utterance in manifest:
        try:
            results.append({"id": utterance.id, **_heard(transcriber, utterance.waveform())})
        except AudioError as error:
            unreadable.append(str(error))
        progress(1)
    if not results:
        raise AudioError(unreadable[0])
    synthetic = [{"id": name, **_heard(transcriber, wave)} for name, wave in synthetic_signals().items()]
    return _rate(results) | {
        "synthetic": _rate(synthetic) | {"results": synthetic},
        "voice_detector": transcriber.voice is not None,
        "decoding": asdict(transcriber.options),
        "model": transcriber.name,
        "date": time.strftime("%Y-%m-%d"),
        "unreadable": unreadable,
        "results": results,
    }


def _heard(transcriber: Transcriber, waveform: NDArray[np.float32]) -> dict[str, Any]:
    transcript = transcriber.transcribe((waveform, SAMPLE_RATE))
    decoded = round(transcript.coverage["decoded"], 3)
    return {"seconds": round(transcript.duration, 3), "decoded_seconds": decoded, "text": transcript.text}


def _rate(results: list[dict[str, Any]]) -> dict[str, Any]:
    words = sum(len(result["text"].split()) for result in results)
    seconds = sum(result["seconds"] for result in results)
    return {"words_per_hour": 3600 * words / seconds, "words": words, "hours": seconds / 3600}


def _tones(time_axis: NDArray[np.float64], *frequencies: float) -> NDArray[np.float64]:
    return sum((np.sin(2 * np.pi * each * time_axis) / each for each in frequencies), np.zeros_like(time_axis))


def _chords(time_axis: NDArray[np.float64]) -> NDArray[np.float64]:
    """Four chords of plucked notes with overtones, one each second, round and round."""
    chords = [(130.8, 164.8, 196.0), (110.0, 130.8, 164.8), (87.3, 110.0, 130.8), (98.0, 123.5, 146.8)]
    second = time_axis.astype(int) % len(chords)
    decay = np.exp(-3 * (time_axis % 1))
    played = [_tones(time_axis, *(note * k for note in chord for k in range(1, 6))) for chord in chords]
    return decay * np.choose(second, played)
