from __future__ import annotations

import numpy as np
import pytest
import torch
from examples import small_config
from runs import TINY, composed

from asr.batching import Budget
from asr.config import compose
from asr.errors import ConfigError, DataError
from asr.manifest import Manifest
from asr.model.recognizer import Recognizer
from asr.training import fit, memory
from asr.training.config import TrainConfig
from asr.training.memory import fit_cost, measure_budget
from asr.training.resume import checkpoints_in

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.mark.parametrize("truth", [(0.0, 5e6, 0.0), (3e7, 5e6, 0.0), (3e7, 5e6, 2e5)])
def test_the_fit_finds_the_costs_it_was_given(truth):
    fixed, linear, squared = truth
    costs = [(t, r, fixed + r * (linear * t + squared * t * t)) for t in (5, 10, 20) for r in (1, 3)]
    assert fit_cost(costs) == pytest.approx(truth, rel=1e-6, abs=1.0)


def test_the_fit_is_never_below_a_measurement():
    draw = np.random.default_rng(0)
    costs = [(t, r, r * 5e6 * t * draw.uniform(0.7, 1.3)) for t in (5, 10, 20) for r in (1, 3)]
    fixed, linear, squared = fit_cost(costs)
    assert min(fixed, squared) >= 0
    assert all(fixed + r * (linear * t + squared * t * t) >= used * (1 - 1e-9) for t, r, used in costs)


def test_a_measured_budget_holds_for_batches_that_were_not_measured(tokenizer):
    """On the CPU's own memory: real batches of other shapes take no more than is foretold, and a fair part of it."""
    torch.manual_seed(0)
    model = Recognizer(small_config(dim=64, feed_forward=256, subsampling_channels=32), tokenizer)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    cpu = torch.device("cpu")
    budget = measure_budget(model, 20.0, 20.0, 10.0, cpu, "32-true")
    for seconds, rows in ((8.0, 6), (16.0, 4)):
        batch = memory._noise(rows, seconds, 10.0, len(tokenizer), cpu)
        with memory._peak(cpu) as used:
            model.loss(batch).total.backward()
        foretold = rows * float(budget.cost(np.array(seconds)))
        assert 0.2 * foretold < used[0] < 1.5 * foretold
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_half_of_the_free_memory_is_spent_beside_what_the_optimiser_takes(tokenizer, monkeypatch):
    model, cpu = Recognizer(small_config(), tokenizer), torch.device("cpu")
    weights = sum(weight.numel() for weight in model.parameters())
    monkeypatch.setattr(memory, "fit_cost", lambda costs: (0.0, 1.0, 0.0))
    for free in (1e9, 2e9):
        monkeypatch.setattr(memory, "_free", lambda device, free=free: free)
        budget = measure_budget(model, 2.0, 2.0, 10.0, cpu, "32-true")
        assert budget.limit == pytest.approx((free - 4 * 4 * weights) * 0.5)


@pytest.mark.parametrize("slowest", [1.0, 0.9])
def test_an_outlier_is_left_out_before_the_first_step(eight, tmp_path, monkeypatch, caplog, slowest):
    """Under a cap that holds all but the longest utterance, every batch keeps within it and no step fails."""
    utterances = sorted(Manifest.load(eight), key=lambda utterance: utterance.duration)
    cap = utterances[-1].duration / slowest - 0.01

    def measured(model, longest, *others):
        assert longest == pytest.approx(utterances[-1].duration / slowest)
        return Budget(cap)

    monkeypatch.setattr(fit, "measure_budget", measured)
    real, seen = Recognizer.loss, []

    def watched(self, batch):
        if self.training:
            seen.append(batch.waveform.numel() / 16_000)
        return real(self, batch)

    monkeypatch.setattr(Recognizer, "loss", watched)
    settings = (*TINY, "data.batch_seconds=auto", f"data.speeds=[{slowest},1.0]", "training.epochs=1")
    fit.train(composed("mini_librispeech", eight, tmp_path / "run", *settings))
    assert f"{utterances[-1].id} does not fit into memory even alone" in caplog.text
    assert 0 < max(seen) <= cap + 1e-3
    assert checkpoints_in(tmp_path / "run" / "checkpoints")


def test_a_run_that_measures_its_own_budget(eight, tmp_path, caplog):
    fit.train(
        composed("mini_librispeech", eight, tmp_path / "run", *TINY, "data.batch_seconds=auto", "training.epochs=1")
    )
    assert caplog.text.count("batch_seconds=auto:") == 1
    more = ("training.epochs=2", "data.batch_seconds=auto")
    fit.train(composed("mini_librispeech", eight, tmp_path / "run", *TINY, *more), resume=True)
    assert caplog.text.count("batch_seconds=auto:") == 1  # another budget would be another plan


def test_validation_that_cannot_fit_is_known_before_the_first_step(tokenizer, monkeypatch):
    model = Recognizer(small_config(), tokenizer)
    monkeypatch.setattr(memory, "_free", lambda device: 1000.0)
    with pytest.raises(DataError, match="longest utterance, 9 s, does not fit"):
        measure_budget(model, 20.0, 9.0, 10.0, torch.device("cpu"), "32-true")


def test_batch_seconds_is_a_number_or_auto():
    with pytest.raises(ConfigError, match="must be a number or auto"):
        compose(TrainConfig, "mini_librispeech", ["data.batch_seconds=lots"])
    with pytest.raises(ConfigError, match="auto measures one device"):
        compose(TrainConfig, "mini_librispeech", ["data.batch_seconds=auto", "training.devices=2"])


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_GPU)])
def test_measuring_leaves_the_model_as_and_where_it_was(tokenizer, device):
    model = Recognizer(small_config(norm="batch"), tokenizer)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    measure_budget(model, 5.0, 5.0, 10.0, torch.device(device), "32-true")
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_no_room_for_any_utterance_is_one_line(eight, tmp_path, monkeypatch):
    monkeypatch.setattr(fit, "measure_budget", lambda *arguments: Budget(0.01))
    with pytest.raises(DataError, match="no utterance fits into memory"):
        fit.train(composed("mini_librispeech", eight, tmp_path / "run", *TINY, "data.batch_seconds=auto"))


def test_weights_that_fill_the_memory_are_one_line(tokenizer, monkeypatch):
    monkeypatch.setattr(memory, "_free", lambda device: 0.0)
    monkeypatch.setattr(memory, "_check_validation", lambda *arguments: None)
    with pytest.raises(DataError, match="leave no memory for a batch"):
        measure_budget(Recognizer(small_config(), tokenizer), 5.0, 5.0, 10.0, torch.device("cpu"), "32-true")
