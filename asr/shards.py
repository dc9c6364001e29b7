"""Tar shards: a corpus as a few large files, for object storage and for clusters whose disks dislike small ones.

A shard is a plain tar of audio files, uncompressed. A manifest beside it names each utterance's audio as
`shard.tar:<first byte>:<bytes>`, so that any utterance is one ranged read. Everything that reads a manifest reads a
sharded one, and the epoch plan holds as it is: equal steps on each rank, exact resume by one integer.

Why not lhotse Shar or WebDataset: both are read as streams. Their order hangs on how shards are dealt to ranks and
workers, ranks can run dry at different steps, and a restart reads again what was already heard. lhotse's index makes
that cheap only for its own readers. Plain tar with byte offsets keeps random access, has no pickle and no second kind
of data set, and `tar` can list and unpack it.

The order within shards is shuffled once, so that each shard is a sample of the corpus. An epoch reads here and there in
all of them: where storage is slow to seek, copy the shards to a local disk first.
"""

from __future__ import annotations

import glob
import io
import math
import os
import re
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from asr.audio import MEMBER, Audio, duration, load, open_file
from asr.errors import AudioError, DataError
from asr.files import replacing
from asr.manifest import Manifest, Utterance, write_manifest

WHOLE = 0.9  # an utterance that is this share of its file takes the file along as it is; a shorter one is cut out
FLAC_CHANNELS, FLAC_RATE = 8, 655_350  # the most that the format allows, Hz


def write_shards(
    manifest: Manifest, folder: Path, name: str, hours: float, progress: Callable[[int], None] = lambda done: None
) -> tuple[Path, list[str]]:
    """Copy the audio of a manifest into shards; interrupted, it goes on with the first shard that is not whole.

    Files are copied bit for bit. Utterances cut out of longer files are stored as FLAC at the file's own rate and with
    all its channels, or as floating-point WAV where FLAC would clip or round.

    Args:
        manifest: the utterances.
        folder: where `<name>-000000.tar`, ... and a manifest of each go.
        name: begins the file names, for example `train`.
        hours: audio in each shard.
        progress: told how many utterances were done since the last call.

    Returns:
        The manifest of all shards, `<name>.jsonl`, and one line for each utterance that had to be left out.

    Raises:
        DataError: the folder holds shards of something else, or nothing could be read, or the manifest of the shards
            would take the place of the one that is read.
    """
    everything = folder / f"{name}.jsonl"
    if os.path.realpath(everything) == os.path.realpath(manifest.origin):
        raise DataError(f"{everything}: is the manifest that is read: write the shards to another folder")
    order = np.random.default_rng(0).permutation(len(manifest))
    number = (np.cumsum(manifest.durations[order]) / (hours * 3600)).astype(np.int64)
    parts = [order[number == n] for n in np.unique(number)]
    paths = [folder / f"{name}-{index:06d}.tar" for index in range(len(parts))]
    sources = {os.path.realpath(_file_of(name)) for name in manifest.table["audio_filepath"].to_pylist()}
    if twice := next((path for path in paths if os.path.realpath(path) in sources), None):
        raise DataError(f"{twice}: holds audio that is read: write the shards to another folder")
    if foreign := next((path for path in paths if path.exists() and not _is_ours(path)), None):
        raise DataError(f"{foreign}: is there, and no shard of ours: delete it, or write to another folder")
    if strange := set(folder.glob(f"{glob.escape(name)}-{'[0-9]' * 6}.tar")) - set(paths):
        raise DataError(f"{min(strange)}: belongs to other shards: delete those, or write to another folder")

    def write(path: Path, rows: NDArray[np.int64]) -> tuple[list[Utterance], list[str]]:
        wanted = [manifest[int(row)] for row in rows]
        result = _earlier(path, wanted) or _write_shard(path, wanted)
        progress(len(rows))
        return result

    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [pool.submit(write, path, rows) for path, rows in zip(paths, parts, strict=True)]
        try:
            written = [job.result() for job in jobs]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    utterances = [utterance for part, _ in written for utterance in part]
    faults = [fault for _, part in written for fault in part]
    if not utterances:
        raise DataError(f"{manifest.origin}: none of its audio can be read, the first: {faults[0]}")
    write_manifest(everything, utterances)
    return everything, faults


