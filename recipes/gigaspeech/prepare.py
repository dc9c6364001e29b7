"""GigaSpeech: 10,000 hours of English audio books, podcasts and YouTube.

asr prepare gigaspeech --source /corpora/GigaSpeech --output data/gigaspeech
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lhotse import RecordingSet, SupervisionSet
from lhotse.recipes.gigaspeech import parse_utterance

from asr.corpora import Corpus, from_lhotse, lhotse_reads, without_tags
from asr.download import say
from asr.manifest import Utterance

SUBSETS = {"{XL}": "train", "{DEV}": "dev", "{TEST}": "test"}
SPLITS = ("train", "dev", "test")
LAYOUT = "the folder GigaSpeech, with GigaSpeech.json and audio in it"
OBTAIN = (
    "GigaSpeech is given out for non-commercial research on request: fill in the form at "
    "https://github.com/SpeechColab/GigaSpeech, and give the folder with GigaSpeech.json in it as --source"
)
NO_SPEECH = {"<SIL>", "<MUSIC>", "<NOISE>", "<OTHER>"}


def read(source: Path) -> Corpus:
    """Read GigaSpeech.json, as far as its recordings are there: of the smaller subsets only part is."""
    corpus = Corpus({split: [] for split in SPLITS})
    index = source / "GigaSpeech.json"
    absent = 0
    with lhotse_reads(corpus.faults):
        recordings = json.loads(index.read_text(encoding="utf-8"))["audios"] if index.is_file() else []
        for audio in recordings:
            if (source / audio["path"]).is_file():
                for subset, split in SUBSETS.items():
                    corpus.splits[split] += _segments(audio, subset, source)
            else:
                absent += 1
    if absent:
        say(f"{absent} of {len(recordings)} recordings of {index} are not there: the others are used")
    return corpus


def _segments(audio: dict[str, Any], subset: str, source: Path) -> list[Utterance]:
    """Read the segments of one recording that belong to a subset and hold speech."""
    chosen = [
        segment
        for segment in audio["segments"]
        if subset in segment["subsets"] and not NO_SPEECH & set(segment["text_tn"].split())
    ]
    parsed = parse_utterance(audio | {"segments": chosen}, source)
    assert parsed is not None
    found = {"recordings": RecordingSet.from_recordings([parsed[0]]), "supervisions": SupervisionSet(parsed[1])}
    return from_lhotse(found, "en", lambda segment: without_tags(segment.text))
