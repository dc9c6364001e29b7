"""speechocean762 (OpenSLR 101): 5,000 English sentences by Mandarin speakers, half of them children.

asr prepare speechocean762 --output data/speechocean762
asr prepare speechocean762 --source /corpora/speechocean762 --output data/speechocean762
"""

from __future__ import annotations

from pathlib import Path

from asr.corpora import Corpus
from asr.download import fetch
from asr.manifest import Utterance

SPLITS = ("train", "dev", "test")
LAYOUT = "the folder speechocean762, with train/wav.scp, test/wav.scp and WAVE in it"
MIRROR = "https://www.openslr.org/resources/101"


def download(folder: Path) -> Path:
    """Fetch the corpus, 0.5 GB."""
    return fetch(f"{MIRROR}/speechocean762.tar.gz", folder / "speechocean762")


def read(source: Path) -> Corpus:
    """Read wav.scp, text and utt2spk of train and test; their paths count from the corpus's folder."""
    root = source / "speechocean762" if (source / "speechocean762").is_dir() else source
    corpus = Corpus({})
    for split in ("train", "test"):
        audio, texts, speakers = (_read_pairs(root / split / name) for name in ("wav.scp", "text", "utt2spk"))
        corpus.faults += [f"{root / path}: {name} has no text" for name, path in audio.items() if not texts.get(name)]
        corpus.splits[split] = [
            Utterance(name, str(root / path), 0.0, texts[name], speaker=speakers.get(name, ""), language="en")
            for name, path in audio.items()
            if texts.get(name)
        ]
    return corpus


def _read_pairs(path: Path) -> dict[str, str]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return {words[0]: " ".join(words[1:]) for line in lines if (words := line.split())}
