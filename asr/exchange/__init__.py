"""Manifests of other toolkits, read and written: Kaldi, lhotse, NeMo, SpeechBrain and Common Voice."""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from asr.audio import MEMBER
from asr.corpora import measure
from asr.errors import DataError
from asr.exchange.cuts import read_cuts, write_cuts
from asr.exchange.kaldi import read_kaldi, write_kaldi
from asr.exchange.tables import read_common_voice, read_csv, write_common_voice, write_csv
from asr.manifest import Manifest, Utterance, write_manifest


class Result(NamedTuple):
    """What could be read, and what not."""

    utterances: list[Utterance]
    """In the order of the source."""
    faults: list[str]
    """One line for each utterance left out."""


class _Format(NamedTuple):
    read: Callable[[Path], tuple[list[Utterance], list[str]]]
    """Gives a duration of 0 where the format does not state it: to the end of the file."""
    write: Callable[[Path, Sequence[Utterance]], list[str]]
    carries: frozenset[str]
    """Fields of `Utterance` beside audio_filepath, duration and text."""


def _read_nemo(path: Path) -> tuple[list[Utterance], list[str]]:
    return list(Manifest.load(path, others=True)), []


def _write_nemo(path: Path, utterances: Sequence[Utterance]) -> list[str]:
    write_manifest(path, utterances)
    return []


_FORMATS = {
    "nemo": _Format(_read_nemo, _write_nemo, frozenset({"id", "offset", "speaker", "language"})),
    "kaldi": _Format(read_kaldi, write_kaldi, frozenset({"id", "offset", "speaker", "language"})),
    "lhotse": _Format(read_cuts, write_cuts, frozenset({"id", "offset", "speaker", "language"})),
    "csv": _Format(read_csv, write_csv, frozenset({"id", "speaker"})),
    "commonvoice": _Format(read_common_voice, write_common_voice, frozenset({"speaker", "language"})),
}
FORMATS = tuple(_FORMATS)
ROUNDED = 0.1  # seconds by which a stated duration may be short: manifests round, and MP3 is padded


