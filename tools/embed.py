"""Put a trained checkpoint into the package, in half precision, with the error rates measured on it.

python tools/embed.py run/english_embedded/model.safetensors mini_librispeech-dev=dev.json spoken_digits-test=fsdd.json

Each NAME=FILE is a result of `asr evaluate --json`. The first one is what `asr transcribe` quotes, and its search is
what the checkpoint recommends; of each other way of searching it recommends the first one. A language model must have
been copied into the package before. The licences of the training data are those of the recipe's table.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from asr.decoding import DecodingOptions
from asr.decoding.recommended import EMBEDDED_LM
from asr.model import checkpoint

TARGET = Path(__file__).parents[1] / "asr" / "pretrained" / "english.safetensors"
RECIPE = Path(__file__).parents[1] / "recipes" / "english_embedded" / "README.md"


def main(source: str, *evaluations: str) -> None:
    """Copy `source` to TARGET as float16; the metrics are those of the given evaluations."""
    model, about = checkpoint.load(source)
    metrics = {}
    for evaluation in evaluations:
        name, _, path = evaluation.partition("=")
        result = json.loads(Path(path).read_text(encoding="utf-8"))
        metrics[name] = {key: result[key] for key in ("wer", "cer", "words", "utterances", "decoding", "normalizer")}
    first = next(iter(metrics.values()))
    recommended: dict[str, dict[str, Any]] = {}
    for found in metrics.values():
        recommended.setdefault(found["decoding"]["mode"], _recommended(found["decoding"]))
    for found in metrics.values():  # no path of the machine it was measured on
        found["decoding"]["language_model"] = Path(found["decoding"]["language_model"]).name
    about["data"]["licences"] = _licences()
    about["search"] = list(recommended.values())
    about["metrics"] = {"wer": first["wer"], "cer": first["cer"], "sets": metrics}
    checkpoint.save(TARGET, model, about, torch.float16)
    print(f"{TARGET}: {TARGET.stat().st_size / 1e6:.1f} MB")


def _licences() -> dict[str, str]:
    """Give the licence of each corpus, by its folder, from the table of the recipe."""
    rows = [line.split("|") for line in RECIPE.read_text(encoding="utf-8").splitlines() if line.startswith("| `data/")]
    return {folder.strip(" `").removeprefix("data/"): licence.strip() for _, folder, _, _, licence, _ in rows}


def _recommended(decoding: dict[str, Any]) -> dict[str, Any]:
    """Keep what is not a default of the search; the language model must be the one in the package."""
    search = {"mode": decoding["mode"]} | DecodingOptions(**decoding).changes()
    if "language_model" in search:
        if Path(search["language_model"]).read_bytes() != EMBEDDED_LM.read_bytes():
            raise SystemExit(f"{search['language_model']} is not {EMBEDDED_LM}: copy it there first")
        search["language_model"] = "embedded"
    return search


if __name__ == "__main__":
    main(*sys.argv[1:])
