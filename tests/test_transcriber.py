from __future__ import annotations

import json
import threading
import weakref
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch
from examples import DATA

import asr
from asr.audio import SAMPLE_RATE
from asr.decoding import DecodingOptions
from asr.errors import ConfigError
from asr.evaluation.wer import score
from asr.normalize import get_normalizer
from asr.segmentation import LONGEST, plan_chunks
from asr.threads import in_threads
from asr.tokenizer import BLANK, END
from asr.transcriber import WINDOW_SECONDS, Transcriber, choose_device


@pytest.fixture
def transcriber(model) -> Transcriber:
    model.ctc_head.bias.data[BLANK] = -1.0  # an untrained model would write nothing
    return Transcriber(model)


@pytest.fixture(scope="module")
def english() -> Transcriber:
    return asr.load(device="cpu")


@pytest.fixture(scope="module")
def talk() -> np.ndarray:
    """72 seconds: twelve utterances with the pauses that they have."""
    return np.concatenate([soundfile.read(path, dtype="float32")[0] for path in sorted(DATA.glob("*.flac"))])


def accounted(transcript: asr.Transcript) -> bool:
    """Whether the spans are every second, in order and without gaps."""
    spans = transcript.spans
    joined = all(one.end == other.start for one, other in pairwise(spans))
    return joined and spans[0].start == 0 and spans[-1].end == transcript.duration


def test_every_second_is_accounted_for(transcriber, talk, tmp_path):
    long = np.concatenate((talk, np.zeros(16000 * 400, np.float32), talk))
    soundfile.write(tmp_path / "long.wav", long, 16000)
    transcript = transcriber.transcribe(tmp_path / "long.wav")
    assert len(long) / 16000 > WINDOW_SECONDS
    assert transcript.duration == pytest.approx(len(long) / 16000, abs=1e-9)
    assert accounted(transcript)
    silent = [span for span in transcript.spans if span.kind == "non_speech"]
    assert max(span.end - span.start for span in silent) > 398  # one span, however memory was bounded
    assert sum(transcript.coverage.values()) == pytest.approx(transcript.duration, abs=1e-6)
    assert transcript.coverage["decoded"] > 0.9 * 2 * len(talk) / 16000
    content = transcript.to_dict()
    assert [span["kind"] for span in content["spans"]] == [span.kind for span in transcript.spans]
    assert content["coverage"]["non_speech"] == round(transcript.coverage["non_speech"], 3)


def test_one_recording_in_chunks_says_what_its_utterances_say(english, talk, manifest):
    """The reference is each utterance decoded whole, without a voice detector."""
    references = [" ".join(manifest.texts)]
    waveforms = [soundfile.read(each.audio_filepath, dtype="float32")[0] for each in manifest]
    whole = [english.model.tokenizer.decode(english.decode_waveforms([each])[0].tokens) for each in waveforms]
    chunked = english.transcribe((np.concatenate(waveforms), SAMPLE_RATE))
    rates = [
        score([(references[0], text)], get_normalizer("basic")).wer.rate for text in (" ".join(whole), chunked.text)
    ]
    assert len(chunked.segments) >= len(talk) / SAMPLE_RATE / LONGEST
    # Of 191 words, from three speakers without a pause between them; tools/benchmark.py measures the whole dev set.
    assert rates[1] <= rates[0] + 0.08


def test_the_same_file_gives_the_same_transcript_in_any_order(transcriber, data):
    first, second = data / "1737-146161-0009.flac", data / "3947-13262-0016.flac"
    alone = transcriber.transcribe(first)
    transcriber.transcribe(second)
    assert transcriber.transcribe(first) == alone
    assert alone.text
    assert transcriber.transcribe_batch([second, first])[1] == alone


def test_batch_size_does_not_change_the_text(english, talk):
    whole = english.transcribe((talk, SAMPLE_RATE))
    for seconds in (1.0, 45.0):
        other = Transcriber(english.model, english.options, english.name, batch_seconds=seconds)
        found = other.transcribe((talk, SAMPLE_RATE))
        assert [segment.tokens for segment in found.segments] == [segment.tokens for segment in whole.segments]
        assert found.spans == whole.spans
        for one, two in zip(found.segments, whole.segments, strict=True):
            assert one.score == pytest.approx(two.score, abs=1e-3)


@pytest.mark.parametrize(("suffix", "rate"), [("flac", 16_000), ("wav", 44_100), ("ogg", 16_000)])
def test_a_file_and_its_samples_give_the_same_json(english, talk, tmp_path, suffix, rate):
    path = tmp_path / f"talk.{suffix}"
    part = soxr.resample(talk[: 30 * SAMPLE_RATE], SAMPLE_RATE, rate)
    soundfile.write(path, part, rate)
    streamed = english.transcribe(path).to_dict()
    in_memory = english.transcribe(soundfile.read(path, dtype="float32")).to_dict()
    assert json.dumps(streamed | {"source": ""}) == json.dumps(in_memory | {"source": ""})
    assert streamed["segments"]


