"""Writing files so that they are there whole, or not at all."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from asr.errors import WriteError


@contextmanager
def replacing(path: Path | str, folder: bool = False) -> Iterator[Path]:
    """Lend a file or a folder beside `path` that takes its place when the block has ended well.

    If the block or the replacement fails, an interrupt included, what was at `path` stays as it was, and nothing is
    left beside it. Threads, processes and machines that share a disk never get the same file.

    Args:
        path: what to write; its folder is made if need be.
        folder: lend a folder; `path` is then a new or an empty one.

    Yields:
        Something empty, whose name ends as that of `path`, since libraries go by the ending.

    Raises:
        WriteError: the folder cannot be made or written, the disk is full, or `path` is a pipe or device.
    """
    path = Path(path)
    if _is_special(path):
        raise WriteError(f"{path}: is a pipe or device: name a file")
    target = Path(os.path.realpath(path))  # a link stays, and what it leads to is replaced
    temporary = target.parent / f".{uuid4().hex}-{path.name[-40:]}"  # `with_name` refuses `.` and `/`
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        (temporary.mkdir if folder else temporary.touch)()
        permissions = stat.S_IMODE((target if target.exists() and not folder else temporary).stat().st_mode)
        yield temporary
        temporary.chmod(permissions)  # the old file's, or those of new files: safetensors makes its own private
        os.replace(temporary, target)
    except OSError as error:
        raise WriteError(f"{path}: cannot be written: {error.strerror or error}: check the folder and disk") from error
    finally:
        with suppress(OSError):  # it is gone after the replacement, and never was in a folder that cannot be written
            (shutil.rmtree if folder else os.unlink)(temporary)


def stamp(path: Path | str) -> tuple[str, int, int] | None:
    """Tell a file's content from any other without reading it: by its place, time and size; None if it is no file."""
    try:
        real = os.path.realpath(path)
        status = os.stat(real)
    except (OSError, ValueError):
        return None
    return real, status.st_mtime_ns, status.st_size


def write_file(path: Path | str, content: str | bytes) -> None:
    """Write a file whole or not at all; text as UTF-8, in which what cannot be said, as in odd file names, becomes `?`.

    Into a pipe or a device, such as /dev/stdout, it is written as it is.

    Raises:
        WriteError: as `replacing`.
    """
    content = content.encode(errors="replace") if isinstance(content, str) else content
    if _is_special(Path(path)):
        try:
            with open(path, "ab") as file:  # what a program that is still writing has written stays
                file.write(content)
        except OSError as error:
            raise WriteError(f"{path}: cannot be written: {error.strerror or error}") from error
        return
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def _is_special(path: Path) -> bool:
    """Tell whether something is there that is neither a file nor a folder, or is another program's open file."""
    try:
        whole = os.path.abspath(path)
        if whole.startswith(("/dev/", "/proc/")) and not whole.startswith("/dev/shm/"):  # /dev/stdout, wherever it goes
            return path.exists()
        return path.exists() and not (path.is_file() or path.is_dir())
    except OSError:  # its folder cannot be entered, which writing to it will say
        return False
