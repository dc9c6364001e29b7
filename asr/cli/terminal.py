"""What every verb shares: the console, the progress bar, and options that mean the same everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from asr.errors import AsrError, ConfigError

if TYPE_CHECKING:
    from asr.decoding import DecodingOptions

console = Console(stderr=True, highlight=False, soft_wrap=True)

Model = Annotated[Path | None, typer.Option("--model", help="Checkpoint to use. Default: the embedded English model.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
Decoding = Annotated[
    str, typer.Option("--decoding", help="How texts are searched for: ctc, ctc_beam, attention, joint or rescoring.")
]
BeamSize = Annotated[int | None, typer.Option("--beam-size", help="Hypotheses kept side by side; 1 is greedy.")]
LanguageModelFile = Annotated[
    Path | None, typer.Option("--language-model", help="ARPA file to search with; `asr lm build` makes one.")
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
MinGap = Annotated[float, typer.Option("--min-gap", help="Subtitles: least seconds between two cues.")]


def decoding_options(
    mode: str,
    beam_size: int | None = None,
    language_model: Path | None = None,
    hotwords: str | None = None,
    settings: list[str] | None = None,
) -> DecodingOptions:
    """Put the search together that the command line asks for.

    Raises:
        ConfigError: a setting is unknown or has a wrong value.
    """
    import yaml

    from asr.config import build
    from asr.decoding.options import DecodingOptions

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
        chosen[key] = yaml.safe_load(value)
    return build(DecodingOptions, chosen, "--search")


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
