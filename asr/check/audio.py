"""What can be wrong with the sound itself: facts measured from each utterance's samples, and how they are judged.

Memory is bounded: long utterances are read in pieces, and all that is kept of one is a row of FACTS.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from asr.audio import duration as file_duration
from asr.audio import pieces
from asr.check.findings import Finding
from asr.errors import AudioError
from asr.manifest import Manifest, Utterance

# Thresholds. "Natural" figures are of 3,000 utterances of LibriSpeech, Common Voice, LJSpeech, AN4 and VoxForge.
SHORTEST = 0.05  # seconds: less holds no word in any language
SILENT_LEVEL = -65.0  # dBFS of the loudest 32 ms; the quietest real speech (VoxForge) peaks at -62
STEADY_RANGE = 5.0  # dB between loudest and quiet frames; the noisiest real speech has 6.1, ambient noise 1 to 4 ...
STEADY_SECONDS = 1.0  # ... if it is long enough to hold a pause: single words cut tightly have few frames
DC_OFFSET = 0.01  # of full scale; natural: at most 0.0066
DC_SHARE = 0.3  # of the root mean square, for quiet recordings; natural: at most 0.18 ...
DC_LEAST = 0.001  # ... and below this it is no more than the mean of a short stretch of speech
CLIPPED_SHARE = 5e-4  # of the samples within 1 % of the peak; natural: under 4e-4, clipping 0.1 % of samples: 1e-3
PLATEAUS = 5  # separate visits to the peak; a loud vowel in a short word makes 1 to 3
NEAR_PEAK = 0.99
BAND = 125.0  # Hz: resolution of the long-term spectrum
CLIFF = 27.0  # dB by which the spectrum falls within 400 Hz and stays down; natural: at most 25 below 6 kHz
LOWEST_CUT, HIGHEST_CUT = 2500.0, 6000.0  # Hz; beyond 6 kHz anti-aliasing filters of 16 kHz recordings begin
DURATION_SECONDS = (
    0.1  # a file may differ from its manifest by this much, which rounding and padding of codecs make ...
)
DURATION_SHARE = 0.01  # ... or by this share, for estimates in headers of long files

PIECE = 60.0  # seconds read at once
FRAME = 0.032  # seconds

FACTS = np.dtype(
    [
        ("rate", "i4"),  # Hz; 0: could not be read
        ("plateaus", "i4"),
        ("file_seconds", "f8"),  # length of the whole file
        ("seconds", "f8"),  # length of what was read
        ("mean", "f4"),  # of full scale
        ("rms", "f4"),  # of full scale, around the mean
        ("near_peak", "f4"),  # share of samples
        ("level", "f4"),  # dBFS of the loudest frame
        ("range", "f4"),  # dB between the loudest frame and the 5 % quietest
        ("cliff", "f4"),  # dB
        ("cut", "f4"),  # Hz
        ("hash", "u8"),  # of the decoded samples; 0: none
    ]
)


def measure(path: str, offset: float, seconds: float) -> tuple[NDArray[np.void], str]:
    """Listen to one utterance.

    Args:
        path: the audio file.
        offset: where it begins, in seconds.
        seconds: how long the manifest says it is.

    Returns:
        One row of FACTS, and why the audio cannot be read; empty if it can.
    """
    facts = np.zeros((), dtype=FACTS)
    try:
        facts["file_seconds"] = _file_seconds(path)
        there = min(seconds, float(facts["file_seconds"]) - offset)
        if there > 0:
            _listen(facts, path, offset, there)
    except AudioError as error:
        return facts, str(error)
    except OSError as error:  # a disk or network share that fails while it is read
        return facts, f"{path}: cannot be read: {error.strerror or error}"
    return facts, ""


@lru_cache(maxsize=64)
def _file_seconds(path: str) -> float:
    """Tell how long a file is; manifests of segments name the same file many times in a row."""
    return file_duration(path)


def _listen(facts: NDArray[np.void], path: str, offset: float, seconds: float) -> None:
    """Fill in what follows from the samples."""
    digest, levels = hashlib.blake2b(digest_size=8), []
    count, total, squares, peak, spectrum = 0, 0.0, 0.0, 0.0, np.zeros(1)
    for piece in pieces(path, PIECE, offset, seconds):
        waveform, rate = piece.waveform.mean(axis=0), piece.sample_rate  # the mean is what models hear
        # At 16 bits, so that the same recording as WAV and as FLAC of 16 or 24 bits counts as the same.
        digest.update(np.rint(waveform * 32768).astype("<i4").tobytes())
        count += len(waveform)
        total += float(waveform.sum(dtype=np.float64))
        squares += float(np.square(waveform, dtype=np.float64).sum())
        size = int(FRAME * rate)
        frames = np.pad(waveform, (0, max(0, size - len(waveform))))
        frames = frames[: len(frames) // size * size].reshape(-1, size)  # (frames, size)
        levels.append(frames.var(axis=1))
        spectrum = spectrum + _power(frames)
        if (highest := float(np.abs(waveform).max())) >= peak:  # clipping is judged where it is loudest
            peak = highest
            facts["near_peak"], facts["plateaus"] = _count_peaks(waveform, peak)
        facts["rate"] = rate
    decibels = 10 * np.log10(np.concatenate(levels) + 1e-12)
    facts["seconds"], facts["mean"] = count / facts["rate"], total / count
    facts["rms"] = np.sqrt(max(0.0, squares / count - (total / count) ** 2))
    facts["level"] = decibels.max()
    facts["range"] = decibels.max() - np.percentile(decibels, 5)
    facts["hash"] = max(1, int.from_bytes(digest.digest(), "big"))
    facts["cliff"], facts["cut"] = find_cliff(spectrum, int(facts["rate"]))


def _power(frames: NDArray[np.float32]) -> NDArray[np.float64]:
    """Sum the power spectra of frames (frames, size), after a Hann window."""
    window = np.hanning(frames.shape[1]).astype(np.float32)
    return np.square(np.abs(np.fft.rfft(frames * window))).sum(axis=0, dtype=np.float64)


def _count_peaks(waveform: NDArray[np.float32], peak: float) -> tuple[float, int]:
    """Give the share of samples within 1 % of the peak, and how often the waveform goes there."""
    high = np.abs(waveform) >= NEAR_PEAK * peak
    return float(high.mean()), int((high[1:] & ~high[:-1]).sum())


def find_cliff(spectrum: NDArray[np.float64], rate: int) -> tuple[float, float]:
    """Find the edge above which a recording holds nothing, as resampling from a lower rate leaves it.

    At each frequency the median of the kilohertz below is compared with the highest level anywhere above. Speech
    falls gently or has strong fricatives above, so the difference is large only at a filter's edge.

    Args:
        spectrum: power at 0 .. rate / 2 Hz, evenly spaced.
        rate: Hz.

    Returns:
        Depth of the edge in dB, at least 0, and its frequency in Hz.
    """
    frequencies = np.linspace(0, rate / 2, len(spectrum))
    places = (frequencies // BAND).astype(int)
    top = int(min(rate / 2, 8000) // BAND) - 1  # the last band is half a filter's edge
    counts = np.maximum(1, np.bincount(places))[:top]
    decibels = 10 * np.log10(np.bincount(places, weights=spectrum)[:top] / counts + 1e-14)
    best = (0.0, 0.0)
    for place in range(int(LOWEST_CUT // BAND), min(int(HIGHEST_CUT // BAND) + 1, top - 2)):
        below = float(np.median(decibels[place - 8 : place - 1]))
        depth = below - float(decibels[place + 2 :].max())
        if depth > best[0]:
            last = int(np.flatnonzero(decibels[: place + 2] > below - depth / 2)[-1])
            best = (depth, (last + 1) * BAND)
    return best


def judge(
    manifest: Manifest, facts: NDArray[np.void], reasons: dict[int, str], number: int, uses: Mapping[str, int]
) -> Iterator[Finding]:
    """Say what is wrong with each utterance's sound.

    Args:
        manifest: the utterances.
        facts: one row of FACTS for each.
        reasons: why rows could not be read.
        number: of the manifest.
        uses: how many stretches of each file the manifests, all of them, name.
    """
    read = facts["rate"] > 0
    usual = int(np.bincount(facts["rate"][read]).argmax()) if read.any() else 0
    for row, (fact, utterance) in enumerate(zip(facts, manifest, strict=True)):
        whole = utterance.offset == 0 and uses[utterance.audio_filepath] == 1  # else a stretch of a long recording
        for kind, detail in _judge(fact, reasons.get(row, ""), utterance, whole, usual):
            yield Finding(kind, number, row, detail)


def _judge(fact: np.void, reason: str, utterance: Utterance, whole: bool, usual: int) -> Iterator[tuple[str, str]]:
    if reason:
        empty = "holds no audio" in reason or "is empty" in reason or "too short" in reason
        yield "empty" if empty else "unreadable", reason
        return
    seconds = utterance.duration
    tolerance = max(DURATION_SECONDS, DURATION_SHARE * seconds)
    there = float(fact["file_seconds"]) - utterance.offset
    if there < seconds - tolerance:
        yield "too_short", f"{max(0.0, there):.2f} s of {seconds:.2f} s are there"
    elif whole and there > seconds + tolerance:
        yield "too_long", f"the file lasts {there:.2f} s, the manifest says {seconds:.2f} s"
    if fact["seconds"] < SHORTEST:
        yield "empty", f"{fact['seconds']:.3f} s of audio"
    elif fact["level"] < SILENT_LEVEL or (fact["range"] < STEADY_RANGE and fact["seconds"] >= STEADY_SECONDS):
        yield "silent", f"loudest {fact['level']:.0f} dBFS, range {fact['range']:.1f} dB"
    else:
        yield from _judge_sound(fact, usual)


def _judge_sound(fact: np.void, usual: int) -> Iterator[tuple[str, str]]:
    mean, rate = abs(float(fact["mean"])), int(fact["rate"])
    if mean > DC_OFFSET or (mean > DC_SHARE * fact["rms"] and mean > DC_LEAST):
        yield "dc_offset", f"{100 * fact['mean']:+.2f} % of full scale"
    if fact["near_peak"] > CLIPPED_SHARE and fact["plateaus"] >= PLATEAUS:
        yield "clipped", f"{100 * fact['near_peak']:.2f} % of the samples at the peak, {fact['plateaus']} plateaus"
    if rate / 2 <= HIGHEST_CUT:
        yield "narrowband", f"sample rate {rate} Hz"
    elif fact["cliff"] > CLIFF:
        yield "narrowband", f"falls by {fact['cliff']:.0f} dB at {fact['cut']:.0f} Hz (sample rate {rate} Hz)"
    if rate != usual:
        yield "other_rate", f"{rate} Hz; most have {usual} Hz"
