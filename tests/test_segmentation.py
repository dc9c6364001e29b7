from __future__ import annotations

from itertools import pairwise

import numpy as np
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.audio import SAMPLE_RATE
from asr.segmentation import LONGEST, plan_chunks


@settings(max_examples=8, deadline=None)
@given(seconds=st.floats(0.01, 70), block=st.floats(0.5, 40), seed=st.integers(0, 9))
def test_chunks_are_the_stream_sample_for_sample(seconds, block, seed):
    waveform = np.random.default_rng(seed).random(int(seconds * SAMPLE_RATE), dtype=np.float32)
    size = int(block * SAMPLE_RATE)
    chunks = list(plan_chunks(waveform[i : i + size] for i in range(0, len(waveform), size)))
    assert np.array_equal(np.concatenate([chunk.waveform for chunk in chunks]), waveform)
    assert all(len(chunk.waveform) <= LONGEST * SAMPLE_RATE for chunk in chunks)
    for one, next_one in pairwise(chunks):
        assert one.end == next_one.start


def test_cuts_fall_into_pauses(data):
    speech = soundfile.read(data / "6848-252323-0023.flac", dtype="float32")[0]
    pause = np.zeros(SAMPLE_RATE, dtype=np.float32)
    chunks = list(plan_chunks([np.concatenate((speech, pause, speech, pause, speech))]))
    second = len(speech) / SAMPLE_RATE
    ends = [chunk.end for chunk in chunks[:-1]]
    pauses = [(second * (i + 1) + i, second * (i + 1) + i + 1) for i in range(2)]
    assert all(any(begin <= end <= stop for begin, stop in pauses) for end in ends)


def test_silence_is_told_from_speech(data):
    speech = soundfile.read(data / "1737-146161-0009.flac", dtype="float32")[0]
    (heard,) = plan_chunks([speech])
    (muted,) = plan_chunks([np.zeros_like(speech)])
    assert not heard.silent
    assert muted.silent


def test_no_audio_gives_no_chunk():
    assert list(plan_chunks([])) == []
