"""The tokenizer of a training run: trained once, kept in the run folder."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import asdict
from pathlib import Path

import yaml

from asr.datamodule import load_manifests
from asr.files import write_file
from asr.tokenizer import Tokenizer, train_tokenizer
from asr.training.config import TrainConfig

log = logging.getLogger(__name__)


def prepare_tokenizer(config: TrainConfig) -> Tokenizer:
    """Train RUN/tokenizer.model, or read it if this very tokenizer was trained there before.

    RUN/tokenizer.yaml says which: the settings, and a hash of the texts. If either differs now, a new one is trained,
    so that a change to configuration or data is never passed over in silence.

    Raises:
        DataError: manifests are wrong, or hold no text.
    """
    run = Path(config.run)
    model, about = run / "tokenizer.model", run / "tokenizer.yaml"
    texts = load_manifests(config.data.train, "data.train").texts
    digest = hashlib.blake2b("\n".join(texts).encode(), digest_size=16).hexdigest()
    wanted = {"tokenizer": asdict(config.tokenizer), "texts": digest}
    if model.is_file() and about.is_file() and yaml.safe_load(about.read_text(encoding="utf-8")) == wanted:
        return Tokenizer(model.read_bytes(), config.tokenizer.normalizer)
    if model.is_file():
        log.warning("%s is of other settings or texts: trained anew", model)
    tokenizer = train_tokenizer(texts, config.tokenizer)
    write_file(model, tokenizer.model)  # several ranks may do this at once
    write_file(about, yaml.safe_dump(wanted, sort_keys=False))
    return tokenizer
