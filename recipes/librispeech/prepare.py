"""LibriSpeech (OpenSLR 12): 960 hours of read English.

asr prepare librispeech --output data/librispeech
asr prepare librispeech --source /corpora/LibriSpeech --output data/librispeech
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
    "train-clean-360": "train",
    "train-other-500": "train",
}
SPLITS = ("train", "dev", "test-clean", "test-other")
LAYOUT = "the folder LibriSpeech, with train-clean-100, dev-clean and so on in it"
MIRROR = "https://www.openslr.org/resources/12"


def download(folder: Path) -> Path:
    """Fetch all parts, about 60 GB."""
    for part in PARTS:
        fetch(f"{MIRROR}/{part}.tar.gz", folder / part)
    return folder


def read(source: Path) -> Corpus:
    """Read the parts that are there."""
    return read_librispeech(source, PARTS)
