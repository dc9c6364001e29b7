"""`asr train`, `asr average`, `asr info`: making a model, and looking at one."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asr.cli.terminal import console
from asr.errors import ConfigError

if TYPE_CHECKING:
    from asr.training.config import TrainConfig


def train(
    config: Annotated[
        str, typer.Option("--config", help="A file of conf/recipe, lm/ and one of conf/lm, or a YAML file of your own.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes to the configuration, such as training.epochs=5.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run from its last checkpoint.")] = False,
    init_from: Annotated[
        Path | None,
        typer.Option("--init-from", help="Begin a new run with this checkpoint; `embedded` is the package's."),
    ] = None,
) -> None:
    """Train a recogniser, or with lm/... a language model; it ends up in the run folder as model.safetensors."""
    if resume and init_from:
        raise ConfigError("--resume goes on with a run, --init-from begins a new one: choose one of them")
    # Lightning's own affairs: a run's folder is meant to hold what is there, and its use of torch is not the user's.
    warnings.filterwarnings("ignore", "Experiment logs directory")
    warnings.filterwarnings("ignore", ".*LeafSpec")
    if config.startswith("lm/") or _is_language_model(Path(config)):
        if init_from:
            raise ConfigError("--init-from begins with a recogniser; a language model begins from scratch")
        _train_language_model(config, overrides or [], resume)
        return
    from asr.config import compose
    from asr.training.config import TrainConfig
    from asr.training.fit import train as run_training
    from asr.training.trainer import refuse_kept
    from asr.transcriber import checkpoint_file

    init_from = checkpoint_file(init_from) if init_from else None
    composed = compose(TrainConfig, config, overrides or [])
    if resume:
        refuse_kept(overrides or [], composed)
    if init_from:
        _refuse_taken(overrides or [], composed)
    console.print(f"trained: {run_training(composed, resume, init_from)}")


def _refuse_taken(overrides: list[str], config: TrainConfig) -> None:
    """Refuse changes to what a run takes from the model that it begins with."""
    for override in overrides:
        key = override.partition("=")[0]
        if f"{key}.".startswith("model.") and not key.startswith(("model.loss", "model.spec_augment")):
            raise ConfigError(f"{override}: does nothing with --init-from, whose architecture stays: leave it out")
        if f"{key}.".startswith("tokenizer.") and config.finetune.tokenizer != "new":
            raise ConfigError(
                f"{override}: does nothing with --init-from, whose vocabulary stays: add finetune.tokenizer=new"
            )


def _is_language_model(config: Path) -> bool:
    """Tell whether a YAML file of one's own is about a language model: its texts are named in it."""
    if config.suffix != ".yaml" or not config.is_file():
        return False
    return any(
        line.startswith(("text:", "tokenizer_from:"))
        for line in config.read_text("utf-8", errors="replace").splitlines()
    )


def _train_language_model(config: str, overrides: list[str], resume: bool) -> None:
    from asr.config import compose
    from asr.training.language_model import LanguageModelRun, train_language_model
    from asr.training.trainer import refuse_kept
    from asr.transcriber import checkpoint_file

    composed = compose(LanguageModelRun, config, overrides)
    if resume:
        refuse_kept(overrides, composed)
    source = checkpoint_file(composed.tokenizer_from)
    console.print(f"trained: {train_language_model(composed, source, resume)}")


def average(
    models: Annotated[list[Path], typer.Argument(help="Checkpoints of one run, such as RUN/best/*.safetensors.")],
    output: Annotated[Path, typer.Option("--output", help="The averaged checkpoint.")],
) -> None:
    """Average the weights of several checkpoints into one, which is often a little better than each."""
    from asr.model import checkpoint
    from asr.model.average import average as average_weights

    model, about = average_weights(models)
    checkpoint.save(output, model, about)
    console.print(f"averaged {len(models)} checkpoints: {output}; measure it with asr evaluate --model {output}")


def info(
    model: Annotated[Path | None, typer.Argument(help="Checkpoint. Default: the embedded English model.")] = None,
) -> None:
    """Show what is in a checkpoint: sizes, tokenizer, where it came from, how good it is."""
    from asr.model.checkpoint import describe
    from asr.transcriber import checkpoint_file

    typer.echo(json.dumps(describe(checkpoint_file(model)), indent=2, ensure_ascii=False))
