"""Your own recordings: manifests from a folder of audio and texts, from a CSV or TSV table, or from a manifest.jsonl.

asr prepare custom --source my_recordings --output data/mine
asr prepare custom --source my_recordings/table.csv --output data/mine

What cannot be used is listed by name; the rest is written.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from asr.errors import DataError
from asr.manifest import Utterance, read_packed
from asr.recipes import measure, prepared, say, write_splits

AUDIO = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".mp4", ".aac", ".aiff", ".amr", ".webm", ".mov", ".mkv")
AUDIO_COLUMNS = ("path", "audio", "file", "audio_filepath", "filename")
TEXT_COLUMNS = ("text", "sentence", "transcript", "transcription")
SPEAKER_COLUMNS = ("speaker", "speaker_id", "client_id")
DEV_SHARE = 0.05
MOST_DEV_SHARE = 0.2


def prepare(source: Path | None, output: Path) -> list[Path]:
    """Write train.jsonl and dev.jsonl, or the splits that a manifest.jsonl has.

    Args:
        source: a folder with a .txt of the same name beside each audio file, or with one table; a table with the
            columns path (or audio, file) and text (or sentence, transcript); or a folder with a manifest.jsonl.
        output: folder for the manifests; the audio stays where it is.

    Returns:
        The manifests.

    Raises:
        DataError: nothing usable is there.
    """
    if source is None:
        raise DataError("custom: nothing to download; say where the recordings are with --source")
    if done := prepared(output, "train", "dev"):
        return done
    if (source / "manifest.jsonl").is_file():
        splits = read_packed(source)
        if odd := splits.keys() - {"train", "dev", "test"}:
            raise DataError(f"{source}/manifest.jsonl: splits must be train, dev or test, not {', '.join(sorted(odd))}")
    else:
        utterances, faults = _read(source)
        measured, unreadable = measure(utterances)
        _report(faults + unreadable)
        splits = {"train": measured}
    if len(splits.get("train", [])) < (1 if splits.get("dev") else 2):
        raise DataError(f"{source}: too few utterances with audio and text to hold any out for dev")
    if not splits.get("dev"):
        splits["train"], splits["dev"] = hold_out(splits["train"])
    return write_splits(output, {split: splits.get(split, []) for split in ("test", "dev", "train")})


def hold_out(utterances: list[Utterance]) -> tuple[list[Utterance], list[Utterance]]:
    """Set about 5 % aside, whole speakers where they are known and many enough.

    The choice is a hash of the speaker's name or the id, so it stays the same when recordings are added.

    Returns:
        Training and development utterances, at least one of each.
    """
    keys: list[Callable[[Utterance], str]] = [lambda u: u.speaker or u.id, lambda u: u.id]
    for key in keys:
        limit = max(DEV_SHARE, min(_rank(key(utterance)) for utterance in utterances))
        dev = {utterance.id for utterance in utterances if _rank(key(utterance)) <= limit}
        if len(dev) <= max(1, MOST_DEV_SHARE * len(utterances)):
            break
    else:
        dev = {min(utterances, key=lambda u: _rank(u.id)).id}
    return [u for u in utterances if u.id not in dev], [u for u in utterances if u.id in dev]


def _rank(name: str) -> float:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") / 2**64


def _read(source: Path) -> tuple[list[Utterance], list[str]]:
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
    for audio, text, speaker in _read_table(tables[0], root) if tables else _read_pairs(root, faults):
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
    return list(utterances.values()), faults


def _read_pairs(root: Path, faults: list[str]) -> Iterator[tuple[Path, str, str]]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    audio = [path for path in files if path.suffix.lower() in AUDIO]
    stems = {path.with_suffix("") for path in audio}
    faults += [f"{p}: text without audio" for p in files if p.suffix == ".txt" and p.with_suffix("") not in stems]
    for path in audio:
        text = path.with_suffix(".txt")
        try:
            yield path, " ".join(text.read_text(encoding="utf-8-sig").split()) if text.is_file() else "", ""
        except UnicodeDecodeError:
            faults.append(f"{text}: not UTF-8 text")


def _read_table(table: Path, root: Path) -> Iterator[tuple[Path, str, str]]:
    with open(table, encoding="utf-8-sig", newline="") as file:
        header = file.readline()
        delimiter = max(",;\t|", key=header.count)
        file.seek(0)
        quoting = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
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
            path = root / (row[audio] or "").strip()
            clip = root / "clips" / path.name  # where Common Voice keeps them
            found = clip if clip.is_file() and not path.is_file() else path
            yield found, " ".join((row[text] or "").split()), (row[speaker] or "").strip() if speaker else ""


def _report(faults: list[str]) -> None:
    if faults:
        shown = "\n  ".join(faults[:5] + ([f"... and {len(faults) - 5} more"] if len(faults) > 5 else []))
        say(f"{len(faults)} not used:\n  {shown}")
