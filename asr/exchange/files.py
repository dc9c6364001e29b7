"""What the formats share: finding audio, writing whole files, and text that fits on a line."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def locate(name: str, *folders: Path) -> str:
    """Make an audio path absolute: the first of the folders, or else the working directory, in which it exists.

    Args:
        name: as the manifest says it; manifests of other toolkits count from where their scripts are run.
        folders: where to look.

    Returns:
        An absolute path; below the first folder where the file is nowhere.
    """
    places = [os.path.abspath(os.path.join(folder, name)) for folder in (*folders, Path.cwd())]
    return next((place for place in places if os.path.isfile(place)), places[0])


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the name of a temporary file beside `path` that takes its place in the end, unless something fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")  # the ending stays: libraries go by it
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def one_line(text: str) -> str:
    """Put single spaces for spaces, tabs and line ends, and none at the ends; other Unicode spaces stay."""
    return re.sub(r"[ \t\n\r\f\v]+", " ", text).strip(" ")
