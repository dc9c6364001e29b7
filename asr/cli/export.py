"""`asr export`: a checkpoint for programs without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from asr.cli.terminal import Model, console


def export(
    onnx: Annotated[Path, typer.Option("--onnx", help="ONNX file to write: encoder and CTC head.")],
    model: Model = None,
) -> None:
    """Write a checkpoint's encoder and CTC head as ONNX; its metadata say how to make the features and read the text.

    Needs the packages of `pip install 'asr[onnx]'`.
    """
    from asr.export import export_onnx
    from asr.model import checkpoint
    from asr.transcriber import checkpoint_file

    recognizer, _ = checkpoint.load(checkpoint_file(model))
    export_onnx(recognizer, onnx)
    console.print(f"{onnx}: features, lengths -> log_probs, frames")
