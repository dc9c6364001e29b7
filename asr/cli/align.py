"""`asr align`: when each word of a known text is said."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import Annotated

import typer

from asr.cli.terminal import (
    Device,
    Format,
    MaxCueSeconds,
    MaxLineCount,
    MaxLineWidth,
    MinGap,
    Model,
    OutputDir,
    console,
)
from asr.errors import ConfigError, DataError

FILE_NAME = re.compile(r"\S+\.[a-zA-Z]\w+|.+\.(txt|text|lab|srt|vtt|md)", re.IGNORECASE)  # no words for anyone to say


def align(
    audio: Annotated[Path, typer.Argument(help="Audio or video file, 20 minutes at most.", metavar="AUDIO")],
    text: Annotated[str, typer.Argument(help="What is said in it, word for word: a text file, or the text itself.")],
    model: Model = None,
    device: Device = "auto",
    format: Format = "ctm",
    output_dir: OutputDir = None,
    max_line_width: MaxLineWidth = 42,
    max_line_count: MaxLineCount = 2,
    max_cue_seconds: MaxCueSeconds = 7.0,
    min_gap: MinGap = 0.08,
) -> None:
    """Find out when each word of a text is said.

    Words are shown as they are written in the text; for the alignment they go through the model's own normaliser.
    Characters that the model does not know, such as digits, are aligned with whatever is said in their place.
    """
    from asr import writers
    from asr.transcriber import Transcriber

    formats = writers.parse_formats(format, output_dir)
    subtitles = writers.SubtitleOptions(max_line_width, max_line_count, max_cue_seconds, min_gap)
    stem = writers.unique_stems([audio.stem])[0]
    made = output_dir / f"{stem}.txt" if output_dir and "txt" in formats else None
    if made and made.is_file() and os.path.exists(text) and made.samefile(text):
        raise ConfigError(f"{made}: is the text itself: leave txt out of --format, or name another --output-dir")
    transcript = Transcriber.load(model, device, vad=False).align(audio, _read(text))
    for name in formats:
        if output_dir:
            path = writers.write(transcript, output_dir, name, stem, subtitles)
            console.print(f"written: {path}")
        else:
            typer.echo(writers.render(transcript, name, subtitles), nl=False)


def _read(text: str) -> str:
    """Give the text of a file, or else the text itself."""
    path = Path(text)
    try:
        if path.is_file():
            return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text: {error.reason} at byte {error.start}") from error
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG or FILE_NAME.fullmatch(text):
            raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
        return text
    if FILE_NAME.fullmatch(text):
        raise DataError(f"{path}: no such text file: check its name, or put what is said into a file")
    return text
