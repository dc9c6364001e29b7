"""Audio files to samples: any format, any rate, any channels, in blocks, so that memory does not grow with duration.

soundfile reads wav, flac, ogg, opus and mp3 and can seek in them; what it cannot read is left to `asr.containers`.
Neither needs an ffmpeg program.

Half a file must never pass for a whole one, so truncation is an error wherever the format lets it be seen. It cannot be
seen in mp3 and other bare packet streams without a length header, nor in a PCM file with a placeholder for its length.
A second recording behind the first is an error, too, where only the first would be read (see `asr.truncation`).
"""

from __future__ import annotations

import io
import math
import os
import re
import stat
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from asr.containers import open_container
from asr.errors import AudioError
from asr.samples import BLOCK, MISSING_SECONDS, RATES, SAMPLE_RATE, Audio, Opened, Source, checked_audio
from asr.truncation import cut_short, damage_seen

LOUDEST = 100.0  # of full scale; beyond it are damage, and integers that were made floats without being scaled
CANCELLED = 0.01  # of the energy that the mean of channels has if only one of them sounds; below, they cancel out
UNKNOWN_FRAMES = 1 << 62  # libsndfile's word for a length that is not in the header
# An audio file that lies within a tar shard: where it begins and how long it is, in bytes (see asr.shards).
MEMBER = re.compile(r"(?P<shard>.+\.tar):(?P<start>[0-9]{1,15}):(?P<size>[0-9]{1,12})", re.DOTALL)


def load(source: Source, offset: float = 0.0, duration: float | None = None) -> Audio:
    """Read a file, or a stretch of it, at its own rate, with all its channels.

    Args:
        source: the file; here and below also a member of a tar shard, as `shard.tar:<first byte>:<bytes>`.
        offset: where to begin, in seconds.
        duration: how much to read, in seconds; None, or more than there is, reads to the end.

    Raises:
        AudioError: the file is missing, unreadable, empty, truncated, or holds no finite audio.
        InputTypeError: the source is neither a file's name nor samples with their rate.
    """
    with _open(source, offset, duration) as file:
        return Audio(np.ascontiguousarray(np.concatenate(list(file.blocks)).T), file.rate)


def load_mono(source: Source, offset: float = 0.0, duration: float | None = None) -> NDArray[np.float32]:
    """Read a stretch of a file as one channel at 16 kHz.

    Args:
        source: the file.
        offset: where to begin, in seconds.
        duration: how much to read, in seconds; None, or more than there is, reads to the end.

    Returns:
        The mean of the channels, shape (samples,).

    Raises:
        AudioError: as `load`, or the file ends before the offset.
    """
    return np.concatenate(list(_mono(source, offset, duration)))


def stream(source: Source, seconds: float, channel: int | None = None) -> Iterator[NDArray[np.float32]]:
    """Read a file as one channel at 16 kHz, block by block; the blocks together equal `load_mono`.

    Args:
        source: the file.
        seconds: length of each block but the last.
        channel: the one to read, counted from 1; None for the mean of all.

    Raises:
        AudioError: as `load`, while it is read.
    """
    with closing(_mono(source, channel=channel)) as blocks:
        yield from _regrouped(blocks, max(1, round(seconds * SAMPLE_RATE)))


def pieces(source: Source, seconds: float, offset: float = 0.0, duration: float | None = None) -> Iterator[Audio]:
    """Read a stretch of a file as `load` does, in pieces.

    Args:
        source: the file.
        seconds: length of each piece but the last.
        offset: where to begin, in seconds.
        duration: how much to read, in seconds; None, or more than there is, reads to the end.

    Raises:
        AudioError: as `load`, while it is read.
    """
    with _open(source, offset, duration) as file:
        for piece in _regrouped(file.blocks, max(1, round(seconds * file.rate))):
            yield Audio(np.ascontiguousarray(piece.T), file.rate)


