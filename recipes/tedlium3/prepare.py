"""TED-LIUM 3 (OpenSLR 51): 452 hours of English talks.

asr prepare tedlium3 --source /corpora/TEDLIUM_release-3 --output data/tedlium3
"""

from __future__ import annotations

import re
from pathlib import Path

from lhotse.recipes import prepare_tedlium

from asr.corpora import Corpus, from_lhotse, lhotse_reads, without_tags

SPLITS = ("train", "dev", "test")
LAYOUT = "the folder TEDLIUM_release-3, with legacy/train/sph and legacy/train/stm in it"
OBTAIN = (
    "TED-LIUM 3 is some 50 GB under CC BY-NC-ND 3.0: get it at https://www.openslr.org/51/, unpack it, "
    "and give the folder TEDLIUM_release-3 as --source"
)


def read(source: Path) -> Corpus:
    """Read the `legacy` distribution, whose dev and test sets are those of TED-LIUM 2."""
    corpus = Corpus({})
    with lhotse_reads(corpus.faults):
        for split in SPLITS:
            if (source / "legacy" / split / "stm").is_dir():
                found = prepare_tedlium(source, dataset_parts=split)[split]
                corpus.splits[split] = from_lhotse(found, "en", lambda segment: _words(segment.text))
    return corpus


def _words(text: str) -> str:
    """Join what the transcripts set apart: `it 's` is one word, and so is `<unk> 's`, of which nothing is kept."""
    return without_tags(re.sub(r"<unk>( '\S+)+", " ", text)).replace(" '", "'")
