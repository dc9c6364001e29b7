from __future__ import annotations

import math

import pytest
import torch
from decoding.oracles import WRITABLE, decoder_log_probs, text_probabilities, texts, tiny

from asr.decoding import DecodingOptions, Hypothesis, decode
from asr.decoding.beam import beam_search
from asr.decoding.fusion import Fusion
from asr.decoding.hotwords import HotwordTrie
from asr.tokenizer import END, START

FRAMES = 4
OPTIONS = [
    {},
    {"temperature": 1.7},
    {"length_bonus": 0.8},
    {"length_bonus": -0.5, "length_normalization": 0.6},
    {"length_normalization": 1.0},
]


def search(model, encoder_out, options, bounds=None, joint=False, fusion=None) -> list[list[Hypothesis]]:
    lengths = torch.full((len(encoder_out),), encoder_out.shape[1])
    log_probs = (model.ctc_log_probs(encoder_out) / options.temperature).log_softmax(-1) if joint else None
    bounds = lengths if bounds is None else bounds
    with torch.inference_mode():
        fusion = fusion or Fusion(length_bonus=options.length_bonus)
        return beam_search(model, encoder_out, lengths, options, fusion, bounds, log_probs)


def everything(model, encoder_out, options, joint) -> dict[tuple[int, ...], float]:
    """Score of every text of at most FRAMES tokens, each from a pass of its own."""
    ctc = text_probabilities((model.ctc_log_probs(encoder_out)[0] / options.temperature).log_softmax(-1))
    scores = {}
    for length in range(FRAMES + 1):
        group = [text for text in texts(FRAMES) if len(text) == length]
        for text, log_probs in zip(
            group, decoder_log_probs(model, encoder_out, group, options.temperature), strict=True
        ):
            score = sum(log_probs)
            if joint:
                heard = math.log(ctc[text]) if ctc.get(text) else -math.inf
                score = (1 - options.ctc_weight) * score + options.ctc_weight * heard
            score += options.length_bonus * length
            scores[text] = score / (length + 1) ** options.length_power
    return scores


@pytest.mark.parametrize("joint", [False, True], ids=["attention", "joint"])
@pytest.mark.parametrize("changed", OPTIONS, ids=str)
def test_an_endless_beam_equals_exhaustive_search(joint, changed):
    for seed in range(2):
        model, encoder_out = tiny(seed), torch.randn(1, FRAMES, 16)
        mode = "joint" if joint else "attention"
        options = DecodingOptions(mode=mode, beam_size=260, candidates=4, nbest=5, **changed)
        (found,) = search(model, encoder_out, options, joint=joint)
        scores = everything(model, encoder_out, options, joint)
        best = sorted(scores, key=lambda text: -scores[text])[:5]
        assert [hypothesis.tokens for hypothesis in found] == best
        for hypothesis in found:
            assert hypothesis.score == pytest.approx(scores[hypothesis.tokens], abs=1e-4)
            (right,) = decoder_log_probs(model, encoder_out, [hypothesis.tokens], options.temperature)
            assert hypothesis.attention == pytest.approx(sum(right), abs=1e-4)
            assert hypothesis.bonus == pytest.approx(options.length_bonus * len(hypothesis.tokens), abs=1e-6)


class TwoTexts(torch.nn.Module):
    """A decoder to which two texts are possible: they part at their first token, of which one is far more likely."""

    def __init__(self, likely: tuple[int, ...], unlikely: tuple[int, ...], gap: float, vocabulary: int) -> None:
        super().__init__()
        self.texts = {likely: 0.0, unlikely: -gap}
        self.vocabulary = vocabulary

    def start(self, encoder_out, lengths, hypotheses):
        self.prefixes = [()] * (len(lengths) * hypotheses)
        return self

    def select(self, rows):
        self.prefixes = [self.prefixes[row] for row in rows]

    def step(self, token, cache):
        logits = torch.full((len(token), self.vocabulary), -60.0)
        for row, new in enumerate(token.tolist()):
            self.prefixes[row] += (new,) if new != START else ()
            for text, score in self.texts.items():
                prefix = self.prefixes[row]
                if text[: len(prefix)] == prefix:
                    logits[row, (*text, END)[len(prefix)]] = score if not prefix else 0.0
        return logits


