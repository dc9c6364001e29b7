"""Free Spoken Digit Dataset: six speakers say zero to nine, fifty times each.

asr prepare spoken_digits --output data/spoken_digits
asr prepare spoken_digits --source /corpora/free-spoken-digit-dataset --output data/spoken_digits

The official split: recordings 0 to 4 of each digit and speaker are the test set. Recordings 45 to 49 are held out as
dev, so that no model is chosen on the test set.
"""

from __future__ import annotations

import re
from pathlib import Path

from asr.corpora import Corpus
from asr.download import fetch
from asr.manifest import Utterance

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NAME = re.compile(r"(?P<digit>[0-9])_(?P<speaker>[a-z]+)_(?P<index>[0-9]+)")
SPLITS = ("train", "dev", "test")
LAYOUT = "the data set's folder, with recordings/<digit>_<speaker>_<index>.wav in it"
MIRROR = "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/heads"


def download(folder: Path) -> Path:
    """Fetch the repository, 16 MB."""
    return fetch(f"{MIRROR}/master.zip", folder / "free-spoken-digit-dataset")


def read(source: Path) -> Corpus:
    """Read the recordings, whose names say digit, speaker and index."""
    corpus = Corpus({"train": [], "test": []})
    for audio in sorted(source.glob("**/recordings/*.wav")):
        if name := NAME.fullmatch(audio.stem):
            word, split = WORDS[int(name["digit"])], "test" if int(name["index"]) < 5 else "train"
            corpus.splits[split].append(
                Utterance(audio.stem, str(audio), 0.0, word, speaker=name["speaker"], language="en")
            )
    return corpus


def is_dev(utterance: Utterance) -> bool:
    """Hold out the last five recordings of each digit and speaker."""
    name = NAME.fullmatch(utterance.id)
    return bool(name) and int(name["index"]) >= 45
