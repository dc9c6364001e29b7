"""Whether an audio file is whole, and one file: what its bytes and headers say that decoders pass over.

Half a file must never pass for a whole one, nor the first of two that were joined for both.
"""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path
from typing import BinaryIO

import soundfile

from asr.errors import AudioError
from asr.samples import MISSING_SECONDS

OGG_PAGE = 27 + 255 + 255 * 255  # bytes of the largest page
MOST_CHUNKS = 1000  # files of more are not looked at any further
LEFT_OVER = 1 << 14  # bytes behind a wav that may be no sound: half a second at least
# The name of a part of a wav or aiff file, or of the tag that may follow; not of a second file.
CHUNK = re.compile(rb"(?!RIFF|FORM)[ -~]{4}|ID3.")
# How libsndfile logs the lengths in the headers of wav, aiff, au, rf64 and w64 when less than that is there.
ANNOUNCED = re.compile(r"(?:data|SSND|Data Size|Riff size|riff) *: (\d+) \(should be (\d+)\)")


def damage_seen(source: str | Path, file: BinaryIO) -> AudioError | None:
    """Tell what is wrong with a file that decoders would read in part without a word."""
    return _cut_page(source, file) or _goes_on(source, file)


def _cut_page(source: str | Path, file: BinaryIO) -> AudioError | None:
    """Tell whether an Ogg file ends within a page; libsndfile and ffmpeg only drop that page."""
    file.seek(0)
    if file.read(4) == b"OggS":
        file.seek(max(0, file.seek(0, os.SEEK_END) - OGG_PAGE))
        page = (tail := file.read())[tail.rfind(b"OggS") :]
        # The header counts the segments in its byte 26, and their lengths follow.
        if len(page) < 27 or len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]]):
            return AudioError.damaged(source, "its last page is cut")
    return None


def cut_short(source: str | Path, sound: soundfile.SoundFile) -> AudioError | None:
    """Tell whether a PCM file ends before its header says so; libsndfile only notes it."""
    for announced, there in (map(int, found) for found in ANNOUNCED.findall(sound.extra_info)):
        # Programs that write to a pipe announce about 2 or 4 GiB, which means that they do not know.
        placeholder = announced > 1 << 30 and (announced + (1 << 16)) % (1 << 31) < 1 << 17
        seconds = sound.frames / sound.samplerate
        missing = seconds * (announced / max(there, 1) - 1)
        if missing > MISSING_SECONDS and not placeholder:
            return AudioError.truncated(source, seconds + missing, seconds)
    return None


def _goes_on(source: str | Path, file: BinaryIO) -> AudioError | None:
    """Tell whether sound follows on what the header of a wav or aiff announces; no decoder reads any further."""
    size = file.seek(0, os.SEEK_END)
    if size - (end := _end_of_chunks(file, size)) < LEFT_OVER:
        return None
    file.seek(end)
    if not any(block.strip(b"\0") for block in iter(lambda: file.read(1 << 20), b"")):  # filled up with nothing
        return None
    return AudioError(
        f"{source}: goes on after the sound that its header states: if recordings were joined, split it; else write "
        "its header anew with another program"
    )


def _end_of_chunks(file: BinaryIO, size: int) -> int:
    """Find where the chunks of a wav or aiff end, and anything else begins; the file's size for other formats."""
    file.seek(0)
    head, position, sound = file.read(12), 12, False
    order = {b"RIFFWAVE": "<", b"FORMAIFF": ">", b"FORMAIFC": ">"}.get(head[:4] + head[8:])
    for _ in range(MOST_CHUNKS if order else 0):
        file.seek(position)
        if len(chunk := file.read(8)) < 8:
            break
        name, length = struct.unpack(f"{order}4sI", chunk)
        if not CHUNK.fullmatch(name):
            return position if sound else size
        sound |= name in (b"data", b"SSND")
        if name in (b"data", b"SSND") and not length:  # to the end, as programs that write to a pipe say
            break
        position += 8 + length
        file.seek(position)
        if length % 2 and not CHUNK.fullmatch(file.read(4)):  # chunks begin at even bytes, but for some programs
            position += 1
    return size
