"""AISHELL-1 (OpenSLR 33): 178 hours of read Mandarin.

asr prepare aishell --output data/aishell
asr prepare aishell --source /corpora/aishell --output data/aishell
"""

from __future__ import annotations

from pathlib import Path

from lhotse.recipes import download_aishell, prepare_aishell

from asr.corpora import Corpus, from_lhotse, lhotse_reads

SPLITS = ("train", "dev", "test")
LAYOUT = "the folder with data_aishell in it, whose wav/train, wav/dev and wav/test are unpacked"
MIRROR = "https://www.openslr.org/resources"


def download(folder: Path) -> Path:
    """Fetch the corpus, 15 GB, and unpack the archive of each speaker in it."""
    with lhotse_reads([]):
        return download_aishell(folder, base_url=MIRROR)


def read(source: Path) -> Corpus:
    """Read the three official splits; characters are written without blanks."""
    corpus = Corpus({})
    if (source / "data_aishell").is_dir():
        with lhotse_reads(corpus.faults):
            for split, found in prepare_aishell(source).items():
                corpus.splits[split] = from_lhotse(found, "zh")
    return corpus
