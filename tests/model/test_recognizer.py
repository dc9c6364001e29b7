from __future__ import annotations

import doctest

import pytest
import torch
from examples import small_config, waveforms

import asr.model.recognizer
from asr.model.recognizer import Batch, Recognizer

NAMES = ("1737-146161-0009", "3947-13262-0016", "6848-252323-0001")


def batch_of(model: Recognizer, names: tuple[str, ...], texts: list[str]) -> Batch:
    waveform, lengths = waveforms(*names)
    tokens = [torch.tensor(model.tokenizer.encode(text)) for text in texts]
    padded = torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True)
    return Batch(
        list(names), waveform, lengths, padded, torch.tensor([len(t) for t in tokens]), torch.arange(len(names))
    )


@pytest.mark.parametrize("kind", ["conformer", "transformer"])
@pytest.mark.parametrize("subsampling", [4, 8])
def test_alone_equals_batched_on_real_speech(tokenizer, kind, subsampling):
    torch.manual_seed(0)
    model = Recognizer(small_config(kind=kind, subsampling=subsampling), tokenizer).eval()
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


def test_gradients_reach_every_weight_and_are_finite_in_bfloat16(model):
    with torch.autocast("cpu", torch.bfloat16):
        losses = model.train().loss(batch_of(model, NAMES, ["KNIT TWO", "", "SAID BILLY"]))
    losses.total.backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert torch.isfinite(weight.grad).all(), name


def test_the_docstrings_example_runs():
    assert doctest.testmod(asr.model.recognizer).failed == 0
    assert doctest.testmod(asr.model.recognizer).attempted > 5
