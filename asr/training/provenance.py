"""What a run and its models say of their making: data, software, hardware, time."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import lightning
import torch

import asr
from asr.datamodule import SpeechDataModule
from asr.evaluation.results import commit
from asr.training.config import TrainConfig


def provenance(config: TrainConfig, data: SpeechDataModule, source: str | None) -> Callable[[], dict[str, Any]]:
    """Collect what a checkpoint says of its making; the clock is read when the result is called.

    Args:
        config: the run.
        data: what it trains on.
        source: name of the model it began with, if any.
    """
    began = time.monotonic()
    manifests = [Path(path) for path in config.data.train]
    facts = {
        "data": {
            "manifests": ["/".join(path.parts[-2:]) for path in manifests],  # no path of the machine it was trained on
            "utterances": len(data.train),
            "left_out": data.left_out,
            "hours": round(float(data.train.durations.sum()) / 3600, 3),
        },
        "software": {
            "asr": asr.__version__,
            "torch": torch.__version__,
            "lightning": lightning.__version__,
            "commit": commit(),
        },
        "hardware": hardware(),
        "config": {key: value for key, value in asdict(config).items() if key not in ("run", "model")},
    }
    facts["config"]["data"] = {k: v for k, v in asdict(config.data).items() if k not in ("train", "valid")}
    if source:
        facts["began_with"] = source

    def about() -> dict[str, Any]:
        hours = (time.monotonic() - began) / 3600
        training = {"date": time.strftime("%Y-%m-%d"), "hours": round(hours, 3), "epochs": config.training.epochs}
        return facts | {"training": training}

    return about


def write_environment(path: Path) -> None:
    """Write the versions of Python, of this checkout and of every installed package, one to a line."""
    packages = sorted({f"{package.name}=={package.version}" for package in distributions()}, key=str.lower)
    header = [f"# Python {sys.version.split()[0]}", f"# {platform.platform()}", f"# {hardware()}", f"# asr {commit()}"]
    path.write_text("\n".join([*header, *packages]) + "\n", encoding="utf-8")


def hardware() -> str:
    """Name what computes: the GPUs, or the CPU."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
