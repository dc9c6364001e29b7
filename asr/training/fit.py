"""One training run, from a configuration to `RUN/model.safetensors`.

RUN/config.yaml         the composed configuration
RUN/environment.txt     Python, hardware, commit and the version of every package
RUN/tokenizer.model     the vocabulary
RUN/model.safetensors   the best model so far, by validation WER
RUN/best/               the best few, for `asr average`
RUN/checkpoints/        everything, for --resume
RUN/nonfinite.jsonl     utterances of steps that had to be skipped, if there were any
RUN/metrics.csv, RUN/curves.png, RUN/tensorboard/   how it went
RUN/samples.txt, RUN/pictures/                      what it heard, and where it looked
"""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import lightning
import torch
import yaml
from lightning.pytorch.callbacks import Callback, EarlyStopping, EMAWeightAveraging
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.profilers import SimpleProfiler
from lightning.pytorch.strategies import ModelParallelStrategy

from asr.audio import load_mono
from asr.batching import Budget
from asr.config import build
from asr.datamodule import SpeechDataModule, load_manifests
from asr.errors import ConfigError, DataError
from asr.manifest import Manifest
from asr.model import checkpoint as checkpoints
from asr.model.config import ModelConfig
from asr.model.recognizer import Recognizer
from asr.tokenizer import Tokenizer
from asr.training.config import TrainConfig
from asr.training.diagnosis import Diagnosis
from asr.training.export import ExportBest
from asr.training.finetune import begin_with, merged, restrict
from asr.training.follow_data import FollowData
from asr.training.memory import measure_budget
from asr.training.meter import Meter
from asr.training.module import RecognizerModule
from asr.training.nonfinite import SkipNonFinite
from asr.training.progress import on_terminal, show_progress
from asr.training.provenance import provenance, write_environment
from asr.training.resume import AtomicCheckpointIO, KeepCheckpoints, checkpoints_in, newest_whole
from asr.training.sharded import ShardedModule
from asr.training.vocabulary import prepare_tokenizer

log = logging.getLogger(__name__)

STATISTICS_UTTERANCES = 300  # enough for means and deviations of 80 bins; more changes them in the third digit


def train(config: TrainConfig, resume: bool = False, init_from: Path | None = None) -> Path:
    """Train a recogniser.

    Args:
        config: the whole run.
        resume: go on from the newest whole checkpoint of `config.run`, with everything that was going on.
        init_from: begin a new run with this checkpoint's weights and architecture; `config.model` is then not used, and
            `config.finetune` says what becomes of the vocabulary.

    Returns:
        The best model's file.

    Raises:
        ConfigError: the run folder holds a run already and `resume` is not asked for, or holds none and it is.
        DataError: manifests or audio are wrong, or training does not go on because of them.
        CheckpointError: `init_from`, or every checkpoint of the run, cannot be read.
        StoppedError: a signal ended the run; it is saved.
    """
    run = Path(config.run)
    begun = bool(checkpoints_in(run / "checkpoints"))
    if resume and not begun:
        raise ConfigError(f"{run}: nothing to resume, there is no checkpoints/step-*.ckpt")
    if begun and not resume:
        raise ConfigError(f"{run}: holds a run already; go on with --resume, or name another folder with run=FOLDER")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # it advertises, and repeats what the bar says
    lightning.seed_everything(config.training.seed, workers=True, verbose=False)
    model, data = _prepare(config, run, resume, init_from)
    scratch = Recognizer(model.config, model.tokenizer)
    restrict(model, config.finetune)
    references = {utterance.id: utterance.text for utterance in data.valid}
    if len(references) < len(data.valid):
        raise DataError("data.valid names the same utterance twice: ids must differ across its manifests")
    kind = ShardedModule if config.training.strategy == "fsdp" else RecognizerModule
    module = kind(model, config.optimizer, config.decoding, references, config.training.seed)
    about = provenance(config, data, init_from.name if init_from else None)
    export = ExportBest(run, config.training.keep_best, scratch, merged, about)
    trainer = _trainer(config, run, data, export)
    if init_from:
        trainer.validate(module, datamodule=data, verbose=False)
        log.warning("before the first step: WER %.2f %%", 100 * float(trainer.callback_metrics["valid/wer"]))
    newest = newest_whole(run / "checkpoints") if resume else None
    if newest and (run / "metrics.csv").is_file():  # the logger would begin the file again
        (run / "metrics.csv").replace(run / f"metrics-until-{newest.stem}.csv")
    trainer.fit(module, datamodule=data, ckpt_path=newest, weights_only=True)
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
        model = Recognizer(config.model, Tokenizer(vocabulary.read_bytes(), begun["tokenizer"]["normalizer"]))
    elif source:
        texts = [text for path in config.data.train for text in Manifest.load(path).texts]
        model = begin_with(source, texts, config.finetune, config.tokenizer)
        config = replace(config, model=model.config)
        config = replace(config, tokenizer=replace(config.tokenizer, normalizer=model.tokenizer.normalizer.name))
    else:
        model = Recognizer(config.model, prepare_tokenizer(config))
    budget = _budget(config, model) if config.data.batch_seconds == "auto" else None
    data = SpeechDataModule(config.data, model.tokenizer, config.training.seed, budget)
    if data.left_out:
        log.warning("%d utterances longer than %g s are left out of training", data.left_out, config.data.max_seconds)
    if not resume and not source:  # others bring their statistics with their weights
        _fit_statistics(model, data.train)
    run.mkdir(parents=True, exist_ok=True)
    vocabulary.write_bytes(model.tokenizer.model)
    (run / "config.yaml").write_text(yaml.safe_dump(asdict(config), sort_keys=False))
    write_environment(run / "environment.txt")
    return model, data


