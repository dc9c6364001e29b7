from __future__ import annotations

import importlib.util
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from examples import DATA
from hypothesis import given, settings
from hypothesis import strategies as st
from torchaudio.functional import highpass_biquad

from asr import segmentation
from asr.audio import SAMPLE_RATE
from asr.segmentation import LONGEST, plan_chunks
from asr.voice_activity import FRAME, load_voice_activity

BLOCK = 20 * SAMPLE_RATE  # a whole number of frames


def blocks(waveform: np.ndarray, size: int = BLOCK) -> list[np.ndarray]:
    return [waveform[first : first + size] for first in range(0, len(waveform), size)]


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """Twelve utterances by three speakers, one after the other."""
    return np.concatenate([soundfile.read(path, dtype="float32")[0] for path in sorted(DATA.glob("*.flac"))])


@pytest.fixture(scope="module")
def voice():
    return load_voice_activity()


def test_probabilities_are_those_of_the_package(speech, voice):
    """The oracle is the package's own TorchScript model, frame by frame as the package runs it."""
    folder = Path(importlib.util.find_spec("silero_vad").submodule_search_locations[0])
    theirs = torch.jit.load(folder / "data" / "silero_vad.jit")
    part = speech[: 8 * SAMPLE_RATE // FRAME * FRAME]
    padded = np.concatenate((np.zeros(16 * FRAME, dtype=np.float32), part))
    with torch.no_grad():
        expected = [float(theirs(torch.from_numpy(frame), SAMPLE_RATE)) for frame in padded.reshape(-1, FRAME)]
    found, _ = voice(part, voice.start())
    assert np.allclose(found, expected[16:], atol=1e-5)
    assert 0.5 < np.mean(found > 0.5) < 1


def test_voice_activity_is_a_stream(speech, voice):
    whole, _ = voice(speech, voice.start())
    state, parts = voice.start(), []
    for block in blocks(speech, 100 * FRAME):
        part, state = voice(block, state)
        parts.append(part)
    assert np.allclose(np.concatenate(parts), whole, atol=1e-5)


@pytest.mark.parametrize("size", [1, 255, 256, 257, 40_000])
def test_the_high_pass_is_the_librarys_recursion(size):
    waveform = 0.1 * torch.randn(size, generator=torch.Generator().manual_seed(size))  # the library clips at 1
    expected = highpass_biquad(highpass_biquad(waveform, SAMPLE_RATE, 400.0), SAMPLE_RATE, 400.0)
    torch.testing.assert_close(segmentation._high_passed(waveform), expected, atol=1e-6, rtol=0)


def test_importing_the_detector_leaves_torch_threads_alone(voice):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        load_voice_activity.__wrapped__()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@settings(max_examples=15, deadline=None)
@given(
    parts=st.lists(st.tuples(st.booleans(), st.floats(0.01, 25)), min_size=1, max_size=5),
    frames=st.integers(20, 1000),
    detect=st.booleans(),
)
def test_chunks_are_the_stream_sample_for_sample(parts, frames, detect):
    """Speech and noise in stretches of any length, in blocks of any length."""
    utterance = soundfile.read(DATA / "6848-252323-0023.flac", dtype="float32")[0]
    noise = np.random.default_rng(0).standard_normal(30 * SAMPLE_RATE).astype(np.float32) * 0.01
    speech = np.tile(utterance, 8)
    waveform = np.concatenate([(speech if spoken else noise)[: int(s * SAMPLE_RATE)] for spoken, s in parts])
    chunks = list(plan_chunks(blocks(waveform, frames * FRAME), load_voice_activity() if detect else None))
    assert np.array_equal(np.concatenate([chunk.waveform for chunk in chunks]), waveform)
    assert all(len(chunk.waveform) <= LONGEST * SAMPLE_RATE for chunk in chunks if chunk.speech)
    assert chunks[0].start == 0
    for one, next_one in pairwise(chunks):
        assert one.end == next_one.start
    if not detect:
        assert all(chunk.speech for chunk in chunks)


def test_cuts_fall_into_pauses(data, voice):
    speech = soundfile.read(data / "6848-252323-0023.flac", dtype="float32")[0]
    pause = np.zeros(SAMPLE_RATE, dtype=np.float32)
    second = len(speech) / SAMPLE_RATE
    for detector in (voice, None):
        joined = np.concatenate((speech, pause, speech, pause, speech))
        chunks = [chunk for chunk in plan_chunks(blocks(joined), detector) if chunk.speech]
        ends = [chunk.end for chunk in chunks[:-1]]
        pauses = [(second * (i + 1) + i - 0.3, second * (i + 1) + i + 1) for i in range(2)]
        assert ends
        assert all(any(begin <= end <= stop for begin, stop in pauses) for end in ends)


def test_long_pauses_are_left_out_and_speech_is_kept(speech, voice):
    silence = np.random.default_rng(0).standard_normal(10 * SAMPLE_RATE).astype(np.float32) * 1e-3
    first, second = speech[: 4 * SAMPLE_RATE], speech[4 * SAMPLE_RATE : 9 * SAMPLE_RATE]
    chunks = list(plan_chunks(blocks(np.concatenate((silence, first, silence, second, silence))), voice))
    assert [speech for speech, _ in groupby(chunk.speech for chunk in chunks)] == [False, True, False, True, False]
    heard = [chunk for chunk in chunks if chunk.speech]
    assert heard[0].start < 10.5 < 13.5 < heard[0].end
    assert sum(chunk.end - chunk.start for chunk in heard) < 9 + 4 * segmentation.MARGIN * FRAME / SAMPLE_RATE


@pytest.mark.parametrize("name", [path.name for path in sorted(DATA.glob("*.flac"))])
@pytest.mark.parametrize("gain", [1.0, 0.03])
def test_no_utterance_is_taken_for_noise(name, gain, voice):
    speech = soundfile.read(DATA / name, dtype="float32")[0] * np.float32(gain)
    chunks = list(plan_chunks(blocks(speech), voice))
    heard = sum(len(chunk.waveform) for chunk in chunks if chunk.speech)
    assert heard > 0.8 * len(speech)


def test_a_word_without_silence_around_it_is_heard(data, voice):
    """The detector needs silence before a word; files that begin within one have none."""
    speech = soundfile.read(data / "6848-252323-0001.flac", dtype="float32")[0]
    energy = np.abs(speech[: 3 * SAMPLE_RATE])
    begin = int(np.argmax(energy > 0.3 * energy.max()))
    (chunk,) = plan_chunks([speech[begin : begin + 4800]], voice)
    assert chunk.speech


@pytest.mark.parametrize("milliseconds", [100, 200, 300])
def test_cuttings_out_of_words_are_not_taken_for_a_hum(milliseconds, speech):
    """A word may be cut off at both ends, and a vowel is nearly steady, but not as steady as a hum."""
    size = milliseconds * SAMPLE_RATE // 1000
    cuttings = [speech[first : first + size] for first in range(0, len(speech) - size, 2 * size)]
    loud = [cutting for cutting in cuttings if np.square(cutting).mean() > 0.5 * np.square(speech).mean()]
    assert len(loud) > 50
    assert all(segmentation._variation(cutting) > segmentation.STEADY for cutting in loud)


@pytest.mark.parametrize("decibels", [0, 10])
def test_speech_in_noise_is_heard(decibels, speech, voice):
    noise = np.random.default_rng(0).standard_normal(len(speech)).astype(np.float32)
    noise *= np.sqrt(np.square(speech).mean() / 10 ** (decibels / 10))
    chunks = list(plan_chunks(blocks(speech + noise), voice))
    assert sum(len(chunk.waveform) for chunk in chunks if chunk.speech) > 0.95 * len(speech)


class Rated:
    """Gives the probabilities that it was made with, whatever it hears."""

    def __init__(self, probabilities: np.ndarray) -> None:
        self.probabilities = probabilities.astype(np.float32)

    def start(self) -> int:
        return 0

    def __call__(self, waveform: np.ndarray, state: int) -> tuple[np.ndarray, int]:
        end = state + -(-len(waveform) // FRAME)
        return self.probabilities[state:end].copy(), end


@pytest.mark.parametrize("lead", [590, 500])  # with 590 frames the stretch is longer than LONGEST, and cut
def test_what_a_cut_leaves_over_of_a_stretch_is_judged_with_it(lead):
    rates = np.r_[np.full(lead, 0.95), np.full(8, 0.1), np.full(40, 0.62), np.zeros(60)]
    waveform = np.random.default_rng(0).normal(scale=0.1, size=len(rates) * FRAME).astype(np.float32)
    waveform[(rates < 0.3).repeat(FRAME)] *= 0.01
    chunks = list(plan_chunks(blocks(waveform), Rated(rates)))
    spoken = sum(len(chunk.waveform) for chunk in chunks if chunk.speech)
    assert spoken >= (lead + 48) * FRAME


def test_speech_is_not_outvoted_by_doubtful_sounds_that_follow_at_once():
    rates = np.r_[np.full(94, 0.98), np.full(150, 0.5)]
    waveform = np.random.default_rng(0).normal(scale=0.1, size=len(rates) * FRAME).astype(np.float32)
    assert [chunk.speech for chunk in plan_chunks(blocks(waveform), Rated(rates))] == [True]


@pytest.mark.parametrize("name", ["1737-146161-0010", "6848-252323-0001"])
@pytest.mark.parametrize("decibels", [10, 15])
def test_speech_beside_a_buzz_that_passes_for_a_voice_is_heard(decibels, name, data, voice):
    speech = soundfile.read(data / f"{name}.flac", dtype="float32")[0][: 7 * SAMPLE_RATE // 2]
    time = np.arange(10 * SAMPLE_RATE) / SAMPLE_RATE
    phase = 2 * np.pi * np.cumsum(120 + 18 * np.sin(2 * np.pi * 0.7 * time)) / SAMPLE_RATE
    buzz = (np.sin(phase) + np.sin(2 * phase) / 2) * (0.5 + 0.5 * np.sin(2 * np.pi * 4 * time))
    buzz *= np.sqrt(np.square(speech).mean() / np.square(buzz).mean() / 10 ** (decibels / 10))
    over, then = buzz.copy(), np.r_[speech, buzz].astype(np.float32)
    over[: len(speech)] += speech
    for waveform in (over.astype(np.float32), then):
        heard = [chunk for chunk in plan_chunks(blocks(waveform), voice) if chunk.speech]
        assert heard
        assert (heard[0].start, heard[-1].end > 3.4) == (0, True)


def test_noise_that_follows_on_speech_for_long_is_still_noise():
    rates = np.r_[np.full(590, 0.95), np.full(8, 0.1), np.full(400, 0.62)]
    waveform = np.random.default_rng(0).normal(scale=0.1, size=len(rates) * FRAME).astype(np.float32)
    assert [chunk.speech for chunk in plan_chunks(blocks(waveform), Rated(rates))] == [True, False]


def test_no_audio_gives_no_chunk(voice):
    assert list(plan_chunks([], voice)) == []


def test_samples_that_break_the_detector_are_no_speech(voice):
    chunks = plan_chunks([np.full(SAMPLE_RATE, 1e30, dtype=np.float32)], voice)
    assert not any(chunk.speech for chunk in chunks)
