"""A recording of many hours: peak memory, speed, and what cutting it into chunks costs in words."""

from __future__ import annotations

import argparse
import tempfile
import time
from itertools import cycle
from pathlib import Path

import numpy as np
import soundfile
from benchmarks.hear import peak_megabytes
from numpy.typing import NDArray

from asr.evaluation.wer import score
from asr.manifest import Manifest
from asr.normalize import get_normalizer
from asr.samples import SAMPLE_RATE
from asr.transcriber import Transcriber
from asr.transcript import Transcript


def write_long(path: Path, utterances: list[NDArray[np.float32]], hours: float) -> None:
    """Write utterances one after the other, over and over, as one FLAC file, in memory that does not grow.

    Args:
        path: the file.
        utterances: mono samples at 16 kHz.
        hours: least length; no utterance is cut.
    """
    left = hours * 3600 * SAMPLE_RATE
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1, "PCM_16", format="FLAC") as file:
        for waveform in cycle(utterances):
            if left <= 0:
                return
            file.write(waveform)
            left -= len(waveform)


def compare_with_whole(transcriber: Transcriber, manifest: Manifest, utterances: list[NDArray[np.float32]]) -> None:
    """Print the word error rate of utterances decoded one by one, and of all of them as one recording in chunks."""
    normalizer = get_normalizer("basic")
    tokenizer = transcriber.model.tokenizer
    whole = [tokenizer.decode(transcriber.decode_waveforms([each])[0].tokens) for each in utterances]
    joined = np.concatenate(utterances)
    speakers = score(list(zip(manifest.texts, whole, strict=True)), normalizer).wer
    reference = [(" ".join(manifest.texts), " ".join(whole))]
    alone = score(reference, normalizer).wer
    chunked = transcriber.transcribe((joined, SAMPLE_RATE))
    together = score([(" ".join(manifest.texts), chunked.text)], normalizer).wer
    print(f"WER utterance by utterance {100 * speakers.rate:.2f} %; aligned as one text: whole utterances")
    print(f"{100 * alone.rate:.2f} %, one recording of {len(joined) / SAMPLE_RATE:.0f} s in chunks ", end="")
    print(f"{100 * together.rate:.2f} % ({_spans(chunked)})")


def _spans(transcript: Transcript) -> str:
    gap = abs(transcript.duration - sum(transcript.coverage.values()))
    seconds = ", ".join(f"{kind} {value:.1f} s" for kind, value in transcript.coverage.items())
    return f"{len(transcript.segments)} segments; {seconds}; unaccounted {gap:.6f} s"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what can be chosen."""
    parser.add_argument("--manifest", type=Path, required=True, help="real utterances to make the recording of")
    parser.add_argument("--hours", type=float, default=10.0, help="length of the recording")
    parser.add_argument("--model", type=Path, help="checkpoint; default: the embedded model")


def run(arguments: argparse.Namespace) -> None:
    """Make the recording, transcribe it, and print what it took."""
    manifest = Manifest.load(arguments.manifest)
    utterances = [each.waveform() for each in manifest]
    transcriber = Transcriber.load(arguments.model, "cpu")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.flac"
        write_long(path, utterances, arguments.hours)
        transcriber.transcribe((utterances[0], SAMPLE_RATE))  # what loading takes is no part of the speed
        before, began = peak_megabytes(), time.perf_counter()
        transcript = transcriber.transcribe(path)
        seconds = time.perf_counter() - began
    print(
        f"{transcript.duration / 3600:.2f} h in {seconds:.0f} s: real-time factor {seconds / transcript.duration:.5f}"
    )
    print(f"peak memory {peak_megabytes():.0f} MB, {before:.0f} MB before; {_spans(transcript)}")
    compare_with_whole(transcriber, manifest, utterances)
