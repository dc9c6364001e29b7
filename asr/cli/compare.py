"""`asr compare`: which of two results is better, and how sure that is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def compare(
    first: Annotated[Path, typer.Argument(help="A result of asr evaluate --json or asr score --json.", metavar="A")],
    second: Annotated[Path, typer.Argument(help="Another, of the same utterances.", metavar="B")],
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the comparison, with every utterance that changed, here.")
    ] = None,
    show: Annotated[int, typer.Option("--show", min=0, help="How many changed utterances to print.")] = 5,
) -> None:
    """Say whether B is better than A: difference, 95 % interval, p-value, and which utterances changed."""
    from asr.evaluation.compare import compare as run_comparison
    from asr.evaluation.compare import describe
    from asr.evaluation.results import read_json, write_json

    result = run_comparison(read_json(first), read_json(second))
    try:
        for line in describe(result, show):  # first: a file that cannot be written takes no result with it
            typer.echo(line)
    finally:
        if json_file:
            write_json(json_file, result)
