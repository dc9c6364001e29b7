"""How much audio fits into a batch: measured on the device at hand (a GPU, or Linux) before the first step.

A few batches of noise, of different lengths and sizes, go through the very model forward and backward; what they cost
in memory is fitted by fixed + rows x (a x seconds + b x seconds^2), the cost that the epoch plan keeps within a limit.
"""

from __future__ import annotations

import ctypes
import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch.utilities.memory import garbage_collection_cuda

from asr.batching import Budget
from asr.errors import DataError
from asr.model.recognizer import Batch, Recognizer
from asr.samples import SAMPLE_RATE
from asr.tokenizer import SPECIALS
from asr.training.out_of_memory import ran_out

log = logging.getLogger(__name__)

SHARE = 0.8  # of what is free; the rest is for fragmentation, and for what the measurement has missed
CPU_SHARE = 0.5  # a CPU's memory is shared with workers, the page cache and everyone else
STATES = 4  # gradient, two moments of the optimiser and the average, each as large as the weights
SHAPES = ((0.25, 1), (0.25, 4), (0.5, 1), (0.5, 3), (1.0, 1), (1.0, 3))  # share of the longest utterance, and rows


def measure_budget(
    model: Recognizer,
    longest: float,
    longest_valid: float,
    tokens_per_second: float,
    device: torch.device,
    precision: str,
) -> Budget:
    """Measure what batches cost this model on this device, and what there is to spend.

    Args:
        model: the recogniser that will be trained; it is as before, and where it was, afterwards.
        longest: seconds of the longest utterance, at the slowest speed it may be heard at.
        longest_valid: seconds of the longest utterance of validation, which cannot be left out.
        tokens_per_second: the most target tokens that a second of audio has.
        device: where training will run.
        precision: Lightning's name of it; `bf16-mixed` and `16-mixed` are measured under autocast.

    Returns:
        A budget in bytes.

    Raises:
        DataError: there is no memory for a training batch, or for the longest utterance of validation.
    """
    home = next(model.parameters()).device
    _check_validation(model.to(device), longest_valid, device)
    model.train()
    statistics = [(buffer, buffer.clone()) for buffer in model.buffers()]  # batch norm would remember the noise
    costs = []
    for share, rows in SHAPES:
        batch = _noise(rows, share * longest, tokens_per_second, len(model.tokenizer), device)
        with _peak(device) as used:
            try:
                with torch.autocast(device.type, _type(precision), enabled="mixed" in precision):
                    total = model.loss(batch).total
                total.backward()
            except RuntimeError as error:
                if not ran_out(error):
                    raise
                total = None  # its graph holds what the way back has not reached
                break  # larger ones will not fit either
        costs.append((share * longest, rows, used[0]))
        model.zero_grad(set_to_none=True)
    model.zero_grad(set_to_none=True)
    for buffer, earlier in statistics:
        buffer.copy_(earlier)
    garbage_collection_cuda()  # the driver counts what the allocator keeps as used
    free = _free(device) - STATES * sum(weight.numel() * weight.element_size() for weight in model.parameters())
    model.to(home)
    if not costs:
        raise DataError(f"not even {SHAPES[0][0] * longest:.0f} s of audio fit into memory: take a smaller model")
    fixed, per_second, squared = fit_cost(costs)
    limit = free * (SHARE if device.type == "cuda" else CPU_SHARE) - fixed
    if limit <= 0:
        raise DataError("weights and optimiser leave no memory for a batch: take a smaller model")
    budget = Budget(limit, per_second, squared)
    most = limit / float(budget.cost(np.array(longest))) * longest
    log.warning("batch_seconds=auto: %.1f GB hold about %.0f s of utterances of %.0f s", limit / 1e9, most, longest)
    return budget


@torch.no_grad()
def _check_validation(model: Recognizer, seconds: float, device: torch.device) -> None:
    batch = _noise(1, seconds, 1.0, len(model.tokenizer), device)
    free = _free(device)
    try:
        with _peak(device) as used:
            model.eval().loss(batch)
    except RuntimeError as error:
        if not ran_out(error):
            raise
        used = [float("inf")]
    if used[0] > free:
        raise DataError(f"data.valid: its longest utterance, {seconds:.0f} s, does not fit into memory: cut it")


def fit_cost(costs: list[tuple[float, int, float]]) -> tuple[float, float, float]:
    """Fit bytes = fixed + rows x (a x seconds + b x seconds^2) with none below 0, then make room for every measurement.

    Args:
        costs: seconds, rows and bytes of each batch measured.

    Returns:
        fixed, a and b; a is over 0.
    """
    seconds, rows, used = (np.array(column, dtype=np.float64) for column in zip(*costs, strict=True))
    terms = np.stack((np.ones_like(used), rows * seconds, rows * seconds**2), axis=1)
    for kept in ([0, 1, 2], [0, 1], [1]):  # a term that would have to be negative is not there
        if len(kept) > len(used):  # after so few measurements before memory ran out, nobody knows
            continue
        factors = np.zeros(3)
        factors[kept] = np.linalg.lstsq(terms[:, kept], used, rcond=None)[0]
        if (factors >= 0).all() and factors[1] > 0:
            break
    fixed, linear, squared = factors * max(1.0, float(np.max(used / (terms @ factors))))
    return float(fixed), float(linear), float(squared)


def _noise(rows: int, seconds: float, tokens_per_second: float, vocabulary: int, device: torch.device) -> Batch:
    samples, count = int(seconds * SAMPLE_RATE), max(1, int(seconds * tokens_per_second))
    draw = torch.Generator().manual_seed(0)
    return Batch(
        ids=[str(row) for row in range(rows)],
        waveform=(0.1 * torch.randn(rows, samples, generator=draw)).to(device),
        lengths=torch.full((rows,), samples, device=device),
        tokens=torch.randint(SPECIALS, max(SPECIALS + 1, vocabulary), (rows, count), generator=draw).to(device),
        token_lengths=torch.full((rows,), count, device=device),
        seeds=torch.arange(rows, device=device),
    )


def _type(precision: str) -> torch.dtype:
    return torch.float16 if precision.startswith("16") else torch.bfloat16


@contextmanager
def _peak(device: torch.device) -> Iterator[list[float]]:
    """Measure the most bytes that are in use inside this context beyond those in use before it."""
    used = [0.0]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield used
        used[0] = float(torch.cuda.max_memory_allocated(device) - before)
    else:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # what the allocator keeps of earlier batches would hide what this one needs
        Path("/proc/self/clear_refs").write_text("5")  # begins the peak of this process anew
        before = _status("VmRSS")
        yield used
        used[0] = max(0.0, _status("VmHWM") - before)


def _free(device: torch.device) -> float:
    """Bytes that can be had."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return float(lines["MemAvailable"].split()[0]) * 1024


def _status(key: str) -> float:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return float(lines[key].split()[0]) * 1024
