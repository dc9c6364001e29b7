"""Manifests to batches: reading, augmenting and padding utterances for training.

Every random draw for an utterance comes from (seed, epoch, id), so the number of workers and a restart change nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from asr.audio import load_mono
from asr.augment import change_speed
from asr.batching import plan_epoch
from asr.errors import ConfigError, DataError
from asr.manifest import Manifest
from asr.model.recognizer import Batch
from asr.tokenizer import Tokenizer


@dataclass(frozen=True)
class DataConfig:
    """What is read, and how it is put into batches."""

    train: list[str] = field(default_factory=list)
    """Manifests to learn from."""
    valid: list[str] = field(default_factory=list)
    """Manifests that measure progress; never learnt from."""
    batch_seconds: float = 160.0
    """Most seconds of padded audio in one batch on one rank."""
    max_seconds: float = 30.0
    """Longer utterances are left out of training, and counted."""
    speeds: list[float] = field(default_factory=lambda: [0.9, 1.0, 1.1])
    """Each utterance is heard at one of these speeds, drawn anew each epoch (Ko et al. 2015)."""
    workers: int = 2
    """Processes that read and augment; 0 reads in the training process."""

    def __post_init__(self) -> None:
        """Check every number."""
        if self.batch_seconds <= 0 or self.max_seconds <= 0:
            raise ConfigError("data.batch_seconds and data.max_seconds must be over 0")
        if not self.speeds or min(self.speeds) < 0.5 or max(self.speeds) > 2:
            raise ConfigError(f"data.speeds must be one or more factors in 0.5..2, got {self.speeds}")
        if self.workers < 0:
            raise ConfigError(f"data.workers must be 0 or more, got {self.workers}")


class SpeechDataset(Dataset[tuple[str, NDArray[np.float32], list[int], int]]):
    """Utterances ready to be put into a batch.

    Args:
        manifest: the utterances.
        tokenizer: turns their texts into targets.
        speeds: speed factors to draw from; one factor of 1.0 leaves the audio alone.
        seed: seed of all draws.
    """

    def __init__(self, manifest: Manifest, tokenizer: Tokenizer, speeds: list[float], seed: int) -> None:
        self.manifest = manifest
        self.tokenizer = tokenizer
        self.speeds = speeds
        self.seed = seed

    def __len__(self) -> int:
        """Count utterances."""
        return len(self.manifest)

    def __getitem__(self, key: tuple[int, int]) -> tuple[str, NDArray[np.float32], list[int], int]:
        """Read one utterance.

        Args:
            key: epoch and row.

        Returns:
            Its id, mono samples at 16 kHz, token ids, and the seed for its further augmentation.
        """
        epoch, row = key
        utterance = self.manifest[row]
        seed = utterance_seed(self.seed, epoch, utterance.id)
        waveform = load_mono(utterance.audio_filepath, utterance.offset, utterance.duration)
        speed = self.speeds[seed % len(self.speeds)]
        return utterance.id, change_speed(waveform, speed), self.tokenizer.encode(utterance.text), seed


def utterance_seed(seed: int, epoch: int, utterance_id: str) -> int:
    """Derive the seed of one utterance in one epoch, below 2**62; a hash, so that it is the same everywhere."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{utterance_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 2


def collate(samples: list[tuple[str, NDArray[np.float32], list[int], int]]) -> Batch:
    """Pad utterances with zeros and put them side by side."""
    ids, waveforms, texts, seeds = zip(*samples, strict=True)
    tensors = [torch.from_numpy(waveform) for waveform in waveforms]
    targets = [torch.tensor(text, dtype=torch.int64) for text in texts]
    return Batch(
        list(ids),
        torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True),
        torch.tensor([len(waveform) for waveform in waveforms]),
        torch.nn.utils.rnn.pad_sequence(targets, batch_first=True),
        torch.tensor([len(text) for text in texts]),
        torch.tensor(seeds),
    )


class PlanSampler(Sampler[list[tuple[int, int]]]):
    """Hands the epoch plan to the DataLoader, one rank's batches in order, from any step on."""

    def __init__(self, durations: NDArray[np.float64], budget: float, seed: int, ranks: int = 1, rank: int = 0) -> None:
        self.durations = durations
        self.budget = budget
        self.seed = seed
        self.ranks = ranks
        self.rank = rank
        self.epoch = 0
        self.start = 0

    def set_epoch(self, epoch: int) -> None:
        """Move to an epoch; Lightning calls this at its beginning."""
        if epoch != self.epoch:
            self.epoch, self.start = epoch, 0

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Yield each batch as (epoch, row) pairs."""
        plan = plan_epoch(self.durations, self.budget, self.seed, self.epoch, self.ranks)[self.rank]
        for rows in plan[self.start :]:
            yield [(self.epoch, int(row)) for row in rows]

    def __len__(self) -> int:
        """Count the batches of this epoch on this rank."""
        plan = plan_epoch(self.durations, self.budget, self.seed, self.epoch, self.ranks)
        return len(plan[self.rank]) - self.start


class SpeechDataModule(lightning.LightningDataModule):
    """Training and validation data for Lightning.

    Args:
        config: what to read.
        tokenizer: makes the targets.
        seed: seed of order and augmentation.
    """

    def __init__(self, config: DataConfig, tokenizer: Tokenizer, seed: int) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = tokenizer
        self.seed = seed
        everything = load_manifests(config.train, "data.train")
        self.train = everything.filter(config.max_seconds)
        self.left_out = len(everything) - len(self.train)
        self.valid = load_manifests(config.valid, "data.valid")

    def train_dataloader(self) -> DataLoader[Any]:
        """Give the loader of this rank's share of the plan."""
        trainer = self.trainer
        ranks, rank = (trainer.world_size, trainer.global_rank) if trainer else (1, 0)
        longest = self.train.durations / min(self.config.speeds)
        sampler = PlanSampler(longest, self.config.batch_seconds, self.seed, ranks, rank)
        sampler.epoch = trainer.current_epoch if trainer else 0
        dataset = SpeechDataset(self.train, self.tokenizer, list(self.config.speeds), self.seed)
        workers = self.config.workers
        return DataLoader(
            dataset, batch_sampler=sampler, collate_fn=collate, num_workers=workers, persistent_workers=workers > 0
        )

    def val_dataloader(self) -> DataLoader[Any]:
        """Give the loader of the validation data: fixed order, nothing augmented."""
        trainer = self.trainer
        ranks, rank = (trainer.world_size, trainer.global_rank) if trainer else (1, 0)
        budget = max(self.config.batch_seconds, float(self.valid.durations.max()))
        sampler = PlanSampler(self.valid.durations, budget, self.seed, ranks, rank)
        dataset = SpeechDataset(self.valid, self.tokenizer, [1.0], self.seed)
        return DataLoader(dataset, batch_sampler=sampler, collate_fn=collate, num_workers=min(1, self.config.workers))


def load_manifests(paths: list[str], key: str) -> Manifest:
    """Read manifests as one.

    Args:
        paths: the files.
        key: the configuration key that named them, for the message.

    Raises:
        DataError: no file is named, or one is wrong.
    """
    if not paths:
        raise DataError(f"{key} names no manifest: give one, for example {key}=[data/train.jsonl]")
    return Manifest.concatenate([Manifest.load(path) for path in paths])
