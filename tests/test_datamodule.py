from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from asr.datamodule import DataConfig, PlanSampler, SpeechDataModule, SpeechDataset, collate, utterance_seed
from asr.errors import ConfigError


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
    sampler.start = 2
    assert list(sampler) == whole[2:]
    assert len(sampler) == len(whole) - 2
    sampler.set_epoch(3)
    assert sampler.start == 0


def test_long_utterances_are_left_out_of_training_and_counted(data, tokenizer, manifest):
    path = str(data / "manifest.jsonl")
    module = SpeechDataModule(DataConfig(train=[path], valid=[path], max_seconds=6), tokenizer, 1)
    short = sum(utterance.duration <= 6 for utterance in manifest)
    assert len(module.train) == short
    assert module.left_out == len(manifest) - short > 0
    assert len(module.valid) == len(manifest)


@pytest.mark.parametrize("values", [{"speeds": []}, {"speeds": [3.0]}, {"batch_seconds": 0}, {"workers": -1}])
def test_nonsense_is_refused(values):
    with pytest.raises(ConfigError, match="data"):
        DataConfig(**values)
