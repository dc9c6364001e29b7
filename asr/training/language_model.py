"""Training a neural language model, from text files to `RUN/model.safetensors`.

RUN/config.yaml         the composed configuration
RUN/environment.txt     Python, hardware, commit and the version of every package
RUN/model.safetensors   the best model so far, by perplexity on the held-out texts
RUN/checkpoints/        everything, for --resume
RUN/metrics.csv         loss, and perplexity by character and by word
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
import yaml
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader

import asr
from asr.datamodule import PlanSampler, batch_counters
from asr.decoding.arpa import read_sentences
from asr.errors import ConfigError, DataError
from asr.evaluation.results import commit
from asr.model import checkpoint as checkpoints
from asr.model.language_model import LanguageModelConfig, NeuralLanguageModel
from asr.model.language_model_file import save_language_model
from asr.tokenizer import END, START, Tokenizer
from asr.training.config import OptimizerConfig, TrainingConfig
from asr.training.optimizers import make_optimizer, make_schedule
from asr.training.progress import on_terminal, show_progress
from asr.training.provenance import hardware, write_environment
from asr.training.resume import AtomicCheckpointIO, KeepCheckpoints, checkpoints_in, newest_whole

log = logging.getLogger(__name__)

PREFIX = "model."  # the language model's name inside the LightningModule
IGNORED = -100  # target behind the end of a text


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
    """How long; what is about audio, word error rates and loggers does not count here."""

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


class TextDataModule(lightning.LightningDataModule):
    """Training and held-out texts for Lightning; a restart in mid-epoch goes on with the next batch.

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
        self.sampler: PlanSampler | None = None
        self._state: dict[str, int] = {}

    def train_dataloader(self) -> DataLoader[Any]:
        """Give the loader of the epoch plan, from where the state that was loaded left it."""
        lengths = np.array([len(text) + 1.0 for text in self.train])
        self.sampler = PlanSampler(lengths, float(self.config.batch_tokens), self.config.training.seed)
        self.sampler.epoch, self.sampler.done = self._state.get("epoch", 0), self._state.get("done", 0)
        return DataLoader(_Rows(self.train), batch_sampler=self.sampler, collate_fn=collate)

    def val_dataloader(self) -> DataLoader[Any]:
        """Give the loader of the held-out texts, the shortest first."""
        rows = sorted(range(len(self.valid)), key=lambda row: len(self.valid[row]))
        size = max(1, self.config.batch_tokens // (len(self.valid[rows[-1]]) + 1))
        keys = [[(0, row) for row in rows[first : first + size]] for first in range(0, len(rows), size)]
        return DataLoader(_Rows(self.valid), batch_sampler=keys, collate_fn=collate)

    def state_dict(self) -> dict[str, int]:
        """Tell the epoch, and how many of its sentences are done."""
        if self.sampler is None or self.trainer is None:
            return {}
        epoch, done = self.sampler.epoch, self.sampler.done_after(batch_counters(self.trainer)["processed"])
        return {"epoch": epoch, "done": done} if done < len(self.train) else {"epoch": epoch + 1, "done": 0}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on from there; Lightning calls this before it asks for the loader."""
        self._state = dict(state_dict)
        # Lightning looks for a state in the loader and warns where it finds none.
        warnings.filterwarnings("ignore", "You're resuming from a checkpoint that ended before")


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

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        """Give the mean loss of one batch's tokens."""
        torch.manual_seed(hash((self.config.training.seed, self.current_epoch, batch_index)))
        loss = self._loss(batch) / (batch[1] != IGNORED).sum()
        self.log("train/loss", loss.detach(), prog_bar=True)
        return loss

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
        schedule = make_schedule(optimizer, self.config.optimizer, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        inputs, targets = batch
        return functional.nll_loss(self.model(inputs).flatten(0, 1), targets.flatten(), reduction="sum")


class ExportLowest(Callback):
    """Write RUN/model.safetensors whenever the held-out perplexity is the lowest so far; it stands after averaging.

    Args:
        run: the run's folder.
        model: a language model of the same sizes, used as scratch space.
        tokenizer: names its tokens.
        about: provenance to write beside the metrics.
    """

    def __init__(
        self, run: Path, model: NeuralLanguageModel, tokenizer: Tokenizer, about: Callable[[], dict[str, Any]]
    ) -> None:
        self.run = run
        self.model = model
        self.tokenizer = tokenizer
        self.about = about
        self.lowest = float("inf")
        self.fresh = False

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Take note that there is something new to export with the next checkpoint."""
        self.fresh = not trainer.sanity_checking

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Export the weights that are being saved, if they were validated and are the best."""
        reached = float(trainer.callback_metrics.get("valid/token_perplexity", float("inf")))
        if not self.fresh or reached >= self.lowest:
            return
        self.fresh, self.lowest = False, reached
        weights = checkpoint["state_dict"].items()
        self.model.load_state_dict({key.removeprefix(PREFIX): w for key, w in weights if key.startswith(PREFIX)})
        metrics = {
            name: round(float(trainer.callback_metrics[f"valid/{name}"]), 4)
            for name in ("token_perplexity", "word_perplexity")
        }
        about = self.about() | {"metrics": metrics, "steps": trainer.global_step}
        save_language_model(self.run / "model.safetensors", self.model, self.tokenizer, about)

    def state_dict(self) -> dict[str, Any]:
        """Remember the lowest perplexity, so that a resumed run does not overwrite a better model."""
        return {"lowest": self.lowest}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the lowest perplexity of the run being resumed."""
        self.lowest = state_dict["lowest"]


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
    begun = bool(checkpoints_in(run / "checkpoints"))
    if resume != begun:
        hint = "holds a run already; go on with --resume" if begun else "nothing to resume"
        raise ConfigError(f"{run}: {hint}, or name another folder with run=FOLDER")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    lightning.seed_everything(training.seed, workers=True, verbose=False)
    tokenizer = checkpoints.load(recognizer)[0].tokenizer
    data = TextDataModule(config, tokenizer)
    if data.left_out:
        log.warning("%d sentences of over %d tokens are left out of training", data.left_out, config.max_tokens)
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.yaml").write_text(yaml.safe_dump(asdict(config), sort_keys=False))
    write_environment(run / "environment.txt")
    model, scratch = (NeuralLanguageModel(len(tokenizer), config.model) for _ in range(2))
    newest = newest_whole(run / "checkpoints") if resume else None
    if newest and (run / "metrics.csv").is_file():  # the logger would begin the file again
        (run / "metrics.csv").replace(run / f"metrics-until-{newest.stem}.csv")
    callbacks: list[Callback] = [EMAWeightAveraging(decay=training.average_decay)] if training.average_decay else []
    callbacks += [
        ExportLowest(run, scratch, tokenizer, _about(config, data)),
        show_progress(),
        KeepCheckpoints(run / "checkpoints", training.checkpoint_minutes, training.keep_last),
    ]
    trainer = lightning.Trainer(
        accelerator=training.accelerator,
        devices=1,
        plugins=[AtomicCheckpointIO()],
        max_epochs=training.epochs,
        limit_train_batches=training.batches or None,
        check_val_every_n_epoch=min(training.validate_every, training.epochs),
        accumulate_grad_batches=config.optimizer.accumulate,
        gradient_clip_val=config.optimizer.gradient_clip or None,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        log_every_n_steps=10,
        callbacks=callbacks,
        logger=CSVLogger(run, name="", version=""),
        enable_checkpointing=False,  # KeepCheckpoints does it
        enable_model_summary=False,
        enable_progress_bar=on_terminal(),
    )
    module = LanguageModelModule(model, config, data.valid_words)
    trainer.fit(module, datamodule=data, ckpt_path=newest, weights_only=True)
    return run / "model.safetensors"


def _encode(paths: list[str], tokenizer: Tokenizer) -> list[Tensor]:
    """Read the sentences of all files as tokens; empty ones are dropped."""
    encoded = (tokenizer.encode(sentence) for path in paths for sentence in read_sentences(path))
    return [torch.tensor(tokens, dtype=torch.int32) for tokens in encoded if tokens]


def _about(config: LanguageModelRun, data: TextDataModule) -> Callable[[], dict[str, Any]]:
    """Collect what a model says of its making; the clock is read when the result is called."""
    began = time.monotonic()
    facts = {
        "data": {"texts": [Path(path).name for path in config.text], "sentences": len(data.train)},
        "software": {"asr": asr.__version__, "torch": torch.__version__, "commit": commit()},
        "hardware": hardware(),
        "optimizer": asdict(config.optimizer),
        "batch_tokens": config.batch_tokens,
    }
    return lambda: (
        facts | {"training": {"date": time.strftime("%Y-%m-%d"), "hours": round((time.monotonic() - began) / 3600, 3)}}
    )
