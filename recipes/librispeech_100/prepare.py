"""LibriSpeech's train-clean-100 (OpenSLR 12), tested on all four of LibriSpeech's development and test sets.

asr prepare librispeech_100 --output data/librispeech_100
asr prepare librispeech_100 --source /corpora/LibriSpeech --output data/librispeech_100
"""

from __future__ import annotations

from pathlib import Path

from asr.corpora import Corpus, read_librispeech
from asr.download import fetch

PARTS = {
    "dev-clean": "dev",
    "dev-other": "dev",
    "test-clean": "test-clean",
    "test-other": "test-other",
    "train-clean-100": "train",
}
SPLITS = ("train", "dev", "test-clean", "test-other")
LAYOUT = "the folder LibriSpeech, with train-clean-100, dev-clean and so on in it"
MIRROR = "https://www.openslr.org/resources/12"


def download(folder: Path) -> Path:
    """Fetch the five parts, 8 GB."""
    for part in PARTS:
        fetch(f"{MIRROR}/{part}.tar.gz", folder / part)
    return folder


def read(source: Path) -> Corpus:
    """Read the parts that are there."""
    return read_librispeech(source, PARTS)
