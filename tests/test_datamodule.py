from __future__ import annotations

from dataclasses import replace

import lightning
import numpy as np
import pytest
import soundfile
import torch
from lightning.fabric.utilities.data import _set_sampler_epoch
from scipy.stats import chisquare
from torch.utils.data import DataLoader

from asr import augment
from asr.augment import AugmentConfig, Augmenter
from asr.datamodule import (
    DataConfig,
    SpeechDataModule,
    SpeechDataset,
    collate,
    hash_ids,
    utterance_seed,
    utterance_seeds,
)
from asr.errors import ConfigError, DataError
from asr.manifest import Manifest, write_manifest
from asr.plan_sampler import PlanSampler
from asr.training.follow_data import FollowData


def batches(manifest, tokenizer, workers: int, epoch: int = 1, seed: int = 7):
    sampler = PlanSampler(manifest.durations / 0.9, 30, seed)
    sampler.set_epoch(epoch)
    dataset = SpeechDataset(manifest, tokenizer, [0.9, 1.0, 1.1], seed)
    return list(DataLoader(dataset, batch_sampler=sampler, collate_fn=collate, num_workers=workers))


def test_workers_change_nothing(manifest, tokenizer):
    alone, helped = batches(manifest, tokenizer, 0), batches(manifest, tokenizer, 2)
    assert len(alone) > 1
    for one, other in zip(alone, helped, strict=True):
        assert one.ids == other.ids
        assert all(torch.equal(a, b) for a, b in zip(one[1:], other[1:], strict=True))
    assert sorted(name for batch in alone for name in batch.ids) == sorted(utterance.id for utterance in manifest)


def test_another_epoch_draws_other_speeds(manifest, tokenizer):
    def lengths(epoch: int) -> dict[str, int]:
        found = batches(manifest, tokenizer, 0, epoch)
        return {name: int(n) for batch in found for name, n in zip(batch.ids, batch.lengths, strict=True)}

    assert lengths(1) != lengths(2)
    assert lengths(1) == lengths(1)


def test_samples_and_targets_are_the_files_own(manifest, tokenizer):
    name, waveform, tokens, seed = SpeechDataset(manifest, tokenizer, [1.0], 7)[0, 3]
    utterance = manifest[3]
    assert name == utterance.id
    assert np.array_equal(waveform, soundfile.read(utterance.audio_filepath, dtype="float32")[0])
    assert tokenizer.decode(tokens) == utterance.text.lower()
    assert seed == utterance_seed(7, 0, utterance.id)


def test_a_plan_can_be_entered_anywhere(manifest, tokenizer):
    sampler = PlanSampler(manifest.durations, 30, 7)
    sampler.set_epoch(2)
    whole = list(sampler)
    assert [sampler.done_after(steps) for steps in (0, 1, 2)] == [0, len(whole[0]), len(whole[0]) + len(whole[1])]
    sampler.done = sampler.done_after(2)
    assert list(sampler) == whole[2:]
    assert sampler.skipped == 2
    assert len(sampler) == len(whole)  # Lightning counts the steps of the whole epoch
    sampler.set_epoch(3)
    assert sampler.done == 0


def test_other_speeds_are_another_plan(manifest):
    durations, slow = manifest.durations, manifest.durations / 0.9
    keys = {
        PlanSampler(slow, 30, 7, heard=lambda epoch, speeds=speeds: durations / np.resize(speeds, len(durations))).key
        for speeds in ([0.9, 1.0], [0.9, 1.0, 1.1], [0.9, 1.0])
    }
    assert len(keys) == 2


def test_lightning_finds_the_sampler_to_tell_it_the_epoch(manifest):
    """It looks into batch samplers for a sampler; one that it does not find would hear the first epoch for ever."""
    sampler = PlanSampler(manifest.durations, 30, 7)
    loader = DataLoader(manifest, batch_sampler=sampler)  # type: ignore[arg-type]
    _set_sampler_epoch(loader, 4)
    assert sampler.epoch == 4


def test_seeds_are_the_same_one_by_one_and_together_and_differ_in_everything(manifest):
    ids = [utterance.id for utterance in manifest]
    seeds = utterance_seeds(7, 3, hash_ids(ids))
    assert seeds.tolist() == [utterance_seed(7, 3, name) for name in ids]
    names = hash_ids([f"utterance-{number}" for number in range(20_000)])
    drawn = np.concatenate([utterance_seeds(seed, epoch, names) for seed in (1, 2) for epoch in (0, 1)])
    assert len(np.unique(drawn)) == len(drawn)
    assert drawn.min() >= 0
    assert drawn.max() < 2**62
    for factor in (2, 3, 5):  # the remainders choose the speed
        assert chisquare(np.bincount(drawn % factor)).pvalue > 1e-4


def test_the_plan_knows_how_long_each_utterance_will_be(data, tokenizer, manifest):
    path = str(data / "manifest.jsonl")
    module = SpeechDataModule(DataConfig([path], [path], batch_seconds=40, workers=0), tokenizer, 1)
    loader = module.train_dataloader()
    for epoch in (0, 1):
        loader.batch_sampler.set_epoch(epoch)
        heard = dict(zip(manifest.table["id"].to_pylist(), loader.batch_sampler.heard(epoch), strict=True))
        for batch in loader:
            for name, length in zip(batch.ids, batch.lengths.tolist(), strict=True):
                assert length / 16000 == pytest.approx(heard[name], abs=0.001)
            assert batch.waveform.numel() / 16000 <= 40.01