def _regrouped(blocks: Iterator[NDArray[np.float32]], size: int) -> Iterator[NDArray[np.float32]]:
    """Cut blocks, joined, into new ones of `size` frames; the last may be shorter."""
    held: list[NDArray[np.float32]] = []
    count = 0
    try:
        for block in blocks:
            held.append(block)
            count += len(block)
            if count >= size:
                joined = np.concatenate(held)
                count %= size
                whole = len(joined) - count
                yield from np.split(joined[:whole], whole // size)
                held = [joined[whole:].copy()]  # a view would keep all of it in memory
    except AudioError:  # what comes before the place where a file is damaged is whole
        if count:
            yield np.concatenate(held)
        raise
    if count:
        yield np.concatenate(held)


def channels(source: Source) -> int:
    """Count the channels of a file from its header.

    Raises:
        AudioError: as `load`.
    """
    with _open(source) as file:
        return file.channels


def duration(source: Source) -> float:
    """Tell how long a file is, in seconds: from its header where that can be trusted, else by decoding it.

    Raises:
        AudioError: as `load`.
    """
    with _open(source) as file:
        return sum(map(len, file.blocks)) / file.rate if file.seconds is None else file.seconds


def _mono(
    source: Source, offset: float = 0.0, seconds: float | None = None, channel: int | None = None
) -> Generator[NDArray[np.float32], None, None]:
    with _open(source, offset, seconds) as file:
        if channel is not None and not 1 <= channel <= file.channels:
            raise AudioError(f"{_label(source)}: has no channel {channel}: it has {file.channels}")
        only = 1 if file.channels == 1 else channel
        mono = _mixed(source, file) if only is None else (block[:, only - 1] for block in file.blocks)
        if file.rate == SAMPLE_RATE:
            yield from mono
            return
        # soxr keeps its state between blocks, so a stream is resampled exactly as the whole file would be.
        resampler = soxr.ResampleStream(file.rate, SAMPLE_RATE, 1, dtype="float32")
        count = 0
        for block in mono:
            resampled = resampler.resample_chunk(block)
            count += len(resampled)
            yield resampled
        tail = resampler.resample_chunk(np.zeros(0, dtype=np.float32), last=True)
        if not count + len(tail):
            raise AudioError(f"{_label(source)}: is too short to hold a sample at {SAMPLE_RATE} Hz: leave it out")
        yield tail


def _mixed(source: Source, file: Opened) -> Iterator[NDArray[np.float32]]:
    """Take the mean of the channels, and refuse it in the end if it is hardly anything of what they hold."""
    mixed = loudest = 0.0
    for block in file.blocks:
        mean = block.mean(axis=1)
        mixed += float(mean @ mean)
        loudest += float(np.einsum("sc,sc->c", block, block).max())
        yield mean
    if mixed < CANCELLED * loudest / file.channels**2:
        raise AudioError(f"{_label(source)}: its channels cancel each other out: transcribe or export one of them")


@contextmanager
def _open(source: Source, offset: float = 0.0, seconds: float | None = None) -> Iterator[Opened]:
    """Open a file, or samples, from `offset` on; a file is closed on leaving."""
    if not (0 <= offset < math.inf and (seconds is None or 0 < seconds < math.inf)):
        raise AudioError(f"{_label(source)}: cannot read {seconds} s from {offset} s on: correct offset and duration")
    if not isinstance(source, str | Path):
        audio = checked_audio(source)
        blocks = _cut(_slices(audio.waveform), audio.sample_rate, offset, seconds)
        length = audio.waveform.shape[1] / audio.sample_rate
        yield Opened(audio.sample_rate, len(audio.waveform), length, _checked(_label(source), blocks, offset))
        return
    try:
        with ExitStack() as stack:
            file = stack.enter_context(open_file(source))
            damage = damage_seen(source, file)
            if (sound := _open_soundfile(file)) is not None:
                stack.enter_context(sound)
                damage = damage or cut_short(source, sound)
                rate, channels, length = sound.samplerate, sound.channels, sound.frames / sound.samplerate
                blocks = _read_soundfile(source, file, sound, offset, seconds)
            else:
                track = stack.enter_context(open_container(source, file))
                rate, channels, length = track.rate, track.channels, track.seconds
                blocks = _cut(track.blocks, rate, offset, seconds)
            if rate not in RATES:
                raise AudioError(f"{source}: is damaged: its header states a sample rate of {rate} Hz: export it again")
            if damage:
                length, blocks = None, _followed_by(blocks, damage)
            yield Opened(rate, channels, length, _checked(source, blocks, offset))
    except OSError as error:  # a disk or network share that fails while it is read
        reason = (error.strerror or str(error)).lower()
        raise AudioError(f"{source}: cannot be read: {reason}: copy it to another disk") from error


def _label(source: Source) -> str:
    return str(source) if isinstance(source, str | Path) else "array"


def _slices(waveform: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """Cut (channels, S) into the blocks (frames, channels) that `_read_soundfile` would give."""
    size = max(1, BLOCK // max(1, len(waveform)))
    for first in range(0, waveform.shape[1], size):
        yield np.ascontiguousarray(waveform[:, first : first + size].T)


class _Reader(io.BufferedReader):
    """A file that stays where it is when a damaged header sends it to before its beginning.

    The decoders notice that; an exception they would print, traceback and all, since they call this from C.
    """

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move as far as there is somewhere to move to."""
        try:
            return super().seek(offset, whence)
        except (OSError, ValueError):
            return self.tell()


def open_file(source: str | Path) -> BinaryIO:
    """Open the bytes of an audio file, or of a member of a tar shard.

    Raises:
        AudioError: there is no such file, it is not a regular file, or it is empty.
    """
    if member := MEMBER.fullmatch(str(source)):
        return _open_member(source, member["shard"], int(member["start"]), int(member["size"]))
    path = Path(source)
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise AudioError(f"{source}: is a folder: name the audio files in it")
        if not stat.S_ISREG(status.st_mode):
            raise AudioError(f"{source}: is a pipe or device: save the audio to a file first")
        if not status.st_size:
            raise AudioError(f"{source}: is empty (0 bytes): record or download it again")
        return _Reader(path.open("rb", buffering=0))
    except (OSError, ValueError) as error:  # ValueError: the name holds a null byte
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise AudioError(f"{source}: cannot be opened: {reason}: check its name and permissions") from error


def _open_member(source: str | Path, shard: str, start: int, size: int) -> BinaryIO:
    """Read a member of a tar shard whole: one ranged read, which is what object storage is good at."""
    with open_file(shard) as file:
        file.seek(start)
        content = file.read(min(size, max(0, os.fstat(file.fileno()).st_size - start)))
    if not content or len(content) < size:
        raise AudioError(f"{source}: the shard ends before this: copy it again, or write the shards anew")
    return _Reader(io.BytesIO(content))  # type: ignore[arg-type] (all that is asked of it is readinto)


def _checked(source: str | Path, blocks: Iterator[NDArray[np.float32]], offset: float) -> Iterator[NDArray[np.float32]]:
    total = 0
    for block in blocks:
        if not (np.abs(block) < LOUDEST).all():  # a NaN is not below anything either
            peak = float(np.abs(block).max())
            if math.isfinite(peak):
                raise AudioError(f"{source}: its samples reach {peak:.6g} where full scale is 1: scale them down")
            raise AudioError(f"{source}: holds samples that are NaN or infinite: export it again")
        total += len(block)
        yield block
    if not total and offset:
        raise AudioError(f"{source}: ends before {offset:g} s, where reading should begin: correct the offset")
    if not total:
        raise AudioError(f"{source}: holds no audio samples: record or export it again")


def _open_soundfile(file: BinaryIO) -> soundfile.SoundFile | None:
    """Open with soundfile; None where PyAV must do it: an unknown format, or a length that is not in the header."""
    guessed = _is_mp3_of_unknown_length(file)
    file.seek(0)
    try:
        sound = soundfile.SoundFile(file)
    except (soundfile.SoundFileError, TypeError):  # TypeError: a name in .raw makes soundfile ask for the rate
        return None
    if 0 < sound.frames < UNKNOWN_FRAMES and not (guessed and sound.format == "MP3"):
        return sound
    sound.close()
    return None


def _is_mp3_of_unknown_length(file: BinaryIO) -> bool:
    """Look for the header without which libsndfile guesses an mp3's length from its first frame, and cuts it there."""
    file.seek(0)
    start = file.read(10)
    if start.startswith(b"ID3") and len(start) == 10:  # a tag, perhaps with a picture; 7 bits of its size in each byte
        file.seek(sum(byte << shift for byte, shift in zip(start[6:], (21, 14, 7, 0), strict=True)), os.SEEK_CUR)
    start += file.read(4096)
    return not any(header in start for header in (b"Xing", b"Info"))


def _followed_by(blocks: Iterator[NDArray[np.float32]], damage: AudioError) -> Iterator[NDArray[np.float32]]:
    """Give what there is of a damaged file, then say that it is damaged."""
    yield from blocks
    raise damage


def _read_soundfile(
    source: str | Path, file: BinaryIO, sound: soundfile.SoundFile, offset: float, seconds: float | None
) -> Iterator[NDArray[np.float32]]:
    rate = sound.samplerate
    first = min(round(offset * rate), sound.frames)
    left = wanted = sound.frames - first if seconds is None else min(round(seconds * rate), sound.frames - first)
    try:
        if first and left:
            sound.seek(first)
        while left > 0:
            block = sound.read(min(max(1, BLOCK // sound.channels), left), dtype="float32", always_2d=True)
            if not len(block):
                break
            left -= len(block)
            yield np.asarray(block, dtype=np.float32)
    except soundfile.SoundFileError as error:
        raise AudioError.damaged(source, str(error)) from error
    if left > MISSING_SECONDS * rate:
        raise AudioError.truncated(source, (first + wanted) / rate, (first + wanted - left) / rate)
    if wanted and seconds is None and sound.format in {"MP3", "OGG", "FLAC"}:
        # Recordings joined by `cat`: libsndfile stops after the first. An APE tag may follow a whole mp3.
        position, tag, size = file.tell(), file.read(8), file.seek(0, os.SEEK_END)
        if (size - position) * sound.frames > MISSING_SECONDS * rate * size and tag != b"APETAGEX":
            raise AudioError(f"{source}: holds more than one recording: convert it to wav, or split it")


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
