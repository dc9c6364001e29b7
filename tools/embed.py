"""Put a trained checkpoint into the package, in half precision, with the error rates measured on it.

python tools/embed.py run/english_embedded/model.safetensors mini_librispeech-dev=dev.json spoken_digits-test=fsdd.json

Each NAME=FILE is a result of `asr evaluate --json`; the first one is what `asr transcribe` quotes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from asr.model import checkpoint

TARGET = Path(__file__).parents[1] / "asr" / "pretrained" / "english.safetensors"


def main(source: str, *evaluations: str) -> None:
    """Copy `source` to TARGET as float16; the metrics are those of the given evaluations."""
    model, about = checkpoint.load(source)
    metrics = {}
    for evaluation in evaluations:
        name, _, path = evaluation.partition("=")
        result = json.loads(Path(path).read_text(encoding="utf-8"))
        metrics[name] = {key: result[key] for key in ("wer", "cer", "words", "utterances", "decoding", "normalizer")}
    first = next(iter(metrics.values()))
    about["metrics"] = {"wer": first["wer"], "cer": first["cer"], "sets": metrics}
    checkpoint.save(TARGET, model, about, torch.float16)
    print(f"{TARGET}: {TARGET.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(*sys.argv[1:])
