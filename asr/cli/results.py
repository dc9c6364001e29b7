"""What `asr evaluate` and `asr score` share: options, files, and the table on the console."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from asr.cli.terminal import complain, console
from asr.errors import AsrError

if TYPE_CHECKING:
    from asr.manifest import Manifest

NormalizerName = Annotated[
    str,
    typer.Option(
        "--normalizer", help="What both texts go through: none, basic, or english (Whisper's; not for LibriSpeech)."
    ),
]
SliceBy = Annotated[
    str | None,
    typer.Option("--slice-by", help="Keys with commas to tell utterances apart by. Default: speaker,duration,snr."),
]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the result, with every hypothesis, here.")]
CsvFile = Annotated[Path | None, typer.Option("--csv", help="Add the figures to this table, as one row.")]
ReportFolder = Annotated[
    Path | None, typer.Option("--report", help="Write a page to look through (report.html) and errors.txt here.")
]
_MOST_ROWS = 12  # of each slice on the console; the JSON has all


def split_keys(keys: str | None) -> list[str] | None:
    """Take `speaker,duration` apart."""
    return [key.strip() for key in keys.split(",") if key.strip()] if keys is not None else None


def write_outputs(
    result: dict[str, Any],
    json_file: Path | None,
    csv_file: Path | None,
    report: Path | None,
    manifest: Manifest | None = None,
    table: Callable[[], None] | None = None,
) -> None:
    """Write what was asked for, each thing whatever becomes of the others.

    Args:
        result: what was measured.
        json_file: where the whole result goes.
        csv_file: where one row goes.
        report: folder of the page.
        manifest: says where the page finds its audio.
        table: writes the result into a README.

    Raises:
        AsrError: something could not be written; the others are.
    """
    from asr.evaluation.report import write_report
    from asr.evaluation.results import append_csv, write_json

    def write_page(folder: Path) -> None:
        console.print(f"report: {write_report(folder, result, manifest)}")

    writes = [
        *([partial(write_json, json_file, result)] if json_file else []),
        *([partial(append_csv, csv_file, result)] if csv_file else []),
        *([partial(write_page, report)] if report else []),
        *([table] if table else []),
    ]
    failures: list[AsrError] = []
    for write in writes:
        try:
            write()
        except AsrError as error:
            failures.append(error)
    for error in failures[1:]:
        complain(error)
    if failures:
        raise failures[0]


def show_result(result: dict[str, Any]) -> None:
    """Print the figures on standard output: the rates with their interval, and a table of the slices."""
    from asr.evaluation.bootstrap import caution

    interval, counts = result["interval"], f"{result['substitutions']} sub, {result['deletions']} del"
    counts += f", {result['insertions']} ins; {result['words']} words, {result['utterances']} utterances"
    normalizer = result["normalizer"]
    typer.echo(f"WER {100 * result['wer']:.2f} %  ({counts})")
    typer.echo(f"95 % interval {_range(interval)}, by {interval['blocks']} {interval['unit']}s{caution(interval)}")
    typer.echo(f"CER {100 * result['cer']:.2f} %, 95 % interval {_range(result['cer_interval'])}")
    typer.echo(
        f"raw WER {100 * result['raw_wer']:.2f} %, raw CER {100 * result['raw_cer']:.2f} %   "
        f"normalizer {normalizer['name']} {normalizer['hash']}"
    )
    if confidence := result.get("confidence"):
        area = "-" if confidence["auroc"] is None else f"{confidence['auroc']:.3f}"
        typer.echo(
            f"word confidence: calibration error (ECE) {100 * confidence['ece']:.2f} %, AUROC {area}   "
            f"({confidence['words']} words, {100 * confidence['right']:.1f} % right)"
        )
    if result["empty_references"]:
        words = result["words_on_empty_references"]
        typer.echo(f"apart: {result['empty_references']} utterances without words, {words} words invented for them")
    if "real_time_factor" in result:
        busy = "; other programs were running, so it means little" if result["busy"] else ""
        typer.echo(f"real-time factor {result['real_time_factor']:.4f} ({result['hardware']}{busy})")
    if result.get("unreadable"):
        first = next(row["error"] for row in result["results"] if "error" in row)
        count = f"{result['unreadable']} utterances cannot be read or decoded"
        console.print(f"error: {count}, the first: {first}", style="red")
    if result["slices"]:
        Console(highlight=False, markup=False, emoji=False).print(_table(result["slices"]))


def _table(slices: dict[str, list[dict[str, Any]]]) -> Table:
    table = Table("slice", "WER %", "95 %", "errors", "words", "utterances", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for key, rows in slices.items():
        # Bands stay in their order; of many speakers the worst are shown.
        shown = rows if len(rows) <= _MOST_ROWS else sorted(rows, key=lambda row: -row["wer"])[:_MOST_ROWS]
        for row in shown:
            cells = (f"{100 * row['wer']:.2f}", _range(row), row["errors"], row["words"], row["utterances"])
            table.add_row(f"{key} {row['value']}", *map(str, cells))
        if len(shown) < len(rows):
            table.add_row(f"{key}: the worst {len(shown)} of {len(rows)}", style="dim")
        table.add_section()
    return table


def _range(bounds: dict[str, Any]) -> str:
    return f"{100 * bounds['low']:.2f} to {100 * bounds['high']:.2f}"
