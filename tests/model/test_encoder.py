from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.errors import ConfigError
from asr.features import length_mask
from asr.model.batch_norm import MaskedBatchNorm
from asr.model.config import EncoderConfig, LossConfig, ModelConfig
from asr.model.convolution import ConvolutionModule
from asr.model.encoder import Encoder
from asr.model.subsampling import Subsampling, subsampled_length

KINDS = ("conformer", "e_branchformer", "transformer")
VARIANTS = [
    (kind, positions, norm)
    for kind, positions, norm in itertools.product(KINDS, ("rotary", "relative"), ("layer", "batch"))
    if (kind, norm) != ("transformer", "batch")  # it has no convolution to normalise
]


def encoder(**options: object) -> Encoder:
    torch.manual_seed(0)
    sizes = {"layers": 2, "dim": 16, "heads": 2, "feed_forward": 24, "gated": 32, "kernel": 31}
    model = Encoder(20, EncoderConfig(**(sizes | {"subsampling_channels": 4, "dropout": 0.0} | options)))
    with torch.no_grad():  # as after training: biases, norms, filters and statistics that have moved
        for name, tensor in model.named_parameters():
            if tensor.ndim == 1 or "_bias" in name or "depthwise" in name:
                tensor.add_(torch.randn_like(tensor) * 0.1)
        for norm in model.modules():
            if isinstance(norm, MaskedBatchNorm):
                norm.running_mean.normal_()
    return model.eval()


def padded(long: int, short: int) -> tuple[torch.Tensor, torch.Tensor]:
    lengths = torch.tensor([long, short])
    return torch.randn(2, long, 20) * length_mask(lengths, long)[:, :, None], lengths


@pytest.mark.parametrize("factor", [4, 8])
def test_subsampling_has_exactly_the_length_it_announces(factor):
    subsampling = Subsampling(20, 8, factor, 4, 0.0)
    for frames in range(1, 401):
        x, lengths = subsampling(torch.randn(1, frames, 20), torch.tensor([frames]))
        assert x.shape[1] == lengths.item() == subsampled_length(torch.tensor(frames), factor) == -(-frames // factor)


@pytest.mark.parametrize("factor", [4, 8])
def test_fresh_subsampling_hears_its_input(factor):
    features, lengths = torch.randn(8, 200, 80), torch.full((8,), 200)
    x, _ = Subsampling(80, 144, factor, 32, 0.0)(features, lengths)
    x = x[:, 5:-5].flatten(0, 1)
    assert x.std(0).mean() > 0.2, "what differs between inputs should not vanish"
    assert x.std(0).mean() > 0.5 * x.mean(0).std(), "what all inputs share should not drown it"


@pytest.mark.parametrize("factor", [4, 8])
@settings(max_examples=25, deadline=None)
@given(short=st.integers(1, 60), more=st.one_of(st.integers(1, 9), st.integers(10, 540)))
def test_subsampling_alone_equals_batched(factor, short, more):
    torch.manual_seed(0)
    subsampling = Subsampling(20, 8, factor, 4, 0.0)
    features, lengths = padded(short + more, short)
    batched, frames = subsampling(features, lengths)
    alone, _ = subsampling(features[1:, :short], lengths[1:])
    torch.testing.assert_close(batched[1, : frames[1]], alone[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("kind", "positions", "norm"), VARIANTS)
@pytest.mark.parametrize("factor", [4, 8])
@settings(max_examples=8, deadline=None)
@given(short=st.integers(1, 40), more=st.one_of(st.integers(1, 9), st.integers(10, 360)))
def test_alone_equals_batched(kind, positions, norm, factor, short, more):
    long = min(short + more, 10 * short + 9)
    model = encoder(kind=kind, positions=positions, norm=norm, subsampling=factor)
    features, lengths = padded(long, short)
    batched, frames = model(features, lengths)
    alone, frame = model(features[1:, :short], lengths[1:])
    assert frames[1] == frame[0]
    torch.testing.assert_close(batched[1, : frames[1]], alone[0], atol=1e-5, rtol=0)
    assert not batched[1, frames[1] :].any()


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_what_stands_in_the_padding_does_not_matter_to_the_convolution(norm):
    module = ConvolutionModule(8, 31, 0.0, norm)
    x, mask = torch.randn(1, 10, 8), length_mask(torch.tensor([6]), 10)
    other = x.clone()
    other[:, 6:] = 1e3
    torch.testing.assert_close(module(x, mask)[:, :6], module(other, mask)[:, :6])


@pytest.mark.parametrize(("kind", "positions", "norm"), VARIANTS)
def test_padding_does_not_matter_in_training_either(kind, positions, norm):
    """More padding of the whole batch, as a longer neighbour would bring it, changes no output and no gradient."""
    model = encoder(kind=kind, positions=positions, norm=norm).train()
    features, lengths = padded(90, 33)
    results = []
    for extra in (0, 70):
        model.zero_grad()
        out, frames = model(torch.nn.functional.pad(features, (0, 0, 0, extra)), lengths)
        out[:, : int(frames.max())].square().sum().backward()
        results.append([out[:, : int(frames.max())], *(weight.grad for weight in model.parameters())])
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-5, rtol=0)
    # A bias before a batch norm has no gradient but rounding, so each is measured by the largest of all.
    scale = max(1.0, *(gradient.abs().max().item() for gradient in results[0][1:]))
    for one, other in zip(results[0][1:], results[1][1:], strict=True):
        torch.testing.assert_close(one / scale, other / scale, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("kind", "positions", "norm"), VARIANTS)
def test_activation_checkpointing_changes_no_gradient_and_no_statistic(kind, positions, norm):
    features, lengths = padded(90, 33)
    results = []
    for checkpointing in (False, True):
        model = encoder(
            kind=kind, positions=positions, norm=norm, dropout=0.2, activation_checkpointing=checkpointing
        ).train()
        torch.manual_seed(3)
        model(features, lengths)[0].square().sum().backward()
        results.append([weight.grad for weight in model.parameters()] + list(model.buffers()))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=0)


