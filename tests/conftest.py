"""Real recordings and small models that every test may use."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from examples import DATA, small_config

from asr.manifest import Manifest
from asr.model.recognizer import Recognizer
from asr.tokenizer import Tokenizer, TokenizerConfig, train_tokenizer


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Tests run side by side; more threads each would only get in each other's way."""
    torch.set_num_threads(1)


@pytest.fixture
def data() -> Path:
    """The folder of shipped LibriSpeech utterances."""
    return DATA


@pytest.fixture(scope="session")
def manifest() -> Manifest:
    """The shipped utterances with their transcripts."""
    return Manifest.load(DATA / "manifest.jsonl")


@pytest.fixture(scope="session")
def tokenizer(manifest: Manifest) -> Tokenizer:
    """A character vocabulary of the shipped transcripts."""
    return train_tokenizer(manifest.texts, TokenizerConfig(kind="char"))


@pytest.fixture
def model(tokenizer: Tokenizer) -> Recognizer:
    """A small untrained recogniser in evaluation mode."""
    torch.manual_seed(0)
    return Recognizer(small_config(), tokenizer).eval()
