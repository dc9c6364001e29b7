"""One training run, from a configuration to `RUN/model.safetensors`.

RUN/config.yaml         the composed configuration
RUN/environment.txt     Python, hardware, commit and the version of every package
RUN/tokenizer.model     the vocabulary
RUN/model.safetensors   the best model so far, by validation WER, or CER where texts hold no blanks
RUN/best/               the best few, for `asr average`
RUN/checkpoints/        everything, for --resume
RUN/nonfinite.jsonl     utterances of steps that had to be skipped, if there were any
RUN/metrics.csv, RUN/curves.png, RUN/tensorboard/   how it went
RUN/samples.txt, RUN/pictures/                      what it heard, and where it looked
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import lightning
import torch
import yaml
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.profilers import SimpleProfiler
from lightning.pytorch.strategies import ModelParallelStrategy

from asr.batching import Budget
from asr.config import build
from asr.datamodule import SpeechDataModule, load_manifests
from asr.errors import AudioError, CheckpointError, ConfigError
from asr.files import write_file
from asr.manifest import Manifest
from asr.model import checkpoint as checkpoints
from asr.model.config import ModelConfig
from asr.model.recognizer import Recognizer
from asr.tokenizer import Tokenizer, TokenizerConfig
from asr.training.averaging import RunningAverage
from asr.training.best_models import ExportBest
from asr.training.config import FinetuneConfig, TrainConfig, TrainingConfig
from asr.training.diagnosis import Diagnosis
from asr.training.finetune import begin_with, merged, restrict
from asr.training.follow_data import FollowData
from asr.training.memory import measure_budget
from asr.training.meter import Meter
from asr.training.module import RecognizerModule
from asr.training.nonfinite import SkipNonFinite
from asr.training.progress import show_progress
from asr.training.provenance import provenance, write_setup
from asr.training.sharded import ShardedModule
from asr.training.trainer import begin, go_on, hardware, keep_optimizer, make_trainer, tell_changes
from asr.training.vocabulary import prepare_tokenizer

log = logging.getLogger(__name__)

STATISTICS_UTTERANCES = 300  # enough for means and deviations of 80 bins; more changes them in the third digit


def train(config: TrainConfig, resume: bool = False, init_from: Path | None = None) -> Path:
    """Train a recogniser.

    Args:
        config: the whole run.
        resume: go on from the newest whole checkpoint of `config.run`, with everything that was going on.
        init_from: begin a new run with this checkpoint's weights and architecture; of `config.model` only loss and
            masks are then used, and `config.finetune` says what becomes of blocks and vocabulary.

    Returns:
        The best model's file.

    Raises:
        ConfigError: the run folder holds a run already and `resume` is not asked for, or holds none and it is.
        AudioError: a recording cannot be read.
        DataError: manifests are wrong, or training does not go on because of the data.
        CheckpointError: `init_from`, or every checkpoint of the run, cannot be read.
        StoppedError: a signal ended the run; it is saved.
    """
    run = Path(config.run)
    begin(run, resume, config.training.seed)
    config, model, data = _prepare(config, run, resume, init_from)
    scratch = Recognizer(model.config, model.tokenizer)
    restrict(model, config.finetune)
    references = {utterance.id: utterance.text for utterance in data.valid}
    kind = ShardedModule if config.training.strategy == "fsdp" else RecognizerModule
    module = kind(model, config.optimizer, config.decoding, references, config.training.seed)
    made = run / "model.safetensors"
    about = provenance(config, data, init_from.name if init_from else _began_with(made) if resume else None)
    export = ExportBest(
        run,
        config.training.keep_best,
        scratch,
        deciding_rates(references.values()),
        about,
        lambda path, about: checkpoints.save(path, scratch, about),
        merged,
    )
    trainer = _trainer(config, run, data, export)
    try:
        if init_from:
            trainer.validate(module, datamodule=data, verbose=False)
            log.warning("before the first step: WER %.2f %%", 100 * float(trainer.callback_metrics["valid/wer"]))
        trainer.fit(module, datamodule=data, ckpt_path=go_on(run) if resume else None, weights_only=True)
    except AudioError as error:
        # Of an error in a worker torch makes a traceback; its last line is the error's own.
        raise AudioError(str(error).strip().rpartition("\n")[2].removeprefix("asr.errors.AudioError: ")) from error
    return run / "model.safetensors"


def _prepare(
    config: TrainConfig, run: Path, resume: bool, init_from: Path | None
) -> tuple[TrainConfig, Recognizer, SpeechDataModule]:
    """Make or find the tokenizer, the data and the model with its normalisation statistics; says what the run is."""
    vocabulary = run / "tokenizer.model"
    source = checkpoints.load(init_from)[0] if init_from else None
    if resume:  # a run keeps the architecture, the vocabulary, what learns, and the order it began with
        begun = yaml.safe_load((run / "config.yaml").read_text())
        origin = f"{run}/config.yaml"
        config = replace(config, model=build(ModelConfig, begun["model"], origin))
        config = replace(config, tokenizer=build(TokenizerConfig, begun["tokenizer"], origin))
        config = replace(config, finetune=build(FinetuneConfig, begun.get("finetune", {}), origin))
        config = replace(config, optimizer=keep_optimizer(config.optimizer, begun["optimizer"]))
        short_first = begun["data"].get("short_first", True)  # earlier versions knew no other order
        config = replace(config, data=replace(config.data, short_first=short_first))
        tell_changes(config, begun)
        model = Recognizer(config.model, Tokenizer(vocabulary.read_bytes(), config.tokenizer.normalizer))
    elif source:
        texts = [text for path in config.data.train for text in Manifest.load(path).texts]
        model = begin_with(source, texts, config.finetune, config.tokenizer)
        model.config = replace(model.config, loss=config.model.loss, spec_augment=config.model.spec_augment)
        config = replace(config, model=model.config, data=replace(config.data, short_first=False))
        config = replace(config, tokenizer=replace(config.tokenizer, normalizer=model.tokenizer.normalizer.name))
    else:
        if config.finetune != FinetuneConfig():
            raise ConfigError("finetune.* is of runs that begin with another model: add --init-from, or leave it out")
        model = Recognizer(config.model, prepare_tokenizer(config))
    budget = _budget(config, model, run, resume) if config.data.batch_seconds == "auto" else None
    data = SpeechDataModule(config.data, model.tokenizer, config.training.seed, budget)
    if data.left_out:
        log.warning("%d utterances longer than %g s are left out of training", data.left_out, config.data.max_seconds)
    if not resume and not source:  # others bring their statistics with their weights
        _fit_statistics(model, data.train)
    if source:
        (run / "tokenizer.yaml").unlink(missing_ok=True)  # it is about a vocabulary that was trained here
    write_file(vocabulary, model.tokenizer.model)
    write_setup(run, config)
    return config, model, data


def _began_with(made: Path) -> str | None:
    """Name the model that the run began with, as its best model so far says."""
    try:
        return checkpoints.describe(made)["about"].get("began_with") if made.is_file() else None
    except CheckpointError as error:  # what it says is not worth a run that can go on
        log.warning("%s; the next validation writes it anew", error)
        return None


def _budget(config: TrainConfig, model: Recognizer, run: Path, resume: bool) -> Budget:
    """Measure what a batch may hold, with the longest utterances there are, at the slowest speed.

    A run that goes on keeps what it measured at first: another budget would make another plan of the epoch.
    """
    kept = run / "budget.json"
    if resume and kept.is_file():
        return Budget(**json.loads(kept.read_text()))
    train = load_manifests(config.data.train, "data.train").filter(config.data.max_seconds)
    longest = float(train.durations.max()) / min(config.data.speeds)
    tokens = max(
        len(model.tokenizer.encode(text)) / seconds for text, seconds in zip(train.texts, train.durations, strict=True)
    )
    device = torch.device("cuda" if _on_gpu(config.training) else "cpu")
    valid = float(load_manifests(config.data.valid, "data.valid").durations.max())
    budget = measure_budget(model, longest, valid, tokens, device, _precision(config.training))
    write_file(kept, json.dumps(asdict(budget)).encode())
    return budget


def deciding_rates(references: Iterable[str]) -> tuple[str, str]:
    """Name the error rates, first the one that tells models apart.

    Where most texts hold no blank, as in Chinese or Japanese, that is the one of characters: WER counts whole texts.
    """
    blanks = [" " in text.strip() for text in references]
    return ("wer", "cer") if 2 * sum(blanks) >= len(blanks) else ("cer", "wer")


class StopEarly(EarlyStopping):
    """End a run when validation has got no better for so many times, as its configuration says now.

    Args:
        rate: what validation logs it as; the lower the better.
        patience: times.
    """

    def __init__(self, rate: str, patience: int) -> None:
        # Checked at validation: at the end of the epoch it would come after the checkpoint.
        super().__init__(rate, patience=patience, min_delta=1e-6, check_on_train_epoch_end=False)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the best rate and the times since from the run that goes on, but not its patience."""
        patience = self.patience
        super().load_state_dict(state_dict)
        self.patience = patience


