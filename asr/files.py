"""Writing files so that they are there whole, or not at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Lend a file beside `path` that takes its place when the block has ended well.

    If the block or the replacement fails, an interrupt included, what was at `path` stays as it was, and nothing is
    left beside it. Threads, processes and machines that share a disk never get the same file.

    Args:
        path: what to write; its folder is made if need be.

    Yields:
        An empty file, whose name ends as that of `path`, since libraries go by the ending.

    Raises:
        OSError: the folder cannot be made or written, or the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid4().hex}-{path.name[-40:]}")
    try:
        temporary.touch()
        permissions = stat.S_IMODE(temporary.stat().st_mode)
        yield temporary
        temporary.chmod(permissions)  # those that the user gives new files: safetensors makes its own private
        os.replace(temporary, path)
    finally:
        with suppress(OSError):  # it is gone after the replacement, and never was in a folder that cannot be written
            temporary.unlink()
