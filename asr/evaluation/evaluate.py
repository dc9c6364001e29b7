"""Run a model over a manifest and measure its word error rate and speed."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import asr
from asr.batching import group_by_length
from asr.decoding import DecodingOptions
from asr.errors import AudioError, DataError
from asr.evaluation.calibration import measure_confidence
from asr.evaluation.results import commit
from asr.evaluation.slices import estimate_snr, manifest_values
from asr.evaluation.summary import SLICES, summarise
from asr.manifest import Manifest
from asr.normalize import get_normalizer
from asr.samples import SAMPLE_RATE
from asr.segmentation import LONGEST
from asr.transcriber import Found, Transcriber
from asr.transcript import Word

WHOLE_SECONDS = 2 * LONGEST  # time and memory of attention and of alignments grow with the square of the length


def evaluate(
    transcriber: Transcriber,
    manifest: Manifest,
    normalizer: str = "basic",
    progress: Callable[[int], None] = lambda utterances: None,
    slice_by: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Decode every utterance of a manifest and compare it with its transcript.

    Utterances are decoded whole, without the voice detector, which would only cut what a corpus has cut already; those
    over WHOLE_SECONDS are transcribed as `Transcriber.transcribe` does it.

    Args:
        transcriber: the model and how it decodes.
        manifest: utterances with reference texts.
        normalizer: what both sides go through before they are compared; the raw rates are reported as well.
        progress: called with the number of utterances done after each batch.
        slice_by: `snr` and keys of the manifest to tell utterances apart by; None for speaker, duration and SNR.

    Returns:
        What `summarise` measures; `confidence`, what `measure_confidence` finds; real-time factors; the settings,
        software and hardware that made them. An utterance that cannot be read or decoded counts as one without
        any hypothesis, and its row has the reason under `error`.

    Raises:
        DataError: the manifest is empty, holds no reference text, or lacks a key of `slice_by`.
        AudioError: no utterance can be read or decoded at all.
    """
    if not len(manifest):
        raise DataError("the manifest holds no utterance")
    conditions = _conditions(transcriber)
    rules = get_normalizer(normalizer)  # what is wrong with the settings shows before hours of decoding
    wanted = [key for key in dict.fromkeys([*SLICES, *(slice_by or ())]) if key != "snr"]
    columns = {key: manifest_values(manifest, key) for key in wanted}
    heard, reading, decoding = _decode_all(transcriber, manifest, progress)
    errors = [found["error"] for found in heard if "error" in found]
    if len(errors) == len(heard):
        raise AudioError(errors[0])
    rows = [
        {**{key: column[row] for key, column in columns.items()}, "id": name, "reference": reference, **found}
        for row, (name, reference, found) in enumerate(
            zip(manifest.table["id"].to_pylist(), manifest.texts, heard, strict=True)
        )
    ]
    result = summarise(rows, rules, slice_by)
    audio_seconds = float(manifest.durations[["error" not in found for found in heard]].sum())
    result["data"]["name"] = "/".join(Path(manifest.origin).parts[-2:])  # no path of the machine it was measured on
    return result | {
        "confidence": measure_confidence(rows, rules),
        "unreadable": len(errors),
        "audio_seconds": round(audio_seconds, 3),
        "real_time_factor": round((reading + decoding) / audio_seconds, 6),
        "decoding_real_time_factor": round(decoding / audio_seconds, 6),
        **conditions,
        "results": result["results"],  # last, so that the figures stand on the first pages of a file
    }


def decoding_label(options: DecodingOptions) -> str:
    """Name the mode, and what differs from its defaults; of a file only the name."""
    changes = options.changes().items()
    shown = [f"{key} {Path(value).name if isinstance(value, str) else value}" for key, value in changes]
    return ", ".join([options.mode, *shown])


