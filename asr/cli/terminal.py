"""What every verb shares: the console, the progress bar, and options that mean the same everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from asr.errors import AsrError

console = Console(stderr=True, highlight=False, soft_wrap=True)

Model = Annotated[Path | None, typer.Option("--model", help="Checkpoint to use. Default: the embedded English model.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
Decoding = Annotated[str, typer.Option("--decoding", help="How texts are searched for: ctc or attention.")]


def complain(error: AsrError) -> None:
    """Print an error the user can mend."""
    console.print(f"error: {error}", style="red", markup=False)


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on standard error; yields the function that moves it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda steps: bar.advance(task, steps)
