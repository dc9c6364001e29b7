"""Word times: where they are known, they are found; whatever is said, every word has some."""

from __future__ import annotations

import itertools
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from examples import DATA, small_config
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from asr import alignment
from asr.alignment import Alignment, Spelling, align, spell_text, spell_tokens
from asr.audio import load_mono
from asr.errors import AudioError, DataError
from asr.manifest import Manifest
from asr.model.recognizer import Recognizer
from asr.tokenizer import BLANK, UNKNOWN, Tokenizer, TokenizerConfig, train_tokenizer
from asr.transcriber import Transcriber

FRAME = 0.04
TEXTS = [utterance.text for utterance in Manifest.load(DATA / "manifest.jsonl")]
TOKENIZERS = {
    kind: train_tokenizer(TEXTS, TokenizerConfig(kind=kind, vocabulary=80)) for kind in ("unigram", "bpe", "char")
}


@pytest.fixture(scope="module")
def english() -> Transcriber:
    return Transcriber.load(vad=False)


def posteriors(tokenizer: Tokenizer, frames: int, peaks: dict[int, int], certainty: float = 0.9) -> torch.Tensor:
    """Blanks, but for a token at some frames; what is left is spread over all others."""
    rest = (1 - certainty) / (len(tokenizer) - 1)
    probabilities = torch.full((frames, len(tokenizer)), rest)
    for frame in range(frames):
        probabilities[frame, peaks.get(frame, BLANK)] = certainty
    return probabilities.log()


def sound(*bursts: tuple[float, float], seconds: float) -> NDArray[np.float32]:
    """Faint noise, and loud noise between the times of each burst."""
    samples = np.random.default_rng(0).normal(size=round(seconds * 16_000)).astype(np.float32)
    level = np.full(len(samples), 1e-3, dtype=np.float32)
    for start, end in bursts:
        level[round(start * 16_000) : round(end * 16_000)] = 0.2
    return samples * level


def run(
    log_probs: torch.Tensor, waveform: NDArray[np.float32], words: list[Spelling], tokenizer: Tokenizer
) -> Alignment:
    return align(log_probs, np.arange(len(log_probs)) * FRAME, waveform, words, tokenizer)


def check(found: Alignment, words: list[str], duration: float) -> None:
    """What holds for every alignment."""
    assert [word.text for word in found.words] == words
    times = [time for word in found.words for time in (word.start, word.end)]
    assert all(before <= after for before, after in pairwise(times))
    assert not times or (times[0] >= 0 and times[-1] <= duration + 1e-9)
    assert all(0 <= word.confidence <= 1 for word in found.words)


def test_the_path_is_the_best_of_all(tokenizer: Tokenizer) -> None:
    torch.manual_seed(0)
    log_probs = torch.randn(7, len(tokenizer)).log_softmax(dim=-1)
    tokens = tuple(tokenizer.encode("see"))  # the repeated token needs a blank in between
    assert len(tokens) == 4
    found = run(log_probs, sound(seconds=0.28), [Spelling("see", tokens)], tokenizer)
    best, path = max(
        (sum(float(log_probs[frame, token]) for frame, token in enumerate(path)), path)
        for path in itertools.product({BLANK, *tokens}, repeat=7)
        if tuple(token for token, _ in itertools.groupby(path) if token != BLANK) == tokens
    )
    assert found.log_prob == pytest.approx(best, abs=1e-4)
    runs = [(token, list(frames)) for token, frames in itertools.groupby(range(7), key=lambda frame: path[frame])]
    peaks = [max(float(log_probs[frame, token]) for frame in frames) for token, frames in runs if token != BLANK]
    assert found.words[0].confidence == pytest.approx(math.exp(sum(peaks)), rel=1e-4)


def test_words_begin_and_end_at_the_edges_of_pauses(tokenizer: Tokenizer) -> None:
    one, two = spell_text(tokenizer, "we need")
    mark, w, e = one.tokens
    _, n, *_, d = two.tokens
    peaks = {9: mark, 11: w, 14: e, 30: mark, 32: n, 34: e, 36: e, 38: d}
    waveform = sound((0.40, 0.70), (1.20, 1.65), seconds=2.4)
    found = run(posteriors(tokenizer, 61, peaks), waveform, [one, two], tokenizer)
    assert not found.spread
    bounds = [time for word in found.words for time in (word.start, word.end)]
    assert bounds == pytest.approx([0.40, 0.70, 1.20, 1.65], abs=0.02)
    assert found.words[0].confidence == pytest.approx(0.9**3, rel=1e-4)
    assert found.words[1].confidence == pytest.approx(0.9**5, rel=1e-4)


