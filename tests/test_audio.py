"""Audio of every kind is read right, or refused with one line that names the file."""

from __future__ import annotations

import gc
import os
import struct
import subprocess
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import soxr
from av.container import OutputContainer
from examples import DATA
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.signal import fftconvolve, firwin, resample_poly

from asr import audio
from asr.errors import AudioError

FLAC = DATA / "1737-146161-0014.flac"
SPEECH = soundfile.read(FLAC, dtype="float32")[0]
Encode = Callable[..., Path]


@pytest.fixture(scope="session")
def encode(tmp_path_factory: pytest.TempPathFactory) -> Encode:
    """Write the speech as a file, once for each name and rate; how depends on the ending."""
    folder = tmp_path_factory.mktemp("audio")

    def write(name: str, rate: int = 16_000, **how: str) -> Path:
        path = folder / str(rate) / name
        if path.exists():
            return path
        path.parent.mkdir(exist_ok=True)
        path = path.with_name(f"unfinished_{name}")
        if path.suffix in {".m4a", ".mp4", ".webm", ".mkv", ".mov", ".amr", ".avi", ".aac"} or "codec" in how:
            _encode_av(path, rate, **how)
        else:
            best = {"compression_level": 0.0} if path.suffix in {".ogg", ".opus"} else {}
            soundfile.write(path, _at(rate), rate, **best, **how)
        return path.rename(path.with_name(name))

    return write


def _at(rate: int) -> NDArray[np.float32]:
    return SPEECH if rate == 16_000 else resample_poly(SPEECH, rate, 16_000).astype(np.float32)


def _encode_av(path: Path, rate: int, codec: str = "aac", layout: str = "mono", **options: str) -> None:
    with av.open(str(path), "w", options=options) as container:
        track = container.add_stream(codec, rate=rate, layout=layout)
        track.bit_rate = 12_200 if path.suffix == ".amr" else 64_000
        if path.suffix == ".mp4":
            _add_video(container, len(SPEECH) / 16_000)
        _add_speech(container, track)


def _add_speech(container: OutputContainer, track: av.AudioStream) -> None:
    frame = av.AudioFrame.from_ndarray((SPEECH[None] * 32767).astype(np.int16), format="s16", layout="mono")
    frame.rate, frame.pts, frame.time_base = 16_000, 0, Fraction(1, 16_000)
    convert = av.AudioResampler(format=track.codec_context.format.name, layout=track.layout, rate=track.rate)
    for part in (*convert.resample(frame), *convert.resample(None), None):
        container.mux(track.encode(part))


def _add_video(container: OutputContainer, seconds: float, codec: str = "mpeg4") -> None:
    track = container.add_stream(codec, rate=10)
    track.width = track.height = 64
    track.pix_fmt = "yuv420p"
    for number in range(int(seconds * 10)):
        picture = av.VideoFrame.from_ndarray(np.full((64, 64, 3), number % 255, np.uint8), format="rgb24")
        picture.pts, picture.time_base = number, Fraction(1, 10)
        container.mux(track.encode(picture))
    container.mux(track.encode(None))


LOW_PASS = firwin(201, 3_000, fs=16_000)  # what every codec keeps


def _compare(found: NDArray[np.float32], expected: NDArray[np.float32] = SPEECH) -> tuple[int, float, float]:
    """By how many samples the sound is late, its correlation with the expected and its gain, all below 3 kHz."""
    a, b = (fftconvolve(x, LOW_PASS, mode="same") for x in (found, expected))
    late = int(np.argmax(fftconvolve(a, b[::-1]))) - (len(b) - 1)
    a, b = a[max(late, 0) :], b[max(-late, 0) :]
    size = min(len(a), len(b))
    a, b = a[:size], b[:size]
    return late, float(np.corrcoef(a, b)[0, 1]), float(np.sqrt(np.mean(a**2) / np.mean(b**2)))


# Formats


@pytest.mark.parametrize("name", [path.name for path in sorted(DATA.glob("*.flac"))])
def test_16_khz_samples_are_untouched(name: str) -> None:
    expected = soundfile.read(DATA / name, dtype="float32")[0]
    assert np.array_equal(audio.load_mono(DATA / name), expected)
    loaded = audio.load(DATA / name)
    assert loaded.sample_rate == 16_000
    assert loaded.waveform.dtype == np.float32
    assert np.array_equal(loaded.waveform, expected[None])
    assert audio.duration(DATA / name) == len(expected) / 16_000


