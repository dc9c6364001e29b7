"""lhotse CutSets, read and written with lhotse."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lhotse import CutSet, MonoCut, MultiCut, Recording, SupervisionSegment
from lhotse.audio import AudioLoadingError
from lhotse.serialization import SequentialJsonlWriter

from asr.errors import DataError
from asr.exchange.paths import locate
from asr.files import replacing
from asr.manifest import Utterance


def read_cuts(path: Path) -> tuple[list[Utterance], list[str]]:
    """Read cuts: an utterance for each supervision, or for a whole cut where it has none.

    Returns:
        The utterances, and a line for each cut or supervision that is not a plain stretch of one file: mixed or changed
        on the fly, one channel of several, or without a recording.

    Raises:
        DataError: the file does not hold cuts.
    """
    utterances: list[Utterance] = []
    faults: list[str] = []
    try:
        for cut in CutSet.from_jsonl_lazy(path):
            if fault := _fault(cut):
                faults.append(f"{cut.id}: {fault}")
                continue
            for utterance, channel in _utterances(cut, path.parent):
                if utterance.offset < 0:
                    faults.append(f"{utterance.id}: begins before its recording")
                elif channel != (whole := _channels(cut.channel)):
                    faults.append(f"{utterance.id}: is of channels {channel} of {whole}: save them to a file first")
                else:
                    utterances.append(utterance)
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: not lhotse cuts: {type(error).__name__}: {reason}") from error
    return utterances, faults


def write_cuts(path: Path, utterances: Sequence[Utterance]) -> list[str]:
    """Write a cut with one supervision for each utterance; the headers of the audio are read, as lhotse wants them.

    Returns:
        A line for each utterance whose audio cannot be read.
    """
    first: dict[str, str] = {}  # audio: the first utterance in it names the recording
    for utterance in utterances:
        first.setdefault(utterance.audio_filepath, utterance.id)
    with ThreadPoolExecutor(8) as pool:
        recordings = dict(zip(first, pool.map(_recording, first, first.values()), strict=True))
    faults: list[str] = []
    with replacing(path) as temporary, SequentialJsonlWriter(temporary) as file:
        for utterance in utterances:
            recording = recordings[utterance.audio_filepath]
            if isinstance(recording, Recording):
                file.write(_cut(utterance, recording))
            else:
                faults.append(f"{utterance.id}: {recording}")
    return faults


def _fault(cut: Any) -> str | None:
    if not isinstance(cut, (MonoCut, MultiCut)) or not cut.has_recording:
        return "is no stretch of one recording: mixtures, paddings and cuts of features have no audio file"
    recording: Any = cut.recording
    if recording.transforms or any(getattr(cut, name, None) for name in ("target_recording", "recording_transforms")):
        return "is changed on the fly: save its audio first"
    if len(recording.sources) != 1 or recording.sources[0].type != "file":
        kinds = ", ".join(source.type for source in recording.sources)
        return f"its audio is not one file but: {kinds}; save it to a file first"
    if _channels(cut.channel) != sorted(recording.channel_ids):
        return f"is channel {cut.channel} of a file with {recording.num_channels}: save the channel to a file first"
    return None


def _channels(channel: int | Sequence[int]) -> list[int]:
    return [channel] if isinstance(channel, int) else sorted(channel)


def _utterances(cut: Any, folder: Path) -> list[tuple[Utterance, list[int]]]:
    """Give each utterance and the channels that it is on."""
    audio = locate(str(cut.recording.sources[0].source), folder)
    if not cut.supervisions:
        return [(Utterance(cut.id, audio, cut.duration, offset=cut.start), _channels(cut.channel))]
    return [
        (
            Utterance(
                supervision.id,
                audio,
                supervision.duration,
                supervision.text or "",
                cut.start + supervision.start,
                supervision.speaker or "",
                supervision.language or "",
            ),
            _channels(supervision.channel),
        )
        for supervision in cut.supervisions
    ]


def _recording(audio: str, name: str) -> Recording | str:
    """Describe a file, or say why it cannot be."""
    try:
        return Recording.from_file(os.path.abspath(audio), recording_id=name)
    except (AudioLoadingError, OSError, ValueError, RuntimeError) as error:
        return f"{audio}: cannot be read by lhotse: {' '.join(str(error).split())[:200]}"


def _cut(utterance: Utterance, recording: Recording) -> MonoCut | MultiCut:
    channels = recording.channel_ids or [0]
    supervision = SupervisionSegment(
        utterance.id,
        recording.id,
        start=0.0,
        duration=utterance.duration,
        channel=0 if len(channels) == 1 else channels,
        text=utterance.text,
        speaker=utterance.speaker or None,
        language=utterance.language or None,
    )
    shared: dict[str, Any] = {"supervisions": [supervision], "recording": recording}
    if len(channels) == 1:
        return MonoCut(utterance.id, utterance.offset, utterance.duration, channels[0], **shared)
    return MultiCut(utterance.id, utterance.offset, utterance.duration, channels, **shared)
