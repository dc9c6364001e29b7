"""Manifests: which audio holds which words. JSON lines on disk, an Arrow table in memory that workers share.

The keys are NeMo's (`audio_filepath`, `duration`, `text`, `offset`) plus `id`, `speaker` and `language`.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.json
from numpy.typing import NDArray

from asr.audio import load_mono
from asr.errors import DataError
from asr.files import replacing


@dataclass(frozen=True)
class Utterance:
    """One stretch of speech and its words.

    Args:
        id: unique within a manifest.
        audio_filepath: the audio file.
        duration: length in seconds.
        text: the words, as the corpus writes them.
        offset: where it begins in the file, in seconds.
        speaker: who speaks.
        language: what they speak, for example `en`.
        others: keys of a manifest that have no meaning here, as a JSON object, where they were asked for; else empty.
    """

    id: str
    audio_filepath: str
    duration: float
    text: str = ""
    offset: float = 0.0
    speaker: str = ""
    language: str = ""
    others: str = ""

    def waveform(self) -> NDArray[np.float32]:
        """Read its mono samples at 16 kHz, shape (S,).

        Raises:
            AudioError: as `asr.audio.load_mono`.
        """
        return load_mono(self.audio_filepath, self.offset, self.duration)


compute: Any = pyarrow.compute  # its functions are made at run time, where no type checker sees them

_REQUIRED = ("audio_filepath", "duration")
_NUMBERS = ("duration", "offset")
_ABSOLUTE = r"^(/|\\\\|[A-Za-z]:[\\/])"  # a path of POSIX, a Windows share or drive
_COLUMNS = [field.name for field in fields(Utterance)]
_KEYS = [name for name in _COLUMNS if name != "others"]  # of a line
_TYPES = {name: pyarrow.float64() if name in _NUMBERS else pyarrow.string() for name in _COLUMNS}
_SCHEMA = pyarrow.schema(list(_TYPES.items()))
_LONGEST_LINE = 1 << 30  # bytes


class Manifest:
    """A list of utterances whose memory does not grow with workers.

    Args:
        table: the columns of `Utterance`.
        origin: the file or files it came from, for messages.
    """

    def __init__(self, table: pyarrow.Table, origin: str) -> None:
        self.table = table
        self.origin = origin

    @classmethod
    def load(cls, path: str | Path, others: bool = False) -> Manifest:
        """Read a manifest.

        Args:
            path: a file of JSON lines, gzipped if it ends in .gz; relative audio paths in it count from its folder.
            others: whether to keep the keys that have no meaning here, which takes longer: for who writes them again.

        Raises:
            DataError: no such file, or a line is wrong; the message names the line.
        """
        if not Path(path).is_file():
            raise DataError(f"{path}: no such manifest")
        try:
            table = _complete(_parse(path), os.path.dirname(os.path.abspath(path)))
            if others:
                table = table.set_column(_COLUMNS.index("others"), "others", pyarrow.array(_others(path)))
            table = _map(table)
        except pyarrow.ArrowInvalid as error:
            _find_fault(path)
            raise DataError(f"{path}: not a manifest of JSON lines: {error}") from error
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error}") from error
        pyarrow.default_memory_pool().release_unused()  # what parsing took; workers would inherit it
        return cls(table, str(path))

    @classmethod
    def concatenate(cls, manifests: list[Manifest]) -> Manifest:
        """Put manifests one after the other.

        Raises:
            DataError: an id is in more than one of them.
        """
        table = pyarrow.concat_tables([manifest.table for manifest in manifests])
        origin = ", ".join(manifest.origin for manifest in manifests)
        if twice := _find_twice(table["id"]):
            raise DataError(f"id {twice!r} is in more than one of {origin}: ids must be unique")
        return cls(table, origin)

    def filter(self, max_seconds: float) -> Manifest:
        """Keep the utterances of at most so many seconds.

        Raises:
            DataError: none is left.
        """
        fits = self.durations <= max_seconds
        if fits.all():
            return self
        if not fits.any():
            raise DataError(f"{self.origin}: every utterance is longer than {max_seconds:g} seconds")
        return self.select(fits)

    def select(self, keep: NDArray[np.bool_]) -> Manifest:
        """Keep the utterances that a mask, one value for each, says True of; an empty choice is allowed."""
        return Manifest(_map(self.table.filter(pyarrow.array(keep))), self.origin)

    @property
    def durations(self) -> NDArray[np.float64]:
        """Seconds of each utterance."""
        return self.table["duration"].to_numpy()

    @property
    def texts(self) -> list[str]:
        """The words of each utterance."""
        return self.table["text"].to_pylist()

    def __len__(self) -> int:
        """Count utterances."""
        return len(self.table)

    def __getitem__(self, row: int) -> Utterance:
        """Give one utterance; its audio path is absolute."""
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        return Utterance(**self.table.slice(row % len(self), 1).to_pylist()[0])

    def __iter__(self) -> Iterator[Utterance]:
        """Yield the utterances in order."""
        for batch in self.table.to_batches(max_chunksize=4096):
            yield from (Utterance(**row) for row in batch.to_pylist())


def write_manifest(path: str | Path, utterances: Iterable[Utterance]) -> None:
    """Write a manifest, whole or not at all.

    Args:
        path: the file; its folder is made if need be. It is gzipped if its name ends in .gz.
        utterances: audio below the manifest's folder is written relative to it, other audio as an absolute path.

    Raises:
        DataError: an id is there twice.
    """
    path = Path(os.path.abspath(path))
    seen: set[str] = set()
    opened = gzip.open if path.suffix == ".gz" else open
    with replacing(path) as temporary, opened(temporary, "wt", encoding="utf-8", newline="\n") as file:
        for utterance in utterances:
            if utterance.id in seen:
                raise DataError(f"{path}: not written: id {utterance.id!r} is there twice; ids must be unique")
            seen.add(utterance.id)
            name = utterance.audio_filepath
            if ".." in Path(name).parts:  # behind a link it does not lead to where the name looks like
                name = os.path.join(os.path.realpath(os.path.dirname(name)), os.path.basename(name))
            audio = Path(os.path.abspath(name))
            shown = audio.relative_to(path.parent) if audio.is_relative_to(path.parent) else audio
            line = {n: v for n, v in asdict(utterance).items() if v or n in ("duration", "text")}
            others = json.loads(line.pop("others", "{}"))
            file.write(json.dumps(line | {"audio_filepath": shown.as_posix()} | others, ensure_ascii=False) + "\n")


def read_packed(folder: str | Path) -> dict[str, list[Utterance]]:
    """Read a corpus that carries its own `manifest.jsonl` of {id, audio, text, speaker, duration, split}.

    Args:
        folder: holds `manifest.jsonl`; `audio` counts from here.

    Returns:
        The utterances of each split, in the file's order.

    Raises:
        DataError: a line is wrong, or its audio lies outside the folder.
    """
    path, root = Path(folder) / "manifest.jsonl", Path(folder).resolve()
    found: list[tuple[str, Utterance]] = []
    for number, line in read_lines(path):
        known: dict[str, Any] = {key: line[key] for key in _KEYS if line.get(key)}
        if fault := _fault(known | {"audio_filepath": line.get("audio")}):
            raise DataError(f"{path}, line {number}: {fault.replace('audio_filepath', 'audio')}")
        audio = root / line["audio"]
        if not Path(os.path.realpath(audio)).is_relative_to(root):
            raise DataError(f"{path}, line {number}: audio {line['audio']!r} lies outside the folder")
        known = {"id": ""} | known | {"audio_filepath": str(audio)}
        found.append((str(line.get("split") or "train"), Utterance(**known)))
    names = [os.path.relpath(utterance.audio_filepath, root) for _, utterance in found]
    ids = make_ids([each.id for _, each in found], names, [each.offset for _, each in found])
    splits: dict[str, list[Utterance]] = {}
    for (split, utterance), name in zip(found, ids, strict=True):
        splits.setdefault(split, []).append(replace(utterance, id=name))
    return splits


def _parse(path: str | Path) -> pyarrow.Table:
    """Read the columns that have a meaning; a line may be longer than what is read at once by default.

    Raises:
        pyarrow.ArrowInvalid: some line is wrong.
    """
    schema = pyarrow.schema([(name, _TYPES[name]) for name in _KEYS])
    options = pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    block = pyarrow.json.ReadOptions().block_size
    while True:
        try:
            table = pyarrow.json.read_json(str(path), pyarrow.json.ReadOptions(block_size=block), options)
            break
        except pyarrow.ArrowInvalid as error:
            block *= 16
            if "block" not in str(error) or block > _LONGEST_LINE:
                raise
    table.validate(full=True)
    return table


def _others(path: str | Path) -> list[str]:
    """Give the keys of each line that have no meaning here, as JSON, or nothing."""
    rows = ({key: value for key, value in line.items() if key not in _KEYS} for _, line in read_lines(path))
    return [json.dumps(row, ensure_ascii=False) if row else "" for row in rows]


def _complete(table: pyarrow.Table, folder: str) -> pyarrow.Table:
    """Fill what is missing, make audio paths absolute, and check.

    Raises:
        pyarrow.ArrowInvalid: some line is wrong; `_find_fault` knows which.
    """
    columns = {n: table[n].fill_null(0.0 if n in _NUMBERS else "") for n in _KEYS}
    names, seconds, offsets = columns["audio_filepath"], columns["duration"].to_numpy(), columns["offset"].to_numpy()
    named = len(names) > 0 and compute.all(compute.greater(compute.binary_length(names), 0)).as_py()
    if not (named and np.all((seconds > 0) & (seconds < np.inf) & (offsets >= 0) & (offsets < np.inf))):
        raise pyarrow.ArrowInvalid("a value is missing or out of range")
    ids = columns["id"]
    if compute.any(compute.equal(ids, "")).as_py():
        ids = pyarrow.array(make_ids(ids.to_pylist(), names.to_pylist(), offsets.tolist()))
    if _find_twice(ids):
        raise pyarrow.ArrowInvalid("ids are not unique")
    below = compute.binary_join_element_wise(os.path.join(folder, ""), names, "")
    paths = compute.if_else(compute.match_substring_regex(names, _ABSOLUTE), names, below)
    others = pyarrow.repeat("", len(names))
    return pyarrow.table(columns | {"id": ids, "audio_filepath": paths, "others": others}, schema=_SCHEMA)


def _find_twice(ids: pyarrow.ChunkedArray | pyarrow.Array) -> str | None:
    """Give a value that is there more than once."""
    if compute.count_distinct(ids).as_py() == len(ids):
        return None
    return max(compute.value_counts(ids).to_pylist(), key=lambda pair: pair["counts"])["values"]


def make_ids(known: Sequence[str], audio: Sequence[str], offsets: Sequence[float]) -> list[str]:
    """Name the utterances that have no id by their files, with the folders only where files share a name."""
    starts = [f"-{offset:.12g}" if offset else "" for offset in offsets]
    for name in (lambda path: Path(path).stem, lambda path: str(Path(path).with_suffix(""))):
        ids = [each or name(path) + start for each, path, start in zip(known, audio, starts, strict=True)]
        if len(set(ids)) == len(ids):
            break
    return ids


def _map(table: pyarrow.Table) -> pyarrow.Table:
    """Move a table to a memory-mapped file without a name: forked workers share its pages, and nothing stays behind."""
    handle, path = tempfile.mkstemp(suffix=".arrow")
    try:
        with open(handle, "wb") as file, pyarrow.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table.combine_chunks())
        return pyarrow.ipc.open_file(pyarrow.memory_map(path)).read_all()
    finally:
        os.unlink(path)


def read_lines(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read JSON objects with their line numbers."""
    number = 0
    try:
        opened = gzip.open if str(path).endswith(".gz") else open  # as Arrow does
        with opened(path, "rt", encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    fields = json.loads(line)
                    if not isinstance(fields, dict):
                        raise DataError(f"{path}, line {number}: not a JSON object")
                    yield number, fields
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {number}: not JSON: {error.msg} at column {error.colno}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read after line {number}: {error}") from error
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, brackets in brackets in brackets
        raise DataError(f"{path}, line {number}: is no line of a manifest: {error}") from error


def _find_fault(path: str | Path) -> None:
    """Go through a refused manifest line by line, the slow way, to say what is wrong with it.

    Raises:
        DataError: for the first line at fault.
    """
    lines = []
    for number, line in read_lines(path):
        if fault := _fault(line):
            raise DataError(f"{path}, line {number}: {fault}")
        lines.append((number, line.get("id") or "", line["audio_filepath"], line.get("offset") or 0.0))
    if not lines:
        raise DataError(f"{path}: holds no utterances")
    numbers, known, audio, offsets = zip(*lines, strict=True)
    seen: dict[str, int] = {}
    for number, name in zip(numbers, make_ids(known, audio, offsets), strict=True):
        if name in seen:
            raise DataError(f"{path}, line {number}: id {name!r} is already on line {seen[name]}; ids must be unique")
        seen[name] = number


def _fault(line: dict[str, Any]) -> str | None:
    for key in _REQUIRED:
        if line.get(key) in (None, ""):
            return f"{key} is missing or empty"
    for key in _KEYS:
        value, kind = line.get(key), (int, float) if key in _NUMBERS else str
        if value is not None and (isinstance(value, bool) or not isinstance(value, kind)):
            return f"{key} must be a {'number' if key in _NUMBERS else 'string'}, not {value!r}"
        if isinstance(value, str) and re.search("[\0\ud800-\udfff]", value):
            return f"{key} holds characters that cannot be written: {value!r}"
    if not 0 < line["duration"] < float("inf"):
        return f"duration must be over 0 seconds, not {line['duration']}"
    if not 0 <= (line.get("offset") or 0.0) < float("inf"):
        return f"offset must be 0 seconds or more, not {line['offset']}"
    return None
