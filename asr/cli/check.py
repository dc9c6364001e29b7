"""`asr check`: what is wrong with a data set, before training finds out."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asr.cli.terminal import Device, complain, console, progress
from asr.errors import ConfigError, DataError

if TYPE_CHECKING:
    from asr.check import Checked
    from asr.model.recognizer import Recognizer
    from asr.tokenizer import Tokenizer

FACTOR = 4  # feature frames for each encoder frame where nothing says how many: 40 ms, as most recipes here


def check(
    manifests: Annotated[
        list[Path], typer.Argument(metavar="MANIFEST...", help="Manifests (JSONL), training data first, tests last.")
    ],
    tokenizer: Annotated[
        Path | None,
        typer.Option("--tokenizer", help="A run's tokenizer.model: finds what CTC cannot align, or not write."),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option("--model", help="Checkpoint, or 'embedded': finds transcripts that do not fit the audio."),
    ] = None,
    report: Annotated[Path | None, typer.Option("--report", help="Folder for report.html and report.json.")] = None,
    write_clean: Annotated[
        Path | None,
        typer.Option("--write-clean", help="Write the manifest without errors and warnings; of several, a folder."),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write everything that was found here.")] = None,
    jobs: Annotated[int | None, typer.Option("--jobs", min=1, help="Processes. Default: one for each core.")] = None,
    device: Device = "auto",
) -> None:
    """Find what is wrong with a data set before training does.

    Errors make training or testing wrong or impossible, warnings probably do harm, notices are worth knowing. What two
    manifests share is held against the one named first.

    Exit codes: 0 no error or warning; 1 some were found; 2 the command itself is wrong; 130 interrupted.
    """
    from asr.check import check as run
    from asr.check.listen import default_jobs
    from asr.evaluation.plausibility import TranscriptJudge, infeasible_rows
    from asr.manifest import Manifest
    from asr.model import checkpoint
    from asr.transcriber import checkpoint_file, choose_device

    targets = _clean_targets(manifests, write_clean)
    recognizer = None
    if model:
        recognizer, _ = checkpoint.load(checkpoint_file(model), choose_device(device))
    pieces, factor = _vocabulary(tokenizer, recognizer)
    loaded = [Manifest.load(path, others=bool(targets)) for path in manifests]
    utterances = sum(map(len, loaded))
    with progress("Checking", utterances * (2 if recognizer else 1)) as advance:
        checked = run(
            loaded,
            jobs or default_jobs(),
            pieces,
            infeasible_rows(pieces, factor) if pieces else None,
            TranscriptJudge(recognizer, advance) if recognizer else None,
            advance,
        )
    try:
        _show(checked)  # first: a file that cannot be written takes no finding with it; nor does a closed screen
    finally:
        _write_report(checked, report, json_file)
        _write_clean(checked, targets)
    raise typer.Exit(1 if any(finding.offends for finding in checked.findings) else 0)


def _vocabulary(path: Path | None, recognizer: Recognizer | None) -> tuple[Tokenizer | None, int]:
    """Give what texts are written in, and the feature frames for each encoder frame."""
    from asr.tokenizer import load_tokenizer

    pieces, factor = (recognizer.tokenizer, recognizer.config.encoder.subsampling) if recognizer else (None, FACTOR)
    if path:
        pieces, setup = load_tokenizer(path)
        factor = setup.get("model", {}).get("encoder", {}).get("subsampling", factor)
    return pieces, factor


def _clean_targets(manifests: list[Path], target: Path | None) -> list[Path]:
    """Say where the clean copy of each manifest goes; none may take the place of a manifest that is read."""
    if target is None:
        return []
    targets = [target] if len(manifests) == 1 else [target / path.name for path in manifests]
    if len(set(targets)) < len(targets):  # train.jsonl of several corpora, for example
        targets = [target / Path(os.path.abspath(path)).parent.name / path.name for path in manifests]
    if len(set(targets)) < len(targets):
        raise ConfigError("--write-clean: two manifests have the same name and folder name: check them one by one")
    if len(manifests) == 1 and target.is_dir():
        raise ConfigError(f"{target}: is a folder: --write-clean names the file to write")
    taken = {os.path.realpath(path) for path in manifests}
    if twice := next((path for path in targets if os.path.realpath(path) in taken), None):
        raise ConfigError(f"{twice}: is checked itself: --write-clean must name another place")
    return targets


def _write_report(checked: Checked, folder: Path | None, json_file: Path | None) -> None:
    from asr.check.report import as_html, as_json
    from asr.files import write_file

    if not (folder or json_file):
        return
    written = json.dumps(as_json(checked), indent=2, ensure_ascii=False) + "\n"
    if json_file:
        write_file(json_file, written)
    if folder:
        write_file(folder / "report.html", as_html(checked))
        write_file(folder / "report.json", written)


def _show(checked: Checked) -> None:
    from rich.console import Console
    from rich.table import Table

    from asr.check import KINDS

    styles = {"error": "red", "warning": "yellow", "notice": "dim"}
    table = Table("severity", "kind", "utterances", "")
    for (severity, kind), count in checked.counts().items():
        table.add_row(severity, kind, f"{count:,}", KINDS[kind].about, style=styles[severity])
    if table.row_count:
        Console().print(table)
    for note in checked.notes:
        console.print(note, style="dim")
    for number, manifest in enumerate(checked.manifests):
        bad = int(checked.offenders(number).sum())
        console.print(f"{manifest.origin}: {bad:,} of {len(manifest):,} with errors or warnings")


def _write_clean(checked: Checked, targets: list[Path]) -> None:
    from asr.manifest import write_manifest

    for number, (path, manifest) in enumerate(zip(targets, checked.manifests, strict=False)):
        kept = manifest.select(~checked.offenders(number))
        if not len(kept):
            complain(DataError(f"{path}: not written: no utterance of {manifest.origin} is without error or warning"))
            continue
        write_manifest(path, kept)
        console.print(f"{path}: {len(kept):,} utterances")
