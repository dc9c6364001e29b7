"""Transcripts as text in a file format. A format is a function; adding one is adding it to FORMATS."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

from asr.errors import ConfigError
from asr.files import write_file
from asr.transcript import Transcript
from asr.writers.annotations import to_ctm, to_stm, to_textgrid
from asr.writers.plain import to_json, to_tsv, to_txt
from asr.writers.subtitles import SubtitleOptions, to_srt, to_vtt

__all__ = [
    "BY_RECORDING",
    "ENDINGS",
    "FORMATS",
    "MANY_IN_ONE",
    "NEED_WORDS",
    "SubtitleOptions",
    "folded",
    "parse_formats",
    "render",
    "unique_stems",
    "write",
]

FORMATS: dict[str, Callable[[Transcript, SubtitleOptions, str], str]] = {
    "txt": lambda transcript, *_: to_txt(transcript),
    "json": lambda transcript, *_: to_json(transcript),
    "srt": lambda transcript, subtitles, _: to_srt(transcript, subtitles),
    "vtt": lambda transcript, subtitles, _: to_vtt(transcript, subtitles),
    "tsv": lambda transcript, *_: to_tsv(transcript),
    "ctm": lambda transcript, _, recording: to_ctm(transcript, recording),
    "stm": lambda transcript, _, recording: to_stm(transcript, recording),
    "textgrid": lambda transcript, *_: to_textgrid(transcript),
}
ENDINGS = {name: name for name in FORMATS} | {"textgrid": "TextGrid"}  # Praat spells it like that
MANY_IN_ONE = frozenset({"txt", "json", "ctm", "stm"})  # formats of which several may follow each other in one file
BY_RECORDING = frozenset({"ctm", "stm"})  # formats whose lines name their recording
NEED_WORDS = frozenset({"srt", "vtt", "ctm", "textgrid"})  # formats that are made from word times


def parse_formats(formats: str, directory: Path | None) -> tuple[str, ...]:
    """Read a list of formats as it is written on the command line.

    Args:
        formats: names with commas between them, or `all`.
        directory: where the files go; without one, a single format goes to the screen.

    Raises:
        ConfigError: there is no such format, or there are several for one screen.
    """
    names = [name.strip().lower() for name in formats.split(",")]
    names = list(FORMATS) if names == ["all"] else list(dict.fromkeys(names))
    if unknown := [name for name in names if name not in FORMATS]:
        raise ConfigError(f"--format must be all, or some of {', '.join(FORMATS)}, got {unknown[0]!r}")
    if len(names) > 1 and not directory:
        raise ConfigError("several formats go into files, not onto one screen: name --output-dir")
    return tuple(names)


def render(transcript: Transcript, format: str, subtitles: SubtitleOptions | None = None, recording: str = "") -> str:
    """Give a transcript as the text of a file.

    Args:
        transcript: what to write.
        format: a key of FORMATS.
        subtitles: how srt and vtt cut the text into cues.
        recording: what ctm and stm call it; by default the file's name without ending.

    Raises:
        ConfigError: there is no such format, or it needs word times and the transcript has none.
    """
    if format not in FORMATS:
        raise ConfigError(f"format must be one of {', '.join(FORMATS)}, got {format!r}")
    return FORMATS[format](transcript, subtitles or SubtitleOptions(), recording)


def write(
    transcript: Transcript,
    directory: str | Path,
    format: str,
    stem: str,
    subtitles: SubtitleOptions | None = None,
    recording: str = "",
) -> Path:
    """Write one transcript, whole or not at all.

    Args:
        transcript: what to write.
        directory: where to; made if need be.
        format: a key of FORMATS.
        stem: file name without ending, from `unique_stems`.
        subtitles: how srt and vtt cut the text into cues.
        recording: as for `render`.

    Returns:
        The file.

    Raises:
        WriteError: the file cannot be written.
        ConfigError: as `render`.
    """
    content = render(transcript, format, subtitles, recording)
    # Only the last part counts, by either system's separators, so that no stem can lead out of the folder.
    path = Path(directory) / f"{_name(stem)}.{ENDINGS[format]}"
    write_file(path, content)
    return path


def unique_stems(wanted: Sequence[str]) -> list[str]:
    """Name outputs by the file names without ending that are wanted, numbered where two would collide.

    The names depend on what is wanted and its order alone.
    """
    taken: set[str] = set()
    stems = []
    for name in wanted:
        stem = base = _name(name)
        number = 2
        while folded(stem) in taken:
            stem = f"{base}-{number}"
            number += 1
        taken.add(folded(stem))
        stems.append(stem)
    return stems


def folded(name: str) -> str:
    """Make names alike that some file systems do not tell apart: A and a, a letter in one piece and with its accent."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _name(stem: str) -> str:
    """Make a stem safe as a file name: no folders, nothing hidden, nothing that cannot be printed."""
    last = re.split(r"[/\\]", stem)[-1]
    return "".join(character if character.isprintable() else "_" for character in last).strip(" .") or "audio"
