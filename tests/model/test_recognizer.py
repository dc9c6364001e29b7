from __future__ import annotations

import doctest
from dataclasses import replace

import pytest
import torch
from examples import small_config, waveforms

import asr.model.recognizer
from asr.errors import ConfigError
from asr.features import SpecAugmentConfig
from asr.model.config import LossConfig, ModelConfig
from asr.model.recognizer import Batch, Recognizer

NAMES = ("1737-146161-0009", "3947-13262-0016", "6848-252323-0001")


def batch_of(model: Recognizer, names: tuple[str, ...], texts: list[str]) -> Batch:
    waveform, lengths = waveforms(*names)
    tokens = [torch.tensor(model.tokenizer.encode(text)) for text in texts]
    padded = torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True)
    return Batch(
        list(names), waveform, lengths, padded, torch.tensor([len(t) for t in tokens]), torch.arange(len(names))
    )


@pytest.mark.parametrize("kind", ["conformer", "e_branchformer", "transformer"])
@pytest.mark.parametrize("positions", ["rotary", "relative"])
@pytest.mark.parametrize("norm", ["layer", "batch"])
@pytest.mark.parametrize("subsampling", [4, 8])
def test_alone_equals_batched_on_real_speech(tokenizer, kind, positions, norm, subsampling):
    torch.manual_seed(0)
    options = {"kind": kind, "positions": positions, "norm": norm, "subsampling": subsampling, "gated": 48}
    model = Recognizer(small_config(**options), tokenizer).eval()
    waveform, lengths = waveforms(*NAMES)
    encoder_out, frames = model.encode(waveform, lengths)
    posteriors = model.ctc_log_probs(encoder_out)
    tokens = torch.randint(4, len(tokenizer), (3, 6))
    logits = model.decoder(tokens, encoder_out, frames)
    for row in range(3):
        alone, length = model.encode(waveform[row : row + 1, : lengths[row]], lengths[row : row + 1])
        assert length[0] == frames[row]
        torch.testing.assert_close(encoder_out[row, : frames[row]], alone[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(posteriors[row, : frames[row]], model.ctc_log_probs(alone)[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(
            logits[row], model.decoder(tokens[row : row + 1], alone, length)[0], atol=1e-5, rtol=0
        )


def test_the_loss_of_a_batch_is_the_sum_of_its_utterances(model):
    texts = ["KNIT TWO", "WHEN I ASKED", "SAID BILLY"]
    together = model.loss(batch_of(model, NAMES, texts))
    alone = [model.loss(batch_of(model, NAMES[i : i + 1], texts[i : i + 1])) for i in range(3)]
    for name in ("total", "ctc", "attention"):
        expected = sum(getattr(losses, name) for losses in alone)
        torch.testing.assert_close(getattr(together, name), expected, atol=1e-3, rtol=1e-5)
    assert together.tokens == sum(losses.tokens for losses in alone)
    torch.testing.assert_close(together.total, 0.3 * together.ctc + 0.7 * together.attention)


@pytest.mark.parametrize("kind", ["conformer", "e_branchformer", "transformer"])
@pytest.mark.parametrize("positions", ["rotary", "relative"])
def test_gradients_reach_every_weight_and_are_finite_in_bfloat16(tokenizer, kind, positions):
    torch.manual_seed(0)
    config = small_config(kind=kind, positions=positions, norm="batch", gated=48)
    decoder = replace(config.decoder, scoring="additive")
    loss = LossConfig(intermediate_layers=[1], cr_ctc_weight=0.2)
    model = Recognizer(replace(config, decoder=decoder, loss=loss), tokenizer)
    with torch.autocast("cpu", torch.bfloat16):
        losses = model.train().loss(batch_of(model, NAMES, ["KNIT TWO", "", "SAID BILLY"]))
    losses.total.backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert torch.isfinite(weight.grad).all(), name


def with_loss(model: Recognizer, **options: object) -> Recognizer:
    """The same weights under another objective."""
    other = Recognizer(replace(model.config, loss=LossConfig(**options)), model.tokenizer)
    other.load_state_dict(model.state_dict())
    return other


TEXTS = ["KNIT TWO", "WHEN I ASKED", "SAID BILLY"]


def test_intermediate_ctc_is_the_mean_over_its_layers(tokenizer):
    torch.manual_seed(0)
    model = Recognizer(small_config(layers=3), tokenizer)
    options = {"ctc_weight": 0.4, "intermediate_layers": [1, 2], "intermediate_weight": 0.25}
    batch = batch_of(model, NAMES, TEXTS)
    losses = with_loss(model, **options).eval().loss(batch)
    expected = []
    for layers in (1, 2):
        shallow = Recognizer(small_config(layers=layers), tokenizer).eval()
        shallow.load_state_dict({name: model.state_dict()[name] for name in shallow.state_dict()})
        expected.append(shallow.loss(batch).ctc)
    torch.testing.assert_close(losses.intermediate, sum(expected) / 2)
    listening = 0.75 * losses.ctc + 0.25 * losses.intermediate
    torch.testing.assert_close(losses.total, 0.4 * listening + 0.6 * losses.attention)
    assert with_loss(model).eval().loss(batch).intermediate == 0


def test_cr_ctc_is_the_mean_of_two_separately_masked_passes(tokenizer):
    """Two views in one doubled batch give what two passes of their own give."""
    torch.manual_seed(0)
    config = small_config(dropout=0.0)
    model = Recognizer(replace(config, decoder=replace(config.decoder, dropout=0.0)), tokenizer)
    batch = batch_of(model, NAMES, TEXTS)
    once = with_loss(model).train()
    passes = [once.loss(batch._replace(seeds=seeds)) for seeds in (batch.seeds, ~batch.seeds)]
    losses = with_loss(model, cr_ctc_weight=0.2).train().loss(batch)
    for name in ("ctc", "attention"):
        mean = sum(getattr(each, name) for each in passes) / 2
        torch.testing.assert_close(getattr(losses, name), mean, atol=1e-3, rtol=1e-5)
    assert abs(passes[0].ctc - passes[1].ctc) > 1e-3  # the views differ
    assert losses.consistency > 0
    assert losses.tokens == passes[0].tokens
    torch.testing.assert_close(losses.total, 0.3 * (losses.ctc + 0.2 * losses.consistency) + 0.7 * losses.attention)


def test_cr_ctc_counts_an_infeasible_text_once(model):
    batch = batch_of(model, NAMES, ["KNIT TWO " * 60, "WHEN I ASKED", "SAID BILLY"])
    assert with_loss(model).train().loss(batch).infeasible == 1
    assert with_loss(model, cr_ctc_weight=0.2).train().loss(batch).infeasible == 1


def test_validation_has_one_view_and_no_masks(model):
    batch = batch_of(model, NAMES, TEXTS)
    plain, doubled = (with_loss(model, cr_ctc_weight=weight).eval().loss(batch) for weight in (0.0, 0.2))
    assert doubled.consistency == 0
    torch.testing.assert_close(doubled.total, plain.total, atol=0, rtol=0)


def test_cr_ctc_without_masks_is_refused():
    with pytest.raises(ConfigError, match="cr_ctc_weight needs spec_augment"):
        ModelConfig(loss=LossConfig(cr_ctc_weight=0.2), spec_augment=SpecAugmentConfig(frequency_masks=0, time_masks=0))


def test_the_docstrings_example_runs():
    assert doctest.testmod(asr.model.recognizer).failed == 0
    assert doctest.testmod(asr.model.recognizer).attempted > 5


@pytest.mark.parametrize("weight", [0.0, -0.1, 1.1])
def test_a_model_without_ctc_is_refused(weight):
    with pytest.raises(ConfigError, match=r"loss\.ctc_weight must lie in 0 < ctc_weight <= 1"):
        LossConfig(ctc_weight=weight)
    assert LossConfig().ctc_weight == 0.3
