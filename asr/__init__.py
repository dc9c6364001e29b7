"""Speech recognition with attention: transcribe audio, train models, measure word error rate.

>>> import asr
>>> model = asr.load()                      # the embedded English model
>>> model.transcribe("talk.flac").text      # doctest: +SKIP

Importing this package imports nothing heavy; torch comes with the first `load()`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from asr.transcriber import Transcriber
    from asr.transcript import Transcript

__all__ = ["load", "transcribe"]
__version__ = "0.1.0"


def load(model: str | Path | None = None, device: str = "auto", mode: str = "ctc") -> Transcriber:
    """Load a model to transcribe with.

    Args:
        model: a checkpoint of this package; None for the embedded English model.
        device: `auto`, `cpu` or `cuda`.
        mode: `ctc` or `attention`.

    Returns:
        A transcriber: call its `transcribe(path)` as often as you like.

    Raises:
        asr.errors.CheckpointError: the checkpoint cannot be read.
        asr.errors.ConfigError: there is no such device or mode.
    """
    from asr.transcriber import Transcriber

    return Transcriber.load(model, device, mode)


def transcribe(source: str | Path, model: str | Path | None = None, device: str = "auto") -> Transcript:
    """Transcribe one audio file; to transcribe several, `load()` once and keep the result.

    Raises:
        asr.errors.AsrError: the audio or the checkpoint cannot be read.
    """
    return load(model, device).transcribe(source)
