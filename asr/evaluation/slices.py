"""Groups of utterances whose word error rates are worth telling apart: by speaker, duration, noise, or any key."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr.errors import DataError
from asr.manifest import Manifest, read_lines
from asr.samples import SAMPLE_RATE

BANDS: dict[str, tuple[float, ...]] = {"duration": (2, 5, 10, 15, 20, 30), "snr": (0, 10, 20, 30, 40)}
UNITS = {"duration": "s", "snr": "dB"}
MOST_VALUES = 20  # a number with more values than this is cut into bands
UNKNOWN = "(unknown)"  # what no speaker is called
_FRAME, _HOP = SAMPLE_RATE * 25 // 1000, SAMPLE_RATE * 10 // 1000  # samples


def group(key: str, values: Sequence[Any]) -> list[tuple[str, NDArray[np.int64]]]:
    """Sort utterances into groups.

    Args:
        key: what the values are; `duration` (seconds) and `snr` (dB) have bands of their own.
        values: of each utterance; None or `""` where unknown.

    Returns:
        Name and row numbers of each group: bands in rising order, other values as they sort, the unknown last. A
        number with many values is cut at its quintiles.
    """
    known = [value for value in values if value not in (None, "")]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in known)
    edges: tuple[float, ...] | None = BANDS.get(key) if numbers else None
    if edges is None and numbers and len(set(known)) > MOST_VALUES:
        edges = tuple(np.unique(np.quantile(np.array(known, dtype=float), (0.2, 0.4, 0.6, 0.8))).tolist())
    groups: dict[tuple[Any, ...], list[int]] = {}
    for row, value in enumerate(values):
        if value in (None, ""):
            name: tuple[Any, ...] = (2, 0, UNKNOWN)
        elif edges:
            band = int(np.searchsorted(edges, value, side="right"))
            name = (0, band, _band(edges, band, UNITS.get(key, "")))
        else:
            name = (0, value, str(value)) if numbers else (1, 0, str(value))
        groups.setdefault(name, []).append(row)
    return [(name[-1], np.array(groups[name])) for name in sorted(groups)]


def manifest_values(manifest: Manifest, key: str) -> list[Any]:
    """Give what a manifest says under a key, for each utterance; also keys that training has no use for.

    Raises:
        DataError: no line has the key, or the manifest's file is gone or was put together from several.
    """
    if key in manifest.table.column_names and key != "others":
        return manifest.table[key].to_pylist()
    lines = [line for _, line in read_lines(manifest.origin)]
    values = [line.get(key) for line in lines]
    if len(values) != len(manifest) or not any(value not in (None, "") for value in values):
        known = sorted({name for line in lines for name in line} | {"snr"})
        raise DataError(f"{manifest.origin}: no utterance has {key!r} to slice by; there is: {', '.join(known)}")
    return [json.dumps(value) if isinstance(value, dict | list) else value for value in values]


def estimate_snr(waveform: NDArray[np.float32]) -> float:
    """Estimate the ratio of speech to noise of one utterance from the energies of its frames.

    The noise is the tenth percentile of the energies of 25 ms frames, the pauses between words; the speech is what
    their mean has above that. It holds for steady noise and at least a little pause; without any pause it comes out
    too low, and noise that comes and goes passes for speech. In the manner of NIST's `stnr`, without its histogram.

    Args:
        waveform: mono samples at 16 kHz, shape (S,).

    Returns:
        Decibels, within -10 to 60; 60 for digital silence between words.
    """
    if len(waveform) < _FRAME:
        waveform = np.pad(waveform, (0, _FRAME - len(waveform)))
    frames = np.lib.stride_tricks.sliding_window_view(waveform, _FRAME)[::_HOP]
    energies = np.einsum("ts,ts->t", frames, frames, dtype=np.float64) / _FRAME
    noise = float(np.percentile(energies, 10))
    speech = float(energies.mean()) - noise
    if speech <= 0:
        return -10.0  # silence, or a level that never changes
    if noise <= 0:
        return 60.0
    return round(min(60.0, max(-10.0, 10 * float(np.log10(max(speech / noise, 0.1))))), 1)


def _band(edges: tuple[float, ...], band: int, unit: str) -> str:
    ways = ([f"{edge:.{digits}g}" for edge in edges] for digits in (6, 9, 15))
    shown = next((way for way in ways if len(set(way)) == len(edges)), [repr(edge) for edge in edges])
    if band == 0:
        text = f"under {shown[0]}"
    elif band == len(edges):
        text = f"{shown[-1]} and over"
    else:
        text = f"{shown[band - 1]} to {shown[band]}"
    return f"{text} {unit}".strip()
