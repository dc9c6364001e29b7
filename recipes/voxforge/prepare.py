"""VoxForge: English sentences recorded by volunteers at home, GPL 3.

asr prepare voxforge --source /corpora/voxforge --output data/voxforge
"""

from __future__ import annotations

from pathlib import Path

from asr.corpora import Corpus, hold_out
from asr.manifest import Utterance

SPLITS = ("train", "dev", "test")
LAYOUT = "the folder with the unpacked submissions, each with etc/PROMPTS and wav or flac in it"
OBTAIN = (
    "VoxForge is some 6,000 archives: get those you want at http://www.repository.voxforge1.org/downloads/"
    "SpeechCorpus/Trunk/Audio/Main/16kHz_16bit/, unpack them side by side, and give their folder as --source"
)
KINDS = (".wav", ".flac")


def read(source: Path) -> Corpus:
    """Read every submission; there is no official test set, so about one speaker in twenty makes one."""
    corpus = Corpus({"train": []})
    for prompts in sorted(source.rglob("etc/PROMPTS")):
        _read_submission(prompts, corpus)
    if len(corpus.splits["train"]) > 2:
        corpus.splits["train"], corpus.splits["test"] = hold_out(corpus.splits["train"], "test")
    return corpus


def _read_submission(prompts: Path, corpus: Corpus) -> None:
    folder = prompts.parents[1]
    name = folder.name.split("-")[0].lower()
    speaker = folder.name.lower() if name == "anonymous" else name  # the nameless are many
    for line in filter(str.strip, prompts.read_text(encoding="utf-8", errors="replace").splitlines()):
        path, _, text = line.strip().partition(" ")
        stem = Path(path).name
        files = [folder / kind[1:] / f"{stem}{kind}" for kind in KINDS]
        audio = next((file for file in files if file.is_file()), None)
        if audio is None or not text.strip():
            corpus.faults.append(f"{prompts}: {stem} lacks audio or text")
        else:
            words = " ".join(text.split())
            corpus.splits["train"].append(
                Utterance(f"{folder.name}_{stem}", str(audio), 0.0, words, speaker=speaker, language="en")
            )
