"""Plots of a result as inline SVG; their colours are the page's."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from asr.evaluation.bootstrap import FEW_BLOCKS

MOST_ROWS = 30  # of many speakers the worst are drawn
TITLES = {"snr": "signal-to-noise ratio"}
_WIDTH, _LEFT, _RIGHT, _STEP = 520, 150, 62, 27  # pixels


def dot_plot(key: str, rows: Sequence[dict[str, Any]], overall: float, first: int) -> str:
    """Draw rates with their intervals, one row for each slice.

    Args:
        key: what the slices are.
        rows: slices of `summarise`.
        overall: the rate of the whole set.
        first: number of the first slice, which the page knows it by; the others follow.
    """
    shown = list(enumerate(rows, start=first))
    title = f"by {TITLES.get(key, key)}"
    if len(rows) > MOST_ROWS:
        shown = sorted(shown, key=lambda item: -item[1]["wer"])[:MOST_ROWS]
        title += f": the worst {MOST_ROWS} of {len(rows)}"
    most = max(0.05, *(min(row["high"], 2 * row["wer"] + 0.1) for _, row in shown), overall) * 1.04
    width = _WIDTH - _LEFT - _RIGHT

    def across(rate: float) -> str:
        return f"{_LEFT + width * min(rate, most) / most:.1f}"

    height = _STEP * len(shown) + 22
    lines = [f'<line class="mean" x1="{across(overall)}" x2="{across(overall)}" y1="0" y2="{height - 20}"/>']
    for place, (number, row) in enumerate(shown):
        y = _STEP * place + _STEP // 2
        name = row["value"] if len(row["value"]) <= 20 else row["value"][:19] + "…"
        about = (
            f"{row['value']}: {row['errors']} errors in {row['words']} words, {row['utterances']} utterances; "
            f"bar from {row['blocks']} {row['unit']}s"
        )
        whisker = "whisker few" if row["blocks"] < FEW_BLOCKS else "whisker"
        lines += [
            f'<g class="row" tabindex="0" data-slice="{number}"><title>{escape(about)}</title>',
            f'<rect class="hit" x="0" y="{y - 13}" width="{_WIDTH}" height="26" rx="5"/>',
            f'<text class="end" x="{_LEFT - 12}" y="{y + 5}">{escape(name)}</text>',
            f'<line class="track" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>',
            f'<line class="{whisker}" x1="{across(row["low"])}" x2="{across(row["high"])}" y1="{y}" y2="{y}"/>',
            f'<circle class="dot" cx="{across(row["wer"])}" cy="{y}" r="5"/>',
            f'<text class="end" x="{_WIDTH - 4}" y="{y + 5}">{100 * row["wer"]:.1f} %</text></g>',
        ]
    lines += [
        f'<text class="note middle" x="{across(overall)}" y="{height - 4}">all: {100 * overall:.1f} %</text>',
        f'<text class="note middle" x="{_LEFT}" y="{height - 4}">0</text>',
    ]
    return _figure(title, height, lines)


def histogram(rates: Sequence[float]) -> str:
    """Draw how many utterances have which word error rate."""
    edges = np.array([0, *(np.arange(10) / 10 + 1e-9), 1 + 1e-9, np.inf])  # no error, up to 10 %, ... and over 100 %
    names = ["0", *(str(10 * number) for number in range(1, 11)), "more"]
    numbers = np.histogram(rates, edges)[0].tolist()
    step, height, base = _WIDTH / len(numbers), 190, 162
    lines = []
    for place, (number, name) in enumerate(zip(numbers, names, strict=True)):
        tall = 132 * number / max(numbers)
        x, middle = place * step, (place + 0.5) * step
        lines += [
            f'<rect class="column" x="{x + 4:.1f}" y="{base - tall:.1f}" width="{step - 8:.1f}" '
            f'height="{tall:.1f}" rx="3"/>',
            f'<text class="note middle" x="{middle:.1f}" y="{base - tall - 6:.1f}">{number or ""}</text>',
            f'<text class="note middle" x="{middle:.1f}" y="{height - 10}">{name}</text>',
        ]
    return _figure("utterances by word error rate: none, up to so many %", height, lines)


def parts_bar(hits: int, substitutions: int, deletions: int, insertions: int) -> str:
    """Draw what became of the words: found, substituted, deleted; and what was inserted."""
    numbers = {"ok": hits, "s": substitutions, "d": deletions, "i": insertions}
    names = {"ok": "found", "s": "substituted", "d": "deleted", "i": "inserted"}
    total = max(1, sum(numbers.values()))
    x, boxes = 0.0, []
    for kind, number in numbers.items():
        wide = 1000 * number / total
        boxes.append(
            f'<rect class="part-{kind}" x="{x:.1f}" y="0" width="{max(0.0, wide - 2):.1f}" height="26" rx="4"/>'
        )
        x += wide
    said = max(1, hits + substitutions + deletions)
    legend = "".join(
        f'<span class="{kind}"><i>{names[kind]} {number:,} ({100 * number / said:.1f} %)</i></span>'
        for kind, number in numbers.items()
    )
    bar = f'<svg viewBox="0 0 1000 26" preserveAspectRatio="none" height="26" aria-hidden="true">{"".join(boxes)}</svg>'
    return f'{bar}<div class="legend">{legend}</div>'


def _figure(title: str, height: int, lines: list[str]) -> str:
    image = f'<svg viewBox="0 0 {_WIDTH} {height}" role="group">{"".join(lines)}</svg>'
    return f'<div class="card"><h3>{escape(title[:1].upper() + title[1:])}</h3>{image}</div>'
