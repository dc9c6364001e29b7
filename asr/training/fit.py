"""One training run, from a configuration to `RUN/model.safetensors`.

RUN/config.yaml         the composed configuration
RUN/tokenizer.model     the vocabulary
RUN/model.safetensors   the best model so far, by validation WER
RUN/checkpoints/        Lightning's own, for --resume
RUN/metrics.csv, RUN/tensorboard/   curves
"""

from __future__ import annotations

import logging
import platform
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lightning
import torch
import yaml
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

import asr
from asr.audio import load_mono
from asr.config import build
from asr.datamodule import SpeechDataModule, load_manifests
from asr.errors import ConfigError, DataError
from asr.manifest import Manifest
from asr.model import checkpoint as checkpoints
from asr.model.config import ModelConfig
from asr.model.recognizer import Recognizer
from asr.tokenizer import Tokenizer, train_tokenizer
from asr.training.callbacks import ExportBest
from asr.training.config import TrainConfig
from asr.training.module import RecognizerModule

log = logging.getLogger(__name__)

STATISTICS_UTTERANCES = 300  # enough for means and deviations of 80 bins; more changes them in the third digit


def train(config: TrainConfig, resume: bool = False, init_from: Path | None = None) -> Path:
    """Train a recogniser.

    Args:
        config: the whole run.
        resume: go on from the last checkpoint of `config.run`, with optimiser and schedule.
        init_from: begin a new run with this checkpoint's weights, architecture and tokenizer; `config.model` and
            `config.tokenizer` are then not used.

    Returns:
        The best model's file.

    Raises:
        ConfigError: the run folder holds a run already and `resume` is not asked for, or holds none and it is.
        DataError: manifests or audio are wrong.
        CheckpointError: `init_from` cannot be read.
    """
    run = Path(config.run)
    last = run / "checkpoints" / "last.ckpt"
    if resume and not last.is_file():
        raise ConfigError(f"{run}: nothing to resume, there is no checkpoints/last.ckpt")
    if not resume and last.is_file():
        raise ConfigError(f"{run}: holds a run already; go on with --resume, or name another folder with run=FOLDER")
    lightning.seed_everything(config.training.seed, workers=True, verbose=False)
    model, data = _prepare(config, run, resume, init_from)
    references = {utterance.id: utterance.text for utterance in data.valid}
    if len(references) < len(data.valid):
        raise DataError("data.valid names the same utterance twice: ids must differ across its manifests")
    module = RecognizerModule(model, config.optimizer, config.decoding, references)
    scratch = Recognizer(model.config, model.tokenizer)
    about = _provenance(config, data)
    trainer = _trainer(config, run, ExportBest(run / "model.safetensors", scratch, about))
    trainer.fit(module, datamodule=data, ckpt_path=last if resume else None, weights_only=True)
    return run / "model.safetensors"


def _prepare(
    config: TrainConfig, run: Path, resume: bool, init_from: Path | None
) -> tuple[Recognizer, SpeechDataModule]:
    """Make or find the tokenizer, the data and the model with its normalisation statistics."""
    vocabulary = run / "tokenizer.model"
    source = checkpoints.load(init_from)[0] if init_from else None
    if resume:  # a run keeps the architecture and the vocabulary it began with
        begun = yaml.safe_load((run / "config.yaml").read_text())
        config = replace(config, model=build(ModelConfig, begun["model"], f"{run}/config.yaml"))
        tokenizer = Tokenizer(vocabulary.read_bytes(), begun["tokenizer"]["normalizer"])
    elif source:
        config = replace(config, model=source.config)
        tokenizer = source.tokenizer
    else:
        tokenizer = train_tokenizer(load_manifests(config.data.train, "data.train").texts, config.tokenizer)
    data = SpeechDataModule(config.data, tokenizer, config.training.seed)
    if data.left_out:
        log.warning("%d utterances longer than %g s are left out of training", data.left_out, config.data.max_seconds)
    if source:
        model = source.train()
    else:
        model = Recognizer(config.model, tokenizer)
        if not resume:  # a resumed run finds its statistics in the checkpoint
            _fit_statistics(model, data.train)
    run.mkdir(parents=True, exist_ok=True)
    vocabulary.write_bytes(tokenizer.model)
    (run / "config.yaml").write_text(yaml.safe_dump(asdict(config), sort_keys=False))
    return model, data


def _fit_statistics(model: Recognizer, manifest: Manifest) -> None:
    """Measure mean and deviation of the features over utterances spread evenly through the training data."""
    features = []
    for row in range(0, len(manifest), max(1, len(manifest) // STATISTICS_UTTERANCES)):
        utterance = manifest[row]
        waveform = torch.from_numpy(load_mono(utterance.audio_filepath, utterance.offset, utterance.duration))
        features.append(model.log_mel(waveform[None], torch.tensor([len(waveform)]))[0][0])
    model.norm.fit(features)


def _trainer(config: TrainConfig, run: Path, export: ExportBest) -> lightning.Trainer:
    training = config.training
    callbacks: list[Callback] = []
    if training.average_decay:
        callbacks.append(EMAWeightAveraging(decay=training.average_decay))
    callbacks += [
        export,
        # The latest state after every epoch; Lightning's own `save_last` would wait for a better score.
        ModelCheckpoint(
            run / "checkpoints", "last", save_on_train_epoch_end=True, enable_version_counter=False, save_top_k=1
        ),
        RichProgressBar(leave=True),
    ]
    loggers: list[Logger] = [
        CSVLogger(run, name="", version=""),
        TensorBoardLogger(run, name="tensorboard", version=""),
    ]
    return lightning.Trainer(
        accelerator=training.accelerator,
        devices=training.devices,
        precision=_precision(training.precision),  # type: ignore[arg-type]
        max_epochs=training.epochs,
        check_val_every_n_epoch=training.validate_every,
        gradient_clip_val=config.optimizer.gradient_clip or None,
        use_distributed_sampler=False,  # the plan already gives each rank its share
        num_sanity_val_steps=0,
        log_every_n_steps=10,
        callbacks=callbacks,
        logger=loggers,
        enable_model_summary=False,
    )


def _precision(wanted: str) -> str:
    if wanted != "auto":
        return wanted
    return "bf16-mixed" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "32-true"


def _provenance(config: TrainConfig, data: SpeechDataModule) -> Callable[[], dict[str, Any]]:
    """Collect what a checkpoint says of its making; the clock is read when it is asked."""
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
            "commit": _commit(),
        },
        "hardware": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine() + " CPU",
        "config": {key: value for key, value in asdict(config).items() if key not in ("run", "model")},
    }
    facts["config"]["data"] = {k: v for k, v in asdict(config.data).items() if k not in ("train", "valid")}

    def about() -> dict[str, Any]:
        hours = (time.monotonic() - began) / 3600
        training = {"date": time.strftime("%Y-%m-%d"), "hours": round(hours, 3), "epochs": config.training.epochs}
        return facts | {"training": training}

    return about


def _commit() -> str | None:
    """Give the checkout's commit, or None for an installed package."""
    folder = Path(__file__).parents[2]
    if not (folder / ".git").exists():
        return None
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or None
