"""VoxPopuli: 543 transcribed hours of English from the European Parliament, CC0.

asr prepare voxpopuli --source /corpora/voxpopuli --output data/voxpopuli
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from lhotse.recipes import prepare_voxpopuli

from asr.corpora import Corpus, from_lhotse, lhotse_reads

SPLITS = ("train", "dev", "test")
LAYOUT = "the folder with raw_audios/original (or raw_audios/en) and asr_en.tsv.gz in it"
OBTAIN = (
    "VoxPopuli's recordings are some hundred GB: get them with `python -m voxpopuli.download_audios --root FOLDER "
    "--subset asr` of https://github.com/facebookresearch/voxpopuli, put https://dl.fbaipublicfiles.com/voxpopuli/"
    "annotations/asr/asr_en.tsv.gz into FOLDER, and give FOLDER as --source"
)


def read(source: Path) -> Corpus:
    """Read asr_en.tsv.gz, as far as its sessions are there; each utterance is a stretch of a session."""
    corpus = Corpus({})
    sessions = [source / "raw_audios" / name for name in ("original", "en") if (source / "raw_audios" / name).is_dir()]
    texts = next(source.rglob("asr_en.tsv.gz"), None)
    if not (sessions and texts):
        return corpus
    with TemporaryDirectory() as temporary:  # lhotse looks for sessions under one name, and writes beside the texts
        place = Path(temporary)
        (place / "raw_audios").mkdir()
        (place / "raw_audios" / "en").symlink_to(sessions[0].resolve(), target_is_directory=True)
        (place / texts.name).symlink_to(texts.resolve())
        with lhotse_reads(corpus.faults):
            for split, found in prepare_voxpopuli(place, place, lang="en").items():
                corpus.splits[split] = [
                    replace(utterance, audio_filepath=str(Path(utterance.audio_filepath).resolve()))
                    for utterance in from_lhotse(found, "en")
                ]
    return corpus
