"""From files to batches: hours of audio read each second on one core, and the share of training that waits for data.

python tools/benchmark.py data MANIFEST                             # FLAC, Opus and WAV, with and without augmentation
python tools/benchmark.py data MANIFEST --recipe mini_librispeech   # and the share of a training epoch that waits

The manifest's first utterances are written in each format to a temporary folder. One process then reads, changes and
pads them as a worker does. The files come from the page cache: this measures the code, not the disk.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import lightning
import soundfile
import torch
from lightning.pytorch.profilers import SimpleProfiler
from rich.console import Console
from rich.progress import track
from rich.table import Table

from asr.augment import KINDS, AugmentConfig
from asr.config import compose
from asr.datamodule import DataConfig, SpeechDataModule
from asr.manifest import Manifest, Utterance, write_manifest
from asr.model.recognizer import Recognizer
from asr.tokenizer import Tokenizer, TokenizerConfig, train_tokenizer
from asr.training.config import TrainConfig
from asr.training.module import RecognizerModule

FORMATS = {"flac": ("FLAC", "PCM_16"), "opus": ("OGG", "OPUS"), "wav": ("WAV", "PCM_16")}
SHARE = 0.2  # of utterances that each kind of augmentation changes
console = Console()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what can be chosen."""
    parser.add_argument("manifest", type=Path, help="real speech")
    parser.add_argument("--utterances", type=int, default=200, help="how many of it to read")
    parser.add_argument("--recipe", help="a configuration to train with for some steps, such as mini_librispeech")
    parser.add_argument("--steps", type=int, default=40, help="steps to train for")
    parser.add_argument("overrides", nargs="*", help="key=value for the recipe")


def run(arguments: argparse.Namespace) -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    manifest = Manifest.load(arguments.manifest)
    tokenizer = train_tokenizer(manifest.texts, TokenizerConfig(kind="char"))
    with tempfile.TemporaryDirectory() as folder:
        paths = write_formats(manifest, Path(folder), arguments.utterances)
        table = Table(
            title=f"files to batches, one core, {arguments.utterances} utterances of {arguments.manifest.name}"
        )
        for column in ("format", "augmentation", "hours of audio/s", "times real time", "ms for 10 s"):
            table.add_column(column, justify="left" if column in ("format", "augmentation") else "right")
        everything: dict[str, Any] = {f"{kind}_probability": SHARE for kind in KINDS} | {"noise": [str(paths["wav"])]}
        ways: dict[str, dict[str, Any]] = {
            "none": {"speeds": [1.0]},
            "speed": {},
            f"speed, and each kind on {SHARE:.0%}": {"augment": AugmentConfig(**everything)},
        }
        for name, path in paths.items():
            for way, options in ways.items():
                rate = audio_per_cpu_second(path, tokenizer, options)
                table.add_row(name, way, f"{rate / 3600:.3f}", f"{rate:.0f}", f"{10_000 / rate:.1f}")
        table.caption = "seconds are those of the CPU, so that other programs do not count"
        console.print(table)
    if arguments.recipe:
        measure_wait(arguments)


def write_formats(manifest: Manifest, folder: Path, count: int) -> dict[str, Path]:
    """Write the first utterances in each format; gives a manifest for each."""
    paths = {}
    for name, (kind, subtype) in FORMATS.items():
        rows = []
        for utterance in track(islice(manifest, count), f"writing {name}", min(count, len(manifest)), transient=True):
            path = folder / f"{utterance.id}.{name}"
            sound = utterance.waveform()
            soundfile.write(path, sound, 16000, subtype, format=kind)
            rows.append(Utterance(utterance.id, str(path), len(sound) / 16000, utterance.text))
        write_manifest(folder / f"{name}.jsonl", rows)
        paths[name] = folder / f"{name}.jsonl"
    return paths


def audio_per_cpu_second(path: Path, tokenizer: Tokenizer, options: dict[str, Any]) -> float:
    """Read one epoch in this process; gives seconds of audio for each second of this core."""
    data = SpeechDataModule(DataConfig([str(path)], [str(path)], workers=0, **options), tokenizer, 1)
    loader = data.train_dataloader()
    next(iter(loader))  # resampling filters and codecs are made on first use
    began = time.process_time()
    samples = sum(int(batch.lengths.sum()) for batch in loader)
    return samples / 16000 / (time.process_time() - began)


def measure_wait(arguments: argparse.Namespace) -> None:
    """Train for some steps and tell how long the loop waited for batches, by Lightning's own profiler."""
    sources = [f"data.train=[{arguments.manifest}]", f"data.valid=[{arguments.manifest}]"]
    config = compose(TrainConfig, arguments.recipe, [*sources, *arguments.overrides])
    manifest = Manifest.load(arguments.manifest)
    tokenizer = train_tokenizer(manifest.texts, config.tokenizer)
    data = SpeechDataModule(config.data, tokenizer, 1)
    model = Recognizer(config.model, tokenizer)
    module = RecognizerModule(model, replace(config.optimizer, warmup_steps=10), config.decoding, {})
    with tempfile.TemporaryDirectory() as folder:  # for the profiler's own report, which is long
        profiler = SimpleProfiler(folder, "profile")
        trainer = lightning.Trainer(
            accelerator=config.training.accelerator,
            max_steps=arguments.steps,
            limit_val_batches=0,
            use_distributed_sampler=False,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            profiler=profiler,
        )
        trainer.fit(module, datamodule=data)
    waits = profiler.recorded_durations["[_TrainingEpochLoop].train_dataloader_next"]
    work = profiler.recorded_durations["run_training_batch"]
    waited, worked = sum(waits[1:]), sum(work[1:])  # the first holds the workers' start, and torch's first step
    console.print(
        f"{arguments.recipe}: {len(work)} steps, {config.data.workers} workers, {torch.get_num_threads()} thread: "
        f"waited {1000 * waited / len(waits[1:]):.1f} ms a step for data, {waited / (waited + worked):.2%} of it; "
        f"the first batch came after {waits[0]:.2f} s",
        highlight=False,
    )
