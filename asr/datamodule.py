"""Manifests to batches: reading, augmenting and padding utterances for training.

Every random draw for an utterance comes from (seed, epoch, id), so the number of workers and a restart change nothing.
"""

from __future__ import annotations

import hashlib
import logging
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, get_worker_info

from asr.augment import AugmentConfig, Augmenter, change_speed
from asr.batching import Budget, plan_epoch
from asr.errors import ConfigError, DataError
from asr.manifest import Manifest
from asr.model.recognizer import Batch
from asr.plan_sampler import PlannedDataModule, PlanSampler
from asr.tokenizer import Tokenizer

log = logging.getLogger(__name__)

# What ends a run that saves itself; SLURM is often told to send the last, which Windows lacks.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else []))
MOST_WORKERS = 256  # on one rank; each has a row of counters


@dataclass(frozen=True)
class DataConfig:
    """What is read, and how it is put into batches."""

    train: list[str] = field(default_factory=list)
    """Manifests to learn from."""
    valid: list[str] = field(default_factory=list)
    """Manifests that measure progress; never learnt from."""
    batch_seconds: int | float | str = 160.0
    """Most seconds of padded audio in one batch on one rank; `auto` measures what the device's memory holds."""
    max_seconds: float = 30.0
    """Longer utterances are left out of training, and counted."""
    speeds: list[float] = field(default_factory=lambda: [0.9, 1.0, 1.1])
    """Each utterance is heard at one of these speeds, drawn anew each epoch (Ko et al. 2015)."""
    short_first: bool = True
    """The first epoch goes from short to long utterances, from which CTC learns to align; never so in a run that begins
    with another model."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Rooms, noises and channels; see `asr.augment`."""
    workers: int = 2
    """Processes that read and augment; 0 reads in the training process."""

    def __post_init__(self) -> None:
        """Check every number."""
        if isinstance(self.batch_seconds, str) and self.batch_seconds != "auto":
            raise ConfigError(f"data.batch_seconds must be a number or auto, got {self.batch_seconds!r}")
        if self.max_seconds <= 0 or (not isinstance(self.batch_seconds, str) and self.batch_seconds <= 0):
            raise ConfigError("data.batch_seconds and data.max_seconds must be over 0")
        if not self.speeds or not all(0.5 <= speed <= 2 and round(speed, 2) == speed for speed in self.speeds):
            raise ConfigError(f"data.speeds must be one or more factors in 0.5..2, in hundredths, got {self.speeds}")
        if not 0 <= self.workers <= MOST_WORKERS:
            raise ConfigError(f"data.workers must lie in 0..{MOST_WORKERS}, got {self.workers}")


class SpeechDataset(Dataset[tuple[str, NDArray[np.float32], list[int], int]]):
    """Utterances ready to be put into a batch.

    Args:
        manifest: the utterances.
        tokenizer: turns their texts into targets.
        speeds: speed factors to draw from; one factor of 1.0 leaves the audio alone.
        seed: seed of all draws.
        augmenter: changes the audio further.
    """

    def __init__(
        self,
        manifest: Manifest,
        tokenizer: Tokenizer,
        speeds: Sequence[float],
        seed: int,
        augmenter: Augmenter | None = None,
    ) -> None:
        self.manifest = manifest
        self.tokenizer = tokenizer
        self.speeds = speeds
        self.seed = seed
        self.augmenter = augmenter or Augmenter(AugmentConfig())
        self.kinds = (["speed"] if set(speeds) != {1.0} else []) + self.augmenter.kinds
        """What is turned on."""
        self.hits = torch.zeros(MOST_WORKERS, 1 + len(self.kinds), dtype=torch.int64).share_memory_()
        """Utterances that each worker has read, and how many of them each kind has changed, since it was last reset."""

    def __len__(self) -> int:
        """Count utterances."""
        return len(self.manifest)

    def probability(self, kind: str) -> float:
        """Tell how often one of `kinds` changes an utterance."""
        if kind == "speed":
            return sum(speed != 1 for speed in self.speeds) / len(self.speeds)
        return self.augmenter.config.probability(kind)

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
        waveform = utterance.waveform()
        speed = self.speeds[seed % len(self.speeds)]
        waveform, made = self.augmenter(change_speed(waveform, speed), seed)
        self._count(made if speed == 1 else ["speed", *made])
        return utterance.id, waveform, self.tokenizer.encode(utterance.text), seed

    def _count(self, made: list[str]) -> None:
        worker = get_worker_info()
        mine = self.hits[worker.id if worker else 0]  # each worker writes to a row of its own: nothing is lost
        mine[0] += 1
        for kind in made:
            mine[1 + self.kinds.index(kind)] += 1


def hash_ids(ids: Sequence[str]) -> NDArray[np.uint64]:
    """Turn ids into 64 bits each, the same everywhere."""
    digests = b"".join(hashlib.blake2b(name.encode(), digest_size=8).digest() for name in ids)
    return np.frombuffer(digests, dtype=">u8").astype(np.uint64)


