"""`asr recipe` and `asr tokenizer`: a corpus to a measured model, stage by stage."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asr.cli.terminal import complain, console
from asr.config import suggest
from asr.errors import AsrError, ConfigError

if TYPE_CHECKING:
    from asr.decoding.options import DecodingOptions


def recipe(
    corpus: Annotated[str, typer.Argument(help="Name of a folder in recipes/, and of its file in conf/recipe.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes to the configuration, such as training.epochs=5.")
    ] = None,
    stage: Annotated[
        list[str] | None,
        typer.Option("--stage", help="prepare, tokenizer, train or evaluate; repeatable. Default: all."),
    ] = None,
    source: Annotated[
        Path | None, typer.Option("--source", help="The corpus on this machine. Default: download it below --output.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="Folder for the manifests. Default: data/CORPUS.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print commands and products; do nothing.")] = False,
) -> None:
    """Prepare a corpus, train its tokenizer and its model, and measure that.

    A stage whose products are there is skipped, so the same command goes on where an earlier one stopped.
    """
    from asr.config import compose
    from asr.recipes import load
    from asr.stages import STAGES, plan, run_step, show
    from asr.training.config import TrainConfig

    for name in stage or ():
        if name not in STAGES:
            raise ConfigError(f"no stage {name!r}{suggest(name, STAGES)}")
    load(corpus)
    changes = [*_manifests(output), *(overrides or [])]
    config = compose(TrainConfig, corpus, changes)
    manifests = output or Path("data") / corpus
    wanted = [name for name in STAGES if name in (stage or STAGES)]
    for position, name in enumerate(wanted):
        # Laid out anew for each stage: what is evaluated depends on what was prepared.
        steps = plan(corpus, source, manifests, Path(config.run), _search(config.decoding), changes)
        steps = [step for step in steps if step.stage == name]
        if dry_run:
            for line in show(steps):
                typer.echo(line)
            continue
        try:
            for step in steps:
                run_step(step)
        except (AsrError, KeyboardInterrupt) as error:
            if isinstance(error, AsrError):
                complain(error)
            given = [*(["--source", str(source)] if source else []), *(["--output", str(output)] if output else [])]
            rest = [word for later in wanted[position:] for word in ("--stage", later)]
            again = shlex.join(["asr", "recipe", corpus, *rest, *given, *(overrides or [])])
            console.print(f"go on with: {again}")
            raise typer.Exit(2 if isinstance(error, AsrError) else 130) from error


def _search(decoding: DecodingOptions) -> list[str]:
    """Have the finished model measured by the search that validation was told to use."""
    settings = [word for key, value in decoding.changes().items() for word in ("--search", f"{key}={value}")]
    return ["--decoding", decoding.mode, *settings]


def _manifests(output: Path | None) -> list[str]:
    """Point the configuration at manifests that are not where it expects them."""
    if output is None:
        return []
    return [f"data.{key}=['{output / name}.jsonl']" for key, name in (("train", "train"), ("valid", "dev"))]


def tokenizer(
    config: Annotated[str, typer.Option("--config", help="A file of conf/recipe, or a YAML file of your own.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes to the configuration, such as tokenizer.vocabulary=300.")
    ] = None,
) -> None:
    """Train the tokenizer of a run from its manifests; `asr train` with the same configuration then uses it."""
    from asr.config import compose
    from asr.training.config import TrainConfig
    from asr.training.vocabulary import prepare_tokenizer

    composed = compose(TrainConfig, config, overrides or [])
    tokens = len(prepare_tokenizer(composed))
    console.print(f"tokenizer: {composed.run}/tokenizer.model, {tokens} tokens")
