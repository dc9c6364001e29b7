"""Hours of audio trained on per hour on this machine, and what the rest of the time is lost to.

python tools/benchmark.py train                                                   # mini_librispeech, 60 batches
python tools/benchmark.py train --config english_embedded --batches 200 data.workers=2
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path

from rich.console import Console

from asr.config import compose
from asr.training.config import TrainConfig
from asr.training.fit import train

# Hours of audio for each GPU-hour, reckoned from the wall time of an epoch that the authors give.
PUBLISHED = (
    ("icefall Zipformer-S, 23 M, fp16, V100 (icefall pull request 1058)", 960),
    ("icefall Zipformer-M, 66 M, fp16, V100 (icefall pull request 1058)", 645),
    ("ESPnet E-Branchformer, 149 M, mixed precision, A100 (egs2/librispeech train_asr_e_branchformer.yaml)", 540),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what can be chosen."""
    parser.add_argument("--config", default="mini_librispeech", help="a file of conf/recipe")
    parser.add_argument("--batches", type=int, default=60, help="batches to train on")
    parser.add_argument("overrides", nargs="*", help="changes to the configuration")


def run(arguments: argparse.Namespace) -> None:
    """Train for some batches, and read the meters."""
    with tempfile.TemporaryDirectory() as folder:
        limits = [
            f"run={folder}/run",
            "training.epochs=1",
            f"training.batches={arguments.batches}",
            "training.profile=true",
        ]
        train(compose(TrainConfig, arguments.config, [*arguments.overrides, *limits]))
        with open(Path(folder) / "run" / "metrics.csv", encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row.get("speed/audio_hours_per_hour")]
        profile = (Path(folder) / "run" / "fit-profile.txt").read_text(encoding="utf-8")
    last = {key: float(value) for key, value in rows[-1].items() if key.startswith("speed/") and value}
    steps, logging = _seconds(profile, "run_training_batch"), _seconds(profile, "on_train_batch_end")
    console = Console()
    console.print(arguments.config)
    console.print(f"{last['speed/audio_hours_per_hour']:.0f} hours of audio per hour")
    console.print(f"lost to data {last['speed/data_wait']:.1%}, to padding {last['speed/padding']:.1%}, "
                  f"to callbacks and logging {logging / (steps + logging):.1%}")  # fmt: skip
    console.print(f"most memory {last['speed/peak_gigabytes']:.1f} GB")
    console.print("published, on other hardware and for other sizes, for each GPU:")
    for name, rate in PUBLISHED:
        console.print(f"  {rate} {name}", highlight=False)


def _seconds(profile: str, action: str) -> float:
    """Sum what Lightning's profiler says of all actions of that name."""
    lines = [line.split("|") for line in profile.splitlines() if action in line]
    return sum(float(cells[4]) for cells in lines)