def test_words_without_a_pause_meet_where_it_is_quietest(tokenizer: Tokenizer) -> None:
    one, two = spell_text(tokenizer, "a i")
    waveform = sound((0.0, 2.0), seconds=2.0)
    waveform[16_000:16_480] *= 0.4  # 1.00 to 1.03 s, still far louder than a pause
    waveform[:3200] *= 0.01
    found = run(
        posteriors(tokenizer, 51, {20: one.tokens[-1], 22: two.tokens[0], 30: two.tokens[1]}),
        waveform,
        [one, two],
        tokenizer,
    )
    assert found.words[0].end == found.words[1].start == pytest.approx(1.015, abs=0.02)


def test_words_without_sound_and_unknown_characters_have_times(tokenizer: Tokenizer) -> None:
    words = spell_text(tokenizer, "— we 7 … need")
    assert UNKNOWN in words[2].tokens
    assert words[0].tokens == words[3].tokens == ()
    found = run(posteriors(tokenizer, 61, {}), sound((0.3, 2.0), seconds=2.4), words, tokenizer)
    assert not found.spread
    check(found, ["—", "we", "7", "…", "need"], 2.4)
    assert [word.end - word.start > 0 for word in found.words] == [False, True, True, False, True]
    assert found.words[2].confidence == 0.0


def test_what_opens_a_sentence_stands_where_it_begins(tokenizer: Tokenizer) -> None:
    words = spell_text(tokenizer, "- “ we … need.” - we —")
    (mark, w, e), (_, n, *_, d), _ = (word.tokens for word in words if word.tokens)
    peaks = {16: mark, 18: w, 21: e, 31: mark, 34: n, 36: e, 38: e, 40: d, 60: mark, 62: w, 65: e}
    waveform = sound((0.7, 1.0), (1.3, 1.7), (2.4, 2.7), seconds=3.6)
    found = run(posteriors(tokenizer, 91, peaks), waveform, words, tokenizer)
    check(found, [word.text for word in words], 3.6)
    starts = [word.start for word in found.words]
    assert starts == pytest.approx([0.7, 0.7, 0.7, 1.0, 1.3, 2.4, 2.4, 2.7], abs=0.03)


@pytest.mark.parametrize("frame", [18, 19, 20])
def test_a_word_whose_peak_lies_in_a_pause_has_a_time(tokenizer: Tokenizer, frame: int) -> None:
    """The sound of `a` is from 0.6 to 0.7 s; CTC puts it up to 0.1 s too late."""
    words = spell_text(tokenizer, "we a need")
    (mark, w, e), (_, a), (_, n, *_, d) = (word.tokens for word in words)
    peaks = {9: mark, 11: w, 13: e, 17: mark, frame: a, 31: mark, 32: n, 34: e, 36: e, 38: d}
    waveform = sound((0.40, 0.70), (1.20, 1.65), seconds=2.4)
    found = run(posteriors(tokenizer, 61, peaks), waveform, words, tokenizer)
    check(found, ["we", "a", "need"], 2.4)
    assert found.words[1].end - found.words[1].start > 0.05
    assert found.words[1].start <= frame * FRAME < found.words[1].end


def test_a_word_that_the_vocabulary_lacks_ends_where_its_sound_does(tokenizer: Tokenizer) -> None:
    words = spell_text(tokenizer, "we 7 need")
    (mark, w, e), _, (_, n, *_, d) = (word.tokens for word in words)
    peaks = {9: mark, 11: w, 14: e, 31: mark, 34: e, 37: w, 60: mark, 62: n, 64: e, 66: e, 68: d}
    waveform = sound((0.4, 0.7), (1.2, 1.6), (2.4, 2.9), seconds=3.6)
    found = run(posteriors(tokenizer, 91, peaks, certainty=0.999), waveform, words, tokenizer)
    bounds = [time for word in found.words for time in (word.start, word.end)]
    assert bounds == pytest.approx([0.4, 0.7, 1.2, 1.6, 2.4, 2.9], abs=0.02)


