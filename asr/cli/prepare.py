"""`asr prepare`: corpora to manifests."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from asr.cli.terminal import console


def prepare(
    corpus: Annotated[str, typer.Argument(help="Name of a folder in recipes/, for example mini_librispeech.")],
    output: Annotated[Path, typer.Option("--output", help="Folder for the manifests.")],
    source: Annotated[
        Path | None, typer.Option("--source", help="The corpus on this machine. Default: download it below --output.")
    ] = None,
) -> None:
    """Make manifests of a corpus: what `train` and `evaluate` read.

    Done twice, it does nothing the second time.
    """
    from asr.manifest import Manifest
    from asr.recipes import run_prepare

    for path in run_prepare(corpus, source, output):
        manifest = Manifest.load(path)
        hours = float(manifest.durations.sum()) / 3600
        console.print(f"{path}: {len(manifest)} utterances, {hours:.2f} hours")
