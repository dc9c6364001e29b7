"""Audio files to samples: any format, any rate, any channels, in blocks, so that memory does not grow with duration.

soundfile reads wav, flac, ogg, opus and mp3 and can seek in them; PyAV reads what it cannot: m4a, mp4, webm, mov, amr,
the sound of videos, and files whose header does not know their length. Neither needs an ffmpeg program.

Half a file must never pass for a whole one, so truncation is an error wherever the format lets it be seen. It cannot be
seen in mp3 and other bare packet streams without a length header, nor in a PCM file with a placeholder for its length.
"""

from __future__ import annotations

import io
import math
import os
import re
import stat
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
import soundfile
import soxr
from av.container import InputContainer
from av.error import FFmpegError
from numpy.typing import NDArray

from asr.errors import AudioError
from asr.samples import RATES, SAMPLE_RATE, Audio, Source, checked_audio

BLOCK = 1 << 18  # samples of all channels read at once: a few seconds, a megabyte
MISSING_SECONDS = 0.5  # headers of lossy formats are inexact; a file that ends this far early is truncated
# Seconds without sound that a container's timestamps may leave and that are filled with silence, and of all together.
LEAST_GAP, MOST_GAP, MOST_SILENCE = 0.1, 3600.0, 86_400.0
LOUDEST = 1e10  # above float samples at 32-bit integer scale; beyond it are only damage and overflow in the features
UNKNOWN_FRAMES = 1 << 62  # libsndfile's word for a length that is not in the header
OGG_PAGE = 27 + 255 + 255 * 255  # bytes of the largest page
# An audio file that lies within a tar shard: where it begins and how long it is, in bytes (see asr.shards).
MEMBER = re.compile(r"(?P<shard>.+\.tar):(?P<start>[0-9]{1,15}):(?P<size>[0-9]{1,12})", re.DOTALL)
# How libsndfile logs the lengths in the headers of wav, aiff, au, rf64 and w64 when less than that is there.
ANNOUNCED = re.compile(r"(?:data|SSND|Data Size|Riff size|riff) *: (\d+) \(should be (\d+)\)")


@dataclass(frozen=True)
class _Opened:
    rate: int
    channels: int
    seconds: float | None
    """Length of the whole file, where the header can be trusted."""
    blocks: Iterator[NDArray[np.float32]]
    """Checked samples, each (frames, channels)."""


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
    size = max(1, round(seconds * SAMPLE_RATE))
    held: list[NDArray[np.float32]] = []
    count = 0
    with closing(_mono(source, channel=channel)) as blocks:
        for block in blocks:
            held.append(block)
            count += len(block)
            if count >= size:
                joined = np.concatenate(held)
                count %= size
                whole = len(joined) - count
                yield from np.split(joined[:whole], whole // size)
                held = [joined[whole:].copy()]  # a view would keep all of it in memory
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
        mono = (block.mean(axis=1) if only is None else block[:, only - 1] for block in file.blocks)
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


@contextmanager
def _open(source: Source, offset: float = 0.0, seconds: float | None = None) -> Iterator[_Opened]:
    """Open a file, or samples, from `offset` on; a file is closed on leaving."""
    if not (0 <= offset < math.inf and (seconds is None or 0 < seconds < math.inf)):
        raise AudioError(f"{_label(source)}: cannot read {seconds} s from {offset} s on: correct offset and duration")
    if not isinstance(source, str | Path):
        audio = checked_audio(source)
        blocks = _cut(_slices(audio.waveform), audio.sample_rate, offset, seconds)
        length = audio.waveform.shape[1] / audio.sample_rate
        yield _Opened(audio.sample_rate, len(audio.waveform), length, _checked(_label(source), blocks, offset))
        return
    with ExitStack() as stack:
        file = stack.enter_context(open_file(source))
        _check_last_page(source, file)
        if (sound := _open_soundfile(file)) is not None:
            stack.enter_context(sound)
            _check_announced(source, sound)
            rate, channels, length = sound.samplerate, sound.channels, sound.frames / sound.samplerate
            blocks = _read_soundfile(source, file, sound, offset, seconds)
        else:
            container = stack.enter_context(_open_av(source, file))
            track = container.streams.audio[0]
            rate, channels = track.rate, track.channels
            ticks = track.duration if "mp4" in container.format.name else None  # other headers hold an estimate
            late = (track.start_time or 0) * track.time_base - _start(container) if track.time_base else 0.0
            length = float(late + ticks * track.time_base) if ticks and track.time_base else None
            blocks = _cut(_read_av(source, container), rate, offset, seconds)
        if rate not in RATES:
            raise AudioError(f"{source}: is damaged: its header states a sample rate of {rate} Hz: export it again")
        yield _Opened(rate, channels, length, _checked(source, blocks, offset))


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
            raise AudioError(f"{source}: holds samples that are NaN, infinite or beyond any sound: export it again")
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


def _check_last_page(source: str | Path, file: BinaryIO) -> None:
    """Refuse an Ogg file that ends within a page; libsndfile and ffmpeg only drop that page."""
    if file.read(4) == b"OggS":
        file.seek(max(0, file.seek(0, os.SEEK_END) - OGG_PAGE))
        page = (tail := file.read())[tail.rfind(b"OggS") :]
        # The header counts the segments in its byte 26, and their lengths follow.
        if len(page) < 27 or len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]]):
            raise _damaged(source, "its last page is cut")
    file.seek(0)


