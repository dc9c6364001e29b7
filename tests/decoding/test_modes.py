"""What holds for every mode: with small random models, and with the embedded model on real speech."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from examples import waveforms

from asr.decoding import DecodingOptions, Fusion, decode
from asr.decoding.kneser_ney import estimate
from asr.decoding.ngram import NGramLanguageModel
from asr.errors import ConfigError
from asr.model import checkpoint
from asr.tokenizer import BLANK
from asr.transcriber import EMBEDDED

NAMES = ("1737-146161-0009", "3947-13262-0016", "6848-252323-0001")
MODES = [
    {"mode": "ctc"},
    {"mode": "ctc_beam", "beam_size": 4, "nbest": 4},
    {"mode": "ctc_beam", "beam_size": 4, "hotwords": "together,vain"},
    {"mode": "ctc_beam", "beam_size": 4, "length_normalization": 1.0},
    {"mode": "attention", "beam_size": 1},
    {"mode": "attention", "beam_size": 4, "nbest": 3, "length_normalization": 0.5},
    {"mode": "joint", "beam_size": 4, "nbest": 2, "hotwords": "together,vain"},
    {"mode": "joint", "beam_size": 2, "temperature": 2.0, "length_bonus": 0.5},
    {"mode": "rescoring", "beam_size": 4, "nbest": 4},
]


@pytest.fixture(scope="module")
def embedded():
    return checkpoint.load(EMBEDDED)[0]


def language_model(tokenizer):
    texts = ["KNIT TWO TOGETHER TWICE", "THE DAY WAS FAIR AND THE WIND WAS VAIN", "MAKE ONE KNIT TWO"]
    return NGramLanguageModel(estimate([tokenizer.encode(text) for text in texts], 3, len(tokenizer)), len(tokenizer))


def check_same(one, other):
    assert [h.tokens for h in one] == [h.tokens for h in other]
    for mine, yours in zip(one, other, strict=True):
        assert mine.fallback == yours.fallback
        for part in ("score", "ctc", "attention", "lm", "bonus"):
            assert getattr(mine, part) == pytest.approx(getattr(yours, part), abs=1e-4, rel=1e-5)


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "lm"])
@pytest.mark.parametrize("settings", MODES, ids=str)
@pytest.mark.parametrize("kind", ["random", "embedded"])
def test_batched_equals_one_by_one_in_any_order(model, embedded, kind, settings, fused):
    recognizer = model if kind == "random" else embedded
    if kind == "random":
        model.ctc_head.bias.data[BLANK] = -0.5  # an untrained model would write nothing
        model.ctc_head.weight.data.mul_(4)
        model.decoder.embedding.weight.data.mul_(2)
    options = DecodingOptions(**settings)
    fusion = Fusion.of(options, recognizer.tokenizer, language_model(recognizer.tokenizer) if fused else None)
    waveform, lengths = waveforms(*NAMES)
    seconds = 1.5 if kind == "random" else 2.5
    waveform, lengths = waveform[:, : int(16000 * seconds)], lengths.clamp(max=int(16000 * seconds))
    lengths[1] -= 8000
    lengths[2] //= 2
    waveform = waveform * (torch.arange(waveform.shape[1]) < lengths[:, None])
    with torch.inference_mode():
        encoded = recognizer.encode(waveform, lengths)
        together = decode(recognizer, *encoded, options, fusion)
        for row in (2, 0, 1):  # another order, after other utterances
            frames = encoded[1][row : row + 1]
            (alone,) = decode(recognizer, encoded[0][row : row + 1, : int(frames)], frames, options, fusion)
            check_same(alone, together[row])
        again = decode(recognizer, *encoded, options, fusion)
    assert again == together


@pytest.mark.parametrize("settings", MODES, ids=str)
def test_nothing_to_hear_is_no_text(model, settings):
    options, dim = DecodingOptions(**settings), model.config.encoder.dim
    assert decode(model, torch.randn(0, 5, dim), torch.zeros(0, dtype=torch.int64), options) == []
    for frames in (0, 5):  # none at all, or nothing but padding
        nothing = decode(model, torch.randn(2, frames, dim), torch.zeros(2, dtype=torch.int64), options)
        assert [found[0].tokens for found in nothing] == [(), ()]
    short, *_ = decode(model, torch.randn(2, 5, dim), torch.tensor([0, 5]), options)
    assert short[0].tokens == ()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("fused", [False, True], ids=["plain", "lm"])
@pytest.mark.parametrize("settings", MODES, ids=str)
def test_a_gpu_finds_what_the_cpu_finds(embedded, settings, fused):
    options = DecodingOptions(**settings)
    fusion = Fusion.of(options, embedded.tokenizer, language_model(embedded.tokenizer) if fused else None)
    with torch.inference_mode():
        encoder_out, frames = embedded.encode(*waveforms(*NAMES))
    expected = decode(embedded, encoder_out, frames, options, fusion)
    found = decode(copy.deepcopy(embedded).cuda(), encoder_out.cuda(), frames.cuda(), options, fusion)
    for mine, yours in zip(found, expected, strict=True):
        check_same(mine, yours)


@pytest.mark.parametrize("settings", MODES, ids=str)
def test_scores_are_the_weighted_parts(embedded, settings):
    options = DecodingOptions(**settings | {"length_normalization": 0.0, "temperature": 1.0})
    fusion = Fusion.of(options, embedded.tokenizer, language_model(embedded.tokenizer))
    waveform, lengths = waveforms(NAMES[0])
    with torch.inference_mode():
        encoded = embedded.encode(waveform[:, :32000], lengths.clamp(max=32000))
        ((best, *_),) = decode(embedded, *encoded, options, fusion)
    weights = {"attention": (0.0, 1.0), "joint": (0.3, 0.7), "rescoring": (0.3, 0.7)}.get(options.mode, (1.0, 0.0))
    weights = (1.0, 0.0) if best.fallback else weights
    fused = options.lm_weight * best.lm + best.bonus
    assert best.score == pytest.approx(weights[0] * best.ctc + weights[1] * best.attention + fused, abs=1e-4)
    assert best.lm < 0


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"mode": "magic"}, "decoding.mode must be one of ctc, ctc_beam, attention, joint, rescoring"),
        ({"beam_size": 0}, "decoding.beam_size must be at least 1"),
        ({"mode": "joint", "beam_size": 2, "nbest": 3}, "decoding.nbest 3 is over decoding.beam_size 2"),
        ({"ctc_weight": 1.5}, "decoding.ctc_weight must lie in 0..1"),
        ({"mode": "joint", "ctc_weight": 1.0}, "use decoding.mode=ctc_beam"),
        ({"temperature": 0.0}, "decoding.temperature must be over 0"),
        ({"temperature": float("nan")}, "decoding.temperature must be over 0"),
        ({"lm_weight": float("nan")}, "decoding.lm_weight must be at least"),
        ({"length_bonus": float("inf")}, "decoding.length_bonus must be a number"),
        ({"length_normalization": 3.0}, "decoding.length_normalization must lie in 0..2"),
        ({"hotword_bonus": -1.0}, "decoding.hotword_bonus must be at least 0"),
    ],
)
def test_wrong_options_are_one_line(settings, message):
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        DecodingOptions(**settings)


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "lm"])
@pytest.mark.parametrize("mode", ["ctc", "ctc_beam", "attention", "joint", "rescoring"])
def test_a_row_of_what_is_no_number_has_no_good_score_and_spoils_no_other(embedded, mode, fused):
    options = DecodingOptions(mode=mode, beam_size=3)
    fusion = Fusion.of(options, embedded.tokenizer, language_model(embedded.tokenizer) if fused else None)
    waveform, lengths = waveforms(*NAMES)
    with torch.inference_mode():
        encoder_out, frames = embedded.encode(waveform, lengths)
    whole = decode(embedded, encoder_out, frames, options, fusion)
    encoder_out = encoder_out.clone()
    encoder_out[1] = torch.nan
    spoilt = decode(embedded, encoder_out, frames, options, fusion)
    assert not math.isfinite(spoilt[1][0].score)
    for row in {*range(len(whole))} - {1}:
        check_same(spoilt[row], whole[row])
