"""Mini LibriSpeech (OpenSLR 31): five hours of read English, to try a training run in minutes.

asr prepare mini_librispeech --output data/mini_librispeech
asr prepare mini_librispeech --source /corpora/LibriSpeech --output data/mini_librispeech

Three speakers of train-clean-5 are held out as dev, so that dev-clean-2 stays a test set nobody has looked at.
"""

from __future__ import annotations

from pathlib import Path

from asr.corpora import Corpus, fetch_librispeech, read_librispeech
from asr.manifest import Utterance

HELD_OUT = ("1737", "3947", "6848")
PARTS = {"train-clean-5": "train", "dev-clean-2": "test"}
SPLITS = ("train", "dev", "test")
LAYOUT = "the folder LibriSpeech, with train-clean-5 in it"
MIRROR = "https://www.openslr.org/resources/31"


def download(folder: Path) -> Path:
    """Fetch both parts, 0.5 GB."""
    return fetch_librispeech(folder, MIRROR, PARTS)


def read(source: Path) -> Corpus:
    """Read the parts that are there."""
    return read_librispeech(source, PARTS)


def is_dev(utterance: Utterance) -> bool:
    """Hold out three speakers."""
    return utterance.speaker in HELD_OUT
