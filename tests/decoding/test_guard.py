from __future__ import annotations

import pytest
import torch
from examples import small_config
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.decoding import DecodingOptions, Hypothesis, attention, decode
from asr.decoding.guard import MOST_REPEATS, listens, runs_away, token_bound
from asr.model.inspection import progress
from asr.model.recognizer import Recognizer
from asr.tokenizer import END, Tokenizer, TokenizerConfig, train_tokenizer

VOCABULARY: Tokenizer = train_tokenizer(["the quick brown fox jumps over the lazy dog"], TokenizerConfig(kind="char"))


@given(
    phrase=st.lists(st.integers(0, 3), min_size=1, max_size=6),
    repeats=st.integers(1, 9),
    before=st.lists(st.integers(10, 99), unique=True, max_size=5),
    after=st.lists(st.integers(100, 200), unique=True, max_size=5),
)
def test_a_phrase_said_too_often_is_a_loop(phrase, repeats, before, after):
    text = before + phrase * repeats + after
    if repeats > MOST_REPEATS:
        assert runs_away(text)
    if (
        all(len(set(text[i : i + 2])) == 2 for i in range(len(text) - 1))
        and repeats == 1
        and len(set(phrase)) == len(phrase)
    ):
        assert not runs_away(text)


def test_what_people_say_is_no_loop():
    assert not runs_away([5, 5, 5])
    assert not runs_away([1, 2, 3, 4] * MOST_REPEATS)
    assert not runs_away([])


def test_the_bound_follows_peaks_and_duration():
    assert token_bound(0, 100) == 0
    assert token_bound(10, 100) == 20
    assert token_bound(10, 12) == 12


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    scale=st.one_of(st.floats(0.1, 50), st.just(1e20), st.just(float("nan"))),
    never_ends=st.booleans(),
    frames=st.integers(1, 40),
    mode=st.sampled_from(["attention", "joint", "rescoring", "ctc_beam"]),
    beam=st.sampled_from([1, 3]),
    bonus=st.sampled_from([0.0, 3.0]),
    normalization=st.sampled_from([0.0, 1.0]),
)
def test_no_weights_make_a_search_write_more_than_its_bound(
    seed, scale, never_ends, frames, mode, beam, bonus, normalization
):
    torch.manual_seed(seed)
    model = Recognizer(small_config(layers=1), VOCABULARY).eval()
    for weight in model.decoder.parameters():
        weight.data.mul_(scale)
    if never_ends:
        model.decoder.embedding.weight.data[END] = 0.0
    encoder_out = torch.randn(3, frames, 32)
    lengths = torch.tensor([frames, max(1, frames // 2), 1])
    options = DecodingOptions(mode=mode, beam_size=beam, length_bonus=bonus, length_normalization=normalization)
    listened = decode(model, encoder_out, lengths, DecodingOptions(mode="ctc"))
    written = decode(model, encoder_out, lengths, options)
    for (ctc, *_), (best, *_), frames_here in zip(listened, written, lengths.tolist(), strict=True):
        assert len(best.tokens) <= frames_here
        assert best.score == best.score  # a number
        if mode in ("attention", "joint"):
            assert len(best.tokens) <= token_bound(len(ctc.tokens), frames_here)
            assert not runs_away(best.tokens) or best.fallback == "ctc"
            if best.fallback:
                assert best.tokens == ctc.tokens


def test_a_decoder_that_loops_falls_back_to_ctc(model):
    """Its audio is ignored and its own last token is what it likes best."""
    model.ctc_head.weight.data.mul_(20)
    model.ctc_head.bias.data[0] = -5.0
    for weight in model.decoder.blocks.parameters():
        weight.data.zero_()
    model.decoder.embedding.weight.data[END] = 0.0  # else it may like best to end at once
    encoder_out, lengths = torch.randn(1, 50, 32), torch.tensor([50])
    ((best,),) = decode(model, encoder_out, lengths, DecodingOptions(mode="attention"))
    assert best.fallback == "ctc"
    assert best.tokens == decode(model, encoder_out, lengths, DecodingOptions())[0][0].tokens


def test_attention_that_follows_the_audio_is_told_from_one_that_stands_still(model):
    text = tuple(range(4, 16))
    number = torch.arange(12.0)
    counts = torch.tensor([12, 12, 12])
    looks = torch.stack((3 * number + torch.randn(12), torch.full((12,), 7.0), 40 - 3 * number))[:, None]
    correlation, moved = progress(looks, counts)
    assert correlation[0] > 0.9
    assert moved[0] == pytest.approx(36, abs=6)
    assert abs(float(correlation[1])) < 1e-3
    assert correlation[2] < -0.9
    for block in model.decoder.blocks:  # every frame is as good as any other
        block.cross_attention.query.weight.data.zero_()
        block.cross_attention.query.bias.data.zero_()
    audio = torch.randn(2, 60, 32), torch.tensor([60, 30])
    assert listens(model, *audio, [text, text]) == [False, False]
    assert listens(model, *audio, [text[:3], ()]) == [True, True]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("mode", ["attention", "joint"])
def test_a_text_that_goes_round_in_circles_is_not_given_out(model, monkeypatch, mode):
    """Whatever the search found best, and although its attention may well move on through the audio."""
    circle, plain = (Hypothesis(tokens, -1.0) for tokens in ((5, 6) * 6, (5, 6, 7)))
    monkeypatch.setattr(attention, "listens", lambda *arguments: [True])
    audio = torch.randn(1, 50, 32), torch.tensor([50])
    for found, fallback in (([plain, circle], None), ([circle, plain], "ctc"), ([], "ctc")):
        monkeypatch.setattr(attention, "beam_search", lambda *arguments, found=found: [found])
        ((best, *_),) = decode(model, *audio, DecodingOptions(mode=mode, nbest=2))
        assert best.fallback == fallback
        ((heard,),) = decode(model, *audio, DecodingOptions())
        assert best.tokens == (heard if fallback else plain).tokens
