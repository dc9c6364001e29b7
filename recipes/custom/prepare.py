"""Your own recordings: manifests from a folder of audio and texts, from a CSV or TSV table, or from a manifest.jsonl.

asr prepare custom --source my_recordings --output data/mine
asr prepare custom --source my_recordings/table.csv --output data/mine

What cannot be used is listed by name; the rest is written.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asr.corpora import Corpus
from asr.errors import DataError
from asr.inputs import ENDINGS
from asr.manifest import Utterance

AUDIO_COLUMNS = ("path", "audio", "file", "audio_filepath", "filename")
TEXT_COLUMNS = ("text", "sentence", "transcript", "transcription")
SPEAKER_COLUMNS = ("speaker", "speaker_id", "client_id")
SPLITS = ("train", "dev")
LAYOUT = "a folder with a .txt of the same name beside each audio file, or a table of audio and text"
OBTAIN = "nothing to download; say where the recordings are with --source"
TOLERANCE = float("inf")


def read(source: Path) -> Corpus:
    """Find audio and text that belong together, and describe what does not."""
    root = Path(os.path.abspath(source.parent if source.is_file() else source))
    tables = (
        [source] if source.is_file() else [p for p in sorted(root.iterdir()) if p.suffix.lower() in (".csv", ".tsv")]
    )
    if len(tables) > 1:
        names = ", ".join(table.name for table in tables)
        raise DataError(f"{source}: holds several tables ({names}); give one of them as --source")
    faults: list[str] = []
    utterances: dict[str, Utterance] = {}
    for audio, text, speaker in _read_table(tables[0], root, faults) if tables else _read_pairs(root, faults):
        audio = Path(os.path.abspath(audio))
        if not audio.is_relative_to(root):
            faults.append(f"{audio}: lies outside {root}")
        elif not audio.is_file():
            faults.append(f"{audio}: text without audio")
        elif not text:
            faults.append(f"{audio}: audio without text")
        elif (name := audio.relative_to(root).with_suffix("").as_posix()) in utterances:
            faults.append(f"{audio}: shares its name with {utterances[name].audio_filepath}")
        else:
            utterances[name] = Utterance(name, str(audio), 0.0, text, speaker=speaker)
    return Corpus({"train": list(utterances.values())}, faults)


def _read_pairs(root: Path, faults: list[str]) -> Iterator[tuple[Path, str, str]]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    audio = [path for path in files if path.suffix.lower() in ENDINGS]
    stems = {path.with_suffix("") for path in audio}
    faults += [f"{p}: text without audio" for p in files if p.suffix == ".txt" and p.with_suffix("") not in stems]
    for path in audio:
        text = path.with_suffix(".txt")
        try:
            yield path, " ".join(text.read_text(encoding="utf-8-sig").split()) if text.is_file() else "", ""
        except UnicodeDecodeError:
            faults.append(f"{text}: not UTF-8 text")


def _read_table(table: Path, root: Path, faults: list[str]) -> Iterator[tuple[Path, str, str]]:
    """Read a table; comma, semicolon, tab or `|` part its columns. A clip may lie in `clips/`, as in Common Voice."""
    try:
        with open(table, encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            delimiter = max(",;\t|", key=header.count)
            file.seek(0)
            bare = delimiter in "\t|" and not header.lstrip("\ufeff").startswith('"')  # as in LJSpeech
            quoting = csv.QUOTE_NONE if bare else csv.QUOTE_MINIMAL
            rows = csv.DictReader(file, delimiter=delimiter, quoting=quoting)
            columns = {name.strip().lower(): name for name in rows.fieldnames or [] if name}
            audio, text, speaker = (
                next((columns[name] for name in names if name in columns), None)
                for names in (AUDIO_COLUMNS, TEXT_COLUMNS, SPEAKER_COLUMNS)
            )
            if audio is None or text is None:
                wanted = f"one of {', '.join(AUDIO_COLUMNS)} and one of {', '.join(TEXT_COLUMNS)}"
                raise DataError(f"{table}: the first line must name the columns {wanted}; it is {header.strip()!r}")
            for row in rows:
                if fault := _row_fault(row):
                    faults.append(f"{table}, line {rows.line_num}: {fault}")
                    continue
                path = root / (row[audio] or "").strip()
                clip = root / "clips" / path.name
                found = clip if clip.is_file() and not path.is_file() else path
                yield found, " ".join((row[text] or "").split()), (row[speaker] or "").strip() if speaker else ""
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table}: cannot be read as UTF-8 text: {error}: save it as UTF-8") from error


def _row_fault(row: dict[str | Any, Any]) -> str:
    """Say why a row is not one utterance; empty if it is."""
    if any(each.strip() for each in row.get(None, ())):  # where DictReader puts the columns that have no name
        return f"has {len(row) - 1 + len(row[None])} columns, not {len(row) - 1}: does a text hold the separator?"
    if any("\n" in value or "\r" in value for value in row.values() if value):  # the rows after it may be in it
        return "a quote that was opened on an earlier line ends here: close it on its own line"
    return ""
