"""`asr evaluate`: how often a model is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from asr.cli.terminal import Decoding, Device, Model, progress


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
    with progress("Decoding", len(utterances)) as advance:
        result = run_evaluation(transcriber, utterances, progress=advance)
    if json_file:
        write_json(json_file, result)
    for line in _summary(result):
        typer.echo(line)


def _summary(result: dict[str, Any]) -> list[str]:
    counts = f"{result['substitutions']} sub, {result['deletions']} del, {result['insertions']} ins"
    return [
        f"WER {100 * result['wer']:.2f} %  ({counts}; {result['words']} words, {result['utterances']} utterances)",
        f"CER {100 * result['cer']:.2f} %   raw WER {100 * result['raw_wer']:.2f} %   "
        f"normalizer {result['normalizer']['name']} {result['normalizer']['hash']}",
        f"real-time factor {result['real_time_factor']:.4f} ({result['hardware']})",
    ]
