"""Training a neural language model, from text files to `RUN/model.safetensors`.

RUN/config.yaml         the composed configuration
RUN/environment.txt     Python, hardware, commit and the version of every package
RUN/model.safetensors   the best model so far, by perplexity on the held-out texts
RUN/best/               the best few
RUN/checkpoints/        everything, for --resume
RUN/metrics.csv         loss, and perplexity by character and by word
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
import yaml
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader

from asr.batching import group_by_length
from asr.config import build
from asr.decoding.arpa import read_sentences
from asr.errors import ConfigError, DataError
from asr.losses import IGNORED
from asr.model import checkpoint as checkpoints
from asr.model.language_model import LanguageModelConfig, NeuralLanguageModel
from asr.model.language_model_file import save_language_model
from asr.plan_sampler import PlannedDataModule, PlanSampler
from asr.tokenizer import END, START, Tokenizer
from asr.training.averaging import RunningAverage
from asr.training.best_models import ExportBest
from asr.training.config import OptimizerConfig, TrainingConfig
from asr.training.optimizers import configured_rates, make_optimizer, make_schedule, set_rates
from asr.training.progress import show_progress
from asr.training.provenance import clocked, write_setup
from asr.training.trainer import begin, go_on, keep_optimizer, make_trainer, tell_changes

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LanguageModelRun:
    """A whole run that trains a language model."""

    run: str = "run/lm"
    """Folder for checkpoints, logs and the finished model."""
    tokenizer_from: str = "embedded"
    """Recogniser that it is to help: a checkpoint, whose tokens it takes; `embedded` is the package's."""
    text: list[str] = field(default_factory=list)
    """Text files with a sentence on each line, also .gz, or manifests (.jsonl)."""
    valid: list[str] = field(default_factory=list)
    """Held-out texts that measure perplexity; without any, every 200th sentence of `text` is held out."""
    batch_tokens: int = 8000
    """Most tokens in one batch, padding included."""
    max_tokens: int = 400
    """Longer sentences are left out of training, and counted."""
    model: LanguageModelConfig = field(default_factory=LanguageModelConfig)
    """The network; see `asr.model.language_model`."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """How weights move."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """Of this count epochs, batches, seed, average_decay, validate_every, checkpoint_minutes, keep_last, keep_best and
    accelerator; a language model trains on one device, in 32 bits."""

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not 2 <= self.max_tokens <= self.batch_tokens:
            raise ConfigError(f"max_tokens must lie in 2..batch_tokens ({self.batch_tokens}), got {self.max_tokens}")


def collate(texts: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Make inputs (B, U), which begin with the start token, and targets (B, U), which end with the end token."""
    start, end = torch.tensor([START]), torch.tensor([END])
    inputs = [torch.cat((start, text.long())) for text in texts]
    targets = [torch.cat((text.long(), end)) for text in texts]
    pad = torch.nn.utils.rnn.pad_sequence
    return pad(inputs, batch_first=True), pad(targets, batch_first=True, padding_value=IGNORED)