def test_hits_are_counted_in_every_worker(manifest, tokenizer):
    augmenter = Augmenter(AugmentConfig(gain_probability=0.5))
    counts = []
    for workers in (0, 2):
        dataset = SpeechDataset(manifest, tokenizer, [0.9, 1.0], 7, augmenter)
        assert dataset.kinds == ["speed", "gain"]
        batches = DataLoader(
            dataset, batch_sampler=PlanSampler(manifest.durations, 30, 7), collate_fn=collate, num_workers=workers
        )
        seeds = torch.cat([batch.seeds for batch in batches])
        counts.append(dataset.hits.sum(0).tolist())
    assert counts[0] == counts[1]
    assert counts[0][:2] == [len(manifest), int((seeds % 2 == 0).sum())]
    assert 0 < counts[0][2] < len(manifest)


class Idle(lightning.LightningModule):
    """Learns nothing; remembers what was logged."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch, batch_index):
        return self.weight.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(data: SpeechDataModule, **more) -> lightning.Trainer:
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=2,
        limit_val_batches=0,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[FollowData(data)],
        **more,
    )
    trainer.fit(Idle(), datamodule=data)
    return trainer


@pytest.fixture
def many(manifest, tmp_path) -> list[str]:
    """Twice the shipped utterances, the beginning of each, under other names."""
    rows = [replace(row, id=f"{row.id}-{copy}", offset=0.5 * copy, duration=0.5) for row in manifest for copy in (0, 1)]
    write_manifest(tmp_path / "many.jsonl", rows)
    return [str(tmp_path / "many.jsonl")]


def test_hits_are_logged_and_what_never_fires_is_an_error(many, tokenizer, monkeypatch):
    def data(**shares) -> SpeechDataModule:
        return SpeechDataModule(DataConfig(many, many, batch_seconds=6, augment=AugmentConfig(**shares)), tokenizer, 1)

    logged = fit(data(gain_probability=0.5)).callback_metrics
    assert 0.2 < float(logged["augment/gain"]) < 0.8
    assert 0.4 < float(logged["augment/speed"]) < 0.9
    fit(data(telephone_probability=0.001))  # so rare a kind may well not have fired yet
    for kind in ("telephone", "codec"):
        monkeypatch.setitem(augment._CHANGES, kind, lambda self, waveform, draw: waveform)
    with pytest.raises(DataError, match=r"telephone, codec .*none of the 24 utterances of epoch 0"):
        fit(data(telephone_probability=0.9, codec_probability=0.9, gain_probability=0.5))
    fit(data(telephone_probability=0.3), limit_train_batches=1)  # too few to tell


def test_validation_is_in_the_same_order_in_every_epoch_and_as_it_was_recorded(data, tokenizer, manifest):
    path = str(data / "manifest.jsonl")
    config = DataConfig([path], [path], 40, workers=0, augment=AugmentConfig(gain_probability=1.0))
    module = SpeechDataModule(config, tokenizer, 1)
    loader = module.val_dataloader()
    first = list(loader)
    _set_sampler_epoch(loader, 3)
    assert [batch.ids for batch in loader] == [batch.ids for batch in first]
    for batch in first:
        for name, row, length in zip(batch.ids, batch.waveform, batch.lengths, strict=True):
            assert np.array_equal(soundfile.read(data / f"{name}.flac", dtype="float32")[0], row[:length].numpy())


def test_what_workers_share_is_the_table(data, tokenizer):
    """A list of utterances would be copied to each of them, page by page, as its references are counted."""
    path = str(data / "manifest.jsonl")
    loader = SpeechDataModule(DataConfig([path], [path]), tokenizer, 1).train_dataloader()
    assert isinstance(loader.dataset.manifest, Manifest)


def test_an_utterance_over_the_budget_of_a_batch_is_named(data, tokenizer, manifest):
    longest = max(manifest, key=lambda utterance: utterance.duration)
    config = DataConfig(
        train=[str(data / "manifest.jsonl")], valid=[str(data / "manifest.jsonl")], batch_seconds=longest.duration
    )
    with pytest.raises(
        DataError, match=f"{longest.id} lasts {longest.duration / 0.9:.1f} s at the slowest of data.speeds"
    ):
        SpeechDataModule(config, tokenizer, seed=7)


def test_long_utterances_are_left_out_of_training_and_counted(data, tokenizer, manifest):
    path = str(data / "manifest.jsonl")
    module = SpeechDataModule(DataConfig(train=[path], valid=[path], max_seconds=6), tokenizer, 1)
    short = sum(utterance.duration <= 6 for utterance in manifest)
    assert len(module.train) == short
    assert module.left_out == len(manifest) - short > 0
    assert len(module.valid) == len(manifest)


@pytest.mark.parametrize(
    "values",
    [{"speeds": []}, {"speeds": [3.0]}, {"speeds": [1.004]}, {"batch_seconds": 0}, {"workers": -1}, {"workers": 257}],
)
def test_nonsense_is_refused(values):
    with pytest.raises(ConfigError, match="data"):
        DataConfig(**values)
