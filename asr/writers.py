"""Transcripts as text in a file format. A format is a function; adding one is adding it to FORMATS."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from asr.errors import AsrError
from asr.transcript import Transcript


def to_txt(transcript: Transcript) -> str:
    """The words on one line."""
    return transcript.text + "\n"


def to_json(transcript: Transcript) -> str:
    """Everything there is, as UTF-8 JSON."""
    return json.dumps(transcript.to_dict(), indent=2, ensure_ascii=False) + "\n"


FORMATS: dict[str, Callable[[Transcript], str]] = {"txt": to_txt, "json": to_json}


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
    """
    path = Path(directory) / f"{Path(stem).name}.{format}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".", delete=False, encoding="utf-8") as file:
            file.write(FORMATS[format](transcript))
        os.chmod(file.name, 0o644)  # a temporary file is private, a result is not
        os.replace(file.name, path)
    except OSError as error:
        raise AsrError(f"{path}: cannot be written: {error.strerror or error}") from error
    return path


def unique_stems(sources: Sequence[str]) -> list[str]:
    """Name an output for each input: its file name without ending, numbered where two would collide.

    The names depend on the inputs and their order alone.
    """
    taken: set[str] = set()
    stems = []
    for source in sources:
        stem = base = Path(source).stem or "audio"
        number = 2
        while stem.casefold() in taken:  # some file systems do not tell A from a
            stem = f"{base}-{number}"
            number += 1
        taken.add(stem.casefold())
        stems.append(stem)
    return stems
