"""`asr manifest`: convert, count, divide, merge, filter and shard manifests."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from asr.cli.terminal import console, progress
from asr.errors import ConfigError, DataError

app = typer.Typer(help="Convert, count, divide, merge, filter and shard manifests.", no_args_is_help=True)

Source = Annotated[Path, typer.Argument(metavar="MANIFEST", help="A manifest (JSONL).")]
Format = "nemo, kaldi, lhotse, csv or commonvoice. Default: guessed."


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="A manifest of any format, or a Kaldi data directory.")],
    target: Annotated[Path, typer.Argument(help="x.jsonl, x.jsonl.gz (lhotse), x.csv, x.tsv, or a folder (Kaldi).")],
    source_format: Annotated[str | None, typer.Option("--from", help=Format)] = None,
    target_format: Annotated[str | None, typer.Option("--to", help=Format)] = None,
) -> None:
    """Translate between NeMo, Kaldi, lhotse, SpeechBrain CSV and Common Voice TSV."""
    from asr import exchange

    for name in (source_format, target_format):
        if name not in (None, *exchange.FORMATS):
            raise ConfigError(f"no format {name!r}; there are {', '.join(exchange.FORMATS)}")
    _check_target(target, [source])
    with console.status("converting"):
        known = exchange.read(source, source_format)
        left_out = exchange.write(target, known.utterances, target_format)
    console.print(f"{target}: {len(known.utterances) - len(left_out)} utterances")
    if lost := exchange.not_carried(target, known.utterances, target_format):
        console.print(f"this format has no place for: {', '.join(lost)}")
    _report([*known.faults, *left_out])


@app.command()
def stats(
    manifest: Source,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the numbers here, too.")] = None,
) -> None:
    """Count utterances, hours and speakers; show durations and characters per second."""
    from asr.files import write_file
    from asr.manifest import Manifest
    from asr.subsets import describe

    numbers = describe(Manifest.load(manifest))
    _show(manifest, numbers)  # first: a file that cannot be written takes no number with it
    if json_file:
        write_file(json_file, json.dumps(numbers, indent=2, ensure_ascii=False) + "\n")


@app.command()
def split(
    manifest: Source,
    output: Annotated[Path, typer.Option("--output", help="Folder for <name>.jsonl of each part.")],
    shares: Annotated[str, typer.Option("--shares", help="Name and share of each part.")] = "train=0.9,dev=0.1",
) -> None:
    """Divide a manifest by a hash of the speakers, so that no speaker is in two parts."""
    from asr.manifest import Manifest, write_manifest
    from asr.subsets import split as divide

    wanted = _parse_shares(shares)
    if there := [name for name in wanted if (output / f"{name}.jsonl").exists()]:
        raise ConfigError(f"{output / there[0]}.jsonl: is there already: name another --output, or move it away")
    parts, warning = divide(Manifest.load(manifest, others=True), wanted)
    if warning:
        console.print(warning, style="yellow")
    for name, part in parts.items():
        write_manifest(output / f"{name}.jsonl", part)
        console.print(f"{output / name}.jsonl: {_size(part)}")


@app.command()
def merge(
    manifests: Annotated[list[Path], typer.Argument(metavar="MANIFEST...", help="Manifests (JSONL).")],
    output: Annotated[Path, typer.Option("--output", help="The manifest to write.")],
) -> None:
    """Put manifests one behind the other; an id that is in two of them gets its folder's name in front."""
    from asr.manifest import Manifest, write_manifest
    from asr.subsets import merge as chain

    _check_target(output, manifests)
    loaded = {Path(os.path.abspath(path)).parent.name: Manifest.load(path, others=True) for path in manifests}
    if len(loaded) < len(manifests):
        raise ConfigError("two of these manifests lie in folders of the same name, which tells utterances apart")
    write_manifest(output, chain(loaded))
    console.print(f"{output}: {_size(Manifest.load(output))}")


