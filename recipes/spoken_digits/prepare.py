"""Free Spoken Digit Dataset: six speakers say zero to nine, fifty times each.

asr prepare spoken_digits --output data/spoken_digits
asr prepare spoken_digits --source /corpora/free-spoken-digit-dataset --output data/spoken_digits

The official split: recordings 0 to 4 of each digit and speaker are the test set.
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
    """Write train.jsonl and test.jsonl.

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
        packed = read_packed(source)
        return write_splits(output, {split: packed.get(split, []) for split in ("test", "train")})
    if source is None:
        source = fetch(f"{mirror}/master.zip", output / "download" / "free-spoken-digit-dataset")
    splits: dict[str, list[Utterance]] = {"test": [], "train": []}
    for audio in sorted(source.glob("**/recordings/*.wav")):
        if name := NAME.fullmatch(audio.stem):
            split = "test" if int(name["index"]) < 5 else "train"
            word, speaker = WORDS[int(name["digit"])], name["speaker"]
            splits[split].append(Utterance(audio.stem, str(audio), 0.0, word, speaker=speaker, language="en"))
    if not all(splits.values()):
        raise DataError(f"{source}: holds no recordings/<digit>_<speaker>_<index>.wav for both training and test")
    return write_splits(output, {split: measure_all(utterances) for split, utterances in splits.items()})
