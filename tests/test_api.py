"""What a program that imports the package relies on."""

from __future__ import annotations

import gc
import inspect
import subprocess
import sys
import typing
from concurrent.futures import ThreadPoolExecutor
from dataclasses import is_dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import asr
from asr import audio
from asr.decoding import DecodingOptions
from asr.errors import AudioError, ConfigError, InputTypeError
from asr.model import checkpoint


@pytest.fixture(scope="module")
def english():
    return asr.load(device="cpu")


@pytest.fixture
def speech(data) -> np.ndarray:
    return soundfile.read(data / "1737-146161-0009.flac", dtype="float32")[0]


def test_importing_is_light():
    code = "import asr, sys; print(*({'torch', 'numpy', 'lightning', 'librosa', 'silero_vad'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


def test_a_model_is_loaded_and_used(model, data, tmp_path):
    checkpoint.save(tmp_path / "mine.safetensors", model, {})
    loaded = asr.load(tmp_path / "mine.safetensors", device="cpu")
    transcript = loaded.transcribe(data / "1737-146161-0009.flac")
    assert transcript.model == "mine"
    assert transcript.source == str(data / "1737-146161-0009.flac")
    assert asr.transcribe(data / "1737-146161-0009.flac", tmp_path / "mine.safetensors") == transcript
    with pytest.raises(AudioError, match="nowhere"):
        loaded.transcribe("nowhere.wav")


def test_results_are_eager_frozen_typed_dataclasses(english, data):
    transcript = english.transcribe(str(data / "1737-146161-0009.flac"))
    for value in (transcript, transcript.segments[0], transcript.spans[0]):
        assert is_dataclass(value)
        assert type(value).__dataclass_params__.frozen
    hints = typing.get_type_hints(type(transcript).to_dict)
    assert hints["return"] == dict[str, typing.Any]
    assert isinstance(transcript, asr.Transcript)
    assert isinstance(transcript.text, str)
    assert inspect.isgenerator(english.stream(data / "1737-146161-0009.flac"))


def test_samples_come_with_their_rate(english, speech, data):
    expected = english.transcribe(data / "1737-146161-0009.flac").segments
    stereo = np.stack((speech, speech))
    for samples in (
        (speech, 16_000),
        (speech.astype(np.float64), np.int64(16_000)),
        (stereo, 16_000),
        (torch.from_numpy(speech), 16_000),
        (speech.tolist(), 16_000),
        ((speech * 32768).astype(np.int16), 16_000),
        audio.load(data / "1737-146161-0009.flac"),
    ):
        assert english.transcribe(samples).segments == expected
    before = speech.copy()
    english.transcribe((speech, 16_000))
    assert np.array_equal(speech, before)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros(16_000, np.float32), r"pass \(array, sample_rate\)"),
        (torch.zeros(16_000), r"pass \(array, sample_rate\)"),
        ((np.zeros((16_000, 2)), 16_000), "shape"),
        ((np.zeros((1, 2, 3)), 16_000), "shape"),
        ((0.5, 16_000), "shape"),
        ((np.zeros(100), 0), "sample_rate"),
        ((np.zeros(100), 16_000.0), "sample_rate"),
        ((np.zeros(100), True), "sample_rate"),
        ((np.zeros(100, complex), 16_000), "floats"),
        ((np.zeros(100, np.uint8), 16_000), "floats"),
        (([0, 1, -1], 16_000), "int64 samples do not say what full scale is"),
        ((np.zeros((0, 16_000), np.float32), 16_000), "shape"),
        (([0.1, 0.2], [[1], [1, 2]]), "got tuple"),
        ((np.array(["a"]), 16_000), "floats"),
        ((np.zeros(100), 16_000, 1), "got tuple"),
        (([[0.1, 0.2], [0.3]], 16_000), "cannot be made an array"),
        (b"RIFF", "got bytes"),
        (None, "got NoneType"),
        (7, "got int"),
    ],
)
def test_what_is_no_audio_is_refused(english, source, message):
    with pytest.raises(InputTypeError, match=message) as caught:
        english.transcribe(source)
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, asr.AsrError)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_samples_that_are_no_sound_are_refused(english, speech, bad):
    with pytest.raises(AudioError, match=r"array: (holds|its) samples"):
        english.transcribe((np.append(speech, np.float32(bad)), 16_000))
    with pytest.raises(AudioError, match="no audio samples"):
        english.transcribe((np.zeros(0, np.float32), 16_000))