@pytest.mark.parametrize(
    ("name", "how", "bits"),
    [
        ("8.wav", {"subtype": "PCM_U8"}, 8),
        ("16.wav", {}, 16),
        ("24.wav", {"subtype": "PCM_24"}, 16),
        ("32.wav", {"subtype": "PCM_32"}, 16),
        ("float.wav", {"subtype": "FLOAT"}, 16),
        ("double.wav", {"subtype": "DOUBLE"}, 16),
        ("24.flac", {"subtype": "PCM_24"}, 16),
        ("16.aiff", {}, 16),
        ("rf64.wav", {"format": "RF64"}, 16),
        ("16.au", {}, 16),
        ("pcm.mov", {"codec": "pcm_s16le"}, 15),
        ("lossless.mkv", {"codec": "flac"}, 15),
        ("flac.oga", {"codec": "flac"}, 15),
    ],
)
def test_lossless_formats(encode: Encode, name: str, how: dict[str, str], bits: int) -> None:
    found = audio.load_mono(encode(name, **how))
    assert found.shape == SPEECH.shape
    assert np.abs(found - SPEECH).max() <= 2.0 ** (1 - bits)


@pytest.mark.parametrize(
    ("name", "rate", "how"),
    [
        ("xing.mp3", 16_000, {}),
        ("44.mp3", 44_100, {}),
        ("48.mp3", 48_000, {"codec": "libmp3lame"}),
        ("bare.mp3", 16_000, {"codec": "libmp3lame", "write_xing": "0"}),
        ("vorbis.ogg", 16_000, {}),
        ("sound.opus", 16_000, {"format": "OGG", "subtype": "OPUS"}),
        ("voice.opus", 48_000, {"codec": "libopus"}),
        ("sound.m4a", 16_000, {}),
        ("44.m4a", 44_100, {}),
        ("fragments.m4a", 16_000, {"movflags": "frag_keyframe+empty_moov"}),
        ("video.mp4", 44_100, {}),
        ("sound.webm", 48_000, {"codec": "libopus"}),
        ("sound.mkv", 16_000, {}),
        ("sound.aac", 16_000, {}),
        ("phone.amr", 8_000, {"codec": "libopencore_amrnb"}),
    ],
)
def test_lossy_formats(encode: Encode, name: str, rate: int, how: dict[str, str]) -> None:
    path = encode(name, rate, **how)
    found = audio.load_mono(path)
    late, correlation, gain = _compare(found)
    # A bare packet stream does not say how much of its beginning is the encoder's warming up.
    assert 0 <= late <= (1200 if name in {"bare.mp3", "sound.aac", "fragments.m4a", "phone.amr"} else 2)
    # A telephone codec models the voice; it does not follow the waveform.
    assert correlation > (0.8 if name == "phone.amr" else 0.99)
    assert gain == pytest.approx(1, abs=0.1)
    assert 0 <= len(found) - len(SPEECH) - late <= 1600
    assert audio.duration(path) == pytest.approx(len(found) / 16_000, abs=0.03)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_other_rates_are_resampled(encode: Encode, rate: int) -> None:
    path = encode(f"{rate}.wav", rate, subtype="FLOAT")
    found = audio.load_mono(path)
    native = _at(rate)
    expected = resample_poly(native, 16_000, rate)
    assert abs(len(found) - len(native) * 16_000 / rate) <= 1
    late, correlation, gain = _compare(found, expected)
    assert late == 0
    assert correlation > 0.9999
    assert gain == pytest.approx(1, abs=0.01)
    assert np.allclose(found, soxr.resample(native, rate, 16_000), atol=1e-5)
    loaded = audio.load(path)
    assert loaded.sample_rate == rate
    assert np.array_equal(loaded.waveform[0], native)


def test_channels_are_averaged(tmp_path: Path) -> None:
    left, right = SPEECH, np.roll(SPEECH, 800) * 0.5
    soundfile.write(tmp_path / "stereo.wav", np.stack((left, right), axis=1), 16_000, subtype="FLOAT")
    assert np.allclose(audio.load_mono(tmp_path / "stereo.wav"), (left + right) / 2, atol=1e-7)
    assert np.array_equal(audio.load(tmp_path / "stereo.wav").waveform, np.stack((left, right)))