def utterance_seeds(seed: int, epoch: int, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Derive the seeds of utterances in one epoch.

    Args:
        seed: of the run.
        epoch: another one gives other seeds.
        hashes: the utterances' ids, from `hash_ids`.

    Returns:
        Seeds, each from 0 to 2**62 - 1, by the SplitMix64 generator (Steele et al. 2014).
    """
    state = hashes ^ np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        state = (state ^ (state >> np.uint64(shift))) * np.uint64(factor)
    return ((state ^ (state >> np.uint64(31))) >> np.uint64(2)).astype(np.int64)


def utterance_seed(seed: int, epoch: int, utterance_id: str) -> int:
    """Derive the seed of one utterance in one epoch; see `utterance_seeds`."""
    return int(utterance_seeds(seed, epoch, hash_ids([utterance_id]))[0])


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


class SpeechDataModule(PlannedDataModule):
    """Training and validation data for Lightning.

    Args:
        config: what to read.
        tokenizer: makes the targets.
        seed: seed of order and augmentation.
        budget: what a training batch may cost; `config.batch_seconds` of padded audio by default.
    """

    def __init__(self, config: DataConfig, tokenizer: Tokenizer, seed: int, budget: Budget | None = None) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = tokenizer
        self.seed = seed
        self.budget = budget or Budget(float(config.batch_seconds))
        everything = load_manifests(config.train, "data.train")
        self.train = everything.filter(config.max_seconds)
        if budget:  # a measured one knows who does not fit even alone; a number that is too small is a mistake
            fits = budget.cost(self.train.durations / min(config.speeds)) <= budget.limit
            if not fits.any():
                raise DataError(
                    "data.train: no utterance fits into memory, not even alone: cut them, or train a smaller model"
                )
            for row in np.flatnonzero(~fits):
                log.warning("%s does not fit into memory even alone: left out", self.train[int(row)].id)
            self.train = self.train.select(fits)
        else:
            longest = self.train[int(self.train.durations.argmax())]
            if (seconds := longest.duration / min(config.speeds)) > self.budget.limit:
                raise DataError(
                    f"data.train: {longest.id} lasts {seconds:.1f} s at the slowest of data.speeds, over the "
                    f"{self.budget.limit:g} s of data.batch_seconds: raise that, or lower data.max_seconds"
                )
        self.left_out = len(everything) - len(self.train)
        self.valid = load_manifests(config.valid, "data.valid")
        augment = config.augment
        noises = load_manifests(augment.noise, "data.augment.noise") if augment.noise_probability else None
        recorded = augment.reverberation_probability and augment.reverberation
        rooms = load_manifests(augment.reverberation, "data.augment.reverberation") if recorded else None
        self.augmenter = Augmenter(augment, noises, rooms)
        self.dataset: SpeechDataset | None = None

    def train_dataloader(self) -> DataLoader[Any]:
        """Give the loader of this rank's share of the plan, from where the state that was loaded left it."""
        trainer = self.trainer
        ranks, rank = (trainer.world_size, trainer.global_rank) if trainer else (1, 0)
        speeds, durations = np.array(self.config.speeds), self.train.durations
        hashes = hash_ids(self.train.table["id"].to_pylist())
        sampler = PlanSampler(
            durations / speeds.min(),
            self.budget,
            self.seed,
            ranks,
            rank,
            heard=lambda epoch: durations / speeds[utterance_seeds(self.seed, epoch, hashes) % len(speeds)],
            short_first=self.config.short_first,
        )
        workers = self.config.workers
        self.dataset = SpeechDataset(self.train, self.tokenizer, list(self.config.speeds), self.seed, self.augmenter)
        return DataLoader(
            self.dataset,
            batch_sampler=self.take_up(sampler),
            collate_fn=collate,
            num_workers=workers,
            worker_init_fn=ignore_signals,
            persistent_workers=workers > 0,
        )

    def val_dataloader(self) -> DataLoader[Any]:
        """Give the loader of the validation data: fixed order, nothing augmented."""
        trainer = self.trainer
        ranks, rank = (trainer.world_size, trainer.global_rank) if trainer else (1, 0)
        longest = float(self.valid.durations.max())
        budget = max(self.budget.limit, float(self.budget.cost(np.array(longest))))
        plan = plan_epoch(self.valid.durations, replace(self.budget, limit=budget), self.seed, 0, ranks)
        keys = [[(0, int(row)) for row in rows] for rows in plan[rank]]
        dataset = SpeechDataset(self.valid, self.tokenizer, [1.0], self.seed)
        workers = min(1, self.config.workers)
        return DataLoader(
            dataset, batch_sampler=keys, collate_fn=collate, num_workers=workers, worker_init_fn=ignore_signals
        )


def ignore_signals(worker: int) -> None:
    """Let a worker read on when its whole group is told to stop, by Ctrl-C or SLURM: the step at hand needs it.

    It ends with the training process in any case, which it looks after every few seconds.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


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