def _budget(config: TrainConfig, model: Recognizer) -> Budget:
    """Measure what a batch may hold, with the longest utterances there are, at the slowest speed."""
    train = load_manifests(config.data.train, "data.train").filter(config.data.max_seconds)
    longest = float(train.durations.max()) / min(config.data.speeds)
    tokens = max(
        len(model.tokenizer.encode(text)) / seconds for text, seconds in zip(train.texts, train.durations, strict=True)
    )
    gpu = torch.cuda.is_available() and config.training.accelerator in ("auto", "gpu", "cuda")
    device = torch.device("cuda" if gpu else "cpu")
    valid = float(load_manifests(config.data.valid, "data.valid").durations.max())
    return measure_budget(model, longest, valid, tokens, device, _precision(config.training.precision))


def _fit_statistics(model: Recognizer, manifest: Manifest) -> None:
    """Measure mean and deviation of the features over utterances spread evenly through the training data."""
    features = []
    for row in range(0, len(manifest), max(1, len(manifest) // STATISTICS_UTTERANCES)):
        utterance = manifest[row]
        waveform = torch.from_numpy(load_mono(utterance.audio_filepath, utterance.offset, utterance.duration))
        features.append(model.log_mel(waveform[None], torch.tensor([len(waveform)]))[0][0])
    model.norm.fit(features)


def _trainer(config: TrainConfig, run: Path, data: SpeechDataModule, export: ExportBest) -> lightning.Trainer:
    training = config.training
    callbacks: list[Callback] = [FollowData(data), SkipNonFinite(run / "nonfinite.jsonl", training.most_skipped)]
    if training.average_decay:
        callbacks.append(EMAWeightAveraging(decay=training.average_decay))
    if training.patience:
        callbacks.append(EarlyStopping("valid/wer", patience=training.patience, min_delta=1e-6))
    callbacks += [
        export,
        Diagnosis(run, training.check_after),
        show_progress(),
        Meter(),
        KeepCheckpoints(run / "checkpoints", training.checkpoint_minutes, training.keep_last),
    ]
    return lightning.Trainer(
        accelerator=training.accelerator,
        devices=training.devices,
        num_nodes=training.nodes,
        # One whole checkpoint, gathered on the first rank: written atomically, and any number of ranks goes on from it.
        strategy=ModelParallelStrategy(training.devices * training.nodes, 1, save_distributed_checkpoint=False)
        if training.strategy == "fsdp"
        else training.strategy,
        precision=_precision(training.precision),  # type: ignore[arg-type]
        plugins=[AtomicCheckpointIO()],
        max_epochs=training.epochs,
        limit_train_batches=training.batches or None,
        limit_val_batches=training.batches or None,
        check_val_every_n_epoch=min(training.validate_every, training.epochs),
        accumulate_grad_batches=config.optimizer.accumulate,
        gradient_clip_val=config.optimizer.gradient_clip or None,
        use_distributed_sampler=False,  # the plan already gives each rank its share
        num_sanity_val_steps=0,
        log_every_n_steps=10,
        callbacks=callbacks,
        logger=_loggers(training.loggers, run),
        profiler=SimpleProfiler(run, "profile") if training.profile else None,
        enable_checkpointing=False,  # KeepCheckpoints does it
        enable_model_summary=False,
        enable_progress_bar=on_terminal(),
    )


def _precision(wanted: str) -> str:
    if wanted != "auto":
        return wanted
    if not torch.cuda.is_available():
        return "32-true"
    return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"


def _loggers(names: list[str], run: Path) -> list[Logger]:
    """Make the loggers; the CSV file is always written."""
    made = {
        "tensorboard": partial(TensorBoardLogger, run, name="tensorboard", version=""),
        "wandb": partial(WandbLogger, name=run.name, save_dir=run, project="asr"),
        "mlflow": partial(
            MLFlowLogger, experiment_name="asr", run_name=run.name, tracking_uri=f"sqlite:///{run}/mlflow.db"
        ),
    }
    try:
        return [CSVLogger(run, name="", version=""), *(made[name]() for name in names)]
    except ModuleNotFoundError as error:
        raise ConfigError(f"training.loggers: {error.msg.splitlines()[0]}; pip install the logger's package") from error