def test_stereo_at_48_khz_equals_averaging_first(tmp_path: Path) -> None:
    left = _at(48_000)
    right = np.roll(left, 2400) * 0.5
    soundfile.write(tmp_path / "stereo.flac", np.stack((left, right), axis=1), 48_000, subtype="PCM_24")
    expected = resample_poly((left + right) / 2, 1, 3)
    late, correlation, gain = _compare(audio.load_mono(tmp_path / "stereo.flac"), expected)
    assert late == 0
    assert correlation > 0.9999
    assert gain == pytest.approx(1, abs=0.01)


def test_float_samples_beyond_full_scale_are_kept(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "loud.wav", SPEECH * 5, 16_000, subtype="FLOAT")
    assert np.array_equal(audio.load_mono(tmp_path / "loud.wav"), SPEECH * 5)


@pytest.mark.parametrize("announced", [0, 0xFFFFFFFF, 0x7FFFF000, 0x80000000])
def test_wav_written_to_a_pipe_is_read_whole(tmp_path: Path, encode: Encode, announced: int) -> None:
    path = tmp_path / "piped.wav"
    path.write_bytes(_announcing(encode("16.wav").read_bytes(), announced))
    assert np.array_equal(audio.load_mono(path), SPEECH)
    assert audio.duration(path) == len(SPEECH) / 16_000


def test_flac_written_to_a_pipe_is_read_whole(tmp_path: Path) -> None:
    content = bytearray(FLAC.read_bytes())
    content[21] &= 0xF0  # the 36 bits of STREAMINFO that count the samples
    content[22:26] = bytes(4)
    (tmp_path / "piped.flac").write_bytes(content)
    assert np.array_equal(audio.load_mono(tmp_path / "piped.flac"), SPEECH)
    assert audio.duration(tmp_path / "piped.flac") == len(SPEECH) / 16_000


def test_mp3_whose_bit_rate_changes_is_read_whole(tmp_path: Path) -> None:
    """Without a length header libsndfile guesses from the first frame: here twice too short or four times too long."""
    parts = {}
    for rate in (24_000, 160_000):
        path = tmp_path / f"{rate}.mp3"
        with av.open(str(path), "w", format="mp3", options={"write_xing": "0", "id3v2_version": "0"}) as container:
            track = container.add_stream("libmp3lame", rate=16_000, layout="mono")
            track.bit_rate = rate
            _add_speech(container, track)
        parts[rate] = path.read_bytes()
    for first, second in ((24_000, 160_000), (160_000, 24_000)):
        path = tmp_path / f"{first}_{second}.mp3"
        path.write_bytes(parts[first] + parts[second])
        assert len(audio.load_mono(path)) == pytest.approx(2 * len(SPEECH), abs=5000)
        assert audio.duration(path) == pytest.approx(2 * len(SPEECH) / 16_000, abs=0.3)


def test_ending_of_the_name_does_not_matter(tmp_path: Path, encode: Encode) -> None:
    for name in ("speech.raw", "speech.mp3", "speech", "späch 'a' %20.txt"):
        (tmp_path / name).write_bytes(encode("16.wav").read_bytes())
        assert np.array_equal(audio.load_mono(str(tmp_path / name)), SPEECH)


# Stretches and streams


@pytest.mark.parametrize("name", ["16.wav", "16.flac", "vorbis.ogg", "sound.m4a", "video.mp4", "sound.mkv"])
@pytest.mark.parametrize(
    ("offset", "duration"), [(0.0, 1.5), (1.25, 0.75), (2.0, None), (6.0, 60.0), (0.5, 1 / 16_000)]
)
def test_stretch_equals_slice(encode: Encode, name: str, offset: float, duration: float | None) -> None:
    path = encode(name)
    first = round(offset * 16_000)
    last = None if duration is None else first + round(duration * 16_000)
    # Vorbis decoders differ in the last bit between a seek and a straight run.
    expected = audio.load_mono(path)[first:last]
    assert np.allclose(audio.load_mono(path, offset, duration), expected, atol=1e-4 if name == "vorbis.ogg" else 0)


@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_stretch_of_another_rate_equals_slice(encode: Encode, rate: int) -> None:
    path = encode(f"{rate}.wav", rate, subtype="FLOAT")
    found = audio.load_mono(path, 1.0, 2.0)
    assert len(found) == 32_000
    inside = slice(400, -400)  # the resampler's filter does not see beyond the stretch
    assert np.allclose(found[inside], audio.load_mono(path)[16_000:48_000][inside], atol=1e-4)