def test_stream_yields_the_segments_of_transcribe(english, talk, monkeypatch):
    monkeypatch.setattr("asr.transcriber.WINDOW_SECONDS", 20.0)
    samples = (talk, SAMPLE_RATE)
    segments = english.stream(samples)
    first = next(segments)
    assert (first, *segments) == english.transcribe(samples).segments


def test_a_stream_begins_before_the_recording_ends(english, talk, monkeypatch):
    monkeypatch.setattr("asr.transcriber.WINDOW_SECONDS", 60.0)
    read = []

    def blocks(*_: object):
        for number in range(100):
            read.append(number)
            yield talk[: 20 * SAMPLE_RATE]

    monkeypatch.setattr("asr.transcriber.stream", blocks)
    next(english.stream("endless.wav"))
    assert len(read) <= 60 / 20 + 2


def test_memory_does_not_grow_with_the_recording(transcriber, talk, tmp_path, monkeypatch):
    """Forty minutes, 154 MB as samples; tools/benchmark.py long-audio measures ten hours."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    if not Path("/proc/self/statm").exists():
        pytest.skip("needs /proc to count memory")
    quiet = np.random.default_rng(0).standard_normal(5 * 60 * SAMPLE_RATE).astype(np.float32) * 1e-3
    with soundfile.SoundFile(tmp_path / "long.wav", "w", SAMPLE_RATE, 1, "PCM_16") as file:
        for _ in range(8):
            file.write(talk[: 20 * SAMPLE_RATE])
            file.write(quiet)
    memory: list[int] = []
    chunks: list[weakref.ref] = []
    alive: list[int] = []

    def watched(*arguments):
        for chunk in plan_chunks(*arguments):
            chunks.append(weakref.ref(chunk.waveform))
            yield chunk

    def note(_):
        memory.append(resident())
        alive.append(sum(chunk() is not None for chunk in chunks))

    monkeypatch.setattr("asr.transcriber.plan_chunks", watched)
    transcript = transcriber.transcribe(tmp_path / "long.wav", progress=note)
    assert max(alive) < len(chunks) / 3
    assert transcript.duration > 2500
    assert len(transcript.segments) >= 8
    assert max(memory[2:]) - memory[1] < 50e6


@pytest.mark.parametrize("mode", ["ctc", "attention"])
def test_threads_get_what_one_gets(english, talk, mode):
    transcriber = Transcriber(english.model, DecodingOptions(mode=mode))
    samples = [(talk[first * SAMPLE_RATE :][: 10 * SAMPLE_RATE], SAMPLE_RATE) for first in (0, 20, 40)] * 3
    alone = [transcriber.transcribe(each) for each in samples[:3]] * 3
    assert transcriber.transcribe_batch(samples, jobs=3) == alone


def test_one_bad_input_does_not_stop_the_others(transcriber, data):
    good, missing = data / "1737-146161-0009.flac", data / "nowhere.wav"
    first, error, last = transcriber.transcribe_batch([good, missing, good], jobs=2)
    assert first == last == transcriber.transcribe(good)
    assert isinstance(error, asr.AsrError)
    assert "nowhere.wav" in str(error)


def test_a_chunk_that_fails_is_named_and_the_rest_is_there(english, talk, monkeypatch):
    whole = english.transcribe((talk, SAMPLE_RATE))
    broken = whole.segments[2]
    encode = english.model.encode

    def fail_on_one(padded, lengths):
        if round((broken.end - broken.start) * SAMPLE_RATE) in lengths.tolist():
            raise RuntimeError("out of\nmemory")
        return encode(padded, lengths)

    monkeypatch.setattr(english.model, "encode", fail_on_one)
    found = english.transcribe((talk, SAMPLE_RATE))
    assert [segment.tokens for segment in found.segments] == [
        segment.tokens for segment in whole.segments if segment != broken
    ]
    (failed,) = [span for span in found.spans if span.kind == "failed"]
    assert (failed.start, failed.end) == (broken.start, broken.end)
    assert failed.reason == "RuntimeError: out of memory"
    assert accounted(found)
    assert found.coverage["failed"] == failed.end - failed.start


def test_what_comes_before_a_damage_is_there_and_the_damage_is_named(english, talk, tmp_path):
    soundfile.write(tmp_path / "whole.flac", talk, SAMPLE_RATE)
    content = (tmp_path / "whole.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(content[: len(content) // 2])
    whole, cut = (english.transcribe(tmp_path / name) for name in ("whole.flac", "cut.flac"))
    last = cut.spans[-1]
    assert last.kind == "failed"
    assert last.reason.startswith("is damaged or truncated") or last.reason.startswith("is truncated")
    assert accounted(cut)
    assert 3 <= len(cut.segments) < len(whole.segments)
    assert cut.segments[:-1] == whole.segments[: len(cut.segments) - 1]
    streamed = english.stream(tmp_path / "cut.flac")
    assert tuple(next(streamed) for _ in cut.segments) == cut.segments
    with pytest.raises(asr.AsrError, match=r"cut.flac: is .*truncated"):
        next(streamed)


def test_a_stream_warns_of_what_it_leaves_out(english, talk, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("broken")

    monkeypatch.setattr(english.model, "encode", fail)
    assert list(english.stream((talk[: 10 * SAMPLE_RATE], SAMPLE_RATE))) == []
    assert "s could not be decoded: RuntimeError: broken" in caplog.text


def test_a_transcriber_keeps_its_files(english, tmp_path, data):
    """Whatever becomes of them, and however many other transcribers there are."""
    lm = tmp_path / "lm.safetensors"
    lm.write_bytes(Path(english.options.language_model).read_bytes())
    mine = asr.load(device="cpu", mode={"language_model": str(lm)})
    lm.unlink()
    others = [asr.load(device="cpu") for _ in range(3)]
    found = {each.transcribe(data / "1737-146161-0009.flac").text for each in (*others, mine)}
    assert found == {english.transcribe(data / "1737-146161-0009.flac").text}
    with pytest.raises(ConfigError, match="no such language model"):
        Transcriber(english.model, DecodingOptions(language_model=str(lm)))


def test_errors_that_are_kept_hold_no_samples(transcriber):
    samples = np.full((1, 16000), np.nan, np.float32)
    alive = weakref.ref(samples)
    errors = transcriber.transcribe_batch([(samples, SAMPLE_RATE), "gone.wav"])
    del samples
    assert [type(error) for error in errors] == [asr.errors.AudioError] * 2
    assert alive() is None


def test_a_batch_that_failed_is_gone_while_its_rows_are_tried(english, talk, monkeypatch):
    """On a GPU whose memory ran out, the rows would otherwise have to fit beside what the batch left."""
    encode, held, alive = english.model.encode, [], []

    def fail_on_many(padded, lengths):
        if len(lengths) > 1:
            kept = padded.clone()
            held.append(weakref.ref(kept))
            raise torch.OutOfMemoryError("CUDA out of memory.")
        alive.append(any(each() is not None for each in held))
        return encode(padded, lengths)

    monkeypatch.setattr(english.model, "encode", fail_on_many)
    found = english.transcribe((talk, SAMPLE_RATE))
    assert held
    assert not any(alive)
    assert not found.coverage["failed"]


def test_scores_that_are_no_numbers_are_no_words(english, talk, monkeypatch):
    encode = english.model.encode
    monkeypatch.setattr(english.model, "encode", lambda *batch: (encode(*batch)[0] * float("nan"), encode(*batch)[1]))
    transcript = english.transcribe((talk[: 10 * SAMPLE_RATE], SAMPLE_RATE))
    assert transcript.text == ""
    assert {span.kind for span in transcript.spans} <= {"failed", "non_speech"}
    assert "not finite" in next(span.reason for span in transcript.spans if span.kind == "failed")


def test_silence_has_no_words(transcriber, tmp_path):
    soundfile.write(tmp_path / "silence.wav", np.zeros(32000, np.float32), 16000)
    transcript = transcriber.transcribe(tmp_path / "silence.wav")
    assert transcript.text == ""
    assert transcript.segments == ()
    assert [span.kind for span in transcript.spans] == ["non_speech"]


def test_without_the_voice_detector_everything_is_decoded(transcriber, model):
    noise = np.random.default_rng(0).standard_normal(48_000).astype(np.float32) * 0.1
    assert transcriber.transcribe((noise, 16_000)).coverage["decoded"] == 0
    transcript = Transcriber(model, vad=False).transcribe((noise, 16_000))
    assert transcript.coverage["decoded"] == 3
    assert transcript.text


@pytest.mark.parametrize("vad", [True, False])
@pytest.mark.parametrize("samples", [1, 2, 159, 160, 161, 399, 400, 401, 800])
def test_the_shortest_sounds_are_transcribed(model, samples, vad):
    click = np.full(samples, 0.5, np.float32)
    transcript = Transcriber(model, vad=vad).transcribe((click, 16_000))
    assert transcript.duration == pytest.approx(samples / 16000)
    assert accounted(transcript)


def test_progress_is_reported_and_may_end_the_work(transcriber, talk, monkeypatch):
    monkeypatch.setattr("asr.transcriber.WINDOW_SECONDS", 20.0)
    heard: list[float] = []
    transcript = transcriber.transcribe((talk, SAMPLE_RATE), progress=heard.append)
    assert len(heard) > 1
    assert sum(heard) == pytest.approx(transcript.duration)

    def stop(seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        transcriber.transcribe((talk, SAMPLE_RATE), progress=stop)


def test_threads_keep_the_order_and_stop_when_asked():
    stop, begun = threading.Event(), []

    def slow(number: int) -> int:
        begun.append(number)
        stop.wait(0.02 * (5 - number))
        return number

    assert list(in_threads(slow, range(5), 3)) == list(range(5))
    results = in_threads(slow, range(1000), 2, stop)
    next(results)
    results.close()
    assert stop.is_set()
    assert len(begun) < 1000


def test_threads_give_what_is_finished_before_an_interrupt():
    stop, later = threading.Event(), threading.Event()

    def work(number: int) -> int:
        if number == 0:
            assert later.wait(10)
            raise KeyboardInterrupt
        if number == 3:  # the last that has begun
            later.set()
            assert stop.wait(10)
        return number

    results = in_threads(work, range(5), 2, stop)
    assert [next(results) for _ in range(3)] == [1, 2, 3]
    with pytest.raises(KeyboardInterrupt):
        list(results)


def test_devices_are_checked():
    with pytest.raises(ConfigError, match="auto, cpu or cuda"):
        choose_device("tpu")


@pytest.mark.parametrize("mode", ["ctc", "attention"])
def test_a_chunk_says_the_same_whatever_came_before_it(english, talk, monkeypatch, mode):
    monkeypatch.setattr("asr.transcriber.WINDOW_SECONDS", 30.0)
    transcriber = Transcriber(english.model, DecodingOptions(mode=mode, beam_size=2))
    together = transcriber.transcribe((talk, SAMPLE_RATE))
    assert len(together.segments) > 3
    for segment in together.segments:
        chunk = talk[round(segment.start * SAMPLE_RATE) : round(segment.end * SAMPLE_RATE)]
        assert transcriber.decode_waveforms([chunk])[0].tokens == segment.tokens


def test_hotwords_are_listened_for_in_every_window(english, talk, manifest, monkeypatch):
    monkeypatch.setattr("asr.transcriber.WINDOW_SECONDS", 20.0)
    rare = ",".join(sorted({word for text in manifest.texts for word in text.split() if len(word) > 6}))
    found = []
    for hotwords in ("", rare):
        options = DecodingOptions(mode="ctc_beam", beam_size=4, hotwords=hotwords, hotword_bonus=2.0)
        transcript = Transcriber(english.model, options).transcribe((talk, SAMPLE_RATE))
        found.append([set(segment.text.upper().split()) & set(rare.split(",")) for segment in transcript.segments])
    more = [bool(after - before) for before, after in zip(*found, strict=True)]
    ends = [segment.end for segment in transcript.segments]
    assert [sum(end <= limit for end in ends) for limit in (30, 65, 80)] == [2, 4, 5]  # segments of the three windows
    assert any(more[:2])
    assert any(more[2:4])
    assert more[4]


def test_a_fallback_is_flagged_in_the_json(model, data):
    model.ctc_head.weight.data.mul_(20)
    model.ctc_head.bias.data[BLANK] = -5.0
    for weight in model.decoder.blocks.parameters():  # it hears nothing ...
        weight.data.zero_()
    model.decoder.embedding.weight.data[END] = 0.0  # ... and likes its own last token best
    looping = Transcriber(model, DecodingOptions(mode="attention"), vad=False)
    (segment,) = looping.transcribe(data / "1737-146161-0009.flac").to_dict()["segments"]
    assert segment["fallback"] == "ctc"
    (plain,) = Transcriber(model, vad=False).transcribe(data / "1737-146161-0009.flac").to_dict()["segments"]
    assert plain["fallback"] is None
    assert plain["tokens"] == segment["tokens"]


def test_confidences_are_raised_to_the_power_of_the_search(english):
    waveform, _ = soundfile.read(DATA / "6848-252323-0001.flac", dtype="float32")
    words = []
    for power in (1.0, 0.5):
        options = DecodingOptions(confidence_power=power)
        ((_, alignment),) = Transcriber(english.model, options).decode_words([waveform])
        words.append(alignment.words)
    assert len(words[0]) > 5
    for plain, root in zip(*words, strict=True):
        assert root.confidence == pytest.approx(plain.confidence**0.5)
        assert (root.text, root.start, root.end) == (plain.text, plain.start, plain.end)
