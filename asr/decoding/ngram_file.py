"""Compact n-gram files: one safetensors file of two to six bytes for each n-gram, read in a moment.

The n-grams of each order lie below their contexts: how many follow on each n-gram of the order below, and the last
token of each. Log-probabilities and weights are stored as one of 256 values of their order (Heafield 2011, "KenLM",
section 3.3).

    tensors    for order n: `tokens.n`, `log_probs.n` and `log_prob_values.n`, from 2 up `children.n`, below the highest
               order `backoffs.n` and `backoff_values.n`
    metadata   asr-ngram-1 (JSON): `pieces`, the tokens by id, and `about`
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from asr.decoding.arpa import NGrams
from asr.errors import ConfigError
from asr.files import write_file
from asr.tokenizer import Tokenizer

FORMAT = "asr-ngram-1"
VALUES = 256


def write_ngrams(path: Path | str, orders: list[NGrams], tokenizer: Tokenizer, about: dict[str, Any]) -> None:
    """Write a compact file atomically; the same n-grams give the same bytes.

    Args:
        path: where to.
        orders: the n-grams of order 1, 2, ..., those of each order sorted by their contexts.
        tokenizer: names the tokens.
        about: what it was made of, anything JSON can hold.

    Raises:
        WriteError: the file cannot be written.
    """
    small = np.min_scalar_type(len(tokenizer))
    tensors: dict[str, NDArray[Any]] = {}
    for n, grams in enumerate(orders, start=1):
        tensors[f"tokens.{n}"] = grams.tokens.astype(small)
        tensors[f"log_probs.{n}"], tensors[f"log_prob_values.{n}"] = _quantise(grams.log_probs)
        if n > 1:
            tensors[f"children.{n}"] = np.bincount(grams.contexts, minlength=len(orders[n - 2].tokens)).astype(small)
        if n < len(orders):
            tensors[f"backoffs.{n}"], tensors[f"backoff_values.{n}"] = _quantise(grams.backoffs)
    about = {"pieces": tokenizer.pieces, "about": about}
    write_file(path, save(tensors, {FORMAT: json.dumps(about)}))  # one key: safetensors shuffles several


def read_ngrams(path: Path | str, tokenizer: Tokenizer) -> list[NGrams]:
    """Read what `write_ngrams` wrote; token ids become those of the tokenizer, by their names.

    Raises:
        ConfigError: the file is missing, damaged, or its tokens are not this tokenizer's.
    """
    path = Path(path)
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (the file is no mapping)
    except (SafetensorError, OSError, TypeError) as error:  # numpy has no bfloat16
        raise ConfigError(f"{path}: not a safetensors file, or damaged: {error}") from error
    if FORMAT not in metadata:
        raise ConfigError(f"{path}: a safetensors file, but no n-gram model of this package")
    try:
        ids = _ids(json.loads(metadata[FORMAT])["pieces"], tokenizer)
        orders = sum(name.startswith("tokens.") for name in tensors)
        if not orders:
            raise ValueError("it has no n-grams")
        return [_order(tensors, n, orders, ids) for n in range(1, orders + 1)]
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: the n-gram model is damaged: {error}") from error


def _ids(pieces: list[str], tokenizer: Tokenizer) -> NDArray[np.int64]:
    """Tell the tokenizer's id of each of the file's tokens."""
    ids = {piece: token for token, piece in enumerate(tokenizer.pieces)}
    missing = [piece for piece in pieces if piece not in ids]
    if missing or len(set(pieces)) < len(pieces):
        raise ValueError(f"{missing[:5]} are no tokens of this model: build one with --model")
    return np.array([ids[piece] for piece in pieces])


def _order(tensors: dict[str, NDArray[Any]], n: int, orders: int, ids: NDArray[np.int64]) -> NGrams:
    """Put the n-grams of one order together again, and make sure that they are what they should be."""
    tokens = tensors[f"tokens.{n}"].astype(np.int64)
    log_probs = tensors[f"log_prob_values.{n}"].astype(np.float64)[tensors[f"log_probs.{n}"]]
    backoffs = np.zeros(len(tokens))
    if n < orders:
        backoffs = tensors[f"backoff_values.{n}"].astype(np.float64)[tensors[f"backoffs.{n}"]]
    contexts = np.zeros(len(tokens), dtype=np.int64)
    if n > 1:
        children = tensors[f"children.{n}"]
        # Each alone first: a sum of large numbers may come round to the right one.
        if children.dtype.kind not in "ui" or children.min(initial=0) < 0 or children.max(initial=0) > len(ids):
            raise ValueError(f"the {n}-grams do not add up")
        if children.shape != tensors[f"tokens.{n - 1}"].shape or int(children.astype(np.int64).sum()) != len(tokens):
            raise ValueError(f"the {n}-grams do not add up")
        contexts = np.repeat(np.arange(len(children)), children)
    if not tokens.shape == log_probs.shape == backoffs.shape == (len(tokens),):
        raise ValueError(f"the {n}-grams have unequal columns")
    if not (np.isfinite(log_probs).all() and np.isfinite(backoffs).all()):
        raise ValueError(f"the {n}-grams have weights that are no numbers")
    if tokens.min(initial=0) < 0 or not (np.diff(contexts * len(ids) + tokens) > 0).all():
        raise ValueError(f"the {n}-grams are not in order")
    return NGrams(contexts, ids[tokens], log_probs, backoffs)


def _quantise(values: NDArray[np.float64]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Replace each number by one of 256: the means of as many equally large groups of neighbours."""
    ranked = np.sort(values)
    groups = np.array_split(ranked, min(VALUES, max(1, len(ranked))))
    means = np.unique([group.mean() for group in groups if len(group)]).astype(np.float32)
    borders = (means[1:] + means[:-1]) / 2
    return np.searchsorted(borders, values).astype(np.uint8), means