def _fit_statistics(model: Recognizer, manifest: Manifest) -> None:
    """Measure mean and deviation of the features over utterances spread evenly through the training data."""
    features = []
    for row in range(0, len(manifest), max(1, len(manifest) // STATISTICS_UTTERANCES)):
        utterance = manifest[row]
        waveform = torch.from_numpy(utterance.waveform())
        features.append(model.log_mel(waveform[None], torch.tensor([len(waveform)]))[0][0])
    model.norm.fit(features)


def _trainer(config: TrainConfig, run: Path, data: SpeechDataModule, export: ExportBest) -> lightning.Trainer:
    training = config.training
    callbacks: list[Callback] = [FollowData(data), SkipNonFinite(run / "nonfinite.jsonl", training.most_skipped)]
    if training.average_decay:
        callbacks.append(RunningAverage(training.average_decay))
    if training.patience:
        callbacks.append(StopEarly(f"valid/{export.metrics[0]}", training.patience))
    callbacks += [
        export,
        Diagnosis(run, training.check_after),
        show_progress(),
        Meter(),
    ]
    return make_trainer(
        run,
        training,
        config.optimizer,
        callbacks,
        devices=training.devices,
        num_nodes=training.nodes,
        # One whole checkpoint, gathered on the first rank: written atomically, and any number of ranks goes on from it.
        strategy=ModelParallelStrategy(training.devices * training.nodes, 1, save_distributed_checkpoint=False)
        if training.strategy == "fsdp"
        else training.strategy,
        precision=_precision(training),
        limit_val_batches=training.batches or None,
        logger=_loggers(training.loggers, run),
        profiler=SimpleProfiler(run, "profile") if training.profile else None,
    )


def _on_gpu(training: TrainingConfig) -> bool:
    return torch.cuda.is_available() and hardware(training) in ("gpu", "cuda")


def _precision(training: TrainingConfig) -> str:
    if training.precision != "auto":
        return training.precision
    if not _on_gpu(training):
        return "32-true"
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16-mixed"
    if training.strategy == "fsdp":
        raise ConfigError("training.strategy=fsdp needs a GPU with bf16, or training.precision=32-true")
    return "16-mixed"


def _wandb_id(run: Path) -> str:
    """Give the id that Weights & Biases knows the run by, drawn once."""
    kept = run / "wandb_id"
    if not kept.is_file():
        write_file(kept, uuid4().hex[:8])
    return kept.read_text()


def _loggers(names: list[str], run: Path) -> list[Logger]:
    """Make the loggers; the CSV file is always written."""
    made = {
        "tensorboard": partial(TensorBoardLogger, run, name="tensorboard", version=""),
        "wandb": partial(WandbLogger, name=run.name, save_dir=run, project="asr", id=_wandb_id(run), resume="allow"),
        "mlflow": partial(
            MLFlowLogger, experiment_name="asr", run_name=run.name, tracking_uri=f"sqlite:///{run}/mlflow.db"
        ),
    }
    try:
        return [CSVLogger(run, name="", version=""), *(made[name]() for name in names)]
    except ModuleNotFoundError as error:
        raise ConfigError(f"training.loggers: {error.msg.splitlines()[0]}; pip install the logger's package") from error
