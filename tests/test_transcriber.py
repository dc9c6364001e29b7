from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import soundfile

import asr
from asr.errors import AudioError, ConfigError
from asr.model import checkpoint
from asr.tokenizer import BLANK
from asr.transcriber import CHUNKS_AT_ONCE, Transcriber, choose_device


@pytest.fixture
def transcriber(model) -> Transcriber:
    model.ctc_head.bias.data[BLANK] = -1.0  # an untrained model would write nothing
    return Transcriber(model)


def test_every_second_is_accounted_for(transcriber, data, tmp_path):
    speech = soundfile.read(data / "6848-252323-0023.flac", dtype="float32")[0]
    long = np.concatenate((speech, np.zeros(16000 * 45, np.float32), np.tile(speech, 15)))
    soundfile.write(tmp_path / "long.wav", long, 16000)
    transcript = transcriber.transcribe(tmp_path / "long.wav")
    assert transcript.duration == pytest.approx(len(long) / 16000, abs=1e-9)
    assert transcript.spans[0].start == 0
    assert transcript.spans[-1].end == transcript.duration
    assert len(transcript.spans) > CHUNKS_AT_ONCE
    for one, other in pairwise(transcript.spans):
        assert one.end == other.start
    assert {span.kind for span in transcript.spans} == {"decoded", "non_speech"}


def test_the_same_file_gives_the_same_transcript_in_any_order(transcriber, data):
    first, second = data / "1737-146161-0009.flac", data / "3947-13262-0016.flac"
    alone = transcriber.transcribe(first)
    transcriber.transcribe(second)
    assert transcriber.transcribe(first) == alone
    assert alone.text


def test_silence_has_no_words(transcriber, tmp_path):
    soundfile.write(tmp_path / "silence.wav", np.zeros(32000, np.float32), 16000)
    transcript = transcriber.transcribe(tmp_path / "silence.wav")
    assert transcript.text == ""
    assert transcript.segments == ()
    assert [span.kind for span in transcript.spans] == ["non_speech"]


@pytest.mark.parametrize("samples", [1, 2, 159, 160, 161, 399, 400, 401, 800])
def test_the_shortest_sounds_are_transcribed(transcriber, tmp_path, samples):
    soundfile.write(tmp_path / "click.wav", np.full(samples, 0.5, np.float32), 16000)
    assert transcriber.transcribe(tmp_path / "click.wav").duration == pytest.approx(samples / 16000)


def test_the_public_api(model, data, tmp_path):
    checkpoint.save(tmp_path / "mine.safetensors", model, {})
    loaded = asr.load(tmp_path / "mine.safetensors", device="cpu")
    transcript = loaded.transcribe(data / "1737-146161-0009.flac")
    assert transcript.model == "mine"
    assert asr.transcribe(data / "1737-146161-0009.flac", tmp_path / "mine.safetensors") == transcript
    with pytest.raises(AudioError, match="nowhere"):
        loaded.transcribe("nowhere.wav")


def test_devices_are_checked():
    with pytest.raises(ConfigError, match="auto, cpu or cuda"):
        choose_device("tpu")
