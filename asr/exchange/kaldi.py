"""Kaldi data directories: wav.scp, segments, text, utt2spk, utt2lang (https://kaldi-asr.org/doc/data_prep.html)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path

from asr.errors import DataError
from asr.exchange.paths import locate, one_line
from asr.files import replacing
from asr.manifest import Utterance

UNDETERMINED = "und"  # BCP 47's language of what has none


def read_kaldi(folder: Path) -> tuple[list[Utterance], list[str]]:
    """Read a data directory.

    Audio paths count from the directory, the two above it, or the working directory. A speaker who has the name of the
    utterance is unknown, as is Kaldi's custom. Without `segments` each recording is an utterance, and its duration is
    that of utt2dur or reco2dur; 0 stands for one that is not stated.

    Returns:
        The utterances, and a line for each that has no text.

    Raises:
        DataError: a line is wrong, or audio is not a file.
    """
    folder = Path(os.path.abspath(folder))
    recordings = {
        name: locate(_plain(folder / "wav.scp", name, entry), folder, *folder.parents[:2])
        for name, entry in _table(folder / "wav.scp").items()
    }
    if (folder / "segments").is_file():
        stretches = {name: _stretch(folder, name, entry) for name, entry in _table(folder / "segments").items()}
    else:
        known = next((_table(path) for n in ("utt2dur", "reco2dur") if (path := folder / n).is_file()), {})
        stretches = {name: (name, 0.0, _seconds(folder, name, known.get(name, "0"))) for name in recordings}
    texts, speakers, languages = (_table(folder / name, optional=True) for name in ("text", "utt2spk", "utt2lang"))
    utterances, faults = [], []
    for name, (recording, offset, duration) in stretches.items():
        if recording not in recordings:
            raise DataError(f"{folder / 'segments'}: {name} is cut from {recording!r}, which is not in wav.scp")
        if texts and name not in texts:
            faults.append(f"{name}: not in {folder / 'text'}")
            continue
        speaker = speakers.get(name, "")
        speaker = "" if speaker == name else speaker
        audio, text, language = recordings[recording], texts.get(name, ""), languages.get(name, "")
        language = "" if language == UNDETERMINED else language
        utterances.append(Utterance(name, audio, duration, text, offset, speaker, language))
    return utterances, faults


def write_kaldi(folder: Path, utterances: Sequence[Utterance]) -> list[str]:
    """Write a data directory, with absolute audio paths and everything sorted by utterance.

    Kaldi wants the order by speaker to be the same, which it is where ids begin with their speaker. `segments` is
    always there, since only it can say that an utterance is part of its file.

    Raises:
        DataError: the folder is not empty, or an id, speaker or path cannot be in Kaldi's files.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder}: is there already: delete it, or name another folder")
    utterances = sorted(utterances, key=lambda utterance: utterance.id)  # by code point, as LC_ALL=C sorts UTF-8
    recordings: dict[str, str] = {}  # audio: the first utterance in it
    speakers: dict[str, list[str]] = {}
    for utterance in utterances:
        _check(utterance)
        recordings.setdefault(utterance.audio_filepath, utterance.id)
        speakers.setdefault(utterance.speaker or utterance.id, []).append(utterance.id)
    files: dict[str, Iterable[str]] = {
        "wav.scp": (f"{name} {audio}" for audio, name in recordings.items()),
        "segments": (f"{u.id} {recordings[u.audio_filepath]} {u.offset!r} {_end(u)}" for u in utterances),
        "text": (f"{u.id} {' '.join(u.text.split())}".rstrip(" ") for u in utterances),
        "utt2spk": (f"{u.id} {u.speaker or u.id}" for u in utterances),
        "spk2utt": (f"{speaker} {' '.join(names)}" for speaker, names in sorted(speakers.items())),
        "utt2dur": (f"{u.id} {u.duration!r}" for u in utterances),
    }
    if any(utterance.language for utterance in utterances):  # Kaldi wants it of all or of none
        files["utt2lang"] = (f"{u.id} {u.language or UNDETERMINED}" for u in utterances)
    with replacing(folder, folder=True) as temporary:
        for name, lines in files.items():
            with open(temporary / name, "w", encoding="utf-8", newline="\n") as file:
                file.writelines(f"{line}\n" for line in lines)
    return []


def _table(path: Path, optional: bool = False) -> dict[str, str]:
    """Read lines of a key and the rest."""
    if optional and not path.is_file():
        return {}
    rows: dict[str, str] = {}
    try:
        with open(path, encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                key, _, rest = (line := line.strip(" \t\r\n").replace("\t", " ", 1)).partition(" ")
                if key in rows:
                    raise DataError(f"{path}, line {number}: {key!r} is there a second time")
                if line:
                    rows[key] = rest.strip(" \t")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    return rows


def _plain(scp: Path, name: str, entry: str) -> str:
    if entry.startswith("|") or entry.endswith("|"):
        raise DataError(f"{scp}: {name} is a pipe ({entry}); no program is run from it: save its audio to a file first")
    if not entry or entry == "-" or re.search(r"[^:]:\d+$", entry):
        raise DataError(f"{scp}: {name} is not an audio file ({entry}): save its audio to one first")
    return entry


def _stretch(folder: Path, name: str, entry: str) -> tuple[str, float, float]:
    """Take a line of `segments` apart: recording, offset and duration, which is 0 where it ends with the file."""
    columns = entry.split()
    if len(columns) != 3:
        raise DataError(f"{folder / 'segments'}: {name} should have a recording, a start and an end, not {entry!r}")
    recording, start, end = columns
    try:
        offset = Decimal(start)
        # Decimals are as exact as the file is: 0.3 - 0.1 is 0.2.
        duration = Decimal(end) - offset if Decimal(end) >= 0 else Decimal(0)
    except InvalidOperation as error:
        raise DataError(f"{folder / 'segments'}: {name} does not have two numbers of seconds: {entry!r}") from error
    if not (offset.is_finite() and duration.is_finite() and offset >= 0) or (Decimal(end) >= 0 and duration <= 0):
        raise DataError(f"{folder / 'segments'}: {name} does not end after its start: {entry!r}")
    if float(offset + duration) == float("inf"):
        raise DataError(f"{folder / 'segments'}: {name} is longer than any recording: {entry!r}")
    return recording, float(offset), float(duration)


def _seconds(folder: Path, name: str, entry: str) -> float:
    try:
        if 0 <= (seconds := float(entry)) < float("inf"):
            return seconds
    except ValueError:
        pass
    raise DataError(f"{folder}: the duration of {name} is not a number of seconds: {entry!r}")


def _end(utterance: Utterance) -> Decimal:
    return Decimal(repr(utterance.offset)) + Decimal(repr(utterance.duration))


def _check(utterance: Utterance) -> None:
    for what in ("id", "speaker", "language"):
        if re.search(r"\s", value := getattr(utterance, what)):
            raise DataError(f"{what} {value!r} holds a space, which Kaldi does not allow: rename it")
    audio = utterance.audio_filepath
    if audio != one_line(audio) or audio.endswith("|") or re.search(r"[^:]:\d+$", audio):
        raise DataError(f"{audio!r}: Kaldi would not read this as the name of a file: rename it")
