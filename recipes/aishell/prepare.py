"""AISHELL-1 (OpenSLR 33): 178 hours of read Mandarin.

asr prepare aishell --output data/aishell
asr prepare aishell --source /corpora/aishell --output data/aishell
"""

from __future__ import annotations

import shutil
from pathlib import Path

from lhotse.recipes import prepare_aishell

from asr.corpora import Corpus, from_lhotse, lhotse_reads
from asr.download import fetch, unpack
from asr.errors import DataError

SPLITS = ("train", "dev", "test")
LAYOUT = "the folder with data_aishell in it, whose wav/train, wav/dev and wav/test are unpacked"
MIRROR = "https://www.openslr.org/resources"


def download(folder: Path) -> Path:
    """Fetch the corpus, 15 GB, and unpack the archive of each speaker in it: some 35 GB while that is done."""
    root = fetch(f"{MIRROR}/33/data_aishell.tgz", folder / "aishell")
    wav = root / "data_aishell" / "wav"
    for archive in sorted(wav.glob("*.tar.gz")):  # of those that an interrupted run has left
        opened = wav / f"{archive.name}.opened"
        shutil.rmtree(opened, ignore_errors=True)
        try:
            unpack(archive, opened)
        except DataError:
            if not archive.is_file():  # damaged: only the whole can be fetched anew
                shutil.rmtree(root)
            raise
        for speaker in opened.glob("*/*"):  # train/S0002
            target = wav / speaker.relative_to(opened)
            target.parent.mkdir(exist_ok=True)
            shutil.rmtree(target, ignore_errors=True)
            speaker.replace(target)
        shutil.rmtree(opened)
        archive.unlink()
    return root


def read(source: Path) -> Corpus:
    """Read the three official splits; characters are written without blanks."""
    corpus = Corpus({})
    if (source / "data_aishell").is_dir():
        with lhotse_reads(corpus.faults):
            for split, found in prepare_aishell(source).items():
                corpus.splits[split] = from_lhotse(found, "zh")
        text = (source / "data_aishell" / "transcript" / "aishell_transcript_v0.8.txt").read_text(encoding="utf-8")
        heard = {utterance.id for utterances in corpus.splits.values() for utterance in utterances}
        told = [line.split()[0] for line in text.splitlines() if line.strip()]  # lhotse begins with the audio
        corpus.faults += [f"{name}: text without audio" for name in told if name not in heard]
    return corpus
