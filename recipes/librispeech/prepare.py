"""LibriSpeech (OpenSLR 12): 960 hours of read English.

asr prepare librispeech --output data/librispeech
asr prepare librispeech --source /corpora/LibriSpeech --output data/librispeech
"""

from __future__ import annotations

from pathlib import Path

from asr.corpora import LIBRISPEECH_SETS, Corpus, fetch_librispeech, read_librispeech

PARTS = LIBRISPEECH_SETS | dict.fromkeys(("train-clean-100", "train-clean-360", "train-other-500"), "train")
SPLITS = ("train", "dev", "test-clean", "test-other")
LAYOUT = "the folder LibriSpeech, with train-clean-100, dev-clean and so on in it"
MIRROR = "https://www.openslr.org/resources/12"


def download(folder: Path) -> Path:
    """Fetch all parts, about 60 GB."""
    return fetch_librispeech(folder, MIRROR, PARTS)


def read(source: Path) -> Corpus:
    """Read the parts that are there."""
    return read_librispeech(source, PARTS)
