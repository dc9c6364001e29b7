"""Error of word times on real words with known bounds: single-word recordings joined into utterances.

python tools/benchmark.py word-times MANIFEST              # spoken digits: data/spoken_digits/test.jsonl
python tools/benchmark.py word-times MANIFEST --model run/spoken_digits/model.safetensors
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asr.manifest import Manifest
from asr.samples import SAMPLE_RATE
from asr.transcriber import Transcriber


def make_utterance(
    manifest: Manifest, generator: np.random.Generator
) -> tuple[NDArray[np.float32], str, list[tuple[float, float]]]:
    """Join one to seven recordings of one speaker over faint noise.

    A third of them follow one another without a gap, the others after 0.03 to 0.6 seconds.

    Returns:
        Samples at 16 kHz, the text, and start and end of each word in seconds.
    """
    speakers = np.array(manifest.table["speaker"].to_pylist())
    rows = np.flatnonzero(speakers == generator.choice(np.unique(speakers)))
    pieces, words, bounds = [np.zeros(int(generator.uniform(0.05, 0.5) * SAMPLE_RATE))], [], []
    for row in generator.choice(rows, size=generator.integers(1, 8)).tolist():
        word = manifest[row].waveform()
        start = sum(map(len, pieces)) / SAMPLE_RATE
        pieces.append(word / max(np.abs(word).max(), 1e-6) * generator.uniform(0.2, 0.7))
        words.append(manifest[row].text)
        bounds.append((start, start + len(word) / SAMPLE_RATE))
        gap = 0.0 if generator.random() < 1 / 3 else generator.uniform(0.03, 0.6)
        pieces.append(np.zeros(int(gap * SAMPLE_RATE)))
    pieces.append(np.zeros(int(generator.uniform(0.05, 0.4) * SAMPLE_RATE)))
    waveform = np.concatenate(pieces)
    waveform += generator.normal(size=len(waveform)) * 10 ** generator.uniform(-4.2, -2.6)
    return waveform.astype(np.float32), " ".join(words), bounds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the measurement depends on."""
    parser.add_argument("manifest", type=Path, help="recordings of one word each (JSONL), with their speakers")
    parser.add_argument("--model", type=Path, help="checkpoint; default: the embedded English model")
    parser.add_argument("--utterances", type=int, default=120)


def run(arguments: argparse.Namespace) -> None:
    """Align, compare, print."""
    manifest = Manifest.load(arguments.manifest)
    transcriber = Transcriber.load(arguments.model, device="cpu", vad=False)
    generator = np.random.default_rng(0)
    errors: list[tuple[float, float]] = []
    for _ in range(arguments.utterances):
        waveform, text, bounds = make_utterance(manifest, generator)
        words = transcriber.align((waveform, SAMPLE_RATE), text).segments[0].words
        errors += [(word.start - start, word.end - end) for word, (start, end) in zip(words, bounds, strict=True)]
    table = 1000 * np.array(errors)
    print(f"{transcriber.name}: {len(table)} words, milliseconds")
    for name, column in (("start", table[:, 0]), ("end", table[:, 1]), ("both", table.flatten())):
        quantiles = np.quantile(np.abs(column), (0.5, 0.75, 0.9))
        shown = ", ".join(f"{value:.0f}" for value in quantiles)
        print(
            f"  {name:5s} absolute error at 50, 75, 90 %: {shown}; median of the signed error {np.median(column):+.0f}"
        )
