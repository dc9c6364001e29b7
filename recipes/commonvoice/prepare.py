"""Mozilla Common Voice: sentences read aloud by anyone, in any language, CC0.

asr prepare commonvoice --source /corpora/cv-corpus-21.0-2025-03-14/en --output data/commonvoice
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from asr.corpora import Corpus
from asr.exchange.tables import read_common_voice

SPLITS = ("train", "dev", "test")
LAYOUT = "the folder of one language, with train.tsv (or validated.tsv) and clips in it"
OBTAIN = (
    "Common Voice asks each user to sign in and agree to its terms: get a language at "
    "https://datacollective.mozillafoundation.org (older releases: https://commonvoice.mozilla.org/datasets), "
    "unpack it, and give the folder with train.tsv in it as --source"
)


def read(source: Path) -> Corpus:
    """Read train.tsv, dev.tsv and test.tsv; of a delta release, which has none of them, validated.tsv."""
    corpus = Corpus({})
    language = source.name if re.fullmatch("[a-z]{2,3}(-[A-Za-z]+)?", source.name) else ""
    names = [name for name in SPLITS if (source / f"{name}.tsv").is_file()] or ["validated"]
    for name in names:
        table = source / f"{name}.tsv"
        clips = read_common_voice(table)[0] if table.is_file() else []
        utterances = corpus.splits.setdefault("train" if name == "validated" else name, [])
        for clip in clips:
            audio = Path(clip.audio_filepath)
            if not audio.is_file():
                corpus.faults.append(f"{table}: {audio.name} is not in clips")
            elif words := _unquoted(" ".join(clip.text.split())):
                utterances.append(replace(clip, text=words, language=clip.language or language))
    return corpus


def _unquoted(text: str) -> str:
    """Take off the quotes that CSV writers put around a sentence with quotes in it."""
    if len(text) > 1 and text[0] == text[-1] == '"':
        return text[1:-1].replace('""', '"').strip()
    return text
