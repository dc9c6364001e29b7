"""Run a model over a manifest and measure its word error rate and speed."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from asr.audio import load_mono
from asr.errors import DataError
from asr.evaluation.wer import WerResult, score
from asr.manifest import Manifest
from asr.normalize import get_normalizer
from asr.transcriber import Transcriber

BATCH_SECONDS = 160.0  # padded audio decoded at once


def evaluate(
    transcriber: Transcriber,
    manifest: Manifest,
    normalizer: str = "basic",
    progress: Callable[[int], None] = lambda utterances: None,
) -> dict[str, Any]:
    """Decode every utterance of a manifest and compare it with its transcript.

    Args:
        transcriber: the model and how it decodes.
        manifest: utterances with reference texts.
        normalizer: what both sides go through before they are compared; the raw rate is reported as well.
        progress: called with the number of utterances done after each batch.

    Returns:
        `wer`, `cer` and their counts, real-time factors, the settings that made them, and under `results` each
        utterance with reference and hypothesis.

    Raises:
        DataError: the manifest is empty or holds no reference text.
        AudioError: a file cannot be read.
    """
    if not len(manifest):
        raise DataError("the manifest holds no utterance")
    began = time.perf_counter()
    hypotheses: dict[int, dict[str, Any]] = {}
    decoding_seconds = 0.0
    for rows in _batches(manifest, BATCH_SECONDS):
        utterances = [manifest[row] for row in rows]
        waveforms = [load_mono(u.audio_filepath, u.offset, u.duration) for u in utterances]
        ready = time.perf_counter()
        for row, best in zip(rows, transcriber.decode_waveforms(waveforms), strict=True):
            text = transcriber.model.tokenizer.decode(best.tokens)
            hypotheses[row] = {"hypothesis": text, "fallback": best.fallback}
        decoding_seconds += time.perf_counter() - ready
        progress(len(rows))
    references = manifest.texts
    pairs = [(references[row], hypotheses[row]["hypothesis"]) for row in range(len(manifest))]
    result: WerResult = score(pairs, get_normalizer(normalizer))
    audio_seconds = float(manifest.durations.sum())
    return result.to_dict() | {
        "audio_seconds": round(audio_seconds, 3),
        "real_time_factor": round((time.perf_counter() - began) / audio_seconds, 6),
        "decoding_real_time_factor": round(decoding_seconds / audio_seconds, 6),
        "decoding": asdict(transcriber.options),
        "model": transcriber.name,
        "hardware": _hardware(transcriber),
        "date": time.strftime("%Y-%m-%d"),
        "results": [
            {"id": manifest[row].id, "reference": references[row], **hypotheses[row]} for row in range(len(manifest))
        ],
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a result atomically, as UTF-8 JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def _batches(manifest: Manifest, seconds: float) -> Iterator[list[int]]:
    """Group rows by length, longest first, with at most `seconds` of padded audio in each group of two or more."""
    durations = manifest.durations.tolist()
    group: list[int] = []
    for row in sorted(range(len(durations)), key=lambda row: -durations[row]):
        if group and durations[group[0]] * (len(group) + 1) > seconds:
            yield group
            group = []
        group.append(row)
    yield group


def _hardware(transcriber: Transcriber) -> str:
    device = next(transcriber.model.parameters()).device
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
