from __future__ import annotations

import copy

import pytest
import torch
from examples import small_config

from asr.errors import ConfigError
from asr.model.recognizer import Recognizer
from asr.training.config import FinetuneConfig, OptimizerConfig
from asr.training.finetune import restrict
from asr.training.optimizers import (
    MuonWithAdamW,
    configured_rates,
    make_optimizer,
    make_schedule,
    rate_share,
    set_rates,
)


@pytest.fixture
def model(tokenizer) -> Recognizer:
    torch.manual_seed(0)
    return Recognizer(small_config(layers=3), tokenizer)


def group_of(optimizer: torch.optim.Optimizer, weight: torch.Tensor) -> dict:
    return next(group for group in optimizer.param_groups if any(other is weight for other in group["params"]))


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_every_weight_is_in_one_group_and_only_matrices_decay(model, name):
    optimizer = make_optimizer(model, OptimizerConfig(name=name, weight_decay=0.1))
    listed = [id(weight) for group in optimizer.param_groups for weight in group["params"]]
    assert sorted(listed) == sorted(id(weight) for weight in model.parameters())
    for key, weight in model.named_parameters():
        decays = weight.ndim > 1 and not key.endswith(("embedding.weight", "content_bias", "distance_bias", "energy"))
        assert group_of(optimizer, weight)["weight_decay"] == (0.1 if decays else 0.0), key


def test_muon_takes_the_matrices_alone(model):
    optimizer = make_optimizer(model, OptimizerConfig(name="muon"))
    assert isinstance(optimizer, MuonWithAdamW)
    muon = {id(weight) for group in optimizer.parts[0].param_groups for weight in group["params"]}
    for name, weight in model.named_parameters():
        matrix = weight.ndim == 2 and name not in ("decoder.embedding.weight", "ctc_head.weight")
        assert (id(weight) in muon) == matrix, name


def test_frozen_weights_are_left_out_and_lower_blocks_learn_slower(model):
    model.encoder.blocks[0].requires_grad_(False)
    optimizer = make_optimizer(model, OptimizerConfig(learning_rate=1.0, layer_decay=0.5))
    listed = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
    rates = {"encoder.blocks.2.out_norm.weight": 1.0, "encoder.blocks.1.out_norm.weight": 0.5}
    rates |= {"encoder.subsampling.project.weight": 0.25, "ctc_head.weight": 1.0, "decoder.embedding.weight": 1.0}
    for name, weight in model.named_parameters():
        assert (id(weight) in listed) == (not name.startswith("encoder.blocks.0.")), name
        if name in rates:
            assert group_of(optimizer, weight)["lr"] == rates[name], name


def run(model: Recognizer, optimizer: torch.optim.Optimizer, schedule, steps: range) -> None:
    for step in steps:
        torch.manual_seed(step)
        optimizer.zero_grad()
        sum((weight * torch.randn_like(weight)).sum() for weight in model.parameters()).backward()
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_an_optimiser_goes_on_from_its_state(model, name):
    config = OptimizerConfig(name=name, learning_rate=0.01, warmup_steps=3)
    other = copy.deepcopy(model)
    whole = make_optimizer(model, config)
    schedule = make_schedule(whole, config, 10)
    run(model, whole, schedule, range(6))
    half = make_optimizer(other, config)
    begun = make_schedule(half, config, 10)
    run(other, half, begun, range(3))
    resumed = make_optimizer(other, config)
    again = make_schedule(resumed, config, 10)
    resumed.load_state_dict(copy.deepcopy(half.state_dict()))
    again.load_state_dict(begun.state_dict())
    run(other, resumed, again, range(3, 6))
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
    assert resumed.param_groups[0]["lr"] == whole.param_groups[0]["lr"] != config.learning_rate


def test_muon_moves_matrices_by_orthogonal_updates():
    """Of one step from zero momentum, the update's singular values are all alike (Newton-Schulz brings them near 1)."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(24, 16)
    before = layer.weight.detach().clone()
    optimizer = make_optimizer(layer, OptimizerConfig(name="muon", learning_rate=1.0, weight_decay=0.0))
    (layer.weight * torch.randn(16, 24)).sum().backward()
    optimizer.step()
    values = torch.linalg.svdvals(layer.weight.detach() - before) / (0.2 * 24**0.5)
    assert values.min() > 0.5
    assert values.max() < 1.5


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("cosine", {0: 0.1, 9: 1.0, 55: 0.505, 100: 0.01}),
        ("wsd", {0: 0.1, 9: 1.0, 50: 1.0, 82: 1.0, 91: 0.505, 100: 0.01}),
        ("inverse_sqrt", {0: 0.1, 9: 1.0, 39: 0.5}),
    ],
)
def test_schedules(schedule, expected):
    config = OptimizerConfig(schedule=schedule, warmup_steps=10)
    found = {step: rate_share(step, config, 100) for step in expected}
    assert found == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("wrong", [{"name": "sgd"}, {"schedule": "linear"}, {"layer_decay": 0.0}, {"accumulate": 0}])
def test_wrong_settings_are_one_line(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        OptimizerConfig(**wrong)


def test_a_norm_above_the_blocks_learns_at_the_full_rate_and_muon_takes_adapters_alone(tokenizer):
    model = Recognizer(small_config(kind="transformer", layers=3), tokenizer)
    optimizer = make_optimizer(model, OptimizerConfig(learning_rate=1.0, layer_decay=0.5))
    assert group_of(optimizer, model.encoder.norm.weight)["lr"] == 1.0
    restrict(model, FinetuneConfig(lora_rank=2))
    learning = [id(weight) for weight in model.parameters() if weight.requires_grad]
    groups = make_optimizer(model, OptimizerConfig(name="muon")).param_groups
    assert sorted(id(weight) for group in groups for weight in group["params"]) == sorted(learning)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_run_that_goes_on_learns_at_the_rates_it_is_told(model, name):
    before = OptimizerConfig(name=name, learning_rate=0.01, warmup_steps=3)
    now = OptimizerConfig(name=name, learning_rate=0.001, warmup_steps=3, weight_decay=0.5)
    first = make_optimizer(model, before)
    schedule = make_schedule(first, before, 10)
    run(model, first, schedule, range(5))
    for config, share in ((before, 1.0), (now, 0.1)):
        second = make_optimizer(model, config)
        again = make_schedule(second, config, 10)
        rates = configured_rates(second)
        second.load_state_dict(copy.deepcopy(first.state_dict()))
        again.load_state_dict(schedule.state_dict())
        set_rates(again, rates)
        for old, new in zip(first.param_groups, second.param_groups, strict=True):
            assert new["lr"] == (old["lr"] if share == 1 else pytest.approx(share * old["lr"]))
            assert new["weight_decay"] == (config.weight_decay if old["weight_decay"] else 0.0)
        again.step()
        assert second.param_groups[0]["lr"] == pytest.approx(config.learning_rate * rate_share(6, config, 10))
