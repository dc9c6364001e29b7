from __future__ import annotations

import math

import pytest
import torch
from decoding.oracles import text_probabilities, tiny

from asr.decoding import DecodingOptions, decode
from asr.decoding.ctc_beam import _without_long_silence, search_prefixes
from asr.decoding.fusion import Fusion
from asr.tokenizer import END


def search(log_probs, lengths=None, **options):
    lengths = torch.tensor([log_probs.shape[1]] * len(log_probs)) if lengths is None else lengths
    return search_prefixes(log_probs, lengths, DecodingOptions(mode="ctc_beam", **options), Fusion())


@pytest.mark.parametrize("seed", range(5))
def test_an_endless_beam_finds_every_text_with_its_probability(seed):
    torch.manual_seed(seed)
    log_probs = (2 * torch.randn(2, 5, 5)).log_softmax(-1)
    lengths = torch.tensor([5, 3])
    for row, found in enumerate(search(log_probs, lengths, beam_size=1500)):
        oracle = text_probabilities(log_probs[row, : lengths[row]])
        assert len({hypothesis.tokens for hypothesis in found}) == len(found) == len(oracle)
        for hypothesis in found:
            assert hypothesis.score == pytest.approx(math.log(oracle[hypothesis.tokens]), abs=1e-5)
            assert hypothesis.ctc == hypothesis.score
        scores = [hypothesis.score for hypothesis in found]
        assert scores == sorted(scores, reverse=True)


def test_length_and_temperature_change_the_ranks_as_their_formulas_say():
    model, encoder_out = tiny(4), torch.randn(1, 4, 16)
    weights = {"length_bonus": 0.3, "length_normalization": 0.7, "temperature": 2.0}
    options = DecodingOptions(mode="ctc_beam", beam_size=1500, nbest=1500, **weights)
    (found,) = decode(model, encoder_out, torch.tensor([4]), options)
    oracle = text_probabilities((model.ctc_log_probs(encoder_out)[0] / 2.0).log_softmax(-1))
    assert len(found) == len(oracle)
    for each in found:
        score = math.log(oracle[each.tokens]) + 0.3 * sum(token != END for token in each.tokens)
        assert each.score == pytest.approx(score / (len(each.tokens) + 1) ** 0.7, abs=1e-4)
    assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)


def test_a_text_beats_its_best_path_when_its_alignments_say_so():
    """The textbook case: the best path is empty, the best text is not."""
    log_probs = torch.tensor([[[0.6, 0.4, 0.0, 0.0], [0.6, 0.4, 0.0, 0.0]]]).log()
    ((best, *_),) = search(log_probs, beam_size=2)
    assert best.tokens == (1,)
    assert math.exp(best.score) == pytest.approx(1 - 0.36)


def test_the_library_decoder_finds_the_same_texts():
    """flashlight-text's lexicon-free decoder; its scores sum over alignments, too."""
    decoder = pytest.importorskip("flashlight.lib.text.decoder")
    torch.manual_seed(3)
    log_probs = (6 * torch.randn(1, 30, 8)).log_softmax(-1)
    options = decoder.LexiconFreeDecoderOptions(50, 8, 1e9, 0.0, 0.0, True, decoder.CriterionType.CTC)
    library = decoder.LexiconFreeDecoder(options, decoder.ZeroLM(), 0, 0, [])
    emissions = log_probs[0].contiguous()
    theirs = library.decode(emissions.data_ptr(), 30, 8)[0]
    path = [token for token in theirs.tokens if token >= 0]
    text = [token for place, token in enumerate(path) if token and (place == 0 or path[place - 1] != token)]
    ((ours, *_),) = search(log_probs, beam_size=50)
    assert list(ours.tokens) == text
    assert ours.score == pytest.approx(theirs.score, abs=0.2)  # both prune, each in its own way


@pytest.mark.parametrize("seed", range(5))
def test_long_silence_is_passed_over_and_changes_no_text(seed):
    """Brute force over every alignment of the frames, silent ones included; the second row is shorter."""
    torch.manual_seed(seed)
    log_probs = (2 * torch.randn(2, 7, 4)).log_softmax(-1)
    log_probs[:, 2:5] = torch.tensor([0.9991, 0.0003, 0.0003, 0.0003]).log()
    lengths = torch.tensor([7, 6])
    heard = _without_long_silence(log_probs, lengths)
    assert heard.shape[1] == 5
    torch.testing.assert_close(heard[1, 3:].exp(), torch.stack((log_probs[1, 5].exp(), torch.tensor([1.0, 0, 0, 0]))))
    for row, found in enumerate(search(log_probs, lengths, beam_size=400)):
        oracle = text_probabilities(log_probs[row, : lengths[row]])
        likely = [text for text, probability in oracle.items() if probability > 0.02]
        ours = {hypothesis.tokens: math.exp(hypothesis.score) for hypothesis in found}
        assert [ours[text] for text in likely] == pytest.approx([oracle[text] for text in likely], abs=0.005)


def test_a_letter_on_either_side_of_silence_is_two():
    log_probs = torch.full((1, 6, 4), 0.001)
    log_probs[0, [0, 5], 1] = log_probs[0, 1:5, 0] = 0.997
    ((best, *_),) = search(log_probs.log(), beam_size=4)
    assert best.tokens == (1, 1)
