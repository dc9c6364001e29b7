"""What recipes read with: lhotse's readers, tables, and the choice of what is held out."""

from __future__ import annotations

import csv
import io
import logging
import re
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asr.errors import AsrError, DataError
from asr.manifest import Utterance
from asr.subsets import assign, rank

ASIDE = 0.05
MOST_ASIDE = 0.2

_AUDIO_COLUMNS = ("path", "audio", "file", "audio_filepath", "filename")
_TEXT_COLUMNS = ("text", "sentence", "transcript", "transcription")
_SPEAKER_COLUMNS = ("speaker", "speaker_id", "client_id")


@dataclass
class Corpus:
    """What a recipe found.

    Args:
        splits: the utterances of each split; a duration of 0 means that it is still to be read from the audio.
        faults: one line for each thing that cannot be used.
    """

    splits: dict[str, list[Utterance]]
    faults: list[str] = field(default_factory=list)


# Reading


@contextmanager
def lhotse_reads(faults: list[str]) -> Iterator[None]:
    """Let lhotse read a corpus: what it only logs becomes a fault, and what it raises one line.

    Within, audio is opened by libsndfile, tar archives may not write outside their folder, and lhotse's progress bars
    are for terminals only.

    Args:
        faults: gets lhotse's warnings, such as files it leaves out because they are missing.

    Raises:
        DataError: lhotse gave up; its reason.
    """
    from lhotse.audio.backend import audio_backend

    bars = nullcontext() if sys.stderr.isatty() else redirect_stderr(io.StringIO())

    class Faults(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            message = " ".join(record.getMessage().split())
            if not message.startswith(("Trimmed ", "No transcript: ")):  # rounding; said twice
                faults.append(message)

    handler, tar_filter = Faults(logging.WARNING), getattr(tarfile.TarFile, "extraction_filter", None)
    logging.getLogger().addHandler(handler)
    tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)
    try:
        with audio_backend("LibsndfileBackend"), bars:
            yield
    except AsrError:
        raise
    except Exception as error:  # a reader over other people's files fails in a hundred ways
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"the corpus is not laid out as published, or not whole: {reason[:300]}") from error
    finally:
        tarfile.TarFile.extraction_filter = tar_filter
        logging.getLogger().removeHandler(handler)


def from_lhotse(
    manifests: Mapping[str, Any], language: str, text: Callable[[Any], str] = lambda segment: segment.text or ""
) -> list[Utterance]:
    """Turn a `RecordingSet` and a `SupervisionSet` of lhotse into utterances, in the order of their ids.

    Args:
        manifests: has `recordings` and `supervisions`.
        language: code of the language, for example `en`.
        text: takes the words from a supervision; segments without any are left out.
    """
    recordings = {recording.id: recording for recording in manifests["recordings"]}
    utterances = []
    for segment in sorted(manifests["supervisions"], key=lambda segment: segment.id):
        recording = recordings[segment.recording_id]
        if words := " ".join(text(segment).split()):
            utterances.append(
                Utterance(
                    segment.id,
                    str(recording.sources[0].source),
                    min(segment.duration, recording.duration - segment.start),
                    words,
                    offset=segment.start,
                    speaker="" if segment.speaker in (None, "N/A") else segment.speaker,
                    language=language,
                )
            )
    return utterances


def read_librispeech(source: Path, parts: Mapping[str, str]) -> Corpus:
    """Read LibriSpeech or a part of it.

    Args:
        source: the folder LibriSpeech, the folder above it, one part in it, or a folder of several such.
        parts: which split each part goes to, for example {"train-clean-100": "train"}; absent ones are passed over.
    """
    from lhotse.recipes import prepare_librispeech

    corpus = Corpus({split: [] for split in parts.values()})
    places = [source.parent, source, *sorted(source.glob("*/")), *sorted(source.glob("*/LibriSpeech/"))]
    with lhotse_reads(corpus.faults):
        for part, split in parts.items():
            whole = [p for p in places if source in (p / part, *(p / part).parents) and _holds_transcripts(p / part)]
            if whole:
                found = prepare_librispeech(whole[0], dataset_parts=part, num_jobs=8)[part]
                corpus.splits[split] += from_lhotse(found, "en")
    return corpus


def _holds_transcripts(part: Path) -> bool:
    return next(part.glob("*/*/*.trans.txt"), None) is not None


def read_table(table: Path, root: Path) -> Iterator[tuple[Path, str, str]]:
    """Read a CSV or TSV file that names audio files.

    Args:
        table: its first line names the columns; comma, semicolon, tab or `|` separate them.
        root: where audio paths count from; a clip that is not there is looked for in `clips/`, as Common Voice does.

    Yields:
        Audio file, text with single blanks, and speaker or nothing.

    Raises:
        DataError: no column of audio or of text.
    """
    with open(table, encoding="utf-8-sig", newline="") as file:
        header = file.readline()
        delimiter = max(",;\t|", key=header.count)
        file.seek(0)
        quoting = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
        rows = csv.DictReader(file, delimiter=delimiter, quoting=quoting)
        columns = {name.strip().lower(): name for name in rows.fieldnames or [] if name}
        audio, text, speaker = (
            next((columns[name] for name in names if name in columns), None)
            for names in (_AUDIO_COLUMNS, _TEXT_COLUMNS, _SPEAKER_COLUMNS)
        )
        if audio is None or text is None:
            wanted = f"one of {', '.join(_AUDIO_COLUMNS)} and one of {', '.join(_TEXT_COLUMNS)}"
            raise DataError(f"{table}: the first line must name the columns {wanted}; it is {header.strip()!r}")
        for row in rows:
            path = root / (row[audio] or "").strip()
            clip = root / "clips" / path.name
            found = clip if clip.is_file() and not path.is_file() else path
            yield found, " ".join((row[text] or "").split()), (row[speaker] or "").strip() if speaker else ""


def without_tags(text: str) -> str:
    """Drop what no one said: `<COMMA>`, `<unk>`, `[NOISE]` and the like."""
    return " ".join(re.sub(r"<[^<>\s]*>|\[[^\[\]\s]*\]", " ", text).split())


# Holding out


def hold_out(utterances: list[Utterance], salt: str = "") -> tuple[list[Utterance], list[Utterance]]:
    """Set about 5 % aside, whole speakers where they are known and many enough.

    The choice is a hash of the speaker's name or the id, so it stays the same when recordings are added.

    Args:
        utterances: two or more.
        salt: another salt makes another choice.

    Returns:
        The others, and those set aside; at least one of each.
    """
    keys: list[Callable[[Utterance], str]] = [lambda u: salt + (u.speaker or u.id), lambda u: salt + u.id]
    for key in keys:
        names = [key(utterance) for utterance in utterances]
        if len(set(names)) > 1:
            chosen = assign(names, {"aside": ASIDE, "others": 1 - ASIDE}) == 0
            if chosen.sum() <= max(1, MOST_ASIDE * len(utterances)):
                break
    else:
        first = min(utterances, key=lambda utterance: rank(salt + utterance.id))
        chosen = [utterance is first for utterance in utterances]
    others = [utterance for utterance, aside in zip(utterances, chosen, strict=True) if not aside]
    return others, [utterance for utterance, aside in zip(utterances, chosen, strict=True) if aside]