def _check_announced(source: str | Path, sound: soundfile.SoundFile) -> None:
    """Refuse a PCM file that ends before its header says so; libsndfile only notes it."""
    for announced, there in (map(int, found) for found in ANNOUNCED.findall(sound.extra_info)):
        # Programs that write to a pipe announce about 2 or 4 GiB, which means that they do not know.
        placeholder = announced > 1 << 30 and (announced + (1 << 16)) % (1 << 31) < 1 << 17
        seconds = sound.frames / sound.samplerate
        missing = seconds * (announced / max(there, 1) - 1)
        if missing > MISSING_SECONDS and not placeholder:
            raise _truncated(source, seconds + missing, seconds)


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
        raise _damaged(source, str(error)) from error
    if left > MISSING_SECONDS * rate:
        raise _truncated(source, (first + wanted) / rate, (first + wanted - left) / rate)
    if wanted and seconds is None and sound.format in {"MP3", "OGG", "FLAC"}:
        # Recordings joined by `cat`: libsndfile stops after the first. An APE tag may follow a whole mp3.
        position, tag, size = file.tell(), file.read(8), file.seek(0, os.SEEK_END)
        if (size - position) * sound.frames > MISSING_SECONDS * rate * size and tag != b"APETAGEX":
            raise AudioError(f"{source}: holds more than one recording: convert it to wav, or split it")


@contextmanager
def _open_av(source: str | Path, file: BinaryIO) -> Iterator[InputContainer]:
    file.seek(0)
    try:
        # A playlist can name other files and addresses; no protocol is allowed, so it opens none of them.
        container = av.open(file, "r", metadata_errors="replace", options={"protocol_whitelist": "none"})
    except (FFmpegError, OSError, ValueError) as error:  # OSError: it seeks to before the beginning
        raise AudioError(f"{source}: is not audio, or damaged or truncated: play it, or convert it") from error
    with container:
        if not container.streams.audio:
            raise AudioError(f"{source}: holds no sound track: name an audio file, or a video with sound")
        if container.streams.audio[0].codec_context is None:
            raise AudioError(f"{source}: is damaged, or its sound is in an unknown encoding: convert it to wav")
        yield container


def _read_av(source: str | Path, container: InputContainer) -> Iterator[NDArray[np.float32]]:
    track = container.streams.audio[0]
    to_float = av.AudioResampler(format="fltp", rate=track.rate)
    ended = 0.0  # seconds; of any track, since a sound track may well end before its video
    clock = _Clock(track.rate, _start(container))
    try:
        for packet in container.demux():
            if packet.pts is not None and packet.time_base is not None:
                ended = max(ended, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            # PyAV ends with an empty packet for each track, all numbered 0: the decoder is flushed below instead.
            if packet.size and packet.stream_index == track.index:
                for frame in track.decode(packet):
                    yield from _silence(clock.gap(source, frame), frame.layout.nb_channels)
                    yield from _samples(to_float, frame, clock)
        for frame in track.decode(None):
            yield from _silence(clock.gap(source, frame), frame.layout.nb_channels)
            yield from _samples(to_float, frame, clock)
        yield from _samples(to_float, None, clock)
    except (FFmpegError, OSError, ValueError) as error:  # OSError: it seeks to before the beginning
        raise _damaged(source, getattr(error, "strerror", None) or str(error)) from error
    # Other containers do not state their length: ffmpeg estimates it.
    if container.duration and any(name in container.format.name for name in ("mp4", "matroska")):
        announced = container.duration / av.time_base
        if announced - ended > MISSING_SECONDS:
            raise _truncated(source, announced, ended)


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
        if abs(gap) >= MOST_GAP * self.rate:
            self.closed += gap
        if not LEAST_GAP * self.rate < gap < MOST_GAP * self.rate:
            return 0
        self.position += gap
        self.silence += gap
        if self.silence > MOST_SILENCE * self.rate:
            raise _damaged(source, f"its timestamps leave {self.silence / self.rate / 3600:.0f} hours without sound")
        return gap


def _silence(samples: int, channels: int) -> Iterator[NDArray[np.float32]]:
    for first in range(0, samples, BLOCK):
        yield np.zeros((min(BLOCK, samples - first), channels), dtype=np.float32)


def _samples(to_float: av.AudioResampler, frame: av.AudioFrame | None, clock: _Clock) -> Iterator[NDArray[np.float32]]:
    for part in to_float.resample(frame):
        samples = np.asarray(part.to_ndarray().T, dtype=np.float32)
        clock.position += len(samples)
        yield samples


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


def _truncated(source: str | Path, announced: float, there: float) -> AudioError:
    return AudioError(f"{source}: is truncated: {there:.1f} s of {announced:.1f} s are there: copy or record it again")


def _damaged(source: str | Path, reason: str) -> AudioError:
    return AudioError(f"{source}: is damaged or truncated: {' '.join(reason.split())}: copy or record it again")
