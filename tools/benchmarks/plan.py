"""Time, padding and shuffling of the epoch plan for a million utterances.

python tools/benchmark.py plan
python tools/benchmark.py plan --utterances 10000000 --ranks 64

The durations are drawn so as to look like those of LibriSpeech's training sets, and are heard at 0.9, 1 and 1.1 times
their speed. The plan knows the speeds; the last column says what padding would be if it did not.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from rich.console import Console
from rich.table import Table

from asr.batching import neighbour_overlap, padding_share, plan_epoch
from asr.datamodule import hash_ids, utterance_seeds

SPEEDS = np.array([0.9, 1.0, 1.1])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what can be chosen."""
    parser.add_argument("--utterances", type=int, default=1_000_000, help="rows of the made-up manifest")
    parser.add_argument("--budget", type=float, default=160.0, help="seconds of padded audio in a batch")
    parser.add_argument("--ranks", type=int, default=8, help="processes that train together")


def run(arguments: argparse.Namespace) -> None:
    """Plan three epochs and print what each cost and how good it is."""
    draw = np.random.default_rng(0)
    count = arguments.utterances
    long = np.clip(draw.normal(14.2, 1.4, count), 2, 24.5)
    seconds = np.where(draw.random(count) < 0.75, long, draw.uniform(2, 14, count))
    began = time.perf_counter()
    hashes = hash_ids([f"utterance-{row}" for row in range(count)])
    console = Console()
    console.print(f"{count:,} ids hashed once in {time.perf_counter() - began:.2f} s", highlight=False)
    title = (
        f"{count:,} utterances, {seconds.sum() / 3600:,.0f} h, {arguments.ranks} ranks, {arguments.budget:g} s a batch"
    )
    table = Table(title=title)
    for column in (
        "epoch",
        "planned in (s)",
        "CPU (s)",
        "steps",
        "padding",
        "order ~ length",
        "together again",
        "blind",
    ):
        table.add_column(column, justify="right")
    before: list[np.ndarray] = []
    for epoch in (1, 2, 3):
        began, worked = time.perf_counter(), time.process_time()
        heard = seconds / SPEEDS[utterance_seeds(1, epoch, hashes) % len(SPEEDS)]
        plan = plan_epoch(seconds / SPEEDS.min(), arguments.budget, 1, epoch, arguments.ranks, heard=heard)
        spent, worked = time.perf_counter() - began, time.process_time() - worked
        batches = [rows for step in zip(*plan, strict=True) for rows in step]
        place = np.argsort(np.concatenate(batches))
        blind = plan_epoch(seconds / SPEEDS.min(), arguments.budget, 1, epoch, arguments.ranks)
        table.add_row(
            str(epoch),
            f"{spent:.2f}",
            f"{worked:.2f}",
            f"{len(plan[0]):,}",
            f"{padding_share(heard, batches):.2%}",
            f"{np.corrcoef(place, np.argsort(np.argsort(seconds)))[0, 1]:+.3f}",
            f"{neighbour_overlap(before, batches):.3%}" if before else "",
            f"{padding_share(heard, [rows for rank in blind for rows in rank]):.2%}",
        )
        before = batches
    table.caption = (
        "order ~ length: rank correlation of an utterance's place with its duration. together again: share of pairs "
        "within batches that were together in the epoch before."
    )
    console.print(table)