def read(path: Path, kind: str | None = None) -> Result:
    """Read utterances in any format.

    Args:
        path: the file, or a Kaldi data directory.
        kind: one of FORMATS; None looks at the content.

    Returns:
        The utterances, and one line for each that could not be used, for example because its audio is missing.

    Raises:
        DataError: it is none of the formats, a line is wrong, or nothing in it can be used.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    known, faults = _FORMATS[kind or _guess(path)].read(path)
    unmeasured = measure([utterance for utterance in known if not utterance.duration], faults)
    measured = {utterance.id: utterance.duration - utterance.offset for utterance in unmeasured}
    utterances = [
        replace(utterance, duration=utterance.duration or measured[utterance.id])
        for utterance in known
        if utterance.duration > 0 or measured.get(utterance.id, 0) > 0
    ]
    faults += [f"{name}: begins after the end of its audio" for name, seconds in measured.items() if seconds <= 0]
    if not utterances:
        raise DataError(f"{path}: holds no utterance that can be used{', the first: ' + faults[0] if faults else ''}")
    name, count = Counter(utterance.id for utterance in utterances).most_common(1)[0]
    if count > 1:
        raise DataError(f"{path}: id {name!r} is there {count} times; ids must be unique")
    return Result(utterances, faults)


def write(path: Path, utterances: Sequence[Utterance], kind: str | None = None) -> list[str]:
    """Write utterances in any format, whole or not at all.

    Args:
        path: the file, or a new folder for Kaldi; lhotse's ends in .jsonl.gz.
        utterances: what to write.
        kind: one of FORMATS; None looks at the ending of the name.

    Returns:
        One line for each utterance that had to be left out.

    Raises:
        DataError: the format cannot hold these utterances.
    """
    form = _FORMATS[kind := kind or _guess_target(path)]
    if kind != "nemo" and (inside := next((u for u in utterances if MEMBER.fullmatch(u.audio_filepath)), None)):
        raise DataError(f"{inside.id}: lies in a tar shard, which {kind} cannot name: convert the unsharded manifest")
    if "offset" not in form.carries and (inside := _part_of_a_file(utterances)):
        raise DataError(f"{inside}, which {kind} cannot say: use kaldi, lhotse or nemo")
    return form.write(path, utterances)


def _part_of_a_file(utterances: Sequence[Utterance]) -> str:
    """Say which utterance is not the whole of its file, if there is one; audio that cannot be read is not judged."""
    if inside := next((utterance for utterance in utterances if utterance.offset), None):
        return f"{inside.id}: begins within its file"
    said = {utterance.id: utterance.duration for utterance in utterances}
    for whole in measure([replace(utterance, duration=0.0) for utterance in utterances], []):
        if whole.duration > said[whole.id] + max(ROUNDED, 0.01 * said[whole.id]):  # as `asr check` has it
            return f"{whole.id}: ends after {said[whole.id]:.2f} of the {whole.duration:.2f} s of its file"
    return ""


def not_carried(path: Path, utterances: Sequence[Utterance], kind: str | None = None) -> list[str]:
    """Name the fields and other keys that hold something and that the format of a target has no place for."""
    kind = kind or _guess_target(path)
    missing = {field.name for field in fields(Utterance)} - _FORMATS[kind].carries
    optional = sorted(missing & {"id", "offset", "speaker", "language"})
    # Where ids have no place of their own, the name of the audio file stands for them.
    given = {"id": lambda utterance: utterance.id != Path(utterance.audio_filepath).stem}
    others = set[str]().union(*(json.loads(each.others) for each in utterances if each.others and kind != "nemo"))
    return [name for name in optional if any(map(given.get(name, attrgetter(name)), utterances))] + sorted(others)


def _guess(path: Path) -> str:
    if path.is_dir():
        if (path / "wav.scp").is_file():
            return "kaldi"
        raise DataError(f"{path}: is a folder without wav.scp, so no Kaldi data directory: name a manifest in it")
    try:
        with gzip.open(path, "rt", encoding="utf-8-sig") if path.suffix == ".gz" else open(path, "rb") as file:
            line = file.readline(1 << 24)
        first = (line if isinstance(line, str) else line.decode("utf-8-sig")).strip()
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read as text: {error}") from error
    if "client_id" in (columns := first.split("\t")) and "path" in columns:
        return "commonvoice"
    if {"ID", "wav"} <= {column.strip() for column in first.split(",")}:
        return "csv"
    if first.startswith("{"):
        return _guess_json(path, first)
    raise DataError(
        f"{path}: is none of {', '.join(FORMATS)}; for another table of paths and texts use `asr prepare custom`"
    )


def _guess_json(path: Path, first: str) -> str:
    try:
        keys = json.loads(first).keys()
    except ValueError as error:
        raise DataError(f"{path}, line 1: not JSON: {error}") from error
    if "audio_filepath" in keys:
        return "nemo"
    if {"start", "duration"} <= keys or "tracks" in keys:
        return "lhotse"
    if "sources" in keys or "recording_id" in keys:
        raise DataError(f"{path}: holds only recordings or supervisions: join them with `lhotse cut simple` first")
    raise DataError(f"{path}, line 1: has neither audio_filepath (nemo) nor a cut (lhotse); say which with --from")


def _guess_target(path: Path) -> str:
    endings = {".jsonl.gz": "lhotse", ".jsonl": "nemo", ".json": "nemo", ".csv": "csv", ".tsv": "commonvoice"}
    for ending, kind in endings.items():
        if path.name.endswith(ending):
            return kind
    if path.suffix in ("", ".d") or path.is_dir():
        return "kaldi"
    raise DataError(f"{path}: its ending says nothing ({', '.join(endings)}, or a folder for Kaldi); add --to")
