"""Containers and bare packets, by PyAV: m4a, mp4, webm, mov, amr, the sound of videos, files of unstated length."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from numpy.typing import NDArray

from asr.errors import AudioError
from asr.samples import BLOCK, MISSING_SECONDS, Opened

# Seconds without sound that a container's timestamps may leave and that are filled with silence, and of all together.
LEAST_GAP, MOST_GAP, MOST_SILENCE = 0.1, 3600.0, 86_400.0


@contextmanager
def open_container(source: str | Path, file: BinaryIO) -> Iterator[Opened]:
    """Open the first sound track of a container; it is closed on leaving.

    Args:
        source: the file's name, for messages.
        file: its bytes.

    Raises:
        AudioError: it holds no sound that can be decoded; later, from its blocks, that it is damaged or truncated.
    """
    file.seek(0)
    try:
        # A playlist can name other files and addresses; no protocol is allowed, so it opens none of them.
        container = av.open(file, "r", metadata_errors="replace", options={"protocol_whitelist": "none"})
    except (FFmpegError, OSError, ValueError) as error:  # OSError: it seeks to before the beginning
        raise AudioError(f"{source}: is not audio, or damaged or truncated: play it, or convert it") from error
    with container:
        if not container.streams.audio:
            raise AudioError(f"{source}: holds no sound track: name an audio file, or a video with sound")
        track = container.streams.audio[0]
        if track.codec_context is None:
            raise AudioError(f"{source}: is damaged, or its sound is in an unknown encoding: convert it to wav")
        yield Opened(track.rate, track.channels, _length(container), _read(source, container))


def _length(container: InputContainer) -> float | None:
    """Tell from the header of an mp4 how long its sound is, in seconds; other headers hold an estimate."""
    track = container.streams.audio[0]
    if not (track.duration and track.time_base and "mp4" in container.format.name):
        return None
    late = (track.start_time or 0) * track.time_base - _start(container)
    return float(late + track.duration * track.time_base)


def _read(source: str | Path, container: InputContainer) -> Iterator[NDArray[np.float32]]:
    clock = _Clock(container.streams.audio[0].rate, _start(container))
    channels = container.streams.audio[0].channels  # as it is opened; the first frames may have others
    try:
        for _, alike in groupby(_frames(source, container), _kind):
            # Channels side by side: of eight and more, each in a plane of its own, PyAV 18 reads beyond the last, and
            # crashes. Of frames of another kind it refuses the first, and broadcasts change theirs midway.
            to_float = av.AudioResampler(format="flt", rate=clock.rate)
            for frame in alike:
                channels = channels or frame.layout.nb_channels
                yield from _silence(clock.gap(source, frame), channels)
                yield from _samples(to_float, frame, clock, channels)
            yield from _samples(to_float, None, clock, channels)
    except (FFmpegError, OSError, ValueError) as error:  # OSError: it seeks to before the beginning
        raise AudioError.damaged(source, getattr(error, "strerror", None) or str(error)) from error


def _frames(source: str | Path, container: InputContainer) -> Iterator[av.AudioFrame]:
    track = container.streams.audio[0]
    ended = 0.0  # seconds; of any track, since a sound track may well end before its video
    for packet in container.demux():
        if packet.pts is not None and packet.time_base is not None:
            ended = max(ended, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        # PyAV ends with an empty packet for each track, all numbered 0: the decoder is flushed below instead.
        if packet.size and packet.stream_index == track.index:
            yield from track.decode(packet)
    yield from track.decode(None)
    # Other containers do not state their length: ffmpeg estimates it.
    if container.duration and any(name in container.format.name for name in ("mp4", "matroska")):
        announced = container.duration / av.time_base
        if announced - ended > MISSING_SECONDS:
            raise AudioError.truncated(source, announced, ended)


def _kind(frame: av.AudioFrame) -> tuple[str, str, int]:
    return frame.format.name, frame.layout.name, frame.sample_rate


def _start(container: InputContainer) -> float:
    """Tell when the first of a container's tracks begins, in seconds: sound and its video are counted from there."""
    return (container.start_time or 0) / av.time_base


class _Clock:
    """Where the samples of a sound track belong: a muted microphone, or sound that sets in late, leaves gaps.

    Args:
        rate: of the track, Hz.
        start: when the first of the container's tracks begins, in seconds.
    """

    def __init__(self, rate: int, start: float) -> None:
        self.rate = rate
        self.start = start
        self.position = 0
        """Samples given so far, silence included."""
        self.closed = 0
        """Samples that timestamps leapt over, or back by, and that are taken for damage."""
        self.silence = 0

    def gap(self, source: str | Path, frame: av.AudioFrame) -> int:
        """Count the samples of silence before a frame: what follows a gap must not come early.

        Raises:
            AudioError: they add up to what no recording has.
        """
        if frame.time is None:
            return 0
        gap = round((frame.time - self.start) * self.rate) - self.position - self.closed
        # Bare packets whose rate changes midway are numbered as if it did not.
        if abs(gap) >= MOST_GAP * self.rate or frame.sample_rate != self.rate:
            self.closed += gap
            return 0
        if gap <= LEAST_GAP * self.rate:
            return 0
        self.position += gap
        self.silence += gap
        if self.silence > MOST_SILENCE * self.rate:
            raise AudioError.damaged(
                source, f"its timestamps leave {self.silence / self.rate / 3600:.0f} hours without sound"
            )
        return gap


def _silence(samples: int, channels: int) -> Iterator[NDArray[np.float32]]:
    for first in range(0, samples, BLOCK):
        yield np.zeros((min(BLOCK, samples - first), channels), dtype=np.float32)


def _samples(
    to_float: av.AudioResampler, frame: av.AudioFrame | None, clock: _Clock, channels: int
) -> Iterator[NDArray[np.float32]]:
    for part in to_float.resample(frame):
        samples = np.asarray(part.to_ndarray(), dtype=np.float32).reshape(-1, part.layout.nb_channels)
        clock.position += len(samples)
        if samples.shape[1] != channels:
            samples = samples.mean(axis=1, keepdims=True).repeat(channels, axis=1)
        yield samples