class TextDataModule(PlannedDataModule):
    """Training and held-out texts for Lightning.

    Args:
        config: what to read.
        tokenizer: makes tokens of it.

    Raises:
        DataError: a file cannot be read, or there are too few sentences.
    """

    def __init__(self, config: LanguageModelRun, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.config = config
        encoded = _encode(config.text, tokenizer)
        self.valid = _encode(config.valid, tokenizer) if config.valid else encoded[::200]
        if not config.valid:
            del encoded[::200]
        self.train = [text for text in encoded if len(text) < config.max_tokens]
        self.left_out = len(encoded) - len(self.train)
        self.valid_words = sum(len(tokenizer.decode(text.tolist()).split()) + 1 for text in self.valid)
        if not self.train or not self.valid:
            raise DataError("text: too few sentences to learn from and to measure on; name files with text=[FILE,...]")

    def train_dataloader(self) -> DataLoader[Any]:
        """Give the loader of the epoch plan, from where the state that was loaded left it."""
        lengths = np.array([len(text) + 1.0 for text in self.train])
        sampler = PlanSampler(lengths, float(self.config.batch_tokens), self.config.training.seed, short_first=False)
        return DataLoader(_Rows(self.train), batch_sampler=self.take_up(sampler), collate_fn=collate)

    def val_dataloader(self) -> DataLoader[Any]:
        """Give the loader of the held-out texts."""
        groups = group_by_length([len(text) + 1 for text in self.valid], self.config.batch_tokens)
        keys = [[(0, row) for row in rows] for rows in groups]
        return DataLoader(_Rows(self.valid), batch_sampler=keys, collate_fn=collate)


class _Rows(torch.utils.data.Dataset[Tensor]):
    """Texts by the (epoch, row) pairs of a plan."""

    def __init__(self, texts: list[Tensor]) -> None:
        self.texts = texts

    def __getitem__(self, key: tuple[int, int]) -> Tensor:
        return self.texts[key[1]]


class LanguageModelModule(lightning.LightningModule):
    """Trains a language model by the log-probability of each next token.

    Args:
        model: the language model.
        config: the run.
        words: in the held-out texts, one more for each end; their perplexity is by these.
    """

    def __init__(self, model: NeuralLanguageModel, config: LanguageModelRun, words: int) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.words = words
        self.sums = torch.zeros(2, dtype=torch.float64)
        self.step_tokens = 0  # of the batches since the last step

    def on_train_start(self) -> None:
        """Learn at the rates of the configuration."""
        set_rates(self.schedule, self.rates)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        """Give the loss of one batch, summed over its tokens."""
        torch.manual_seed(hash((self.config.training.seed, self.current_epoch, batch_index)))
        loss, tokens = self._loss(batch), int((batch[1] != IGNORED).sum())
        self.log("train/loss", loss.detach() / tokens, prog_bar=True)
        self.step_tokens += tokens
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradient by the tokens of all the step's batches; Lightning has divided it by their number."""
        factor, self.step_tokens = self.config.optimizer.accumulate / self.step_tokens, 0
        for weight in self.parameters():
            if weight.grad is not None:
                weight.grad.mul_(factor)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        """Add up log-probabilities and tokens."""
        self.sums += torch.stack((self._loss(batch).double().cpu(), (batch[1] != IGNORED).sum().double().cpu()))

    def on_validation_epoch_end(self) -> None:
        """Log the perplexities: e to the mean loss of a token, and of a word."""
        loss, tokens = self.sums.tolist()
        self.sums.zero_()
        self.log("valid/token_perplexity", float(np.exp(loss / tokens)), prog_bar=True)
        self.log("valid/word_perplexity", float(np.exp(loss / self.words)), prog_bar=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Make the optimiser and its schedule over the whole run."""
        optimizer = make_optimizer(self.model, self.config.optimizer)
        self.schedule = make_schedule(optimizer, self.config.optimizer, int(self.trainer.estimated_stepping_batches))
        self.rates = configured_rates(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self.schedule, "interval": "step"}}

    def _loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        inputs, targets = batch
        return functional.nll_loss(self.model(inputs).flatten(0, 1), targets.flatten(), reduction="sum")


def train_language_model(config: LanguageModelRun, recognizer: Path, resume: bool = False) -> Path:
    """Train a language model.

    Args:
        config: the whole run.
        recognizer: checkpoint whose tokens it takes; what `config.tokenizer_from` names.
        resume: go on from the newest whole checkpoint of `config.run`.

    Returns:
        The best model's file.

    Raises:
        ConfigError: the run folder holds a run already and `resume` is not asked for, or holds none and it is.
        DataError: a text cannot be read.
        CheckpointError: the recogniser, or every checkpoint of the run, cannot be read.
        StoppedError: a signal ended the run; it is saved.
    """
    run, training = Path(config.run), config.training
    begin(run, resume, training.seed)
    if resume:  # a run keeps the architecture and the tokens that it began with
        begun = yaml.safe_load((run / "config.yaml").read_text())
        if begun["tokenizer_from"] != config.tokenizer_from:
            raise ConfigError(
                f"{run}: takes its tokens from another model: add tokenizer_from={begun['tokenizer_from']}"
            )
        config = replace(config, model=build(LanguageModelConfig, begun["model"], f"{run}/config.yaml"))
        config = replace(config, optimizer=keep_optimizer(config.optimizer, begun["optimizer"]))
        tell_changes(config, begun)
    tokenizer = checkpoints.load(recognizer)[0].tokenizer
    data = TextDataModule(config, tokenizer)
    if data.left_out:
        log.warning("%d sentences of over %d tokens are left out of training", data.left_out, config.max_tokens)
    write_setup(run, config)
    model, scratch = (NeuralLanguageModel(len(tokenizer), config.model) for _ in range(2))
    facts = {
        "data": {"texts": [Path(path).name for path in config.text], "sentences": len(data.train)},
        "optimizer": asdict(config.optimizer),
        "batch_tokens": config.batch_tokens,
    }
    export = ExportBest(
        run,
        training.keep_best,
        scratch,
        ("token_perplexity", "word_perplexity"),
        clocked(facts, training.epochs),
        lambda path, about: save_language_model(path, scratch, tokenizer, about),
    )
    callbacks: list[Callback] = [RunningAverage(training.average_decay)] if training.average_decay else []
    callbacks += [export, show_progress()]
    logger = CSVLogger(run, name="", version="")
    trainer = make_trainer(run, training, config.optimizer, callbacks, devices=1, logger=logger)
    module = LanguageModelModule(model, config, data.valid_words)
    trainer.fit(module, datamodule=data, ckpt_path=go_on(run) if resume else None, weights_only=True)
    return run / "model.safetensors"


def _encode(paths: list[str], tokenizer: Tokenizer) -> list[Tensor]:
    """Read the sentences of all files as tokens; empty ones are dropped."""
    encoded = (tokenizer.encode(sentence) for path in paths for sentence in read_sentences(path))
    return [torch.tensor(tokens, dtype=torch.int32) for tokens in encoded if tokens]
