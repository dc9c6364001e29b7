"""What the formats share: finding audio, and text that fits on a line."""

from __future__ import annotations

import os
import re
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


def one_line(text: str) -> str:
    """Put single spaces for spaces, tabs and line ends, and none at the ends; other Unicode spaces stay."""
    return re.sub(r"[ \t\n\r\f\v]+", " ", text).strip(" ")
