"""Speech recognition with attention: transcribe audio, train models, measure word error rate.

>>> import asr
>>> model = asr.load()                      # the embedded English model
>>> model.transcribe("talk.flac").text      # doctest: +SKIP
>>> for segment in model.stream("talk.flac"):  # doctest: +SKIP
...     print(segment.start, segment.text)

Importing this package imports nothing heavy; torch comes with the first `load()`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asr.errors import AsrError
from asr.transcript import Segment, Span, Transcript, Word

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from asr.audio import Source
    from asr.decoding import DecodingOptions
    from asr.transcriber import Transcriber

__all__ = ["AsrError", "Segment", "Span", "Transcript", "Word", "load", "transcribe"]
__version__ = "0.1.0"


def load(
    model: str | Path | None = None,
    device: str = "auto",
    mode: str | Mapping[str, Any] | DecodingOptions | None = None,
    vad: bool = True,
) -> Transcriber:
    """Load a model to transcribe with.

    Args:
        model: a checkpoint of this package; None for the embedded English model.
        device: `auto`, `cpu` or `cuda`.
        mode: how texts are searched for: `ctc`, `ctc_beam`, `attention`, `joint` or `rescoring`, or
            `asr.decoding.DecodingOptions`, or some of them by name, such as `{"hotwords": "Bergen"}`; what is not said
            is as the checkpoint recommends.
        vad: whether to decode only where someone speaks; without, noise and music may become words.

    Returns:
        A transcriber: call its `transcribe` as often as you like, from as many threads as you like.

    Raises:
        asr.errors.CheckpointError: the checkpoint cannot be read.
        asr.errors.ConfigError: there is no such device or mode, or a file that the mode names cannot be read.
    """
    from asr.transcriber import Transcriber

    return Transcriber.load(model, device, mode, vad)


def transcribe(source: Source, model: str | Path | None = None, device: str = "auto") -> Transcript:
    """Transcribe one recording; to transcribe several, `load()` once and keep the result.

    Args:
        source: path of an audio or video file, or samples with their rate: `(array, sample_rate)`.
        model: as for `load`.
        device: as for `load`.

    Raises:
        asr.errors.AsrError: the audio or the checkpoint cannot be read.
    """
    return load(model, device).transcribe(source)