def _earlier(path: Path, wanted: list[Utterance]) -> tuple[list[Utterance], list[str]] | None:
    """Give what an earlier run wrote, if that is whole and no older than the audio.

    Raises:
        DataError: it is made of other utterances.
    """
    if not (path.is_file() and path.with_suffix(".jsonl").is_file()):
        return None
    sources = {_file_of(utterance.audio_filepath) for utterance in wanted}
    if any(os.path.exists(source) and os.path.getmtime(source) > path.stat().st_mtime for source in sources):
        return None
    there = list(Manifest.load(path.with_suffix(".jsonl"), others=True))
    described = {_description(utterance) for utterance in wanted}
    if not all(_description(utterance) in described for utterance in there):
        raise DataError(f"{path}: holds other utterances: delete the old shards, or write to another folder")
    left_out = {utterance.id for utterance in wanted} - {utterance.id for utterance in there}
    return there, [f"{name}: left out in an earlier run; delete {path} to try again" for name in sorted(left_out)]


def _is_ours(path: Path) -> bool:
    """Tell whether a tar holds nothing, or begins with a name that `_write_shard` gives."""
    try:
        with tarfile.open(path) as tar:
            first = tar.next()
    except (tarfile.TarError, OSError, EOFError):
        return False
    return first is None or re.match("[0-9]{6}-", first.name) is not None


def _file_of(name: str) -> str:
    """Give the file that audio lies in: the shard, if it is a member of one."""
    return MEMBER.sub(r"\g<shard>", name)


def _description(utterance: Utterance) -> Utterance:
    return replace(utterance, audio_filepath="", offset=0.0)


def _write_shard(path: Path, wanted: list[Utterance]) -> tuple[list[Utterance], list[str]]:
    """Write a shard and then its manifest, each whole or not at all."""
    written: list[Utterance] = []
    faults: list[str] = []
    with replacing(path) as temporary, tarfile.open(temporary, "w") as tar:
        path.with_suffix(".jsonl").unlink(missing_ok=True)  # an earlier one would be taken for this shard's
        for utterance in wanted:
            try:
                content, suffix, offset = _read(utterance)
            except AudioError as error:
                faults.append(f"{utterance.id}: {error}")
                continue
            # Numbered, since ids that differ only in odd characters would share a name.
            info = tarfile.TarInfo(f"{len(written):06d}-{re.sub(r'[^A-Za-z0-9_-]', '_', utterance.id)[:60]}{suffix}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
            start = tar.offset - math.ceil(len(content) / tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            written.append(replace(utterance, audio_filepath=f"{path}:{start}:{len(content)}", offset=offset))
    if written:
        write_manifest(path.with_suffix(".jsonl"), written)
    return written, faults


def _read(utterance: Utterance) -> tuple[bytes, str, float]:
    """Give the audio of an utterance as a file: its bytes, the ending of its name, and where speech begins in it."""
    source = utterance.audio_filepath
    if utterance.duration < WHOLE * duration(source):
        return *_encode(load(source, utterance.offset, utterance.duration)), 0.0
    with open_file(source) as file:
        return file.read(), "" if MEMBER.fullmatch(source) else Path(source).suffix, utterance.offset


def _encode(audio: Audio) -> tuple[bytes, str]:
    """Encode samples so that they come back unchanged, as small as that can be."""
    content = io.BytesIO()
    for bits in (16, 24):
        scaled = audio.waveform.T * np.float32(1 << bits - 1)  # exact: a power of two
        whole = np.rint(scaled).clip(-(1 << bits - 1), (1 << bits - 1) - 1)
        if np.array_equal(scaled, whole) and len(audio.waveform) <= FLAC_CHANNELS and audio.sample_rate <= FLAC_RATE:
            top = whole.astype(np.int32) << 32 - bits  # where soundfile wants the bits of an int32
            soundfile.write(content, top, audio.sample_rate, format="FLAC", subtype=f"PCM_{bits}")
            return content.getvalue(), ".flac"
    soundfile.write(content, audio.waveform.T, audio.sample_rate, format="WAV", subtype="FLOAT")
    wav = bytearray(content.getvalue())
    clock = wav.index(b"PEAK") + 12  # libsndfile puts the time there; the same audio is to give the same bytes
    wav[clock : clock + 4] = bytes(4)
    return bytes(wav), ".wav"
