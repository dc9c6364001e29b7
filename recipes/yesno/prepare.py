"""yesno (OpenSLR 1): one man says "yes" and "no" in Hebrew, eight times in each of 60 recordings.

asr prepare yesno --output data/yesno
asr prepare yesno --source /corpora/waves_yesno --output data/yesno
"""

from __future__ import annotations

from pathlib import Path

from lhotse.recipes import prepare_yesno

from asr.corpora import Corpus, from_lhotse, lhotse_reads
from asr.download import fetch

SPLITS = ("train", "dev", "test")
LAYOUT = "the folder waves_yesno with its 60 recordings"
MIRROR = "https://www.openslr.org/resources/1"
DEV = 5


def download(folder: Path) -> Path:
    """Fetch the corpus, 5 MB."""
    return fetch(f"{MIRROR}/waves_yesno.tar.gz", folder / "yesno")


def read(source: Path) -> Corpus:
    """Read the recordings, whose names are their texts: odd ones are for training, even ones for the test."""
    corpus = Corpus({})
    root = source / "waves_yesno" if (source / "waves_yesno").is_dir() else source
    if any(root.glob("*.wav")):
        with lhotse_reads(corpus.faults):
            corpus.splits = {split: from_lhotse(found, "he") for split, found in prepare_yesno(root).items()}
        corpus.splits["dev"], corpus.splits["train"] = corpus.splits["train"][:DEV], corpus.splits["train"][DEV:]
    return corpus
