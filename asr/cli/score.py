"""`asr score`: how far texts are from their references, without a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
from asr.cli.terminal import console


def score(
    reference: Annotated[Path, typer.Option("--ref", help="True texts: .jsonl, .stm, .trn, or lines of id and text.")],
    hypothesis: Annotated[Path, typer.Option("--hyp", help="Recognised texts: the same formats, or .ctm.")],
    normalizer: NormalizerName = "basic",
    slice_by: SliceBy = None,
    json_file: JsonFile = None,
    csv_file: CsvFile = None,
    report: ReportFolder = None,
) -> None:
    """Measure the word error rate of text files.

    An utterance that the hypotheses lack counts as one without any word. The words of a .ctm go to the segment of
    the .stm that they lie in.
    """
    from asr.evaluation.text_files import score_files

    result = score_files(reference, hypothesis, normalizer, split_keys(slice_by))
    try:
        show_result(result)
    finally:
        write_outputs(result, json_file, csv_file, report)
    if missing := result["missing_hypotheses"]:
        console.print(
            f"{missing} of {len(result['results'])} utterances have no hypothesis; all their words are deletions"
        )
