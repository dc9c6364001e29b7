"""CMU AN4: one hour of spelled names, numbers and dates.

asr prepare an4 --output data/an4
asr prepare an4 --source /corpora/an4 --output data/an4
"""

from __future__ import annotations

import re
from pathlib import Path

from asr.corpora import Corpus
from asr.download import fetch
from asr.manifest import Utterance

LINE = re.compile(r"(?:<s>)?(?P<text>[^(]*?)(?:</s>)?\s*\((?P<name>[^()]+)\)")
SPLITS = ("train", "dev", "test")
LAYOUT = "the folder an4, with etc/an4_train.transcription and wav in it"
MIRROR = "https://huggingface.co/datasets/espnet/an4/resolve/main"  # the university's own server is gone


def download(folder: Path) -> Path:
    """Fetch the corpus, 64 MB."""
    return fetch(f"{MIRROR}/an4_sphere.tar.gz", folder / "an4")


def read(source: Path) -> Corpus:
    """Read etc/an4_{train,test}.{fileids,transcription} and the SPHERE or WAV files they name."""
    root = source / "an4" if (source / "an4" / "etc").is_dir() else source
    corpus = Corpus({})
    for split in ("train", "test"):
        names = root / "etc" / f"an4_{split}.fileids"
        lines = names.with_suffix(".transcription")
        if names.is_file() and lines.is_file():
            texts = {m["name"]: m["text"].strip() for m in map(LINE.match, lines.read_text().splitlines()) if m}
            places = [root / "wav" / name for name in names.read_text().split()]
            corpus.splits[split] = [_utterance(place, texts) for place in places if texts.get(place.name)]
            corpus.faults += [f"{place}: has no text" for place in places if not texts.get(place.name)]
    return corpus


def _utterance(place: Path, texts: dict[str, str]) -> Utterance:
    raw = place.with_name(place.name + ".wav")
    audio = raw if raw.is_file() else place.with_name(place.name + ".sph")
    return Utterance(place.name, str(audio), 0.0, texts[place.name], speaker=place.parent.name, language="en")
