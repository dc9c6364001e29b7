"""Pictures of a run: its curves, and what both heads make of one utterance."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from asr.tokenizer import BLANK

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_heads(head: Tensor, posteriors: Tensor, pieces: list[str]) -> Figure:
    """Draw one utterance: where a head looked for each token, and what CTC heard in each frame.

    Args:
        head: cross-attention weights, shape (U + 1, T').
        posteriors: CTC probabilities, shape (T', V).
        pieces: the U tokens as they are written.
    """
    from matplotlib.figure import Figure  # drawing libraries take seconds to import; this thread-safe part needs no GUI

    figure = Figure(figsize=(10, 7), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    upper.imshow(head.numpy(), aspect="auto", origin="lower", interpolation="nearest", cmap="magma")
    upper.set(ylabel="token", title="cross-attention: where the steadiest head looked for each token")
    if len(pieces) <= 60:
        upper.set_yticks(range(len(pieces)), pieces, fontsize=6)
    lower.plot(posteriors[:, BLANK].numpy(), color="0.7", label="blank")
    for token in posteriors.argmax(dim=-1).unique().tolist():
        if token != BLANK:
            lower.plot(posteriors[:, token].numpy(), linewidth=0.8)
    lower.set(xlabel="encoder frame", ylabel="probability", ylim=(0, 1.02), title="CTC: each token that wins a frame")
    lower.legend(loc="upper right")
    return figure


def draw_curves(run: Path) -> None:
    """Draw loss and word error rate against steps, of all sittings of a run, as RUN/curves.png."""
    from matplotlib.figure import Figure

    rows = []
    for path in sorted(run.glob("metrics*.csv"), key=lambda path: path.stat().st_mtime):
        with open(path, encoding="utf-8", newline="") as file:
            rows += list(csv.DictReader(file))
    figure = Figure(figsize=(8, 7), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    for axes, names in ((upper, ("train/loss", "valid/loss")), (lower, ("valid/wer", "valid/cer"))):
        for name in names:
            points = [(int(row["step"]), float(row[name])) for row in rows if row.get(name)]
            axes.plot(
                *zip(*points, strict=True) if points else ((), ()), label=name, marker="." if "valid" in name else ""
            )
        axes.grid(alpha=0.3)
        axes.legend()
    upper.set(ylabel="loss for each token")
    lower.set(ylabel="error rate", xlabel="step", ylim=(0, None))
    figure.savefig(run / "curves.png", dpi=80)
