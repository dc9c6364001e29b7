"""What a run and its models say of their making: data, software, hardware, time."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning
import torch
import yaml

import asr
from asr.datamodule import SpeechDataModule
from asr.evaluation.evaluate import hardware
from asr.evaluation.results import commit
from asr.files import write_file
from asr.training.config import TrainConfig

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def provenance(config: TrainConfig, data: SpeechDataModule, source: str | None) -> Callable[[], dict[str, Any]]:
    """Collect what a checkpoint says of its making; the clock is read when the result is called.

    Args:
        config: the run.
        data: what it trains on.
        source: name of the model it began with, if any.
    """
    facts = {
        "data": {
            "manifests": _shown(config.data.train),
            "utterances": len(data.train),
            "left_out": data.left_out,
            "hours": round(float(data.train.durations.sum()) / 3600, 3),
        },
        "config": {key: value for key, value in asdict(config).items() if key not in ("run", "model")},
    }
    said, augment, decoding = facts["config"], config.data.augment, config.decoding
    for key in ("train", "valid"):
        del said["data"][key]
    said["data"]["augment"] |= {"noise": _shown(augment.noise), "reverberation": _shown(augment.reverberation)}
    del said["decoding"]["hotwords"]  # maybe names
    said["decoding"]["language_model"] = Path(decoding.language_model).name
    if source:
        facts["began_with"] = source
    return clocked(facts, config.training.epochs)


def _shown(paths: Sequence[str]) -> list[str]:
    """Name files by their last folder alone: a model that is passed on tells nothing of the machine it was made on."""
    return ["/".join(Path(path).parts[-2:]) for path in paths]


def clocked(facts: dict[str, Any], epochs: int) -> Callable[[], dict[str, Any]]:
    """Add software, hardware and time to the facts of a run; the clock is read when the result is called."""
    began = time.monotonic()
    software = {"asr": asr.__version__, "torch": torch.__version__, "lightning": lightning.__version__}
    facts = facts | {"software": software | {"commit": commit()}, "hardware": hardware(_device())}

    def about() -> dict[str, Any]:
        hours = (time.monotonic() - began) / 3600
        return facts | {"training": {"date": time.strftime("%Y-%m-%d"), "hours": round(hours, 3), "epochs": epochs}}

    return about


def write_setup(run: Path, config: DataclassInstance) -> None:
    """Write RUN/config.yaml, and RUN/environment.txt: Python, this checkout and every installed package, by version."""
    write_file(run / "config.yaml", yaml.safe_dump(asdict(config), sort_keys=False))
    packages = sorted({f"{package.name}=={package.version}" for package in distributions()}, key=str.lower)
    header = [
        f"# Python {sys.version.split()[0]}",
        f"# {platform.platform()}",
        f"# {hardware(_device())}",
        f"# asr {commit()}",
    ]
    write_file(run / "environment.txt", "\n".join([*header, *packages]) + "\n")


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