@settings(deadline=None)
@given(
    st.sampled_from(sorted(TOKENIZERS)),
    st.lists(st.sampled_from(["we", "need", "a", "7", "—", "it's", "x3", "...", "OK"]), max_size=9),
    st.integers(0, 60),
    st.integers(0, 99),
)
def test_whatever_is_said_every_word_has_times(kind: str, words: list[str], frames: int, seed: int) -> None:
    tokenizer = TOKENIZERS[kind]
    generator = np.random.default_rng(seed)
    log_probs = torch.from_numpy(generator.normal(size=(frames, len(tokenizer))) * 4).float().log_softmax(dim=-1)
    waveform = (generator.normal(size=round(frames * 640 * generator.uniform(0.97, 1))) * 0.1).astype(np.float32)
    waveform[len(waveform) // 3 : len(waveform) // 2] = 0.0
    spellings = spell_text(tokenizer, " ".join(words))
    found = run(log_probs, waveform, spellings, tokenizer)
    check(found, words, len(waveform) / 16_000)
    tokens = [token for spelling in spellings for token in spelling.tokens]
    room = len(tokens) + sum(before == after for before, after in pairwise(tokens)) <= frames
    assert found.spread == (not (tokens and room))


@settings(deadline=None)
@given(st.sampled_from(sorted(TOKENIZERS)), st.lists(st.integers(0, 79), max_size=30))
def test_tokens_become_the_words_of_the_decoded_text(kind: str, numbers: list[int]) -> None:
    tokenizer = TOKENIZERS[kind]
    tokens = [number % len(tokenizer) for number in numbers]
    words = spell_tokens(tokenizer, tokens)
    assert " ".join(word.text for word in words) == " ".join(tokenizer.decode(tokens).split())
    kept = [token for word in words for token in word.tokens]
    assert tokenizer.decode(kept).split() == tokenizer.decode(tokens).split()


@pytest.mark.parametrize("kind", sorted(TOKENIZERS))
def test_texts_and_their_tokens_spell_alike(kind: str) -> None:
    for text in TEXTS:
        whole = TOKENIZERS[kind].encode(text)
        assert [token for word in spell_text(TOKENIZERS[kind], text) for token in word.tokens] == whole
        assert [word.tokens for word in spell_tokens(TOKENIZERS[kind], whole)] == [
            word.tokens for word in spell_text(TOKENIZERS[kind], text)
        ]


def test_posteriors_that_are_no_numbers_give_spread_times(tokenizer: Tokenizer) -> None:
    found = run(
        torch.full((50, len(tokenizer)), torch.nan), sound(seconds=2.0), spell_text(tokenizer, "we need"), tokenizer
    )
    assert found.spread
    check(found, ["we", "need"], 2.0)
    assert found.words[1].end == 2.0


def test_what_would_overflow_is_an_error(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alignment, "MOST_CELLS", 100)
    with pytest.raises(DataError, match="too long to be aligned"):
        run(posteriors(tokenizer, 50, {}), sound(seconds=2.0), spell_text(tokenizer, "we need"), tokenizer)


def joined(names: list[str], gap: float) -> tuple[NDArray[np.float32], list[tuple[float, float]]]:
    """Shipped utterances one after the other, each stripped of its own silence by librosa, and where each is."""
    import librosa

    pieces, bounds, moment = [], [], 0.0
    for name in names:
        speech, _ = librosa.effects.trim(load_mono(DATA / name), top_db=35, frame_length=400, hop_length=80)
        pieces += [np.zeros(round(gap * 16_000), dtype=np.float32), speech]
        bounds.append((moment + gap, moment + gap + len(speech) / 16_000))
        moment = bounds[-1][1]
    waveform = np.concatenate([*pieces, np.zeros(round(gap * 16_000), dtype=np.float32)])
    room = np.random.default_rng(0).normal(size=len(waveform)) * 1e-4
    return waveform + room.astype(np.float32), bounds


def test_real_speech_with_known_bounds_is_found_within_40_ms(english: Transcriber) -> None:
    """One alignment over a minute of real speech; where each utterance begins and ends is known."""
    utterances = list(Manifest.load(DATA / "manifest.jsonl"))[:8]
    waveform, bounds = joined([Path(utterance.audio_filepath).name for utterance in utterances], 0.5)
    found = english.align((waveform, 16_000), " ".join(utterance.text for utterance in utterances)).segments[0]
    ends = np.cumsum([len(utterance.text.split()) for utterance in utterances]).tolist()
    errors = []
    for (start, end), first, last in zip(bounds, [0, *ends[:-1]], ends, strict=True):
        errors += [abs(found.words[first].start - start), abs(found.words[last - 1].end - end)]
    assert np.median(errors) <= 0.04
    assert np.quantile(errors, 0.75) <= 0.08


def test_silence_before_the_speech_moves_every_word_by_its_length(english: Transcriber) -> None:
    speech = load_mono(DATA / "1737-146161-0013.flac")
    text = "KNIT SEVEN MAKE ONE KNIT TWO TOGETHER"
    room = np.tile(speech[:2000], 10)  # the recording's own silence
    plain = english.align((speech, 16_000), text).segments[0].words
    later = english.align((np.concatenate([room, speech]), 16_000), text).segments[0].words
    moved = [after.start - before.start for before, after in zip(plain, later, strict=True)]
    assert moved == pytest.approx([1.25] * len(plain), abs=0.05)


def test_written_words_are_kept(english: Transcriber) -> None:
    text = "Knit seven — “make” one;  knit 2 together!"
    transcript = english.align(DATA / "1737-146161-0013.flac", text)
    segment = transcript.segments[0]
    assert segment.text == "Knit seven — “make” one; knit 2 together!"
    check(Alignment(segment.words, False, 0.0), segment.text.split(), transcript.duration)
    assert transcript.coverage["decoded"] == transcript.duration


def test_what_cannot_be_aligned_is_one_clear_line(english: Transcriber, monkeypatch: pytest.MonkeyPatch) -> None:
    path = DATA / "1737-146161-0013.flac"
    for text, match in (("", "no word"), ("— 日 …", "no word"), ("word " * 500, "more tokens than the audio")):
        with pytest.raises(DataError, match=match):
            english.align(path, text)
    monkeypatch.setattr("asr.transcriber.LONGEST_ALIGNED", 3.0)
    with pytest.raises(AudioError, match="longer than"):
        english.align(path, "Knit seven")


@pytest.mark.parametrize("mode", ["ctc", "ctc_beam", "attention", "joint", "rescoring"])
def test_transcripts_have_words_of_their_text(mode: str, english: Transcriber) -> None:
    from asr.decoding import DecodingOptions

    transcriber = Transcriber(english.model, DecodingOptions(mode=mode, beam_size=3), vad=False)
    plain = transcriber.transcribe(DATA / "6848-252323-0006.flac")
    timed = transcriber.transcribe(DATA / "6848-252323-0006.flac", word_timestamps=True)
    assert timed.text == plain.text
    assert timed.spans == plain.spans
    assert timed.text
    assert not plain.segments[0].words
    for segment in timed.segments:
        assert segment.text.split() == [word.text for word in segment.words]
        assert segment.start <= segment.words[0].start
        assert segment.words[-1].end <= segment.end
        assert not segment.spread
        assert all(before.end <= after.start for before, after in pairwise(segment.words))
    assert list(transcriber.stream(DATA / "6848-252323-0006.flac", word_timestamps=True)) == list(timed.segments)


def test_words_are_the_same_alone_and_in_a_batch(english: Transcriber) -> None:
    waveforms = [
        load_mono(DATA / f"{name}.flac") for name in ("1737-146161-0013", "1737-146161-0010", "3947-13262-0005")
    ]
    together = english.decode_words(waveforms)
    for waveform, (_, batched) in zip(waveforms, together, strict=True):
        ((_, alone),) = english.decode_words([waveform])
        assert [word.text for word in alone.words] == [word.text for word in batched.words]
        for one, other in zip(alone.words, batched.words, strict=True):
            assert (one.start, one.end) == (other.start, other.end)
            assert one.confidence == pytest.approx(other.confidence, abs=1e-3)


def test_frames_of_80_ms(tokenizer: Tokenizer) -> None:
    torch.manual_seed(0)
    transcriber = Transcriber(Recognizer(small_config(subsampling=8), tokenizer).eval(), vad=False)
    transcript = transcriber.align(DATA / "1737-146161-0013.flac", "KNIT SEVEN MAKE ONE")
    check(Alignment(transcript.segments[0].words, False, 0.0), ["KNIT", "SEVEN", "MAKE", "ONE"], transcript.duration)
    times = transcriber._frame_times(3)
    assert times.tolist() == pytest.approx([0.0, 0.08, 0.16])
