from __future__ import annotations

import torch
from examples import small_config
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.decoding import DecodingOptions, decode
from asr.decoding.guard import MOST_REPEATS, runs_away, token_bound
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


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.1, 50), never_ends=st.booleans(), frames=st.integers(1, 60))
def test_no_weights_make_the_decoder_write_more_than_its_bound(seed, scale, never_ends, frames):
    torch.manual_seed(seed)
    model = Recognizer(small_config(layers=1), VOCABULARY).eval()
    for weight in model.decoder.parameters():
        weight.data.mul_(scale)
    if never_ends:
        model.decoder.embedding.weight.data[END] = 0.0
    encoder_out = torch.randn(3, frames, 32)
    lengths = torch.tensor([frames, max(1, frames // 2), 1])
    listened = decode(model, encoder_out, lengths, DecodingOptions(mode="ctc"))
    written = decode(model, encoder_out, lengths, DecodingOptions(mode="attention"))
    for (ctc, *_), (best, *_) in zip(listened, written, strict=True):
        assert len(best.tokens) <= token_bound(len(ctc.tokens))
        assert not runs_away(best.tokens) or best.fallback == "ctc"
        if best.fallback:
            assert best.tokens == ctc.tokens
