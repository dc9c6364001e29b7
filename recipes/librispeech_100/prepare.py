"""LibriSpeech's train-clean-100 (OpenSLR 12), tested on all four of LibriSpeech's development and test sets.

asr prepare librispeech_100 --output data/librispeech_100
asr prepare librispeech_100 --source /corpora/LibriSpeech --output data/librispeech_100
"""

from __future__ import annotations

from pathlib import Path

from asr.corpora import LIBRISPEECH_SETS, Corpus, fetch_librispeech, read_librispeech

PARTS = LIBRISPEECH_SETS | {"train-clean-100": "train"}
SPLITS = ("train", "dev", "test-clean", "test-other")
LAYOUT = "the folder LibriSpeech, with train-clean-100, dev-clean and so on in it"
MIRROR = "https://www.openslr.org/resources/12"


def download(folder: Path) -> Path:
    """Fetch the five parts, 8 GB."""
    return fetch_librispeech(folder, MIRROR, PARTS)


def read(source: Path) -> Corpus:
    """Read the parts that are there."""
    return read_librispeech(source, PARTS)
