"""Free Spoken Digit Dataset: six speakers say zero to nine, fifty times each.

asr prepare spoken_digits --output data/spoken_digits
asr prepare spoken_digits --source /corpora/free-spoken-digit-dataset --output data/spoken_digits

The official split: recordings 0 to 4 of each digit and speaker are the test set. Recordings 45 to 49 are held out as
dev, so that no model is chosen on the test set.
"""

from __future__ import annotations

import re
from pathlib import Path

from asr.errors import DataError
from asr.manifest import Utterance, read_packed
from asr.recipes import fetch, measure_all, prepared, write_splits

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NAME = re.compile(r"(?P<digit>[0-9])_(?P<speaker>[a-z]+)_(?P<index>[0-9]+)")
HOME = "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/heads"


def prepare(source: Path | None, output: Path, mirror: str = HOME) -> list[Path]:
    """Write train.jsonl, dev.jsonl and test.jsonl.

    Args:
        source: the data set's folder, which holds recordings/, or a folder with a manifest.jsonl; None downloads it.
        output: folder for the manifests, and for the download.
        mirror: address of the folder that holds master.zip.

    Returns:
        The manifests.
    """
    if done := prepared(output, "train", "test"):
        return done
    if source is not None and (source / "manifest.jsonl").is_file():
        utterances = [utterance for split in read_packed(source).values() for utterance in split]
    else:
        if source is None:
            source = fetch(f"{mirror}/master.zip", output / "download" / "free-spoken-digit-dataset")
        utterances = _read(source)
    splits: dict[str, list[Utterance]] = {"test": [], "dev": [], "train": []}
    for utterance in utterances:
        if name := NAME.fullmatch(utterance.id):
            splits[_split(int(name["index"]))].append(utterance)
    if not (splits["train"] and splits["test"]):
        raise DataError(f"{source}: holds no recordings/<digit>_<speaker>_<index>.wav for both training and test")
    return write_splits(output, splits)


def _read(source: Path) -> list[Utterance]:
    utterances = []
    for audio in sorted(source.glob("**/recordings/*.wav")):
        if name := NAME.fullmatch(audio.stem):
            word, speaker = WORDS[int(name["digit"])], name["speaker"]
            utterances.append(Utterance(audio.stem, str(audio), 0.0, word, speaker=speaker, language="en"))
    return measure_all(utterances)


def _split(index: int) -> str:
    return "test" if index < 5 else "dev" if index >= 45 else "train"