def _decode_all(
    transcriber: Transcriber, manifest: Manifest, progress: Callable[[int], None]
) -> tuple[list[dict[str, Any]], float, float]:
    """Give what was heard in each utterance, and the seconds spent on reading and on decoding."""
    heard: dict[int, dict[str, Any]] = {}
    reading = decoding = 0.0
    for rows in group_by_length(manifest.durations.tolist(), transcriber.batch_seconds):
        began = time.perf_counter()
        waveforms: dict[int, NDArray[np.float32]] = {}
        for row in rows:
            utterance = manifest[row]
            try:
                waveforms[row] = utterance.waveform()
            except AudioError as error:
                heard[row] = {"hypothesis": "", "fallback": None, "error": str(error)}
        ready = time.perf_counter()
        heard |= zip(waveforms, _decode(transcriber, list(waveforms.values())), strict=True)
        reading, decoding = reading + ready - began, decoding + time.perf_counter() - ready
        for row, waveform in waveforms.items():
            heard[row]["snr"] = estimate_snr(waveform)
        progress(len(rows))
    return [heard[row] for row in range(len(manifest))], reading, decoding


def _decode(transcriber: Transcriber, waveforms: list[NDArray[np.float32]]) -> list[dict[str, Any]]:
    """Give what is heard in each of a batch: decoded whole, or cut as `asr transcribe` does it if that is too long."""
    long = [len(waveform) > WHOLE_SECONDS * SAMPLE_RATE for waveform in waveforms]
    whole = [waveform for waveform, cut in zip(waveforms, long, strict=True) if not cut]
    found = iter(transcriber.attempt(whole, words=True))
    return [
        _transcribe(transcriber, waveform) if cut else _row(transcriber, next(found))
        for waveform, cut in zip(waveforms, long, strict=True)
    ]


def _row(transcriber: Transcriber, found: Found | str) -> dict[str, Any]:
    if isinstance(found, str):
        return {"hypothesis": "", "fallback": None, "error": found}
    best, alignment = found
    words = alignment.words if alignment else ()
    text = transcriber.model.tokenizer.decode(best.tokens)
    return {"hypothesis": text, "fallback": best.fallback, "word_confidences": _confidences(words)}


def _transcribe(transcriber: Transcriber, waveform: NDArray[np.float32]) -> dict[str, Any]:
    transcript = transcriber.transcribe((waveform, SAMPLE_RATE), word_timestamps=True)
    words = [word for segment in transcript.segments for word in segment.words]
    fallback = next((segment.fallback for segment in transcript.segments if segment.fallback), None)
    failed = [{"error": span.reason} for span in transcript.spans if span.kind == "failed"]
    row = {"hypothesis": transcript.text, "fallback": fallback, "word_confidences": _confidences(words)}
    return row | (failed[0] if failed else {})


def _confidences(words: Iterable[Word]) -> list[tuple[str, float]]:
    return [(word.text, round(word.confidence, 4)) for word in words]


def _conditions(transcriber: Transcriber) -> dict[str, Any]:
    """Tell what is measured, on what, and when."""
    return {
        "decoding": asdict(transcriber.options),
        "decoding_label": decoding_label(transcriber.options),
        "model": transcriber.name,
        "parameters": sum(parameter.numel() for parameter in transcriber.model.parameters()),
        "hardware": hardware(next(transcriber.model.parameters()).device),
        "busy": _is_busy(),
        "version": asr.__version__,
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
    }


def _is_busy() -> bool:
    """Tell whether other programs already keep every core at work, so that times measured now mean little."""
    return hasattr(os, "getloadavg") and os.getloadavg()[0] > (os.cpu_count() or 1)


def hardware(device: torch.device) -> str:
    """Name what computes: the GPU, or the CPU and its threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    facts = Path("/proc/cpuinfo")  # Linux; elsewhere the platform's own word has to do
    lines = facts.read_text(encoding="utf-8", errors="replace").splitlines() if facts.is_file() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    name = models[0] if models else platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} thread{'s' if torch.get_num_threads() > 1 else ''}"