@app.command("filter")
def sift(
    manifest: Source,
    output: Annotated[Path, typer.Option("--output", help="The manifest to write.")],
    min_duration: Annotated[float | None, typer.Option("--min-duration", help="Seconds.")] = None,
    max_duration: Annotated[float | None, typer.Option("--max-duration", help="Seconds.")] = None,
    min_rate: Annotated[float | None, typer.Option("--min-rate", help="Characters per second.")] = None,
    max_rate: Annotated[float | None, typer.Option("--max-rate", help="Characters per second.")] = None,
    text: Annotated[str | None, typer.Option("--text", help="Regular expression found in the text.")] = None,
    speaker: Annotated[list[str] | None, typer.Option("--speaker", help="Keep this one; may be repeated.")] = None,
) -> None:
    """Keep the utterances that pass every rule, and say how many each rule dropped."""
    from asr.manifest import Manifest, write_manifest
    from asr.subsets import Rules
    from asr.subsets import sift as run

    _check_target(output, [manifest])
    rules = Rules(min_duration, max_duration, min_rate, max_rate, text, speaker or [])
    kept, dropped = run(Manifest.load(manifest, others=True), rules)
    for rule, count in dropped.items():
        console.print(f"dropped {count}: {rule}")
    if not len(kept):
        raise DataError(f"{manifest}: no utterance passes every rule; nothing was written")
    write_manifest(output, kept)
    console.print(f"{output}: {_size(kept)}")


@app.command()
def shard(
    manifest: Source,
    output: Annotated[Path, typer.Argument(help="Folder for the shards and their manifest.")],
    hours: Annotated[float, typer.Option("--hours", min=0.001, help="Audio in each shard.")] = 2.0,
) -> None:
    """Copy the audio into tar shards, and write the manifest that reads from them."""
    from asr.manifest import Manifest
    from asr.shards import write_shards

    utterances = Manifest.load(manifest, others=True)
    with progress("Writing shards", len(utterances)) as advance:
        path, faults = write_shards(utterances, output, manifest.name.split(".")[0], hours, advance)
    written = Manifest.load(path)
    console.print(f"{path}: {_size(written)}")
    _report(faults)


def _check_target(output: Path, read: Sequence[Path]) -> None:
    """Refuse to write in the place of a manifest that is read: what is left out would be lost."""
    if os.path.realpath(output) in map(os.path.realpath, read):
        raise ConfigError(f"{output}: is read itself: write to another place")


def _parse_shares(text: str) -> dict[str, float]:

    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        try:
            shares[name.strip()] = float(value)
        except ValueError:
            shares = {}
            break
    names_are_files = all(name and name == Path(name).name for name in shares)
    if (
        len(shares) != text.count(",") + 1
        or not names_are_files
        or not all(0 < s < float("inf") for s in shares.values())
    ):
        raise ConfigError(f"--shares {text!r}: should be like train=0.9,dev=0.1, each name once and each share over 0")
    return shares


def _size(manifest: Any) -> str:
    return f"{len(manifest)} utterances, {float(manifest.durations.sum()) / 3600:.2f} hours"


def _report(faults: Sequence[str]) -> None:
    """List the first utterances that had to be left out, and end with exit code 1 if there are any."""
    if faults:
        console.print(f"{len(faults)} left out:", style="yellow")
        for fault in faults[:10]:
            console.print(f"  {fault}")
        raise typer.Exit(1)


def _show(manifest: Path, numbers: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    table = Table(title=str(manifest), show_header=False)
    for name, value in (
        ("utterances", f"{numbers['utterances']:,}"),
        ("hours", f"{numbers['hours']:.2f}"),
        ("speakers", f"{numbers['speakers']:,} ({numbers['without_speaker']:,} utterances without)"),
        ("without text", f"{numbers['without_text']:,}"),
        *((f"language {name or 'unknown'}", f"{hours:.2f} hours") for name, hours in numbers["languages"].items()),
    ):
        table.add_row(name, value)
    quantiles = Table(
        Column("", no_wrap=True),
        *(f"{100 * float(name):g} %" for name in numbers["duration"]["quantiles"]),
        title="quantiles",
    )
    for name, values in (
        ("seconds", numbers["duration"]["quantiles"]),
        ("characters/s", numbers["characters_per_second"] or {}),
    ):
        quantiles.add_row(name, *(f"{value:.2f}" for value in values.values()))
    histogram = Table("seconds", "utterances", "", title="durations")
    edges, counts = numbers["duration"]["histogram"]["edges"], numbers["duration"]["histogram"]["utterances"]
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        histogram.add_row(f"{low:.1f} - {high:.1f}", f"{count:,}", "█" * round(40 * count / max(counts)))
    for part in (table, quantiles, histogram):
        Console(markup=False, emoji=False).print(part)
