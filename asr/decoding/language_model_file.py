"""Read a language model for fusion, whatever kind it is: its content tells, not its name."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from safetensors import SafetensorError, safe_open

from asr.decoding.arpa import read_arpa
from asr.decoding.language_model import LanguageModel
from asr.decoding.ngram import NGramLanguageModel
from asr.decoding.ngram_file import read_ngrams
from asr.errors import CheckpointError, ConfigError
from asr.model import language_model_file as neural
from asr.tokenizer import Tokenizer


@lru_cache(maxsize=2)
def load_language_model(path: str, tokenizer: Tokenizer) -> LanguageModel:
    """Read an ARPA file, a compact n-gram file or a neural model; the last two read stay in memory.

    Raises:
        ConfigError: the file is missing, damaged, or made for another tokenizer.
    """
    try:
        with Path(path).open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise ConfigError(f"{path}: no such language model; `asr lm build` makes one") from error
    if head[8:] != b"{":  # safetensors begins with eight bytes of length, then JSON
        return NGramLanguageModel(read_arpa(path, tokenizer), len(tokenizer))
    try:
        with safe_open(path, framework="np") as file:
            kind = (file.metadata() or {}).get("format")
        if kind == neural.FORMAT:
            return neural.load_neural_language_model(path, tokenizer)[0]
    except (SafetensorError, CheckpointError, OSError) as error:
        raise ConfigError(str(error) if path in str(error) else f"{path}: damaged: {error}") from error
    return NGramLanguageModel(read_ngrams(path, tokenizer), len(tokenizer))
