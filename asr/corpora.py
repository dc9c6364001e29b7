"""What recipes read with: lhotse's readers, LibriSpeech's layout, what is held out, and how long recordings are."""

from __future__ import annotations

import io
import logging
import re
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from asr.audio import duration
from asr.download import fetch, progress_bar
from asr.errors import AsrError, AudioError, DataError
from asr.manifest import Utterance
from asr.subsets import assign, rank

log = logging.getLogger(__name__)

ASIDE = 0.05
MOST_ASIDE = 0.2
LIBRISPEECH_SETS = {"dev-clean": "dev", "dev-other": "dev", "test-clean": "test-clean", "test-other": "test-other"}
"""The split that each of LibriSpeech's development and test sets goes to."""


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

    Within `lhotse_reads` a segment that holds no time of its recording becomes a fault.
    """
    recordings = {recording.id: recording for recording in manifests["recordings"]}
    utterances = []
    for segment in sorted(manifests["supervisions"], key=lambda segment: segment.id):
        recording = recordings[segment.recording_id]
        seconds = min(segment.duration, recording.duration - segment.start)
        words = " ".join(text(segment).split())
        if words and seconds <= 0:
            log.warning("%s: holds nothing of %s", recording.sources[0].source, segment.id)
        elif words:
            utterances.append(
                Utterance(
                    segment.id,
                    str(recording.sources[0].source),
                    seconds,
                    words,
                    offset=segment.start,
                    speaker="" if segment.speaker in (None, "N/A") else segment.speaker,
                    language=language,
                )
            )
    return utterances


def fetch_librispeech(folder: Path, mirror: str, parts: Iterable[str]) -> Path:
    """Download parts of LibriSpeech, each into a folder of its own.

    Args:
        folder: where to; what is there already is left alone.
        mirror: address of the folder that holds `<part>.tar.gz`.
        parts: names such as `train-clean-100`.

    Returns:
        The folder, for `read_librispeech`.

    Raises:
        DataError: as `asr.download.fetch`.
    """
    for part in parts:
        fetch(f"{mirror}/{part}.tar.gz", folder / part)
    return folder


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


# Measuring


def measure(utterances: Sequence[Utterance], faults: list[str]) -> list[Utterance]:
    """Fill in the durations that are still 0 from the audio files.

    Args:
        utterances: any number.
        faults: gets one line for each file that cannot be read.

    Returns:
        The utterances that have a duration.
    """
    unknown = [utterance for utterance in utterances if not utterance.duration]
    measured: list[float | str] = []
    with ThreadPoolExecutor(8) as pool, progress_bar() as progress:
        task = progress.add_task("reading durations", total=len(unknown))
        for seconds in pool.map(_seconds, unknown):
            progress.advance(task)
            measured.append(seconds)
    faults += [fault for fault in measured if isinstance(fault, str)]
    found, good = iter(measured), []
    for utterance in utterances:
        seconds = utterance.duration or next(found)
        if not isinstance(seconds, str):
            good.append(utterance if utterance.duration else replace(utterance, duration=seconds))
    return good


def _seconds(utterance: Utterance) -> float | str:
    try:
        utterance.audio_filepath.encode()
        seconds = duration(utterance.audio_filepath)
    except UnicodeEncodeError:  # manifests are UTF-8
        return f"{utterance.audio_filepath!r}: its name is not UTF-8: rename it"
    except AudioError as error:
        return str(error)
    return seconds if seconds > 0 else f"{utterance.audio_filepath}: holds no audio"
