from __future__ import annotations

import pytest
import torch

from asr.model.config import DecoderConfig
from asr.model.decoder import Decoder


@pytest.fixture
def decoder() -> Decoder:
    torch.manual_seed(0)
    return Decoder(11, 16, DecoderConfig(layers=2, heads=2, feed_forward=24)).eval()


@pytest.fixture
def audio() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(2, 9, 16), torch.tensor([9, 4])


def test_step_by_step_equals_all_at_once(decoder, audio):
    tokens = torch.randint(0, 11, (2, 7))
    full = decoder(tokens, *audio)
    cache = decoder.start(*audio)
    for position in range(7):
        logits, cache = decoder.step(tokens[:, position], cache)
        torch.testing.assert_close(logits, full[:, position], atol=1e-5, rtol=0)


def test_the_future_cannot_be_seen(decoder, audio):
    tokens = torch.randint(0, 11, (2, 7))
    other = tokens.clone()
    other[:, 4:] = (other[:, 4:] + 1) % 11
    torch.testing.assert_close(decoder(tokens, *audio)[:, :4], decoder(other, *audio)[:, :4], atol=0, rtol=0)


def test_padding_of_the_audio_does_not_matter(decoder, audio):
    encoder_out, lengths = audio
    tokens = torch.randint(0, 11, (2, 5))
    batched = decoder(tokens, encoder_out, lengths)
    alone = decoder(tokens[1:], encoder_out[1:, :4], lengths[1:])
    torch.testing.assert_close(batched[1], alone[0], atol=1e-5, rtol=0)


def test_several_hypotheses_share_one_audio_and_can_be_reordered(decoder, audio):
    encoder_out, lengths = audio
    tokens = torch.randint(0, 11, (6, 3))  # three hypotheses for each of two utterances
    cache = decoder.start(encoder_out, lengths, hypotheses=3)
    audio_keys = cache.audio[0].key.data_ptr()
    for position in range(2):
        _, cache = decoder.step(tokens[:, position], cache)
    order = torch.tensor([2, 2, 0, 5, 3, 3])
    cache.select(order)
    logits, cache = decoder.step(tokens[:, 2], cache)
    repeated, frames = encoder_out.repeat_interleave(3, 0), lengths.repeat_interleave(3, 0)
    expected = decoder(torch.cat((tokens[order, :2], tokens[:, 2:]), 1), repeated, frames)[:, -1]
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
    assert cache.audio[0].key.data_ptr() == audio_keys
