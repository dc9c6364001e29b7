"""Which recordings a command line names, by files, folders and patterns, and how their outputs are named."""

from __future__ import annotations

import glob
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

from asr.errors import AsrError, AudioError
from asr.writers import folded, unique_stems

STANDARD_INPUT = "-"
# What a folder's audio is known by; a file that is named itself may end in anything.
SOUNDS = "3gp aac aif aiff amr au caf flac m4a m4b mka mp2 mp3 oga ogg opus rf64 sph w64 wav weba wma"
VIDEOS = "avi m4v mkv mov mp4 mpeg mpg webm wmv"
ENDINGS = frozenset(f".{ending}" for ending in f"{SOUNDS} {VIDEOS}".split())


@dataclass(frozen=True)
class Recording:
    """A recording to transcribe."""

    path: Path
    """The file."""
    folder: Path
    """Where its output goes, relative to the output folder: its place in the folder that was named."""
    stem: str = ""
    """Its output's file name without ending."""
    numbered: bool = False
    """Whether another input has the same name, so that the stem depends on the order of the inputs."""


def find_recordings(names: Sequence[str]) -> tuple[list[Recording], list[AudioError]]:
    """Find what a command line names.

    Args:
        names: files, folders (searched recursively, by ENDINGS), patterns such as `talks/**/*.mp3` that files or
            folders fit, or `-`.

    Returns:
        Each recording once, in a fixed order; and an error for each folder or pattern that cannot be read or is empty.
    """
    found: dict[str, Recording] = {}
    errors: list[AudioError] = []
    for name in names:
        root, pattern = _parted(name)
        if os.path.isdir(name):
            recordings = [Recording(path, path.parent.relative_to(name)) for path in _walk(name, errors)]
            missing = "the folder holds no audio file"
        elif pattern:
            if ".." in pattern:
                errors.append(AudioError(f"{name}: has .. behind a wildcard: name the folder that is meant"))
                continue
            recordings = [Recording(path, path.parent.relative_to(root)) for path in _fitting(root, pattern, errors)]
            missing = "no file fits this pattern"
        else:
            recordings, missing = [Recording(Path(name), Path())], ""
        if not recordings:
            errors.append(AudioError(f"{name}: {missing}: check its name and what is in it"))
        for recording in recordings:
            found.setdefault(os.path.abspath(recording.path), recording)
    return _named(list(found.values())), errors


def _walk(folder: str, errors: list[AudioError]) -> list[Path]:
    """List a folder's audio files, sorted; links to folders are not followed, since they can lead in circles."""

    def refuse(error: OSError) -> None:
        reason = (error.strerror or str(error)).lower()
        errors.append(AudioError(f"{error.filename}: cannot be opened: {reason}: check its permissions"))

    return sorted(
        Path(parent, file)
        for parent, _, files in os.walk(folder, onerror=refuse)
        for file in files
        if Path(file).suffix.lower() in ENDINGS and not file.startswith(".")
    )


def _parted(name: str) -> tuple[Path, tuple[str, ...]]:
    """Part a name into what is there as it is written, brackets and all, and the pattern behind it."""
    parts = Path(name).parts
    for number, part in enumerate(parts):
        if glob.has_magic(part) and not os.path.exists(Path(*parts[: number + 1])):
            return Path(*parts[:number]), parts[number:]
    return Path(name), ()


def _fitting(root: Path, pattern: Sequence[str], errors: list[AudioError]) -> list[Path]:
    """List the files that fit a pattern, and the audio files of folders that do, sorted.

    Unlike `glob`, pathlib follows no links in circles.
    """
    parts = [part if part == "**" else re.sub(r"\*+", "*", part) for part in pattern]
    shown = any(part.startswith(".") for part in parts)  # hidden files are meant only where the pattern says so

    def visible(path: Path) -> bool:
        return shown or not any(part.startswith(".") for part in path.relative_to(root).parts)

    fitting = set(filter(visible, root.glob("/".join(parts))))
    folders = {path for path in fitting if path.is_dir() and not path.is_symlink()}
    highest = [folder for folder in sorted(folders) if folders.isdisjoint(folder.parents)]
    below = {path for folder in highest for path in _walk(str(folder), errors) if visible(path)}
    files = {path for path in fitting if path.is_file() and parts[-1] != "**"}  # Python 3.13's ** fits any file
    return sorted(files | below)


def _named(recordings: list[Recording]) -> list[Recording]:
    """Name outputs by their inputs' own names, with the ending where two would collide: no input changes another's."""
    named: dict[Path, Recording] = {}

    def place(recording: Recording) -> str:
        return folded(str(recording.folder))

    for _, members in groupby(sorted(recordings, key=place), key=place):
        here = list(members)
        counts = Counter(folded(each.path.stem) for each in here)
        wanted = [each.path.name if counts[folded(each.path.stem)] > 1 else each.path.stem for each in here]
        for each, name, stem in zip(here, wanted, unique_stems(wanted), strict=True):
            named[each.path] = replace(each, stem=stem, numbered=stem != unique_stems([name])[0])
    return [named[each.path] for each in recordings]


@contextmanager
def spooled(stream: BinaryIO) -> Iterator[Path]:
    """Keep a stream's bytes in a file while they are transcribed: most formats can only be read by jumping about.

    Raises:
        AsrError: the temporary folder is full.
    """
    with tempfile.TemporaryDirectory(prefix="asr-") as folder:
        path = Path(folder) / "stdin"
        try:
            with path.open("wb") as file:
                shutil.copyfileobj(stream, file)
        except OSError as error:
            raise AsrError(f"standard input: cannot be kept in {folder}: {error.strerror or error}") from error
        yield path
