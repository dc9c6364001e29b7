"""LJSpeech: 24 hours of one speaker reading books, public domain.

asr prepare ljspeech --output data/ljspeech
asr prepare ljspeech --source /corpora/LJSpeech-1.1 --output data/ljspeech
"""

from __future__ import annotations

from pathlib import Path

from lhotse.recipes import prepare_ljspeech

from asr.corpora import Corpus, from_lhotse, lhotse_reads
from asr.download import fetch
from asr.manifest import Utterance

TEST = "LJ050"
DEV = "LJ049"
SPLITS = ("train", "dev", "test")
LAYOUT = "the folder LJSpeech-1.1, with metadata.csv and wavs in it"
MIRROR = "https://data.keithito.com/data/speech"


def download(folder: Path) -> Path:
    """Fetch the corpus, 2.7 GB."""
    return fetch(f"{MIRROR}/LJSpeech-1.1.tar.bz2", folder / "ljspeech")


def read(source: Path) -> Corpus:
    """Read metadata.csv, the texts with numbers written out; the last chapter is the test set."""
    corpus = Corpus({"train": [], "test": []})
    root = source / "LJSpeech-1.1" if (source / "LJSpeech-1.1").is_dir() else source
    if (root / "metadata.csv").is_file():
        with lhotse_reads(corpus.faults):
            found = from_lhotse(prepare_ljspeech(root), "en", lambda segment: segment.custom["normalized_text"])
        for utterance in found:
            corpus.splits["test" if utterance.id.startswith(TEST) else "train"].append(utterance)
    return corpus


def is_dev(utterance: Utterance) -> bool:
    """Hold out the chapter before the last."""
    return utterance.id.startswith(DEV)
