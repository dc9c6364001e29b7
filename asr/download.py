"""Downloads that are whole: fetched in as many runs as it takes, unpacked inside their folder or not at all."""

from __future__ import annotations

import bz2
import gzip
import http.client
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

from asr.errors import DataError

_console = Console(stderr=True)


def say(message: str) -> None:
    """Tell the user something, on standard error."""
    _console.print(message, markup=False, highlight=False, soft_wrap=True)


def progress_bar(*columns: ProgressColumn) -> Progress:
    """Make a bar on standard error, gone when done; where that is no terminal, there is none."""
    columns = (TextColumn("{task.description}"), BarColumn(), *columns, TimeRemainingColumn())
    return Progress(*columns, console=_console, transient=True, disable=not _console.is_terminal)


def fetch(url: str, folder: Path) -> Path:
    """Download an archive and unpack it into a folder; if that is there already, do nothing.

    Args:
        url: address of a .tar.gz, .tgz, .tar.bz2 or .zip.
        folder: where its contents go; it exists only once it is whole. The archive is deleted in the end.

    Raises:
        DataError: download or archive are at fault; run again to go on.
    """
    if not folder.is_dir():
        archive = download(url, folder.with_name(url.rsplit("/", 1)[-1]))
        unpack(archive, folder)
        archive.unlink()
    return folder


def download(url: str, path: Path) -> Path:
    """Fetch a file; going on where an interrupted run stopped, if the server can.

    Args:
        url: http, https or file address.
        path: the file; it exists only once it is whole, until then it is called `<path>.part`.

    Raises:
        DataError: the server cannot be reached, refuses, or sent less than it promised.
    """
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    start = part.stat().st_size if part.is_file() else 0
    headers = {"User-Agent": "asr"} | ({"Range": f"bytes={start}-"} if start else {})
    request = urllib.request.Request(url, headers=headers)
    say(f"downloading {url}")
    try:
        with urllib.request.urlopen(request, timeout=60) as reply, progress_bar(DownloadColumn()) as progress:
            start = start if reply.status == 206 else 0
            size = reply.headers.get("Content-Length")
            whole = start + int(size) if size else None
            _check_room(path, url, int(size or 0))
            task = progress.add_task(path.name, total=whole, completed=start)
            with open(part, "ab" if start else "wb") as file:
                while block := reply.read(1 << 18):
                    file.write(block)
                    progress.advance(task, len(block))
    except (http.client.HTTPException, OSError) as error:
        if isinstance(error, urllib.error.HTTPError) and error.code == 416:
            if error.headers.get("Content-Range") == f"bytes */{start}":  # interrupted after the last byte
                part.replace(path)
                return path
            part.unlink()  # what is there does not fit what the server has
        raise DataError(f"{url}: download failed: {error}; run again to go on, or give --source") from error
    received = part.stat().st_size
    if whole is not None and received != whole:
        raise DataError(f"{url}: download broke off at {received} of {whole} bytes; run again to go on")
    part.replace(path)
    return path


def _check_room(path: Path, url: str, size: int) -> None:
    """Stop before a download that could not be unpacked beside its archive.

    Raises:
        DataError: the disk has too little room.
    """
    free = shutil.disk_usage(path.parent).free
    if free < 2 * size:
        needed = f"{2 * size / 1e9:.1f} GB for the archive and what is in it, {free / 1e9:.1f} GB are free"
        raise DataError(f"{url}: {path.parent} needs {needed}; choose another --output, or give --source")


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a .tar.gz, .tgz, .tar.bz2 or .zip into a new folder, whole or not at all.

    Args:
        archive: deleted if it is damaged, so that the next run fetches it anew.
        folder: where its contents go.

    Raises:
        DataError: the archive is damaged, or a path in it leads out of the folder.
    """
    partial = folder.with_name(folder.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    say(f"unpacking {archive}")
    try:
        if archive.suffix == ".zip":
            _unzip(archive, partial)
        else:
            opener = bz2.open if archive.suffix == ".bz2" else gzip.open
            with opener(archive) as plain:
                with tarfile.open(fileobj=plain, mode="r|") as tar:
                    tar.extractall(partial, filter="data")
                while plain.read(1 << 20):  # to the end, where the checksum is
                    pass
    except (tarfile.FilterError, ValueError) as error:
        shutil.rmtree(partial)
        raise DataError(f"{archive}: refused: {error}") from error
    except (tarfile.TarError, gzip.BadGzipFile, zipfile.BadZipFile, zlib.error, EOFError) as error:
        shutil.rmtree(partial)
        archive.unlink()
        raise DataError(f"{archive}: damaged, now deleted: {error}; run again to fetch it anew") from error
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        if error.errno is None:  # bz2 has no error of its own
            archive.unlink()
            raise DataError(f"{archive}: damaged, now deleted: {error}; run again to fetch it anew") from error
        raise DataError(f"{archive}: cannot be unpacked to {folder}: {error}") from error
    partial.replace(folder)


def _unzip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        for name in file.namelist():
            if not (folder / name).resolve().is_relative_to(folder.resolve()):
                raise ValueError(f"{name!r} would be extracted outside the destination")
        file.extractall(folder)