def test_the_search_waits_for_a_hotword_that_may_yet_win():
    """The short text ends while the hotword has been helped with less than it lacks; in the end it is better by 1."""
    model, word, gap = tiny(0), (4, 5, 6, 5, 6, 5, 6, 5), 9.0
    model.decoder = TwoTexts((5, 6), word, gap, len(model.tokenizer))
    starts = torch.arange(len(model.tokenizer)) == word[0]
    options = DecodingOptions(mode="attention", beam_size=3)
    for worth, best in ((gap - 1.0, (5, 6)), (gap + 1.0, word)):
        fusion = Fusion(heard=HotwordTrie([[(word, worth)]], starts))
        (found,) = search(model, torch.zeros(1, 12, 16), options, fusion=fusion)
        assert found[0].tokens == best


def test_a_longer_text_is_waited_for_as_long_as_it_may_yet_win_by_its_length():
    """The short text ends with -0.512 in all, the long one with -1.105; divided by their lengths -0.256 and -0.123."""
    model, long = tiny(0), (4, 5, 6, 5, 6, 5, 6, 5)
    model.decoder = TwoTexts((5,), long, 0.405, len(model.tokenizer))
    (found,) = search(model, torch.zeros(1, 12, 16), DecodingOptions(mode="attention", beam_size=3))
    assert found[0].tokens == long


def test_an_end_among_the_best_of_the_beam_counts():
    """Ending at once is second to the first token, which two texts then share between them."""
    model = tiny(0)
    model.decoder = TwoTexts((4, 5), (), 0.1, len(model.tokenizer))
    model.decoder.texts[4, 6] = 0.0
    options = DecodingOptions(mode="attention", beam_size=2, length_normalization=0.0)
    (found,) = search(model, torch.zeros(1, 12, 16), options)
    assert found[0].tokens == ()


def test_a_beam_of_one_is_greedy():
    ended = 0
    for seed in range(20):
        model, encoder_out = tiny(seed, sharpness=0.5), torch.randn(1, 12, 16)
        model.decoder.embedding.weight.data[END] *= 8  # so that some of them end
        (found,) = search(model, encoder_out, DecodingOptions(mode="attention", beam_size=1))
        tokens: list[int] = []
        while len(tokens) <= 12:
            with torch.inference_mode():
                logits = model.decoder(torch.tensor([[2, *tokens]]), encoder_out, torch.tensor([12]))[0, -1]
            best = max((*WRITABLE, END), key=lambda token: float(logits[token]))
            if best == END:
                break
            tokens.append(best)
        assert [list(hypothesis.tokens) for hypothesis in found] == ([tokens] if len(tokens) <= 12 else [])
        ended += len(found)
    assert 3 < ended < 20  # both kinds were met


def test_a_joint_beam_of_one_is_greedy():
    ends = set()
    for seed in range(20):
        model, encoder_out = tiny(seed), torch.randn(1, FRAMES, 16)
        options = DecodingOptions(mode="joint", beam_size=1, candidates=len(WRITABLE))
        (found,) = search(model, encoder_out, options, joint=True)
        ctc = text_probabilities(model.ctc_log_probs(encoder_out)[0].log_softmax(-1))

        def whole(text, model=model, encoder_out=encoder_out, ctc=ctc):
            (log_probs,) = decoder_log_probs(model, encoder_out, [text])
            return 0.7 * sum(log_probs) + 0.3 * math.log(ctc.get(text, 1e-300))

        def begun(text, model=model, encoder_out=encoder_out, ctc=ctc):
            (log_probs,) = decoder_log_probs(model, encoder_out, [text])
            heard = sum(probability for other, probability in ctc.items() if other[: len(text)] == text)
            return 0.7 * sum(log_probs[:-1]) + 0.3 * math.log(max(heard, 1e-300))

        text: tuple[int, ...] = ()
        while len(text) < FRAMES:
            following = max(((*text, token) for token in WRITABLE), key=begun)
            if whole(text) >= begun(following):
                break
            text = following
        assert [hypothesis.tokens for hypothesis in found] == [text]
        ends.add(len(text))
    assert len(ends) > 2  # short and long texts were met


def test_a_wider_beam_never_scores_worse_with_the_endless_one_as_the_limit():
    model, encoder_out = tiny(1), torch.randn(6, FRAMES, 16)
    best = []
    for beam in (1, 4, 260):
        found = search(model, encoder_out, DecodingOptions(mode="attention", beam_size=beam))
        best.append([hypotheses[0].score if hypotheses else -math.inf for hypotheses in found])
    assert all(narrow <= endless + 1e-6 for narrow, endless in zip(best[0], best[2], strict=True))
    assert all(some <= endless + 1e-6 for some, endless in zip(best[1], best[2], strict=True))