def test_every_kind_of_settings_finds_the_embedded_language_model(english):
    options = DecodingOptions(mode="ctc_beam", beam_size=3, language_model="embedded")
    wanted = {"mode": "ctc_beam", "beam_size": 3, "language_model": "embedded"}
    assert asr.load(mode=options).options.language_model == english.options.language_model
    assert asr.load(mode=wanted).options.language_model == english.options.language_model
    with pytest.raises(ConfigError, match="mode must be a name, DecodingOptions or a mapping, got list"):
        asr.load(mode=["ctc"])


def test_channels_are_heard_one_by_one(english, speech, data, tmp_path):
    other = soundfile.read(data / "6848-252323-0001.flac", dtype="float32")[0][: len(speech)]
    path = tmp_path / "call.wav"
    soundfile.write(path, np.stack((speech, other), axis=1), 16_000)
    assert audio.channels(path) == 2
    for channel, samples in ((1, speech), (2, other)):
        found = english.transcribe(path, channel=channel)
        assert found.channel == channel
        assert found.segments == english.transcribe((samples, 16_000)).segments
        assert found.to_dict()["channel"] == channel
        assert tuple(english.stream(path, channel=channel)) == found.segments
        text = "knit two together twice"
        assert english.align(path, text, channel=channel).segments == english.align((samples, 16_000), text).segments
    assert asr.load(vad=False).voice is None
    with pytest.raises(AudioError, match="has no channel 3: it has 2"):
        english.transcribe(path, channel=3)
    assert english.transcribe(path).channel is None


def test_memory_does_not_grow_with_calls_from_several_threads(english, speech):
    """A leak of one waveform a call would be 32 MB."""

    def resident() -> int:
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    if not Path("/proc/self/statm").exists():
        pytest.skip("needs /proc to count memory")
    short = (speech[:16_000], 16_000)
    alone = english.transcribe(short)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(english.transcribe, [short] * 80))
        before = resident()
        assert all(each == alone for each in pool.map(english.transcribe, [short] * 500))
        assert resident() - before < 4e6


def test_a_checkpoint_recommends_its_search(model, tmp_path):
    path = tmp_path / "mine.safetensors"
    checkpoint.save(path, model, {"search": {"mode": "joint", "beam_size": 4, "ctc_weight": 0.5}})
    assert asr.load(path).options == DecodingOptions(mode="joint", beam_size=4, ctc_weight=0.5)
    assert asr.load(path, mode={"beam_size": 2}).options == DecodingOptions(mode="joint", beam_size=2, ctc_weight=0.5)
    assert asr.load(path, mode="ctc").options == DecodingOptions(mode="ctc")


def test_a_checkpoint_recommends_a_search_for_each_way_of_searching(model, tmp_path):
    path = tmp_path / "mine.safetensors"
    searches = [{"mode": "ctc_beam", "beam_size": 30}, {"mode": "joint", "beam_size": 4, "ctc_weight": 0.5}]
    checkpoint.save(path, model, {"search": searches})
    assert asr.load(path).options == DecodingOptions(mode="ctc_beam", beam_size=30)
    assert asr.load(path, mode="joint").options == DecodingOptions(mode="joint", beam_size=4, ctc_weight=0.5)
    assert asr.load(path, mode={"mode": "joint", "beam_size": 2}).options.ctc_weight == 0.5
    assert asr.load(path, mode="rescoring").options == DecodingOptions(mode="rescoring")


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"language_model": "/etc/passwd"}, "no checkpoint may"),
        ({"hotwords": "/etc/passwd"}, "no checkpoint may"),
        ({"beam_size": 10**9}, "a beam of more than 300"),
        ({"mode": "${oc.env:PATH}"}, "may refer to others"),
        ({"mode": "sorcery"}, "must be one of"),
        ({"depth": 3}, "unknown configuration key"),
        ({"mode": "ctc_beam", "beam_size": "100000000"}, "a beam of more than 300"),
        (["mode"], "no list of settings"),
        (3, "no list of settings"),
    ],
)
def test_a_checkpoint_cannot_recommend_anything_else(model, tmp_path, search, message):
    checkpoint.save(tmp_path / "mine.safetensors", model, {"search": search})
    with pytest.raises(asr.AsrError, match=message):
        asr.load(tmp_path / "mine.safetensors")


FRAGILE = {"numba", "k2", "torchcodec", "kenlm", "datasets"}
SLOW = {"librosa", "matplotlib", "transformers", "lhotse"}  # Lightning's metrics import the first three where they are


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        ("asr.transcriber, asr.evaluation.evaluate, asr.viewer, asr.check", FRAGILE | SLOW),
        ("asr.training.fit", FRAGILE),
    ],
)
def test_what_breaks_easily_is_not_imported(modules, absent):
    code = f"import sys, {modules}; print(*({absent} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"
