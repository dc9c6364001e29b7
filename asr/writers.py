"""Transcripts as text in a file format. A format is a function; adding one is adding it to FORMATS."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from asr.errors import AsrError, ConfigError
from asr.transcript import Transcript


def to_txt(transcript: Transcript) -> str:
    """The words on one line."""
    return transcript.text + "\n"


def to_json(transcript: Transcript) -> str:
    """Everything there is, as UTF-8 JSON."""
    return json.dumps(transcript.to_dict(), indent=2, ensure_ascii=False) + "\n"


FORMATS: dict[str, Callable[[Transcript], str]] = {"txt": to_txt, "json": to_json}


def render(transcript: Transcript, format: str) -> str:
    """Give a transcript as the text of a file.

    Args:
        transcript: what to write.
        format: a key of FORMATS.

    Raises:
        ConfigError: there is no such format.
    """
    if format not in FORMATS:
        raise ConfigError(f"format must be one of {', '.join(FORMATS)}, got {format!r}")
    return FORMATS[format](transcript)


def write(transcript: Transcript, directory: str | Path, format: str, stem: str) -> Path:
    """Write one transcript, whole or not at all.

    Args:
        transcript: what to write.
        directory: where to; made if need be.
        format: a key of FORMATS.
        stem: file name without ending, from `unique_stems`.

    Returns:
        The file.

    Raises:
        AsrError: the file cannot be written.
        ConfigError: there is no such format.
    """
    content = render(transcript, format).encode(errors="replace")  # odd file names are not UTF-8
    # Only the last part counts, by either system's separators, so that no stem can lead out of the folder.
    path = Path(directory) / f"{_name(stem)}.{format}"
    temporary = path.with_name(f".{uuid4().hex}.tmp")  # a short name of its own, so that writers never share it
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        raise AsrError(f"{path}: cannot be written: {error.strerror or error}: check the folder") from error
    finally:
        with suppress(OSError):  # it is gone after the replacement, and never was in a folder that cannot be written
            temporary.unlink()
    return path


def unique_stems(sources: Sequence[str]) -> list[str]:
    """Name an output for each input: its file name without ending, numbered where two would collide.

    The names depend on the inputs and their order alone.
    """
    taken: set[str] = set()
    stems = []
    for source in sources:
        stem = base = _name(Path(source).stem)
        number = 2
        while stem.casefold() in taken:  # some file systems do not tell A from a
            stem = f"{base}-{number}"
            number += 1
        taken.add(stem.casefold())
        stems.append(stem)
    return stems


def _name(stem: str) -> str:
    """Make a stem safe as a file name: no folders, nothing hidden, nothing that cannot be printed."""
    last = re.split(r"[/\\]", stem)[-1]
    return "".join(character if character.isprintable() else "_" for character in last).strip(" .") or "audio"
