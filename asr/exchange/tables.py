"""Tables: SpeechBrain's CSV, and the TSV files of Common Voice releases."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from asr.errors import DataError
from asr.exchange.paths import locate, one_line
from asr.files import replacing
from asr.manifest import Utterance

_CSV = ("ID", "duration", "wav", "spk_id", "wrd")
_COMMON_VOICE = (
    "client_id",
    "path",
    "sentence",
    "up_votes",
    "down_votes",
    "age",
    "gender",
    "accents",
    "locale",
    "segment",
)


def read_csv(path: Path) -> tuple[list[Utterance], list[str]]:
    """Read SpeechBrain's columns ID, duration, wav, spk_id and wrd; `$data_root` in a path is the CSV's folder."""
    folder = Path(os.path.abspath(path)).parent
    utterances = []
    for place, row in _rows(path, ",", ("ID", "duration", "wav", "wrd")):
        try:
            if not 0 < (seconds := float(row["duration"])) < float("inf"):
                raise ValueError
        except ValueError as error:
            raise DataError(f"{place}: duration must be over 0 seconds, not {row['duration']!r}") from error
        if not row["ID"] or not row["wav"]:
            raise DataError(f"{place}: ID or wav is empty")
        if row.get("start", "").strip() not in ("", "0", "0.0"):
            raise DataError(f"{place}: begins within its file, at sample {row['start']}: cut the audio into utterances")
        audio = row["wav"].replace("{data_root}", str(folder)).replace("$data_root", str(folder))
        speaker = row.get("spk_id", "")
        utterances.append(Utterance(row["ID"], locate(audio, folder), seconds, row["wrd"], speaker=speaker))
    return utterances, []


def write_csv(path: Path, utterances: Sequence[Utterance]) -> list[str]:
    """Write SpeechBrain's columns, with absolute paths.

    Returns:
        A line for each utterance with a text such as `$20`, in which SpeechBrain would look for a variable and stop.
    """
    odd = [utterance for utterance in utterances if re.search(r"\$[\w.]", utterance.text)]
    kept = [utterance for utterance in utterances if not re.search(r"\$[\w.]", utterance.text)]
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(_CSV)
        table.writerows((u.id, repr(u.duration), u.audio_filepath, u.speaker, u.text.replace("\r", " ")) for u in kept)
    return [f"{each.id}: SpeechBrain would take {each.text!r} for a variable's name" for each in odd]


def read_common_voice(path: Path) -> tuple[list[Utterance], list[str]]:
    """Read a TSV of a Common Voice release; clips lie in clips/, and clip_durations.tsv knows how long they are.

    A clip has the name of its file as its id. Where clip_durations.tsv does not know it, its duration is 0.
    """
    folder = Path(os.path.abspath(path)).parent
    lengths: dict[str, float] = {}
    if (table := folder / "clip_durations.tsv").is_file():
        for place, row in _rows(table, "\t", ("clip", "duration[ms]")):
            if not row["duration[ms]"].isdecimal():
                raise DataError(f"{place}: duration[ms] is not a whole number: {row['duration[ms]']!r}")
            lengths[row["clip"]] = int(row["duration[ms]"]) / 1000
    utterances = []
    for place, row in _rows(path, "\t", ("client_id", "path", "sentence")):
        if not (name := row["path"]):
            raise DataError(f"{place}: path is empty")
        name = name if Path(name).suffix else f"{name}.mp3"  # the releases of 2019 leave it out
        audio = locate(name, folder / "clips", folder)
        utterances.append(
            Utterance(
                Path(name).stem,
                audio,
                lengths.get(Path(audio).name, 0.0),
                row["sentence"],
                speaker=row["client_id"],
                language=row.get("locale", ""),
            )
        )
    return utterances, []


def write_common_voice(path: Path, utterances: Sequence[Utterance]) -> list[str]:
    """Write a TSV; audio in clips/ beside it by its name, other audio by its absolute path."""
    clips = Path(os.path.abspath(path)).parent / "clips"
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        file.write("\t".join(_COMMON_VOICE) + "\n")
        for utterance in utterances:
            audio = Path(utterance.audio_filepath)
            shown = audio.relative_to(clips) if audio.is_relative_to(clips) else audio
            row = {"client_id": utterance.speaker, "path": shown.as_posix(), "sentence": utterance.text}
            row["locale"] = utterance.language
            file.write("\t".join(one_line(row.get(column, "")) for column in _COMMON_VOICE) + "\n")
    return []


def _rows(path: Path, delimiter: str, required: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the rows of a table with the place they stand in, for messages."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            quoting = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
            rows = csv.reader(file, delimiter=delimiter, quoting=quoting, skipinitialspace=delimiter == ",")
            columns = [name.strip() for name in next(rows, [])]
            if missing := [name for name in required if name not in columns]:
                raise DataError(f"{path}: has no column {', '.join(missing)}; its first line is {columns}")
            least = 1 + max(columns.index(name) for name in required)
            for row in rows:
                place = f"{path}, line {rows.line_num}"
                if 0 < len(row) < least:
                    raise DataError(f"{place}: has {len(row)} columns only and ends before {', '.join(required)}")
                if len(row) > len(columns):
                    raise DataError(f"{place}: has {len(row)} columns, not {len(columns)}")
                if row:
                    yield place, dict.fromkeys(columns, "") | dict(zip(columns, row, strict=False))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
