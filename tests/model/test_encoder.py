from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.features import length_mask
from asr.model.config import EncoderConfig
from asr.model.convolution import ConvolutionModule
from asr.model.encoder import Encoder
from asr.model.subsampling import Subsampling, subsampled_length


def encoder(kind: str, subsampling: int) -> Encoder:
    torch.manual_seed(0)
    config = EncoderConfig(
        kind=kind,
        layers=2,
        dim=16,
        heads=2,
        feed_forward=24,
        kernel=31,
        subsampling=subsampling,
        subsampling_channels=4,
    )
    return Encoder(20, config).eval()


@pytest.mark.parametrize("factor", [4, 8])
def test_subsampling_has_exactly_the_length_it_announces(factor):
    subsampling = Subsampling(20, 8, factor, 4, 0.0)
    for frames in range(1, 401):
        x, lengths = subsampling(torch.randn(1, frames, 20), torch.tensor([frames]))
        assert x.shape[1] == lengths.item() == subsampled_length(torch.tensor(frames), factor) == -(-frames // factor)


@pytest.mark.parametrize("kind", ["conformer", "transformer"])
@pytest.mark.parametrize("factor", [4, 8])
@settings(max_examples=15, deadline=None)
@given(long=st.integers(20, 300), missing=st.integers(1, 270))
def test_alone_equals_batched(kind, factor, long, missing):
    short = max(1, long - missing)
    model = encoder(kind, factor)
    features = torch.randn(2, long, 20) * length_mask(torch.tensor([long, short]), long)[:, :, None]
    batched, lengths = model(features, torch.tensor([long, short]))
    alone, frames = model(features[1:, :short], torch.tensor([short]))
    assert lengths[1] == frames[0]
    torch.testing.assert_close(batched[1, : lengths[1]], alone[0], atol=1e-5, rtol=0)
    assert not batched[1, lengths[1] :].any()


def test_what_stands_in_the_padding_does_not_matter_to_the_convolution():
    module = ConvolutionModule(8, 31, 0.0)
    x, mask = torch.randn(1, 10, 8), length_mask(torch.tensor([6]), 10)
    other = x.clone()
    other[:, 6:] = 1e3
    torch.testing.assert_close(module(x, mask)[:, :6], module(other, mask)[:, :6])


def test_stochastic_depth_skips_blocks_in_training_only():
    config = EncoderConfig(layers=4, dim=16, heads=2, feed_forward=24, kernel=3, subsampling_channels=4, dropout=0.0)
    model = Encoder(20, EncoderConfig(**(vars(config) | {"stochastic_depth": 0.9})))
    features, lengths = torch.randn(1, 80, 20), torch.tensor([80])
    torch.manual_seed(1)
    outputs = {round(model.train()(features, lengths)[0].abs().sum().item(), 4) for _ in range(12)}
    assert len(outputs) > 1
    outputs = {round(model.eval()(features, lengths)[0].abs().sum().item(), 4) for _ in range(3)}
    assert len(outputs) == 1


def test_every_frame_can_look_at_every_other():
    model = encoder("transformer", 4)
    features = torch.randn(1, 160, 20, requires_grad=True)
    encoder_out, _ = model(features, torch.tensor([160]))
    encoder_out[0, 0, 0].backward()
    assert features.grad is not None
    assert features.grad[0, -1].abs().sum() > 0
