"""What every verb shares: the console, the progress bar, and options that mean the same everywhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from asr.errors import AsrError, ConfigError

console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)  # paths stay as they are

Model = Annotated[
    Path | None, typer.Option("--model", help="Checkpoint. Default: `embedded`, the English model of the package.")
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
Decoding = Annotated[
    str | None,
    typer.Option(
        "--decoding",
        help="How texts are searched for: ctc, ctc_beam, attention, joint or rescoring, with the settings that the "
        "checkpoint recommends for it. Default: the way that the checkpoint recommends, else ctc.",
    ),
]
BeamSize = Annotated[
    int | None, typer.Option("--beam-size", "--beam_size", help="Hypotheses kept side by side; 1 is greedy.")
]
LanguageModelFile = Annotated[
    Path | None,
    typer.Option(
        "--language-model",
        help="File of `asr lm build` or `asr train --config lm/...`, or ARPA file; `embedded`: the one in the package.",
    ),
]
Hotwords = Annotated[
    str | None,
    typer.Option("--hotwords", help="Words to listen for: a file with one on each line, or a list with commas."),
]
SearchSettings = Annotated[
    list[str] | None,
    typer.Option("--search", help="Another setting of the search, such as lm_weight=0.5.", metavar="KEY=VALUE"),
]

Format = Annotated[
    str,
    typer.Option(
        "--format",
        "--output-format",
        "--output_format",
        help="txt, json, srt, vtt, tsv, ctm, stm or textgrid; several with commas, or all.",
    ),
]
OutputDir = Annotated[
    Path | None,
    typer.Option("--output-dir", "--output_dir", help="Write files for each input here instead of printing."),
]
MaxLineWidth = Annotated[
    int, typer.Option("--max-line-width", "--max_line_width", help="Subtitles: most characters on a line.")
]
MaxLineCount = Annotated[
    int, typer.Option("--max-line-count", "--max_line_count", help="Subtitles: most lines shown at once.")
]
MaxCueSeconds = Annotated[
    float, typer.Option("--max-cue-seconds", help="Subtitles: longest that lines stay on the screen.")
]
MinGap = Annotated[float, typer.Option("--min-gap", help="Subtitles: least seconds between two cues if there is time.")]


def search_settings(
    mode: str | None,
    beam_size: int | None = None,
    language_model: Path | None = None,
    hotwords: str | None = None,
    settings: list[str] | None = None,
) -> dict[str, Any]:
    """Put together what the command line says of the search, by the names of `DecodingOptions`.

    Raises:
        ConfigError: a setting is not written as key=value.
    """
    values = {
        "mode": mode,
        "beam_size": beam_size,
        "language_model": language_model and str(language_model),
        "hotwords": hotwords,
    }
    chosen = {key: value for key, value in values.items() if value is not None}
    for setting in settings or ():
        key, equals, value = setting.partition("=")
        if not equals:
            raise ConfigError(f"--search {setting}: write key=value")
        chosen[key] = value
    return chosen


def complain(error: AsrError) -> None:
    """Print an error the user can mend."""
    console.print(f"error: {error}", style="red")


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on standard error; yields the function that moves it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Else rich takes what is printed to standard output for its own console, standard error, even when that is a file.
    shared = sys.stdout is not None and sys.stdout.isatty()  # None: it is closed
    with Progress(*columns, console=console, transient=True, redirect_stdout=shared) as bar:
        task = bar.add_task(title, total=total)
        yield lambda steps: bar.advance(task, steps)
