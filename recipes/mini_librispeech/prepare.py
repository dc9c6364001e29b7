"""Mini LibriSpeech (OpenSLR 31): five hours of read English, to try a training run in minutes.

asr prepare mini_librispeech --output data/mini_librispeech
asr prepare mini_librispeech --source /corpora/LibriSpeech --output data/mini_librispeech

Three speakers of train-clean-5 are held out as dev, so that dev-clean-2 stays a test set nobody has looked at.
"""

from __future__ import annotations

from pathlib import Path

from asr.errors import DataError
from asr.manifest import Utterance, read_packed
from asr.recipes import fetch, measure_all, prepared, write_splits

HELD_OUT = ("1737", "3947", "6848")
PARTS = ("train-clean-5", "dev-clean-2")


def prepare(source: Path | None, output: Path, mirror: str = "https://www.openslr.org/resources/31") -> list[Path]:
    """Write train.jsonl, dev.jsonl and, where dev-clean-2 is there, test.jsonl.

    Args:
        source: a folder LibriSpeech with train-clean-5 in it (or the folder above it), or one with a manifest.jsonl;
            None downloads both parts (0.5 GB).
        output: folder for the manifests, and for the download.
        mirror: address of the folder that holds train-clean-5.tar.gz and dev-clean-2.tar.gz.

    Returns:
        The manifests.
    """
    if done := prepared(output, "train", "dev"):
        return done
    if source is not None and (source / "manifest.jsonl").is_file():
        packed = read_packed(source)
        utterances, test = [*packed.get("train", []), *packed.get("dev", [])], packed.get("test", [])
    else:
        folders = [source] if source else [fetch(f"{mirror}/{p}.tar.gz", output / "download" / p) for p in PARTS]
        utterances, test = (_read(folders, part) for part in PARTS)
    if not utterances:
        raise DataError(f"{source}: holds no train-clean-5; give the folder LibriSpeech that it lies in")
    train = [utterance for utterance in utterances if utterance.speaker not in HELD_OUT]
    dev = [utterance for utterance in utterances if utterance.speaker in HELD_OUT]
    return write_splits(output, {"test": test, "dev": dev, "train": train})


def _read(folders: list[Path], part: str) -> list[Utterance]:
    """Read `<speaker>/<chapter>/<speaker>-<chapter>.trans.txt` and the FLAC files beside it."""
    utterances = []
    for folder in folders:
        for transcript in sorted(folder.absolute().rglob("*.trans.txt")):
            if transcript.parts[-4] != part:
                continue
            for line in transcript.read_text(encoding="utf-8").splitlines():
                name, _, text = line.strip().partition(" ")
                audio = transcript.parent / f"{name}.flac"
                utterances.append(Utterance(name, str(audio), 0.0, text, speaker=name.split("-")[0], language="en"))
    return measure_all(utterances)