@pytest.mark.parametrize("power, temperature", [(0.0, 1.0), (0.6, 2.0)])
def test_rescoring_ranks_every_text_as_the_formula_says(power, temperature):
    model, encoder_out = tiny(4), torch.randn(1, 3, 16)
    weights = {"ctc_weight": 0.4, "length_bonus": 0.3, "length_normalization": power, "temperature": temperature}
    options = DecodingOptions(mode="rescoring", beam_size=300, nbest=300, **weights)
    (found,) = decode(model, encoder_out, torch.tensor([3]), options)
    ctc = text_probabilities((model.ctc_log_probs(encoder_out)[0] / temperature).log_softmax(-1))
    assert {hypothesis.tokens for hypothesis in found} == set(ctc)
    for hypothesis in found:
        attention = sum(decoder_log_probs(model, encoder_out, [hypothesis.tokens], temperature)[0])
        assert hypothesis.ctc == pytest.approx(math.log(ctc[hypothesis.tokens]), abs=1e-4)
        assert hypothesis.attention == pytest.approx(attention, abs=1e-4)
        score = 0.4 * hypothesis.ctc + 0.6 * attention + 0.3 * sum(token != END for token in hypothesis.tokens)
        assert hypothesis.score == pytest.approx(score / (len(hypothesis.tokens) + 1) ** power, abs=1e-4)
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)


@pytest.mark.parametrize("mode", ["attention", "joint"])
@pytest.mark.parametrize("beam", [1, 4])
def test_a_search_ends_when_nothing_can_get_better(monkeypatch, mode, beam):
    model, encoder_out = tiny(0), torch.randn(1, 40, 16)
    model.decoder.embedding.weight.data[END] *= 30
    with torch.no_grad():
        ending = model.decoder(torch.tensor([[START]]), encoder_out, torch.tensor([40]))[0, 0, END]
    model.decoder.embedding.weight.data[END] *= ending.sign()  # what it likes best is to end
    steps, step = [], model.decoder.step
    monkeypatch.setattr(model.decoder, "step", lambda *arguments: steps.append(1) or step(*arguments))
    (found,) = search(model, encoder_out, DecodingOptions(mode=mode, beam_size=beam), joint=mode == "joint")
    assert found
    assert len(steps) <= 20  # the bound is 40 tokens


def test_an_utterance_that_has_ended_collects_no_more_while_others_go_on(monkeypatch):
    model, encoder_out = tiny(0), torch.randn(2, FRAMES, 16)
    longer_is_better = DecodingOptions(mode="attention", beam_size=260, candidates=4, nbest=5, length_bonus=5.0)
    found = []
    for others in (1, 0):
        ended_at = torch.tensor([1, FRAMES][: 1 + others])
        monkeypatch.setattr("asr.decoding.beam._ended", lambda *given, at=ended_at: at == given[3])
        texts, *_ = search(model, encoder_out[: 1 + others], longer_is_better)
        found.append([text.tokens for text in texts])
    together, alone = found
    assert together == alone
    assert {len(text) for text in alone} == {0, 1}


def test_no_text_of_a_batch_ends_beyond_its_own_bound():
    torch.manual_seed(0)
    model, encoder_out, bounds = tiny(3, sharpness=1.0), torch.randn(4, 16, 16), torch.tensor([0, 2, 5, 14])
    options = DecodingOptions(mode="attention", beam_size=30, nbest=5, length_normalization=1.0)  # long texts do well
    found = search(model, encoder_out, options, bounds)
    assert [max(len(hypothesis.tokens) for hypothesis in hypotheses) for hypotheses in found] == bounds.tolist()


def test_ctc_leads_a_decoder_that_knows_nothing():
    model, said = tiny(0), (4, 5, 6, 5)
    for weight in model.decoder.parameters():
        weight.data.zero_()  # all tokens are alike to it
    log_probs = torch.full((1, 12, len(model.tokenizer)), -8.0)
    log_probs[0, :, 0] = 0.0
    for frame, token in zip((1, 4, 7, 10), said, strict=True):
        log_probs[0, frame, [0, token]] = torch.tensor([-8.0, 0.0])
    options, lengths = DecodingOptions(mode="joint", beam_size=3), torch.tensor([12])
    with torch.inference_mode():
        audio = torch.zeros(1, 12, 16)
        (found,) = beam_search(model, audio, lengths, options, Fusion(), lengths, log_probs.log_softmax(-1))
    assert found[0].tokens == said
