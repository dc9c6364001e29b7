"""Seconds to load a large manifest, and the memory that reading it with worker processes adds in each epoch."""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader, Dataset

from asr.manifest import Manifest

WORDS = ("the", "of", "and", "a", "to", "in", "he", "was", "that", "it", "his", "which", "without", "understanding")
BATCH = 50  # utterances
_PR_SET_THP_DISABLE = 41  # of <linux/prctl.h>


def write_synthetic(path: Path, rows: int) -> None:
    """Write a manifest of random words, with 1 to 30 seconds for each utterance and 2.5 words a second."""
    draw = random.Random(0)
    with open(path, "w", encoding="utf-8") as file:
        for row in range(rows):
            seconds = round(draw.uniform(1, 30), 3)
            line = {"id": f"{row % 2000:04d}-{row:08d}", "audio_filepath": f"train/{row % 2000:04d}/{row:08d}.flac"}
            line |= {"duration": seconds, "text": " ".join(draw.choices(WORDS, k=round(2.5 * seconds)))}  # type: ignore[dict-item]
            file.write(json.dumps(line | {"speaker": f"{row % 2000:04d}", "language": "en"}) + "\n")


class _Texts(Dataset[int]):
    """Reads a row and gives the length of its text."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __getitem__(self, row: int) -> int:
        return len(self.rows[row].text)


class _Shuffled:
    """Batches of row numbers, in another order each epoch."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.epoch = 0

    def __iter__(self) -> Iterator[list[int]]:
        self.epoch += 1
        order = np.random.default_rng(self.epoch).permutation(self.rows)
        for start in range(0, self.rows, BATCH):
            yield order[start : start + BATCH].tolist()


class Memory(NamedTuple):
    """MB, summed over all processes."""

    everything: float
    """Proportional set size: a page that several processes share, such as the mapped table, counts once."""
    anonymous: float
    """That part of it which is in no file: what the processes hold for themselves, and what runs a machine out."""


def memory(rows: Manifest | Sequence[Any], workers: int, epochs: int) -> list[Memory]:
    """Read all rows in worker processes, and look at the memory of this process and theirs.

    Args:
        rows: what has a `text` in each row.
        workers: number of processes.
        epochs: how often everything is read.

    Returns:
        The memory after the first few batches, and after each epoch.
    """
    # The kernel joins small pages into pages of 2 MB whenever it likes, which would look like growth.
    kernel = ctypes.CDLL(None)
    kernel.prctl(_PR_SET_THP_DISABLE, 1, 0, 0, 0)
    order: Any = _Shuffled(len(rows))
    loader = DataLoader(_Texts(rows), batch_sampler=order, collate_fn=sum, num_workers=workers, persistent_workers=True)
    sizes = []
    for epoch in range(epochs):
        iterator = iter(loader)
        processes = [os.getpid(), *(worker.pid for worker in iterator._workers)]  # type: ignore[attr-defined]
        for batch, _ in enumerate(iterator, start=1):
            if epoch == 0 and batch == workers:
                sizes.append(_measure(processes))
        sizes.append(_measure(processes))
    kernel.prctl(_PR_SET_THP_DISABLE, 0, 0, 0, 0)
    return sizes


def _measure(processes: list[int]) -> Memory:
    pages = [Path(f"/proc/{process}/smaps_rollup").read_text() for process in processes]
    return Memory(*(sum(_kilobytes(page, key) for page in pages) / 1000 for key in ("Pss", "Pss_Anon")))


def _kilobytes(page: str, key: str) -> int:
    return next(int(line.split()[1]) for line in page.splitlines() if line.startswith(f"{key}:"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what can be chosen."""
    parser.add_argument("--rows", type=int, default=1_000_000, help="utterances")
    parser.add_argument("--workers", type=int, default=4, help="processes that read")
    parser.add_argument("--epochs", type=int, default=3, help="how often everything is read")


def run(arguments: argparse.Namespace) -> None:
    """Print the seconds to load, and the memory after each epoch."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "manifest.jsonl"
        write_synthetic(path, arguments.rows)
        size, start, busy = path.stat().st_size / 1e6, time.perf_counter(), time.process_time()
        manifest = Manifest.load(path)
        seconds, busy = time.perf_counter() - start, time.process_time() - busy
    table = Table(
        title=f"{arguments.rows:,} utterances ({size:.0f} MB of JSON) loaded in {seconds:.1f} s, {busy:.1f} s busy"
    )
    for column in ("epoch", "all processes (MB)", "of that anonymous (MB)"):
        table.add_column(column, justify="right")
    sizes = memory(manifest, arguments.workers, arguments.epochs)
    for epoch, size in enumerate(sizes):
        table.add_row(str(epoch) if epoch else "first batches", *(f"{part:.1f}" for part in size))
    slopes = np.polyfit(range(len(sizes)), sizes, 1)[0]
    table.add_row("MB per epoch", *(f"{slope:+.2f}" for slope in slopes))
    Console().print(table)
