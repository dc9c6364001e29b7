"""Listening to whole manifests: all processor cores, bounded memory, and an end at Ctrl-C."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from asr.check.audio import FACTS, measure
from asr.errors import DataError
from asr.manifest import Manifest

CHUNK = 16  # utterances handed over at once: a second of work, so that an interrupt is heard soon
AHEAD = 3  # chunks waiting for each process; more would only take memory
WORTH_PROCESSES = 64  # utterances; starting processes takes a second or two

Stretch = tuple[str, float, float]
"""Audio file, offset and duration in seconds."""


def default_jobs() -> int:
    """Count the processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def listen(manifest: Manifest, jobs: int, progress: Callable[[int], None]) -> tuple[NDArray[np.void], dict[int, str]]:
    """Measure every utterance.

    Args:
        manifest: the utterances.
        jobs: processes; the result does not depend on it.
        progress: called with the number of utterances done since.

    Returns:
        Rows of FACTS, and for the rows that cannot be read, why.

    Raises:
        DataError: a process died, of a lack of memory or of a file that crashes a decoder.
    """
    facts, reasons, row = np.zeros(len(manifest), dtype=FACTS), {}, 0
    for measured in _in_processes(_chunks(manifest), jobs if len(manifest) >= WORTH_PROCESSES else 1):
        for fact, reason in measured:
            facts[row] = fact
            if reason:
                reasons[row] = reason
            row += 1
        progress(len(measured))
    return facts, reasons


def _chunks(manifest: Manifest) -> Iterator[list[Stretch]]:
    stretches = ((each.audio_filepath, each.offset, each.duration) for each in manifest)
    while chunk := list(islice(stretches, CHUNK)):
        yield chunk


def _measure_chunk(stretches: list[Stretch]) -> list[tuple[NDArray[np.void], str]]:
    return [measure(*stretch) for stretch in stretches]


def _in_processes(chunks: Iterator[list[Stretch]], jobs: int) -> Iterator[list[tuple[NDArray[np.void], str]]]:
    """Yield the results in order; at Ctrl-C what has not begun is dropped."""
    if jobs == 1:
        yield from map(_measure_chunk, chunks)
        return
    # Not forked: threads of Arrow and of the progress bar would leave locks behind.
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _leave_interrupts)
    pending: deque[tuple[list[Stretch], Future[list[tuple[NDArray[np.void], str]]]]] = deque()
    try:
        for chunk in chunks:
            pending.append((chunk, pool.submit(_measure_chunk, chunk)))
            if len(pending) > AHEAD * jobs:
                yield pending.popleft()[1].result()
        while pending:
            yield pending.popleft()[1].result()
    except BrokenProcessPool as error:
        names = f"{pending[0][0][0][0]} or one of the {AHEAD * jobs * CHUNK} after it" if pending else "a late file"
        raise DataError(f"a process died at {names}: too little memory, or a file that crashes its decoder") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_interrupts() -> None:
    """Let Ctrl-C reach the main process alone; it ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