def test_activation_checkpointing_keeps_less_for_the_way_back():
    kept = {}
    for checkpointing in (False, True):
        model = encoder(layers=6, activation_checkpointing=checkpointing).train()
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=sizes: s.append(t.numel()) or t, lambda t: t):
            model(*padded(90, 33))
        kept[checkpointing] = sum(sizes)
    assert kept[True] < kept[False] / 2


def test_stochastic_depth_skips_blocks_in_proportion_to_their_depth_and_in_training_only():
    model = encoder(layers=4, kernel=3, norm="layer", dropout=0.0, stochastic_depth=0.8)
    features, lengths = torch.randn(1, 40, 20), torch.tensor([40])
    x, _ = model.subsampling(features, lengths)
    mask, positions = torch.ones(x.shape[:2], dtype=torch.bool), model._positions(x.shape[1], x.device)
    draws, skipped = 400, torch.zeros(4)
    torch.manual_seed(1)
    with torch.no_grad():
        for _ in range(draws):
            after = [x, *model.train().outputs(features, lengths, range(1, 5))[0]]
            for depth, (before, now, block) in enumerate(zip(after, after[1:5], model.eval().blocks, strict=False)):
                if torch.equal(before, now):
                    skipped[depth] += 1
                else:  # unscaled
                    torch.testing.assert_close(now, block(before, mask, positions), atol=1e-6, rtol=0)
        assert len({model(features, lengths)[0].sum().item() for _ in range(20)}) == 1
    torch.testing.assert_close(skipped / draws, torch.tensor([0.2, 0.4, 0.6, 0.8]), atol=0.06, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_of_early_blocks_are_those_of_a_shallower_encoder(kind):
    deep = encoder(kind=kind, layers=3)
    shallow = encoder(kind=kind, layers=1)
    shallow.load_state_dict({name: deep.state_dict()[name] for name in shallow.state_dict()})
    features, lengths = padded(90, 33)
    (first, last), frames = deep.outputs(features, lengths, [1])
    torch.testing.assert_close(first, shallow(features, lengths)[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(last, deep(features, lengths)[0], atol=0, rtol=0)
    assert not first[1, frames[1] :].any()


@pytest.mark.parametrize("positions", ["rotary", "relative"])
def test_every_frame_can_look_at_every_other(positions):
    model = encoder(kind="transformer", positions=positions)
    features = torch.randn(1, 160, 20, requires_grad=True)
    encoder_out, _ = model(features, torch.tensor([160]))
    encoder_out[0, 0, 0].backward()
    assert features.grad is not None
    assert features.grad[0, -1].abs().sum() > 0


@pytest.mark.parametrize("positions", ["rotary", "relative"])
def test_order_matters_to_attention(positions):
    """Without positions attention would give the same frames in another order."""
    block = encoder(kind="transformer", positions=positions).blocks[0]
    table = encoder(positions=positions)._positions(6, torch.device("cpu"))
    x, mask, order = torch.randn(1, 6, 16), torch.ones(1, 6, dtype=torch.bool), torch.tensor([3, 1, 5, 0, 4, 2])
    assert not torch.allclose(block(x, mask, table)[:, order], block(x[:, order], mask, table), atol=1e-3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"positions": "absolute"}, "encoder.positions must be one of rotary, relative"),
        ({"norm": "group"}, "encoder.norm must be one of layer, batch"),
        ({"kind": "branchformer"}, "encoder.kind must be one of conformer, e_branchformer, transformer"),
        ({"gated": 33}, "encoder.gated must be even"),
    ],
)
def test_a_wrong_choice_is_one_line(wrong, message):
    with pytest.raises(ConfigError, match=message):
        EncoderConfig(**wrong)


@pytest.mark.parametrize("kind", ["conformer", "e_branchformer"])
@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_each_block_has_the_norm_that_was_asked_for(kind, norm):
    masked = [part for part in encoder(kind=kind, norm=norm).modules() if isinstance(part, MaskedBatchNorm)]
    assert len(masked) == (2 if norm == "batch" else 0)


def test_intermediate_layers_lie_below_the_last():
    ModelConfig(encoder=EncoderConfig(layers=3), loss=LossConfig(intermediate_layers=[1, 2]))
    for layer in (0, 3):
        with pytest.raises(ConfigError, match=r"intermediate_layers must lie in 1\.\.2"):
            ModelConfig(encoder=EncoderConfig(layers=3), loss=LossConfig(intermediate_layers=[layer]))
