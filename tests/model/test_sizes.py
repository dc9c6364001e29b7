"""Every shipped architecture: it builds, it has the size it is named for, and it takes a training step."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest
import torch
import yaml

from asr.config import build, resource
from asr.model.config import ModelConfig
from asr.model.decoder import Decoder
from asr.model.encoder import Encoder
from asr.model.recognizer import Batch, Recognizer
from asr.tokenizer import Tokenizer

VOCABULARY = 1024  # what the published sizes were counted with, the conformer paper's "1k word pieces"
PUBLISHED = {"conformer_s": 13e6, "conformer_m": 30e6, "conformer_l": 118e6}
SHIPPED = sorted(path.stem for path in (resource("conf") / "model").glob("*.yaml"))
CONFORMERS = [name for name in SHIPPED if name.startswith("conformer_")]


def shipped(name: str) -> ModelConfig:
    text = (resource("conf") / "model" / f"{name}.yaml").read_text(encoding="utf-8")
    return build(ModelConfig, yaml.safe_load(text), name)


def meta(config: ModelConfig) -> torch.nn.ModuleDict:
    """The recogniser's parts without their weights; the front end has none."""
    dim = config.encoder.dim
    with torch.device("meta"):
        return torch.nn.ModuleDict(
            {
                "encoder": Encoder(config.mels, config.encoder),
                "ctc_head": torch.nn.Linear(dim, VOCABULARY),
                "decoder": Decoder(VOCABULARY, dim, config.decoder),
            }
        )


def count(module: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_model_has_the_size_it_is_named_for(name):
    assert count(meta(shipped(name))) == pytest.approx(PUBLISHED[name], rel=0.05)


def test_the_encoder_counts_what_the_papers_formula_counts():
    """One block of Gulati et al. 2020 with its own positions and norm, by hand: figures 1 to 4."""
    config = replace(shipped("conformer_l").encoder, positions="relative", norm="batch")
    model = meta(replace(shipped("conformer_l"), encoder=config))
    d, hidden, kernel = 512, 2048, 31
    norms = 5 * 2 * d
    feed_forward = 2 * (d * hidden + hidden + hidden * d + d)
    attention = 4 * d * d + 3 * d + d * d + 2 * d  # q, k, v, out; biases but the key's; distances; u and v
    convolution = (d * 2 * d + 2 * d) + (kernel * d + d) + 2 * d + (d * d + d)
    assert count(model["encoder"].get_submodule("blocks.0")) == norms + feed_forward + attention + convolution


@pytest.mark.parametrize("file", CONFORMERS)
def test_the_table_in_the_header_is_true(file):
    header = (resource("conf") / "model" / f"{file}.yaml").read_text(encoding="utf-8")
    rows = [line.strip("# ").split() for line in header.splitlines() if line.startswith("#   conformer_")]
    assert sorted(row[0] for row in rows) == CONFORMERS
    for name, layers, dim, heads, feed_forward, kernel, factor, decoder, _, hidden, total, encoder in rows:
        config, model = shipped(name), meta(shipped(name))
        sizes = config.encoder
        written = (sizes.layers, sizes.dim, sizes.heads, sizes.feed_forward, sizes.kernel, sizes.subsampling)
        assert written == tuple(map(int, (layers, dim, heads, feed_forward, kernel, factor)))
        assert (config.decoder.layers, config.decoder.feed_forward) == (int(decoder), int(hidden))
        assert f"{count(model) / 1e6:.1f}" == total
        listening = count(model["encoder"]) + count(model["ctc_head"])
        assert f"{listening / 1e6:.1f}" == encoder


def random_batch() -> Batch:
    waveform, lengths = torch.randn(2, 8_000), torch.tensor([8_000, 5_000])
    tokens = torch.tensor([[5, 6, 7], [8, 9, 0]])
    return Batch(["a", "b"], waveform, lengths, tokens, torch.tensor([3, 2]), torch.arange(2))


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_model_takes_a_training_step(name):
    """The largest is cut to two blocks, each of its full width: half a gigabyte of weights would test nothing more."""
    config = shipped(name)
    if config.encoder.dim >= 512:
        config = replace(config, encoder=replace(config.encoder, layers=2))
    torch.manual_seed(0)
    model = Recognizer(config, cast("Tokenizer", range(VOCABULARY))).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-5)
    batch = random_batch()
    before = model.eval().loss(batch).total.item()
    model.train().loss(batch).total.backward()
    assert all(weight.grad is not None and torch.isfinite(weight.grad).all() for weight in model.parameters())
    optimizer.step()
    assert model.eval().loss(batch).total.item() < before
