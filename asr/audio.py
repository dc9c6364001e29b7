"""Audio files to samples: any format, any rate, any channels, in blocks, so that memory does not grow with duration.

soundfile reads wav, flac, ogg, opus and mp3; PyAV reads what it cannot: m4a, mp4, webm, mov, amr, video soundtracks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from asr.errors import AudioError

SAMPLE_RATE = 16_000  # Hz: what every model here listens to
BLOCK = 1 << 18  # frames read at once: a few seconds, a megabyte or two
# Lossy formats state their length only roughly; a file that ends this far before it should is truncated.
MISSING_SECONDS = 0.5


@dataclass(frozen=True)
class Audio:
    """A whole file as it was recorded."""

    waveform: NDArray[np.float32]
    """Samples, shape (channels, samples), full scale is 1."""
    sample_rate: int
    """Hz."""


def load(source: str | Path) -> Audio:
    """Read a whole file at its own rate, with all its channels.

    Raises:
        AudioError: the file is missing, unreadable, empty, truncated, or holds no finite audio.
    """
    rate, blocks = _open(source, 0.0, None)
    return Audio(np.ascontiguousarray(np.concatenate(list(blocks)).T), rate)


def load_mono(source: str | Path, offset: float = 0.0, duration: float | None = None) -> NDArray[np.float32]:
    """Read a stretch of a file as one channel at 16 kHz.

    Args:
        source: the file.
        offset: where to begin, in seconds.
        duration: how much to read, in seconds; None reads to the end.

    Returns:
        The mean of the channels, shape (samples,).

    Raises:
        AudioError: as `load`.
    """
    return np.concatenate(list(_mono(source, offset, duration)))


def stream(source: str | Path, seconds: float) -> Iterator[NDArray[np.float32]]:
    """Read a file as one channel at 16 kHz, block by block; the blocks together equal `load_mono`.

    Args:
        source: the file.
        seconds: length of each block but the last.

    Raises:
        AudioError: as `load`, while it is read.
    """
    size = round(seconds * SAMPLE_RATE)
    held: list[NDArray[np.float32]] = []
    for block in _mono(source, 0.0, None):
        held.append(block)
        if sum(map(len, held)) >= size:
            joined = np.concatenate(held)
            whole = len(joined) // size * size
            yield from np.split(joined[:whole], whole // size)
            held = [joined[whole:]]
    if rest := sum(map(len, held)):
        yield np.concatenate(held)[:rest]


def duration(source: str | Path) -> float:
    """Tell how long a file is, in seconds; from its header where that can be trusted.

    Raises:
        AudioError: as `load`.
    """
    _check_file(source)
    try:
        info = soundfile.info(str(source))
    except soundfile.LibsndfileError:
        rate, blocks = _open(source, 0.0, None)
        return sum(len(block) for block in blocks) / rate
    if info.frames <= 0:
        raise AudioError(f"{source}: holds no audio samples")
    return info.frames / info.samplerate


def _mono(source: str | Path, offset: float, seconds: float | None) -> Iterator[NDArray[np.float32]]:
    rate, blocks = _open(source, offset, seconds)
    mono = (block.mean(axis=1) if block.shape[1] > 1 else block[:, 0] for block in blocks)
    if rate == SAMPLE_RATE:
        yield from mono
        return
    # soxr keeps its state between blocks, so a stream is resampled exactly as the whole file would be.
    resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
    for block in mono:
        yield resampler.resample_chunk(block)
    yield resampler.resample_chunk(np.zeros(0, dtype=np.float32), last=True)


def _open(
    source: str | Path, offset: float, seconds: float | None
) -> tuple[int, Iterator[NDArray[np.float32]]]:
    """Open a file; gives its rate and an iterator of checked blocks, each (frames, channels)."""
    _check_file(source)
    try:
        file = soundfile.SoundFile(str(source))
    except soundfile.LibsndfileError:
        container, rate = _open_av(source)
        return rate, _checked(source, _cut(_read_av(source, container), rate, offset, seconds))
    return file.samplerate, _checked(source, _read_soundfile(source, file, offset, seconds))


def _check_file(source: str | Path) -> None:
    path = Path(source)
    if path.is_dir():
        raise AudioError(f"{source}: is a folder: name the audio files in it")
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise AudioError(f"{source}: is empty (0 bytes)")
    except OSError as error:
        raise AudioError(f"{source}: {(error.strerror or str(error)).lower()}") from error


def _checked(source: str | Path, blocks: Iterator[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    total = 0
    for block in blocks:
        if not np.isfinite(block).all():
            raise AudioError(f"{source}: holds samples that are not numbers (NaN or infinite): export it again")
        total += len(block)
        yield block
    if not total:
        raise AudioError(f"{source}: holds no audio samples")


def _read_soundfile(
    source: str | Path, file: soundfile.SoundFile, offset: float, seconds: float | None
) -> Iterator[NDArray[np.float32]]:
    with file:
        first = min(round(offset * file.samplerate), file.frames)
        wanted = file.frames - first if seconds is None else min(round(seconds * file.samplerate), file.frames - first)
        try:
            if first:
                file.seek(first)
            left = wanted
            while left > 0:
                block = file.read(min(BLOCK, left), dtype="float32", always_2d=True)
                if not len(block):
                    break
                left -= len(block)
                yield block
        except soundfile.LibsndfileError as error:
            raise AudioError(f"{source}: is damaged or truncated: {error.error_string}") from error
        if left > MISSING_SECONDS * file.samplerate:
            raise AudioError(
                f"{source}: is truncated: {wanted / file.samplerate:.1f} s announced, "
                f"{(wanted - left) / file.samplerate:.1f} s there"
            )


def _open_av(source: str | Path) -> tuple[av.container.InputContainer, int]:
    try:
        container = av.open(str(source), mode="r")
    except (av.FFmpegError, ValueError) as error:
        raise AudioError(f"{source}: is no audio or video file that can be read here") from error
    if not container.streams.audio:
        container.close()
        raise AudioError(f"{source}: has no sound track")
    return container, container.streams.audio[0].rate


def _read_av(source: str | Path, container: av.container.InputContainer) -> Iterator[NDArray[np.float32]]:
    with closing(container):
        to_float = av.AudioResampler(format="fltp")
        try:
            for frame in container.decode(audio=0):
                for part in to_float.resample(frame):
                    yield part.to_ndarray().T
            for part in to_float.resample(None):
                yield part.to_ndarray().T
        except av.FFmpegError as error:
            raise AudioError(f"{source}: is damaged or truncated: {error.strerror}") from error


def _cut(
    blocks: Iterator[NDArray[np.float32]], rate: int, offset: float, seconds: float | None
) -> Iterator[NDArray[np.float32]]:
    """Keep the frames from offset to offset + seconds."""
    first = round(offset * rate)
    last = math.inf if seconds is None else first + round(seconds * rate)
    position = 0
    for block in blocks:
        begin, end = max(first - position, 0), min(last - position, len(block))
        position += len(block)
        if begin < end:
            yield block[begin : int(end)]
        if position >= last:
            return
