"""Corpora: find a recipe, run it, and what recipes share: download, unpack, read durations, write manifests."""

from __future__ import annotations

import gzip
import http.client
import importlib.util
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

from asr.audio import duration
from asr.config import resource, suggest
from asr.errors import AudioError, ConfigError, DataError
from asr.manifest import Utterance, write_manifest

_ORDER = ("train", "dev", "test")
_console = Console(stderr=True)


def corpora() -> list[str]:
    """Name the corpora that have a recipe."""
    return sorted(path.parent.name for path in resource("recipes").glob("*/prepare.py"))


def run_prepare(corpus: str, source: Path | None, output: Path) -> list[Path]:
    """Turn a corpus into manifests, downloading it if need be.

    Args:
        corpus: one of `corpora()`.
        source: where the corpus already lies; None downloads it below `output`.
        output: folder for the manifests.

    Returns:
        The manifests, for example train.jsonl, dev.jsonl, test.jsonl.

    Raises:
        ConfigError: no recipe of that name.
        DataError: the corpus is not what the recipe expects, or a download failed.
    """
    known = corpora()
    if corpus not in known:
        raise ConfigError(f"no recipe {corpus!r}{suggest(corpus, known)} (all recipes: {', '.join(known)})")
    path = resource("recipes") / corpus / "prepare.py"
    spec = importlib.util.spec_from_file_location(f"asr_recipe_{corpus}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if source is not None and not source.exists():
        raise DataError(f"{source}: no such folder; --source says where the corpus lies")
    return module.prepare(source, output)


def say(message: str) -> None:
    """Tell the user something, on standard error."""
    _console.print(message, markup=False, highlight=False, soft_wrap=True)


def _progress(*columns: ProgressColumn) -> Progress:
    """Make a bar on standard error, gone when done; where that is no terminal, there is none."""
    columns = (TextColumn("{task.description}"), BarColumn(), *columns, TimeRemainingColumn())
    return Progress(*columns, console=_console, transient=True, disable=not _console.is_terminal)


def prepared(output: Path, *splits: str) -> list[Path]:
    """Give the manifests of an earlier run if all of these splits are there, and say so; otherwise nothing."""
    if not all((output / f"{split}.jsonl").is_file() for split in splits):
        return []
    say(f"{output}: already prepared; delete the manifests to start again")
    return [path for split in _ORDER if (path := output / f"{split}.jsonl").is_file()]


def write_splits(output: Path, splits: Mapping[str, Sequence[Utterance]]) -> list[Path]:
    """Write `<split>.jsonl` for each split that holds something; the last one tells `prepared` that all is done."""
    filled = {output / f"{split}.jsonl": utterances for split, utterances in splits.items() if utterances}
    for path, utterances in filled.items():
        write_manifest(path, utterances)
    return sorted(filled, key=lambda path: _ORDER.index(path.stem))


def measure(utterances: Sequence[Utterance]) -> tuple[list[Utterance], list[str]]:
    """Fill in the durations from the audio files.

    Returns:
        The utterances that could be read, and one line for each that could not.
    """
    good: list[Utterance] = []
    faults: list[str] = []
    with ThreadPoolExecutor(8) as pool, _progress() as progress:
        task = progress.add_task("reading durations", total=len(utterances))
        for utterance, seconds in zip(utterances, pool.map(_seconds, utterances), strict=True):
            progress.advance(task)
            if isinstance(seconds, str):
                faults.append(seconds)
            else:
                good.append(replace(utterance, duration=seconds))
    return good, faults


def measure_all(utterances: Sequence[Utterance]) -> list[Utterance]:
    """Fill in the durations of a published corpus, in which every file must be there and readable.

    Raises:
        DataError: a file is missing or cannot be read.
    """
    good, faults = measure(utterances)
    if faults:
        raise DataError(f"{len(faults)} of {len(utterances)} audio files cannot be used, the first: {faults[0]}")
    return good


def _seconds(utterance: Utterance) -> float | str:
    try:
        seconds = duration(utterance.audio_filepath)
    except AudioError as error:
        return str(error)
    return seconds if seconds > 0 else f"{utterance.audio_filepath}: holds no audio"


def fetch(url: str, folder: Path) -> Path:
    """Download an archive and unpack it into a folder; if that is there already, do nothing.

    Args:
        url: address of a .tar.gz or .zip.
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
        with urllib.request.urlopen(request, timeout=60) as reply, _progress(DownloadColumn()) as progress:
            start = start if reply.status == 206 else 0
            size = reply.headers.get("Content-Length")
            whole = start + int(size) if size else None
            task = progress.add_task(path.name, total=whole, completed=start)
            with open(part, "ab" if start else "wb") as file:
                while block := reply.read(1 << 18):
                    file.write(block)
                    progress.advance(task, len(block))
    except (http.client.HTTPException, OSError) as error:
        if isinstance(error, urllib.error.HTTPError) and error.code == 416:
            part.unlink()  # what is there does not fit what the server has
        raise DataError(f"{url}: download failed: {error}; run again to go on, or give --source") from error
    received = part.stat().st_size
    if whole is not None and received != whole:
        raise DataError(f"{url}: download broke off at {received} of {whole} bytes; run again to go on")
    part.replace(path)
    return path


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a .tar.gz or .zip into a new folder, whole or not at all.

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
            with gzip.open(archive) as plain:
                with tarfile.open(fileobj=plain, mode="r|") as tar:
                    tar.extractall(partial, filter="data")
                while plain.read(1 << 20):  # to the end, where gzip checks its checksum
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
        raise DataError(f"{archive}: cannot be unpacked to {folder}: {error}") from error
    partial.replace(folder)


def _unzip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        for name in file.namelist():
            if not (folder / name).resolve().is_relative_to(folder.resolve()):
                raise ValueError(f"{name!r} would be extracted outside the destination")
        file.extractall(folder)
