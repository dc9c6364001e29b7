"""Audio to transcript: the one place where reading, chunking, listening and searching are joined up."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from asr.audio import stream
from asr.decoding import DecodingOptions, Hypothesis, decode
from asr.errors import ConfigError
from asr.model import checkpoint
from asr.model.recognizer import Recognizer
from asr.segmentation import LONGEST, Chunk, plan_chunks
from asr.transcript import Segment, Span, Transcript

EMBEDDED = Path(__file__).parent / "pretrained" / "english.safetensors"
CHUNKS_AT_ONCE = 8  # more gains little on a CPU, and bounds the memory of a long file to minutes of audio


class Transcriber:
    """Turns audio files into transcripts.

    Args:
        model: a recogniser in evaluation mode, on the device it shall run on.
        options: how texts are searched for.
        name: what transcripts call the model.
    """

    def __init__(self, model: Recognizer, options: DecodingOptions | None = None, name: str = "") -> None:
        self.model = model
        self.options = options or DecodingOptions()
        self.name = name

    @classmethod
    def load(cls, path: Path | str | None = None, device: str = "auto", mode: str = "ctc") -> Transcriber:
        """Read a checkpoint.

        Args:
            path: a checkpoint of this package; None for the embedded English model.
            device: `auto`, `cpu` or `cuda`.
            mode: decoding mode.

        Raises:
            CheckpointError: the checkpoint cannot be read.
            ConfigError: there is no such device or mode.
        """
        path = Path(path) if path else EMBEDDED
        model, _ = checkpoint.load(path, choose_device(device))
        return cls(model, DecodingOptions(mode=mode), path.stem)

    def transcribe(self, source: Path | str) -> Transcript:
        """Transcribe one audio file of any length, in memory that does not grow with it.

        Args:
            source: path of an audio or video file.

        Returns:
            The transcript; its spans account for every second.

        Raises:
            AudioError: the file cannot be read.
        """
        segments: list[Segment] = []
        spans: list[Span] = []
        chunks = plan_chunks(stream(source, LONGEST))
        while group := list(islice(chunks, CHUNKS_AT_ONCE)):
            spoken = [chunk for chunk in group if not chunk.silent]
            hypotheses = self.decode_waveforms([chunk.waveform for chunk in spoken])
            segments += [self._segment(*pair) for pair in zip(spoken, hypotheses, strict=True)]
            spans += [Span(chunk.start, chunk.end, "non_speech" if chunk.silent else "decoded") for chunk in group]
        return Transcript(str(source), spans[-1].end, tuple(s for s in segments if s.text), tuple(spans), self.name)

    @torch.inference_mode()
    def decode_waveforms(self, waveforms: list[NDArray[np.float32]]) -> list[Hypothesis]:
        """Find the best text of each waveform, all in one batch.

        Args:
            waveforms: mono samples at 16 kHz, each of shape (S,).

        Returns:
            One hypothesis for each waveform.
        """
        if not waveforms:
            return []
        device = next(self.model.parameters()).device
        tensors = [torch.from_numpy(waveform) for waveform in waveforms]
        padded = torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True).to(device)
        lengths = torch.tensor([len(waveform) for waveform in waveforms], device=device)
        encoder_out, frames = self.model.encode(padded, lengths)
        return [best for best, *_ in decode(self.model, encoder_out, frames, self.options)]

    def _segment(self, chunk: Chunk, hypothesis: Hypothesis) -> Segment:
        text = self.model.tokenizer.decode(hypothesis.tokens)
        return Segment(text, chunk.start, chunk.end, hypothesis.tokens, hypothesis.score, hypothesis.fallback)


def choose_device(name: str) -> torch.device:
    """Turn `auto`, `cpu` or `cuda` into a device that is there.

    Raises:
        ConfigError: the name is unknown, or `cuda` is asked for where there is none.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device must be auto, cpu or cuda, got {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("no CUDA device is available here: use --device cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
