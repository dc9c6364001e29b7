"""The `asr` program: one verb for each job. It parses, calls and prints; the work is done elsewhere.

Exit codes: 0 all done; 1 some input failed, the rest was done; 2 the command itself is wrong.
Heavy modules are imported inside the verbs, so that `asr --help` answers at once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from asr.errors import AsrError, ConfigError

app = typer.Typer(
    name="asr",
    help="Speech recognition: transcribe audio, train models, measure word error rate.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
console = Console(stderr=True, highlight=False, soft_wrap=True)

Model = Annotated[Path | None, typer.Option("--model", help="Checkpoint to use. Default: the embedded English model.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
Decoding = Annotated[str, typer.Option("--decoding", help="How texts are searched for: ctc or attention.")]


@app.command()
def transcribe(
    files: Annotated[list[Path], typer.Argument(help="Audio or video files.", metavar="FILE...")],
    model: Model = None,
    device: Device = "auto",
    decoding: Decoding = "ctc",
    format: Annotated[str, typer.Option("--format", help="txt or json.")] = "txt",
    output_dir: Annotated[
        Path | None, typer.Option("--output-dir", help="Write one file for each input here instead of printing.")
    ] = None,
) -> None:
    """Turn recordings into text.

    The text goes to standard output (or into --output-dir), everything else to standard error. A file that cannot be
    read is reported and the others are still done; the exit code is then 1.
    """
    from asr import writers
    from asr.transcriber import EMBEDDED, Transcriber

    if format not in writers.FORMATS:  # before hours of work, not after
        raise ConfigError(f"--format must be one of {', '.join(writers.FORMATS)}, got {format!r}")
    transcriber = Transcriber.load(model, device, decoding)
    if model is None:
        console.print(_embedded_notice(EMBEDDED), style="dim")
    stems = writers.unique_stems([str(file) for file in files])
    failed = 0
    with _progress("Transcribing", len(files)) as advance:
        for file, stem in zip(files, stems, strict=True):
            try:
                transcript = transcriber.transcribe(file)
                if output_dir:
                    writers.write(transcript, output_dir, format, stem)
                else:
                    sys.stdout.write(writers.render(transcript, format))
                    sys.stdout.flush()
            except AsrError as error:
                failed += 1
                _complain(error)
            advance(1)
    raise typer.Exit(1 if failed else 0)


@app.command()
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


@app.command(context_settings={"allow_extra_args": False})
def train(
    config: Annotated[str, typer.Option("--config", help="A file of conf/recipe, or a YAML file of your own.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes to the configuration, such as training.epochs=5.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run from its last checkpoint.")] = False,
    init_from: Annotated[
        Path | None,
        typer.Option("--init-from", help="Begin a new run with this checkpoint's weights, architecture and tokenizer."),
    ] = None,
) -> None:
    """Train a model; it ends up in the run folder as model.safetensors."""
    if resume and init_from:
        raise ConfigError("--resume goes on with a run, --init-from begins a new one: choose one of them")
    from asr.config import compose
    from asr.training.config import TrainConfig
    from asr.training.fit import train as run_training

    composed = compose(TrainConfig, config, overrides or [])
    console.print(f"trained: {run_training(composed, resume, init_from)}")


@app.command()
def evaluate(
    manifest: Annotated[Path, typer.Option("--manifest", help="Utterances with their true texts (JSONL).")],
    model: Model = None,
    device: Device = "auto",
    decoding: Decoding = "ctc",
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the result, with every hypothesis, here.")
    ] = None,
) -> None:
    """Measure the word error rate of a model."""
    from asr.evaluation.evaluate import evaluate as run_evaluation
    from asr.evaluation.evaluate import write_json
    from asr.manifest import Manifest
    from asr.transcriber import Transcriber

    utterances = Manifest.load(manifest)
    transcriber = Transcriber.load(model, device, decoding)
    with _progress("Decoding", len(utterances)) as advance:
        result = run_evaluation(transcriber, utterances, progress=advance)
    if json_file:
        write_json(json_file, result)
    for line in _summary(result):
        typer.echo(line)


@app.command()
def info(
    model: Annotated[Path | None, typer.Argument(help="Checkpoint. Default: the embedded English model.")] = None,
) -> None:
    """Show what is in a checkpoint: sizes, tokenizer, where it came from, how good it is."""
    from asr.model.checkpoint import describe
    from asr.transcriber import EMBEDDED

    typer.echo(json.dumps(describe(model or EMBEDDED), indent=2, ensure_ascii=False))


def main() -> None:
    """Run the program; an error the user can mend is one line on standard error."""
    try:
        app()
    except AsrError as error:
        _complain(error)
        sys.exit(2)
    except KeyboardInterrupt:
        console.print("interrupted; what was finished is kept")
        sys.exit(130)


def _complain(error: AsrError) -> None:
    console.print(f"error: {error}", style="red", markup=False)


def _embedded_notice(path: Path) -> str:
    from asr.model.checkpoint import describe

    metrics = describe(path)["about"]["metrics"]
    rate = f"{100 * metrics['wer']:.0f} % word error rate on read English"
    return f"embedded English model, small and weak: {rate}; --model names a better one"


def _summary(result: dict[str, Any]) -> list[str]:
    counts = f"{result['substitutions']} sub, {result['deletions']} del, {result['insertions']} ins"
    return [
        f"WER {100 * result['wer']:.2f} %  ({counts}; {result['words']} words, {result['utterances']} utterances)",
        f"CER {100 * result['cer']:.2f} %   raw WER {100 * result['raw_wer']:.2f} %   "
        f"normalizer {result['normalizer']['name']} {result['normalizer']['hash']}",
        f"real-time factor {result['real_time_factor']:.4f} ({result['hardware']})",
    ]


@contextmanager
def _progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on standard error; yields the function that moves it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda steps: bar.advance(task, steps)


if __name__ == "__main__":
    main()
