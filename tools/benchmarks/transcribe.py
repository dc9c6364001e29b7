"""Files to text: times real time, start-up and memory of `model.transcribe`, beside other toolkits.

python tools/benchmark.py transcribe                          # our own, on the recordings of tests/data
python tools/benchmark.py transcribe --peers FOLDER --threads 1 2 --audio FILE...

Each row is a process of its own, which starts from nothing. `clip` is one recording of eleven seconds, `files` all
recordings one after the other, `long` all of them joined, over and over. `asr` is the embedded model as shipped, with
its language model; `asr ctc` the same without it. Everything is in the time: reading, finding
speech, features, model and search. `asr:NAME` is an architecture of conf/model with random weights: speed hardly
depends on them. Other toolkits run where FOLDER, a virtual environment, has them, and with weights that are on this
machine already; nothing is downloaded. In theirs, `import` is part of `load`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
from benchmarks import hear
from rich.console import Console
from rich.table import Table

from asr.audio import SAMPLE_RATE, load_mono

DATA = Path(__file__).parents[2] / "tests" / "data"
OURS = ("asr", "asr ctc", "asr:conformer_s", "asr:conformer_m")
CLIP_SECONDS = 11
COLUMNS = ("program", "parameters", "threads", "clip", "files", "long", "process", "import", "load", "first", "peak MB")
console = Console(width=140)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what can be chosen."""
    parser.add_argument("--audio", type=Path, nargs="+", default=sorted(DATA.glob("*.flac")), help="real recordings")
    parser.add_argument("--minutes", type=float, default=5.0, help="length of the joined recording")
    parser.add_argument("--threads", type=int, nargs="+", default=[2], help="CPU threads")
    parser.add_argument("--repeats", type=int, default=20, help="the clip's figure is the median of so many runs")
    parser.add_argument("--programs", nargs="+", default=OURS, help="which of our own")
    parser.add_argument("--peers", type=Path, help="virtual environment with other toolkits")


def run(arguments: argparse.Namespace) -> None:
    """Time every program and print the table."""
    pythons = dict.fromkeys(arguments.programs, sys.executable)
    if arguments.peers:
        peers = [name for name in hear.MAKERS if not name.startswith("asr")]
        pythons |= dict.fromkeys(peers, str(arguments.peers / "bin" / "python"))
    table = Table(title="times real time (clip, files, long), seconds (process = all of a start, to the first text)")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "program" else "right")
    with tempfile.TemporaryDirectory() as folder:
        recordings = write_recordings(Path(folder), arguments.audio, arguments.minutes)
        for threads in arguments.threads:
            for name, python in pythons.items():
                measure(
                    table, name, [python, hear.__file__, name, *recordings, f"--repeats={arguments.repeats}"], threads
                )
    console.print(table)


def write_recordings(folder: Path, audio: list[Path], minutes: float) -> list[str]:
    """Write the recordings as wav, which every toolkit reads, the clip and the long one; gives hear's arguments."""
    waveforms = [load_mono(path) for path in audio]
    joined = np.concatenate(waveforms)
    long = np.resize(joined, int(minutes * 60 * SAMPLE_RATE))  # over and over
    pieces = {str(row): waveform for row, waveform in enumerate(sorted(waveforms, key=len))}
    pieces |= {"clip": long[: CLIP_SECONDS * SAMPLE_RATE], "long": long}
    for name, waveform in pieces.items():
        soundfile.write(folder / f"{name}.wav", waveform, SAMPLE_RATE, "PCM_16")
    files = [str(folder / f"{row}.wav") for row in range(len(waveforms))]
    return [f"--clip={folder / 'clip.wav'}", f"--long={folder / 'long.wav'}", "--files", *files]


def measure(table: Table, name: str, command: list[str], threads: int) -> None:
    """Run one program and add its row."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    began = time.perf_counter()
    done = subprocess.run(
        [*command, f"--threads={threads}"], capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}"
        console.print(f"{name}: {reason}", markup=False, highlight=False)
        return
    found = json.loads(done.stdout.splitlines()[-1])
    whole = time.perf_counter() - began - found["after"]
    rates = [f"{found[kind]:.0f}" if kind in found else "too slow" for kind in ("clip", "files", "long")]
    spent = [f"{found[part]:.2f}" for part in ("import", "load", "first")]
    size = f"{found['parameters'] / 1e6:.1f} M" if found["parameters"] else ""
    table.add_row(name, size, str(threads), *rates, f"{whole:.2f}", *spent, f"{found['peak']:.0f}")
