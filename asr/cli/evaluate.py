"""`asr evaluate`: how often a model is wrong."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from asr.cli.results import (
    CsvFile,
    JsonFile,
    NormalizerName,
    ReportFolder,
    SliceBy,
    show_result,
    split_keys,
    write_outputs,
)
from asr.cli.terminal import (
    BeamSize,
    Decoding,
    Device,
    Hotwords,
    LanguageModelFile,
    Model,
    SearchSettings,
    console,
    progress,
    search_settings,
)
from asr.errors import ConfigError

if TYPE_CHECKING:
    from asr.manifest import Manifest
    from asr.transcriber import Transcriber


def evaluate(
    manifest: Annotated[
        Path | None, typer.Option("--manifest", help="Utterances with their true texts (JSONL).")
    ] = None,
    model: Model = None,
    device: Device = "auto",
    decoding: Decoding = None,
    beam_size: BeamSize = None,
    language_model: LanguageModelFile = None,
    hotwords: Hotwords = None,
    search: SearchSettings = None,
    normalizer: NormalizerName = "basic",
    slice_by: SliceBy = None,
    json_file: JsonFile = None,
    csv_file: CsvFile = None,
    report: ReportFolder = None,
    results: Annotated[
        Path | None, typer.Option("--results", help="Put the result into the table of this README.")
    ] = None,
    non_speech: Annotated[
        Path | None, typer.Option("--non-speech", help="Recordings without speech (JSONL): count invented words.")
    ] = None,
    tune: Annotated[
        bool, typer.Option("--tune", help="Try weights of the search on this (dev) set, print them, and end there.")
    ] = False,
) -> None:
    """Measure the word error rate of a model, or the words that it invents where no one speaks."""
    from asr.evaluation.evaluate import evaluate as run_evaluation
    from asr.evaluation.results import check_table, update_table
    from asr.manifest import Manifest
    from asr.transcriber import Transcriber

    if (manifest is None) == (non_speech is None):
        raise ConfigError("name what to measure on: --manifest or --non-speech")
    alone = "--non-speech" if non_speech else "--tune" if tune else ""
    others = {"--tune": non_speech and tune, "--json": tune and json_file, "--csv": csv_file, "--report": report}
    others |= {"--results": results, "--slice-by": slice_by}
    if alone and (ignored := [name for name, value in others.items() if value]):
        raise ConfigError(f"{ignored[0]} does nothing with {alone}: leave it out")
    if results:  # before hours of work, not after
        check_table(results)
    utterances = Manifest.load(manifest or non_speech or "")
    settings = search_settings(decoding, beam_size, language_model, hotwords, search)
    transcriber = Transcriber.load(model, device, settings)
    if non_speech:
        return _measure_non_speech(transcriber, utterances, json_file)
    if tune:
        return _tune(transcriber, utterances, normalizer)
    with progress("Decoding", len(utterances)) as advance:
        result = run_evaluation(transcriber, utterances, normalizer, advance, split_keys(slice_by))
    try:
        show_result(result)  # first: a file that cannot be written takes no result with it; nor does a closed screen
    finally:
        table = partial(update_table, results, result) if results else None
        write_outputs(result, json_file, csv_file, report, utterances, table)
    raise typer.Exit(1 if result["unreadable"] else 0)


def _tune(transcriber: Transcriber, utterances: Manifest, normalizer: str) -> None:
    """Print a table of weights, the best first, and the options that name them, with the power of confidences."""
    from rich.table import Table

    from asr.evaluation.calibration import fit_power
    from asr.evaluation.evaluate import evaluate as run_evaluation
    from asr.evaluation.tune import grid, most_trials, tune
    from asr.normalize import get_normalizer
    from asr.transcriber import Transcriber

    options = transcriber.options
    with progress("Tuning", most_trials(options)) as advance:
        trials = tune(transcriber.model, utterances, options, normalizer, advance)
    names = list(grid(options))
    table = Table(
        *names, "WER %", "CER %", title=f"{options.mode}, beam {options.beam_size}, {len(utterances)} utterances"
    )
    for trial in trials:
        weights = [f"{getattr(trial.options, name):g}" for name in names]
        table.add_row(*weights, f"{100 * trial.wer:.2f}", f"{100 * trial.cer:.2f}")
    Console().print(table)
    tuned = Transcriber(transcriber.model, replace(trials[0].options, confidence_power=1.0), transcriber.name)
    with progress("Confidences", len(utterances)) as advance:
        rows = run_evaluation(tuned, utterances, normalizer, advance)["results"]
    power = fit_power(rows, get_normalizer(normalizer))
    best = replace(tuned.options, confidence_power=power)
    found = [f"--search {name}={getattr(best, name):g}" for name in [*names, "confidence_power"]]
    typer.echo(f"best: {' '.join(found)}")


def _measure_non_speech(transcriber: Transcriber, recordings: Manifest, json_file: Path | None) -> None:
    from asr.evaluation.non_speech import measure_non_speech
    from asr.evaluation.results import write_json

    with progress("Listening", len(recordings)) as advance:
        result = measure_non_speech(transcriber, recordings, advance)
    for name, rate in (("recordings", result), ("synthetic signals", result["synthetic"])):
        typer.echo(f"{rate['words_per_hour']:.1f} words/hour on {name} ({rate['words']} in {rate['hours']:.2f} h)")
    for row in result["results"] + result["synthetic"]["results"]:
        if row["text"]:
            typer.echo(f"  {row['id']}: {row['text']}")
    for reason in result["unreadable"]:
        console.print(f"error: {reason}", style="red")
    if json_file:
        write_json(json_file, result)
    raise typer.Exit(1 if result["unreadable"] else 0)