@pytest.mark.parametrize("name", ["16.wav", "44100.wav", "8000.wav", "xing.mp3", "sound.opus", "44.m4a", "sound.webm"])
@pytest.mark.parametrize("seconds", [0.01, 0.7, 3.0, 100.0])
def test_stream_equals_load_mono(encode: Encode, name: str, seconds: float) -> None:
    stem = name.split(".")[0]
    how = {"sound.opus": {"format": "OGG", "subtype": "OPUS"}, "sound.webm": {"codec": "libopus"}}.get(name, {})
    rate = {"44": 44_100, "44100": 44_100, "8000": 8_000}.get(stem, 48_000 if name == "sound.webm" else 16_000)
    path = encode(name, rate, **how)
    blocks = list(audio.stream(path, seconds))
    assert all(len(block) == round(seconds * 16_000) for block in blocks[:-1])
    assert 0 < len(blocks[-1]) <= round(seconds * 16_000)
    assert all(block.dtype == np.float32 and block.ndim == 1 for block in blocks)
    assert np.allclose(np.concatenate(blocks), audio.load_mono(path), atol=1e-5)


def test_stream_memory_does_not_grow_with_duration(tmp_path: Path) -> None:
    path = tmp_path / "hour.wav"
    with soundfile.SoundFile(path, "w", 8_000, 1, "PCM_U8") as file:
        for _ in range(360):
            file.write(np.zeros(80_000, dtype=np.float32))
    tracemalloc.start()
    total = sum(map(len, audio.stream(path, 20.0)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 3600 * 16_000  # 230 MB
    assert peak < 16e6


def test_an_abandoned_stream_closes_its_file(encode: Encode) -> None:
    def open_files() -> int:
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc to count open files")
    before = open_files()
    for name in ("16.wav", "sound.m4a"):
        blocks = audio.stream(encode(name), 0.5)
        next(blocks)
        assert open_files() > before
        blocks.close()
        assert open_files() == before


def test_threads_read_the_same(encode: Encode) -> None:
    paths = [encode("16.wav"), encode("xing.mp3"), encode("sound.m4a"), encode("44100.wav", 44_100, subtype="FLOAT")]
    alone = [audio.load_mono(path) for path in paths]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(audio.load_mono, paths * 4))
    assert all(np.array_equal(a, b) for a, b in zip(alone * 4, together, strict=True))


# Errors


def _announcing(wav: bytes, size: int) -> bytes:
    """Change the length in a wav file's header."""
    at = wav.index(b"data") + 4
    return wav[:at] + struct.pack("<I", size) + wav[at + 4 :]


def _refused(path: Path, reason: str) -> None:
    """Every way of reading the file raises one line that names it."""
    for read in (audio.load, audio.load_mono, lambda source: list(audio.stream(source, 1.0))):
        with pytest.raises(AudioError, match=reason) as caught:
            read(path)
        assert path.name in str(caught.value)
        assert "\n" not in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    _refused(tmp_path / "missing.wav", "no such file")
    with pytest.raises(AudioError, match=r"missing\.wav"):
        audio.duration(tmp_path / "missing.wav")
    with pytest.raises(AudioError, match="cannot be opened"):
        audio.load_mono("null\0byte.wav")


def test_folder(tmp_path: Path) -> None:
    _refused(tmp_path, "is a folder")


def test_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    _refused(tmp_path / "pipe.wav", "is a pipe")


@pytest.mark.parametrize("name", ["empty.wav", "empty.mp3", "empty.m4a"])
def test_empty_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    _refused(tmp_path / name, "is empty")


def test_permission_denied(tmp_path: Path, encode: Encode, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret.wav"
    path.write_bytes(encode("16.wav").read_bytes())
    path.chmod(0)
    if os.access(path, os.R_OK):  # the superuser may read everything

        def denied(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr(Path, "open", denied)
    _refused(path, "permission denied")


@pytest.mark.parametrize("content", [b"a letter, not a recording\n" * 500, bytes(range(256)) * 200, b"\0" * 5000, b"R"])
@pytest.mark.parametrize("name", ["odd.txt", "odd.wav", "odd.mp3"])
def test_not_audio(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    _refused(tmp_path / name, "not audio|no sound track|damaged")


@pytest.mark.parametrize("gap, filled", [(0.7, 0.7), (0.05, 0.0), (2 * 3600.0, 0.0)], ids=str)
@pytest.mark.parametrize("begins", [0.0, 0.5])
@pytest.mark.parametrize("name", ["sound.webm", "sound.mp4"])
def test_gaps_in_timestamps_are_silence(tmp_path: Path, name: str, begins: float, gap: float, filled: float) -> None:
    """A microphone was muted after a second; the sound sets in after the picture; timestamps jump in damaged files."""
    speech, step = _at(48_000), 960
    with av.open(str(tmp_path / name), "w") as container:
        webm = name.endswith("webm")
        track = container.add_stream("libopus" if webm else "aac", rate=48_000, layout="mono")
        track.bit_rate = 64_000
        _add_video(container, 1.0, "vp8" if webm else "mpeg4")
        for first in range(0, len(speech) - step, step):
            frame = av.AudioFrame.from_ndarray(speech[None, first : first + step], format="fltp", layout="mono")
            seconds = begins + first / 48_000 + (gap if first >= 48_000 else 0.0)
            frame.rate, frame.pts, frame.time_base = 48_000, round(seconds * 48_000), Fraction(1, 48_000)
            container.mux(track.encode(frame))
        container.mux(track.encode(None))
    silence = [np.zeros(round(16_000 * seconds), np.float32) for seconds in (begins, filled)]
    expected = np.concatenate([silence[0], SPEECH[:16_000], silence[1], SPEECH[16_000:]])
    found = audio.load_mono(tmp_path / name)
    gap_end = round(16_000 * (begins + 1.0 + filled))
    for part in (slice(0, gap_end - 1600), slice(gap_end - 1600, None)):
        late, alike, _ = _compare(found[part], expected[part])
        assert abs(late) < 16_000 * 0.025  # a frame of the codec
        assert alike > 0.97
    if gap < 3600:  # mp4's header counts the closed gap in, too
        assert audio.duration(tmp_path / name) == pytest.approx(len(expected) / 16_000, abs=0.06)


def _in_packets(path: Path, starts: list[float]) -> Path:
    """Write 20 ms of a tone at each of these seconds."""
    tone = (0.3 * np.sin(2 * np.pi * 440 * np.arange(960) / 48_000)).astype(np.float32)
    with av.open(str(path), "w") as container:
        track = container.add_stream("libopus", rate=48_000, layout="mono")
        for start in starts:
            frame = av.AudioFrame.from_ndarray(tone[None], format="fltp", layout="mono")
            frame.rate, frame.pts, frame.time_base = 48_000, round(start * 48_000), Fraction(1, 48_000)
            container.mux(track.encode(frame))
        container.mux(track.encode(None))
    return path


def test_a_leap_in_the_timestamps_costs_no_later_gap(tmp_path: Path) -> None:
    starts = [0.0, 0.02, 3660.0, 3660.02, 3680.0, 3680.02]  # an hour and more, then 20 s
    found = audio.load_mono(_in_packets(tmp_path / "leap.mkv", starts))
    loud = np.flatnonzero(np.abs(found) > 0.05) / 16_000
    assert len(found) / 16_000 == pytest.approx(20.08, abs=0.1)
    assert np.diff(loud).max() == pytest.approx(19.94, abs=0.1)


def test_timestamps_that_leave_days_of_silence_are_refused(tmp_path: Path) -> None:
    path = _in_packets(tmp_path / "days.mkv", [3500.0 * number for number in range(30)])
    with pytest.raises(AudioError, match="its timestamps leave 24 hours without sound"):
        for _ in audio.stream(path, 60.0):
            pass


def test_video_without_sound(tmp_path: Path) -> None:
    path = tmp_path / "silent.mp4"
    with av.open(str(path), "w") as container:
        _add_video(container, 1.0)
    _refused(path, "no sound track")


@pytest.mark.parametrize(
    "content",
    ["ffconcat version 1.0\nfile '{}'\n", "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n"],
)
def test_playlist_opens_no_other_file(tmp_path: Path, encode: Encode, content: str) -> None:
    (tmp_path / "other.wav").write_bytes(encode("16.wav").read_bytes())
    (tmp_path / "list.m3u8").write_text(content.format("other.wav"))
    _refused(tmp_path / "list.m3u8", "not audio|damaged")


@pytest.mark.parametrize("kept", [0.9, 0.5, 0.1])
@pytest.mark.parametrize(
    ("name", "rate", "how"),
    [
        ("16.wav", 16_000, {}),
        ("24.wav", 16_000, {"subtype": "PCM_24"}),
        ("16.aiff", 16_000, {}),
        ("16.au", 16_000, {}),
        ("16.w64", 16_000, {}),
        ("rf64.wav", 16_000, {"format": "RF64"}),
        ("16.flac", 16_000, {}),
        ("xing.mp3", 16_000, {}),
        ("48.mp3", 48_000, {"codec": "libmp3lame"}),
        ("vorbis.ogg", 16_000, {}),
        ("sound.opus", 16_000, {"format": "OGG", "subtype": "OPUS"}),
        ("flac.oga", 16_000, {"codec": "flac"}),
        ("sound.m4a", 16_000, {}),
        ("fast.m4a", 16_000, {"movflags": "faststart"}),
        ("fast.mp4", 16_000, {"movflags": "faststart"}),
        ("fast.mov", 16_000, {"codec": "pcm_s16le", "movflags": "faststart"}),
        ("sound.webm", 48_000, {"codec": "libopus"}),
        ("sound.mkv", 16_000, {}),
    ],
)
def test_truncated_file(tmp_path: Path, encode: Encode, name: str, rate: int, how: dict[str, str], kept: float) -> None:
    whole = encode(name, rate, **how).read_bytes()
    path = tmp_path / f"cut_{name}"
    path.write_bytes(whole[: int(kept * len(whole))])
    _refused(path, "truncated")


@pytest.mark.parametrize("name", ["xing.mp3", "vorbis.ogg", "16.flac"])
def test_joined_recordings_are_not_cut_off_silently(tmp_path: Path, encode: Encode, name: str) -> None:
    path = tmp_path / f"joined_{name}"
    path.write_bytes(encode(name).read_bytes() * 2)
    _refused(path, "more than one recording")


@pytest.mark.parametrize("name", ["16.wav", "16.aiff"])
def test_sound_behind_what_a_header_announces_is_not_left_out_silently(
    tmp_path: Path, encode: Encode, name: str
) -> None:
    whole, path = encode(name).read_bytes(), tmp_path / name
    path.write_bytes(whole * 2)
    _refused(path, "goes on after the sound that its header states")
    size = whole.index(b"data" if name == "16.wav" else b"SSND") + 4
    order = "<I" if name == "16.wav" else ">I"
    path.write_bytes(whole[:size] + struct.pack(order, len(SPEECH) // 5) + whole[size + 4 :])
    _refused(path, "goes on after the sound that its header states")
    path.write_bytes(whole + bytes(40_000))  # as recorders do that fill up a block of the disk
    assert np.array_equal(audio.load_mono(path), audio.load_mono(encode(name)))
    path.write_bytes(whole + struct.pack(f"{order[0]}4sI", b"id3 ", 90_001) + bytes(90_001))  # a picture
    assert np.array_equal(audio.load_mono(path), audio.load_mono(encode(name)))


def test_chained_ogg_is_read_whole(tmp_path: Path, encode: Encode) -> None:
    path = tmp_path / "chained.ogg"
    soundfile.write(tmp_path / "second.ogg", -SPEECH, 16_000, compression_level=0.0)
    path.write_bytes(encode("vorbis.ogg").read_bytes() + (tmp_path / "second.ogg").read_bytes())
    found = audio.load_mono(path)
    for part in (found[: len(SPEECH)], -found[len(SPEECH) :]):
        late, correlation, _ = _compare(part)
        assert 0 <= late < 800  # the second half begins with its decoder's warming up
        assert correlation > 0.99


@pytest.mark.parametrize("first, second", [("mono", "stereo"), ("stereo", "mono")])
@pytest.mark.parametrize("rate", [16_000, 32_000])
def test_sound_that_changes_its_kind_midway_is_read_whole(
    tmp_path: Path, encode: Encode, first: str, second: str, rate: int
) -> None:
    path = tmp_path / "broadcast.aac"
    one, two = encode(f"{first}.aac", layout=first), encode(f"{second}.aac", rate, layout=second)
    parts = one, two, one
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    alone = [audio.load_mono(part) for part in parts]
    found = audio.load_mono(path)
    assert len(found) == pytest.approx(sum(map(len, alone)), abs=100)
    ends = np.cumsum([len(part) for part in alone])
    for part, expected in zip(np.split(found, ends[:-1]), alone, strict=True):
        late, alike, gain = _compare(part, expected)
        assert abs(late) < 100
        assert alike > 0.97
        assert gain == pytest.approx(1.0, abs=0.02)
    assert audio.channels(path) == audio.load(path).waveform.shape[0] == (2 if first == "stereo" else 1)


def test_tags_behind_the_sound_are_no_second_recording(tmp_path: Path, encode: Encode) -> None:
    for tag in (b"TAG" + bytes(125), b"APETAGEX" + bytes(100_000)):
        (tmp_path / "tagged.mp3").write_bytes(encode("xing.mp3").read_bytes() + tag)
        assert np.array_equal(audio.load_mono(tmp_path / "tagged.mp3"), audio.load_mono(encode("xing.mp3")))


def test_picture_before_the_sound(tmp_path: Path, encode: Encode) -> None:
    size = 100_000
    header = b"ID3\x03\0\0" + bytes((size >> shift) & 127 for shift in (21, 14, 7, 0))
    (tmp_path / "cover.mp3").write_bytes(header + bytes(size) + encode("xing.mp3").read_bytes())
    assert np.array_equal(audio.load_mono(tmp_path / "cover.mp3"), audio.load_mono(encode("xing.mp3")))


@pytest.mark.parametrize("name", ["none.wav", "none.aiff", "none.ogg"])
def test_no_samples(tmp_path: Path, name: str) -> None:
    soundfile.write(tmp_path / name, np.zeros(0, dtype=np.float32), 16_000)
    _refused(tmp_path / name, "no audio samples|not audio|truncated")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_samples_that_are_no_sound(tmp_path: Path, value: float) -> None:
    waveform = SPEECH.copy()
    waveform[-5] = value
    soundfile.write(tmp_path / "bad.wav", waveform, 16_000, subtype="FLOAT")
    _refused(tmp_path / "bad.wav", "samples reach 1e.30 where full scale is 1" if value == 1e30 else "NaN")


@pytest.mark.parametrize("scale", [2**15, 2**31])
def test_integers_made_floats_without_being_scaled(tmp_path: Path, scale: float) -> None:
    soundfile.write(tmp_path / "loud.wav", SPEECH * scale, 16_000, subtype="FLOAT")
    _refused(tmp_path / "loud.wav", "where full scale is 1: scale them down")


@pytest.mark.parametrize("channels", [2, 8])
def test_channels_that_cancel_out(tmp_path: Path, channels: int) -> None:
    """A balanced line recorded as stereo; one of eight microphones in use is no such thing."""
    signs = np.resize([1.0, -1.0], channels)
    soundfile.write(tmp_path / "balanced.wav", SPEECH[:, None] * signs, 16_000, subtype="FLOAT")
    for read in (audio.load_mono, lambda source: list(audio.stream(source, 1.0))):
        with pytest.raises(AudioError, match=r"balanced\.wav: its channels cancel each other out"):
            read(tmp_path / "balanced.wav")
    assert np.allclose(np.concatenate(list(audio.stream(tmp_path / "balanced.wav", 1.0, channel=2))), -SPEECH)
    one = np.zeros((len(SPEECH), channels))
    one[:, 1] = SPEECH
    soundfile.write(tmp_path / "one.wav", one, 16_000, subtype="FLOAT")
    assert np.allclose(audio.load_mono(tmp_path / "one.wav"), SPEECH / channels, atol=1e-6)
    soundfile.write(tmp_path / "none.wav", np.zeros((1600, channels)), 16_000)
    assert not audio.load_mono(tmp_path / "none.wav").any()


def test_a_disk_that_fails_while_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(audio._Reader, "read", fail)
    for read in (audio.load, audio.load_mono, audio.duration, lambda source: list(audio.stream(source, 1.0))):
        with pytest.raises(AudioError, match="flac: cannot be read: input/output error"):
            read(FLAC)


@pytest.mark.parametrize("name", ["cut.wav", "cut.ogg"])  # libsndfile drops the last 16 s of a FLAC file
def test_a_stream_gives_what_comes_before_a_damage(tmp_path: Path, encode: Encode, name: str) -> None:
    whole = encode(f"whole{Path(name).suffix}")
    content = whole.read_bytes()
    (tmp_path / name).write_bytes(content[: int(len(content) * 0.7)])
    blocks = audio.stream(tmp_path / name, 60.0)
    block = next(blocks)
    with pytest.raises(AudioError, match=name):
        next(blocks)
    assert len(block) > 0.5 * len(SPEECH)
    assert np.allclose(block[:8000], audio.load_mono(whole)[:8000], atol=1e-3)


def test_unknown_encoding(tmp_path: Path, encode: Encode) -> None:
    content = bytearray(encode("16.wav").read_bytes())
    content[20:22] = b"\x77\x66"  # wFormatTag
    (tmp_path / "odd.wav").write_bytes(content)
    _refused(tmp_path / "odd.wav", "unknown encoding")


@pytest.mark.parametrize("rate", [1, 2**31 - 1])
def test_impossible_sample_rate(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "odd.wav", SPEECH, rate)
    _refused(tmp_path / "odd.wav", "sample rate")


def test_stretches_that_are_not_there() -> None:
    with pytest.raises(AudioError, match=f"{FLAC.name}: ends before 7 s"):
        audio.load_mono(FLAC, offset=7.0)
    for offset, duration in ((-1.0, None), (np.nan, None), (np.inf, None), (0.0, 0.0), (0.0, -1.0), (0.0, np.nan)):
        with pytest.raises(AudioError, match=f"{FLAC.name}: cannot read"):
            audio.load_mono(FLAC, offset, duration)


@pytest.mark.parametrize("codec, layout", [("pcm_s16le", "7.1"), ("libopus", "7.1"), ("pcm_s16le", "hexadecagonal")])
def test_recordings_of_eight_channels_and_more(tmp_path: Path, codec: str, layout: str) -> None:
    """PyAV itself crashes where it is asked for the planes of such a frame."""
    count = av.AudioLayout(layout).nb_channels
    samples = np.resize(SPEECH, 48_000)[:, None] * np.linspace(0.5, 1.0, count)  # of the same sound, louder and louder
    frame_format = "flt" if codec == "libopus" else "s16"
    flat = samples.astype(np.float32) if codec == "libopus" else (samples * 32767).astype(np.int16)
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        track = container.add_stream(codec, rate=48_000, layout=layout)
        frame = av.AudioFrame.from_ndarray(flat.reshape(1, -1), format=frame_format, layout=layout)
        frame.rate = 48_000
        for part in (frame, None):
            container.mux(track.encode(part))
    assert audio.channels(tmp_path / "a.mkv") == count
    (whole,) = audio.stream(tmp_path / "a.mkv", 2.0, channel=count)
    expected = resample_poly(samples[:, -1], 16_000, 48_000)
    near = len(expected) - 400
    assert np.corrcoef(whole[:near], expected[:near])[0, 1] > 0.95
    assert np.abs(whole).max() == pytest.approx(np.abs(expected).max(), rel=0.2)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_shortest_files(tmp_path: Path, rate: int) -> None:
    for count in (1, 2, 3, 10, 159, 400):
        path = tmp_path / f"{count}.wav"
        soundfile.write(path, SPEECH[20_000 : 20_000 + count], rate, subtype="FLOAT")
        if round(count * 16_000 / rate):
            assert abs(len(audio.load_mono(path)) - count * 16_000 / rate) <= 1
            assert len(list(audio.stream(path, 1.0))) == 1
        else:
            with pytest.raises(AudioError, match=f"{path.name}: is too short"):
                audio.load_mono(path)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_give_finite_audio_or_an_audio_error(encode: Encode, tmp_path: Path, data: st.DataObject) -> None:
    kinds = [
        encode("16.wav"),
        encode("float.wav", subtype="FLOAT"),
        encode("16.flac"),
        encode("xing.mp3"),
        encode("bare.mp3", codec="libmp3lame", write_xing="0"),
        encode("vorbis.ogg"),
        encode("sound.m4a"),
        encode("video.mp4", 44_100),
        encode("sound.mkv"),
        encode("phone.amr", 8_000, codec="libopencore_amrnb"),
    ]
    path = data.draw(st.sampled_from(kinds))
    content = bytearray(path.read_bytes())
    # Headers matter most, and are a small part of the file.
    places = st.one_of(st.integers(0, min(200, len(content) - 1)), st.integers(0, len(content) - 1))
    for place, value in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=20)):
        content[place] = value
    if data.draw(st.booleans()):
        del content[data.draw(places) : data.draw(places)]
    damaged = tmp_path / path.name
    damaged.write_bytes(content)
    try:
        found = audio.load_mono(damaged)
    except AudioError:
        return
    assert found.size
    assert np.isfinite(found).all()


def test_no_program_is_needed(encode: Encode, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["16.wav", "16.flac", "vorbis.ogg", "xing.mp3", "sound.m4a", "video.mp4", "sound.mkv"]
    paths = [encode(name) for name in names]

    def started(*_: object, **__: object) -> None:
        raise AssertionError("a program is started")

    monkeypatch.setenv("PATH", "")  # no ffmpeg, nor anything else
    for name in ("Popen", "run"):
        monkeypatch.setattr(subprocess, name, started)
    monkeypatch.setattr(os, "system", started)
    assert all(len(audio.load_mono(path)) >= len(SPEECH) for path in paths)
