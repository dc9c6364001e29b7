from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asr.model.config import DecoderConfig
from asr.model.decoder import Decoder


@pytest.fixture(params=["dot", "additive"])
def decoder(request) -> Decoder:
    torch.manual_seed(0)
    return Decoder(11, 16, DecoderConfig(layers=2, heads=2, feed_forward=24, scoring=request.param)).eval()


@pytest.fixture
def audio() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(2, 9, 16), torch.tensor([9, 4])


def test_step_by_step_equals_all_at_once(decoder, audio):
    tokens = torch.randint(0, 11, (2, 7))
    full = decoder(tokens, *audio)
    cache = decoder.start(*audio)
    for position in range(7):
        logits = decoder.step(tokens[:, position], cache)
        torch.testing.assert_close(logits, full[:, position], atol=1e-5, rtol=0)


def test_the_future_cannot_be_seen(decoder, audio):
    tokens = torch.randint(0, 11, (2, 7))
    other = tokens.clone()
    other[:, 4:] = (other[:, 4:] + 1) % 11
    torch.testing.assert_close(decoder(tokens, *audio)[:, :4], decoder(other, *audio)[:, :4], atol=0, rtol=0)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(short=st.integers(1, 20), more=st.one_of(st.integers(1, 4), st.integers(5, 180)))
def test_padding_of_the_audio_does_not_matter(decoder, short, more):
    encoder_out, lengths = torch.randn(2, short + more, 16), torch.tensor([short + more, short])
    tokens = torch.randint(0, 11, (2, 5))
    batched = decoder(tokens, encoder_out, lengths)
    alone = decoder(tokens[1:], encoder_out[1:, :short], lengths[1:])
    torch.testing.assert_close(batched[1], alone[0], atol=1e-5, rtol=0)


def test_padding_of_the_text_does_not_matter(decoder, audio):
    tokens = torch.randint(0, 11, (2, 9))
    torch.testing.assert_close(decoder(tokens, *audio)[:, :4], decoder(tokens[:, :4], *audio), atol=1e-5, rtol=0)


def test_several_hypotheses_share_one_audio_and_can_be_reordered(decoder, audio):
    encoder_out, lengths = audio
    tokens = torch.randint(0, 11, (6, 3))  # three hypotheses for each of two utterances
    cache = decoder.start(encoder_out, lengths, hypotheses=3)
    shared = [tensor.data_ptr() for layer in cache.audio for tensor in layer]
    for position in range(2):
        decoder.step(tokens[:, position], cache)
    order = torch.tensor([2, 2, 0, 5, 3, 3])
    cache.select(order)
    logits = decoder.step(tokens[:, 2], cache)
    repeated, frames = encoder_out.repeat_interleave(3, 0), lengths.repeat_interleave(3, 0)
    expected = decoder(torch.cat((tokens[order, :2], tokens[:, 2:]), 1), repeated, frames)[:, -1]
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
    assert [tensor.data_ptr() for layer in cache.audio for tensor in layer] == shared
    assert cache.audio[0].key.shape[0] == 2  # one for each utterance, not for each hypothesis


@pytest.mark.parametrize("scoring", ["dot", "additive"])
def test_scoring_concerns_cross_attention_alone(scoring):
    block = Decoder(11, 16, DecoderConfig(layers=1, heads=2, feed_forward=24, scoring=scoring)).blocks[0]
    assert (block.cross_attention.energy is not None) == (scoring == "additive")
    assert block.self_attention.energy is None


def test_stepping_has_the_same_gradients_as_the_full_pass(decoder, audio):
    tokens = torch.randint(0, 11, (2, 3))
    decoder(tokens, *audio).square().sum().backward()
    full = {name: weight.grad.clone() for name, weight in decoder.named_parameters()}
    decoder.zero_grad()
    cache, total = decoder.start(*audio), torch.zeros(())
    for position in range(3):
        logits = decoder.step(tokens[:, position], cache)
        total = total + logits.square().sum()
    total.backward()
    for name, weight in decoder.named_parameters():
        torch.testing.assert_close(weight.grad, full[name], atol=1e-4, rtol=1e-4, msg=name)
