"""`asr transcribe`: recordings to text."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from asr.cli.terminal import Decoding, Device, Model, complain, console, progress
from asr.errors import AsrError, ConfigError


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
    with progress("Transcribing", len(files)) as advance:
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
                complain(error)
            advance(1)
    raise typer.Exit(1 if failed else 0)


def _embedded_notice(path: Path) -> str:
    from asr.model.checkpoint import describe

    metrics = describe(path)["about"]["metrics"]
    rate = f"{100 * metrics['wer']:.0f} % word error rate on read English"
    return f"embedded English model, small and weak: {rate}; --model names a better one"
