"""Real recordings and small models that tests build on."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import soundfile
import torch

from asr.manifest import Manifest
from asr.model.config import DecoderConfig, EncoderConfig, ModelConfig

DATA = Path(__file__).parent / "data"
REAL = list(Manifest.load(DATA / "manifest.jsonl"))


def small_config(**encoder: object) -> ModelConfig:
    """A model of a few thousand weights; keyword arguments go to the encoder."""
    sizes = {"layers": 2, "dim": 32, "heads": 2, "feed_forward": 48, "kernel": 31, "subsampling_channels": 8} | encoder
    decoder = DecoderConfig(layers=2, heads=2, feed_forward=48)
    return ModelConfig(encoder=EncoderConfig(**sizes), decoder=decoder)


def waveforms(*names: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Read shipped utterances by their file names and pad them: waveform (B, S), lengths (B,)."""
    rows = [torch.from_numpy(soundfile.read(DATA / f"{name}.flac", dtype="float32")[0]) for name in names]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), torch.tensor([len(row) for row in rows])


def make_librispeech(folder: Path, part: str, speakers: dict[str, str]) -> dict[str, str]:
    """Lay the test utterances out as LibriSpeech does, under other speaker numbers; give id -> text."""
    texts = {}
    for utterance in REAL:
        _, chapter, number = utterance.id.split("-")
        if utterance.speaker not in speakers:
            continue
        speaker = speakers[utterance.speaker]
        place = folder / "LibriSpeech" / part / speaker / chapter
        place.mkdir(parents=True, exist_ok=True)
        name = f"{speaker}-{chapter}-{number}"
        shutil.copy(utterance.audio_filepath, place / f"{name}.flac")
        with open(place / f"{speaker}-{chapter}.trans.txt", "a") as file:
            file.write(f"{name} {utterance.text}\n")
        texts[name] = utterance.text
    return texts


def make_digits(folder: Path) -> None:
    """Lay out recordings/{digit}_{speaker}_{index}.wav at 8 kHz."""
    (folder / "recordings").mkdir(parents=True)
    samples, _ = soundfile.read(REAL[0].audio_filepath, dtype="float32")
    for digit in range(10):
        for speaker in ("george", "jackson"):
            for index in (0, 4, 5, 44, 45, 49):
                cut = samples[: 2 * (1600 + 80 * digit + index) : 2]
                soundfile.write(folder / "recordings" / f"{digit}_{speaker}_{index}.wav", cut, 8000, "PCM_16")
    (folder / "README.md").write_text("digits")


def heed_interrupts() -> None:
    """Undo what a shell does to its background jobs: they, and all they start, are born deaf to SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
