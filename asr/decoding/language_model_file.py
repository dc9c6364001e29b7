"""Read a language model for fusion, whatever kind it is: its content tells, not its name."""

from __future__ import annotations

import logging
from functools import lru_cache
from pathlib import Path

from safetensors import SafetensorError, safe_open

from asr.decoding.arpa import NGrams, read_arpa
from asr.decoding.language_model import LanguageModel
from asr.decoding.ngram import NGramLanguageModel
from asr.decoding.ngram_file import read_ngrams
from asr.errors import CheckpointError, ConfigError
from asr.files import stamp
from asr.model import language_model_file as neural
from asr.tokenizer import SPECIALS, Tokenizer

log = logging.getLogger(__name__)

MOST_SHOWN = 20  # tokens in a line of warning


def load_language_model(path: str, tokenizer: Tokenizer) -> LanguageModel:
    """Read an ARPA file, a compact n-gram file or a neural model; the last two read stay in memory.

    Raises:
        ConfigError: the file is missing, damaged, or made for another tokenizer.
    """
    return _load(path, tokenizer, stamp(path))


@lru_cache(maxsize=2)
def _load(path: str, tokenizer: Tokenizer, stamp: tuple[str, int, int] | None) -> LanguageModel:
    """Read a file, or remember it; another `stamp` is another file."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise ConfigError(f"{path}: no such language model; `asr lm build` makes one") from error
    if head[8:] != b"{":  # safetensors begins with eight bytes of length, then JSON
        return _ngrams(path, read_arpa(path, tokenizer), tokenizer)
    try:
        with safe_open(path, framework="np") as file:
            kind = (file.metadata() or {}).get("format")
        if kind == neural.FORMAT:
            return neural.load_neural_language_model(path, tokenizer)[0]
    except (SafetensorError, CheckpointError, OSError) as error:
        raise ConfigError(str(error) if path in str(error) else f"{path}: damaged: {error}") from error
    return _ngrams(path, read_ngrams(path, tokenizer), tokenizer)


def _ngrams(path: str, orders: list[NGrams], tokenizer: Tokenizer) -> LanguageModel:
    """Make a model of n-grams, and say which of the tokenizer's tokens it will keep out of every text."""
    known = set(orders[0].tokens.tolist())
    if missing := [tokenizer.piece(token) for token in range(SPECIALS, len(tokenizer)) if token not in known]:
        log.warning(
            "%s: %d tokens of the model are not in it and will hardly ever be written: %s; `asr lm build` with this "
            "model, from texts that have them, mends that",
            path,
            len(missing),
            " ".join(missing[:MOST_SHOWN]) + (" ..." if len(missing) > MOST_SHOWN else ""),
        )
    return NGramLanguageModel(orders, len(tokenizer))
