"""Seconds of audio trained on per second, beside other toolkits' models of the same size, in one run.

python tools/benchmark.py train-step                          # ours alone, with its shares of time
python tools/benchmark.py train-step --peers FOLDER           # beside SpeechBrain and transformers, installed in FOLDER

Each model is a conformer of 12 x d256 x 4 heads x feed-forward 1024 x kernel 31 with 4x subsampling, a decoder of six
layers where the toolkit has one, and a vocabulary of 1000. A step is loss, gradients and AdamW for 8 utterances of 10
seconds. Ours starts from waveforms; so does SpeechBrain's; transformers' from features, without a decoder.
The models take turns, each in a process of its own, so that a change in the machine's mood meets all of them.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import sysconfig
import time
import venv
from collections import defaultdict
from pathlib import Path

import torch
from benchmarks import step
from benchmarks.step import AUDIO_SECONDS
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from asr.losses import attention_loss, ctc_loss

PEERS = {"speechbrain": "speechbrain>=1.1", "transformers": "transformers>=4.57"}
console = Console()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what can be chosen."""
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--steps", type=int, default=4, help="timed steps in each turn, after two to warm up")
    parser.add_argument("--turns", type=int, default=3, help="turns of each model")
    parser.add_argument("--peers", type=Path, help="folder for an environment with the other toolkits; made if absent")


def run(arguments: argparse.Namespace) -> None:
    """Time every model in turns and print the table."""
    pythons = {"asr": Path(sys.executable)} | peers(arguments.peers)
    seconds: dict[str, list[float]] = defaultdict(list)
    for _ in range(arguments.turns):
        for name, python in list(pythons.items()):
            command = [python, step.__file__, name, f"--threads={arguments.threads}", f"--steps={arguments.steps}"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                console.print(f"{name}: skipped: {done.stderr.strip().splitlines()[-1]}", markup=False)
                del pythons[name]
            else:
                seconds[name] += json.loads(done.stdout.splitlines()[-1])
    rates = {name: AUDIO_SECONDS / statistics.median(times) for name, times in seconds.items()}
    table = Table(
        title=f"one training step, {platform.machine()}, {arguments.threads} threads, torch {torch.__version__}"
    )
    for column in ("model", "audio seconds/s", "spread", "ours is faster by"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for name, rate in sorted(rates.items(), key=lambda item: -item[1]):
        spread = AUDIO_SECONDS / max(seconds[name]), AUDIO_SECONDS / min(seconds[name])
        table.add_row(name, f"{rate:.1f}", f"{spread[0]:.1f} - {spread[1]:.1f}", f"{rates['asr'] / rate:.2f}x")
    console.print(table)
    torch.set_num_threads(arguments.threads)
    _print_shares()
    _print_floor(rates["asr"])


def peers(folder: Path | None) -> dict[str, Path]:
    """Find, or make, the environment with the other toolkits.

    It sees this environment's packages, so that torch is the same for all and is not installed again.
    """
    if folder is None:
        console.print("other toolkits: skipped, no --peers FOLDER given")
        return {}
    python = folder / "bin" / "python"
    if not python.is_file():
        venv.create(folder, with_pip=True)
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        (folder / "lib" / version / "site-packages" / "asr.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
        install = [python, "-m", "pip", "install", "--quiet", *PEERS.values()]
        if subprocess.run(install, check=False).returncode:
            console.print(f"other toolkits: skipped, they cannot be installed into {folder}")
            return {}
    return dict.fromkeys(PEERS, python)


def _print_shares() -> None:
    """Time each kind of module alone, on the inputs it has in a step, forward and backward."""
    model, batch = step.build_asr()
    parts = {
        "SelfAttention": "self-attention",
        "ConvolutionModule": "convolution",
        "FeedForward": "feed-forward",
        "Subsampling": "subsampling",
        "DecoderBlock": "decoder blocks",
    }
    modules = [part for side in (model.encoder, model.decoder.blocks) for part in side.modules()]
    modules = [part for part in modules if type(part).__name__ in parts]
    inside = {id(part) for block in model.decoder.blocks for part in block.children()}
    inputs: dict[nn.Module, tuple[object, ...]] = {}
    hooks = [
        part.register_forward_pre_hook(lambda part, given: inputs.update({part: given}))
        for part in modules
        if id(part) not in inside
    ]
    model.loss(batch).total.backward()
    for hook in hooks:
        hook.remove()
    passes = []
    for _ in range(3):  # warm, and the best of three, as the parts are
        began = time.perf_counter()
        model.loss(batch).total.backward()
        passes.append(time.perf_counter() - began)
    whole = min(passes)
    spent: dict[str, float] = defaultdict(float)
    for part, given in inputs.items():
        spent[parts[type(part).__name__]] += step.time_part(part, given)
    frames = torch.full((step.UTTERANCES,), 251)
    scores = torch.randn(step.UTTERANCES, 251, step.VOCABULARY)
    logits = torch.randn(step.UTTERANCES, step.TOKENS + 1, step.VOCABULARY)
    tokens, lengths = batch.tokens, batch.token_lengths
    spent["losses"] = step.time_part(lambda x: ctc_loss(x.log_softmax(-1), frames, tokens, lengths), (scores,))
    spent["losses"] += step.time_part(lambda x: attention_loss(x, tokens, lengths, 0.1), (logits,))
    spent["norms, heads, features, sums"] = max(0.0, whole - sum(spent.values()))
    total = sum(spent.values())
    console.print("share of forward and backward: " + ", ".join(f"{n} {t / total:.0%}" for n, t in spent.items()))


def _print_floor(rate: float) -> None:
    """Compare with what the machine's matrix product alone would take for the same operations."""
    model, batch = step.build_asr()
    with FlopCounterMode(display=False) as counter:
        model.loss(batch).total.backward()
    a, b = torch.randn(2000, 1024), torch.randn(1024, 1024)
    times = []
    for _ in range(20):
        began = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - began)
    speed = 2 * a.shape[0] * a.shape[1] * b.shape[1] / statistics.median(times)
    floor = counter.get_total_flops() / speed
    console.print(
        f"floor: {counter.get_total_flops() / 1e9:.0f} GFLOP at {speed / 1e9:.0f} GFLOP/s (matrix product 2000 x 1024 x"
        f" 1024) take {floor:.2f} s; ours takes {AUDIO_SECONDS / rate:.2f} s, {AUDIO_SECONDS / rate / floor:.2f} times"
    )
