"""Mozilla Common Voice: sentences read aloud by anyone, in any language, CC0.

asr prepare commonvoice --source /corpora/cv-corpus-21.0-2025-03-14/en --output data/commonvoice
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

from asr.corpora import Corpus, read_table
from asr.manifest import Utterance

SPLITS = ("train", "dev", "test")
LAYOUT = "the folder of one language, with train.tsv (or validated.tsv) and clips in it"
OBTAIN = (
    "Common Voice asks each user to agree to its terms: get a language at https://commonvoice.mozilla.org/datasets, "
    "unpack it, and give the folder with train.tsv in it as --source"
)


def read(source: Path) -> Corpus:
    """Read train.tsv, dev.tsv and test.tsv; of a delta release, which has none of them, validated.tsv."""
    corpus = Corpus({})
    language = source.name if re.fullmatch("[a-z]{2,3}(-[A-Za-z]+)?", source.name) else ""
    seconds = _durations(source / "clip_durations.tsv")
    names = [name for name in SPLITS if (source / f"{name}.tsv").is_file()] or ["validated"]
    for name in names:
        table = source / f"{name}.tsv"
        rows = read_table(table, source) if table.is_file() else ()
        utterances = corpus.splits.setdefault("train" if name == "validated" else name, [])
        for audio, text, speaker in rows:
            if not audio.is_file():
                corpus.faults.append(f"{table}: {audio.name} is not in clips")
            elif words := _unquoted(text):
                known = seconds.get(audio.name, 0.0)
                utterances.append(Utterance(audio.stem, str(audio), known, words, 0.0, speaker, language))
    return corpus


def _durations(table: Path) -> dict[str, float]:
    """Read the lengths that newer releases list, in milliseconds; opening a million MP3 files takes hours."""
    if not table.is_file():
        return {}
    with open(table, encoding="utf-8", newline="") as file:
        return {row[0]: float(row[1]) / 1000 for row in list(csv.reader(file, delimiter="\t"))[1:]}


def _unquoted(text: str) -> str:
    """Take off the quotes that CSV writers put around a sentence with quotes in it."""
    if len(text) > 1 and text[0] == text[-1] == '"':
        return text[1:-1].replace('""', '"').strip()
    return text
