"""The report of a check: one HTML page that needs nothing else, and the same as JSON."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr.audio import MEMBER
from asr.check.dataset import Checked
from asr.check.findings import KINDS, Finding

SHOWN = 200  # utterances of each kind on the page; the JSON has all
BINS = 40  # of each histogram
COLOURS = {"error": "#b3261e", "warning": "#a86400", "notice": "#3b6ea5"}
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1.5rem }
th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid #ddd; vertical-align: top }
td.number { text-align: right; font-variant-numeric: tabular-nums }
.plots { display: flex; flex-wrap: wrap; gap: 1.5rem }
figure { margin: 0 } figcaption { font-size: 13px; color: #555 } svg { display: block }
summary { cursor: pointer; font-weight: 600; margin-top: .6rem }
"""


def as_json(checked: Checked) -> dict[str, Any]:
    """Give counts and all findings, ready for JSON."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "manifests": [
            {
                "manifest": manifest.origin,
                "utterances": len(manifest),
                "hours": round(float(manifest.durations.sum()) / 3600, 4),
                "offenders": int(checked.offenders(number).sum()),
            }
            for number, manifest in enumerate(checked.manifests)
        ],
        "counts": [
            {"severity": severity, "kind": kind, "count": count, "about": KINDS[kind].about}
            for (severity, kind), count in checked.counts().items()
        ],
        "notes": checked.notes,
        "findings": [_entry(checked, finding) for finding in checked.findings],
    }


def _entry(checked: Checked, finding: Finding) -> dict[str, Any]:
    utterance = checked.manifests[finding.manifest][finding.row]
    return {
        "severity": finding.severity,
        "kind": finding.kind,
        "manifest": checked.manifests[finding.manifest].origin,
        "id": utterance.id,
        "detail": finding.detail,
        "audio_filepath": utterance.audio_filepath,
        "offset": utterance.offset,
        "duration": utterance.duration,
        "text": utterance.text,
    }


def as_html(checked: Checked) -> str:
    """Write the page: counts, histograms, and a table of utterances for each kind of defect."""
    content = as_json(checked)
    manifests = "".join(
        _row(each["manifest"], f"{each['utterances']:,}", f"{each['hours']:.2f}", f"{each['offenders']:,}")
        for each in content["manifests"]
    )
    counts = "".join(
        f'<tr><td style="color:{COLOURS[each["severity"]]}">{each["severity"]}</td><td><a href="#{each["kind"]}">'
        f'{each["kind"]}</a></td><td class="number">{each["count"]:,}</td><td>{escape(each["about"])}</td></tr>'
        for each in content["counts"]
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in content["notes"])
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Data check</title><style>{STYLE}</style>'
        f"<h1>Data check</h1><p>{content['date']}</p>"
        f"<table><tr><th>manifest<th>utterances<th>hours<th>with errors or warnings</tr>{manifests}</table>"
        f"<h2>Found</h2><table><tr><th>severity<th>kind<th>utterances<th></tr>{counts}</table><ul>{notes}</ul>"
        f'<h2>Distributions</h2><div class="plots">{"".join(_plots(checked))}</div>'
        f"<h2>Utterances</h2>{''.join(_tables(content))}</html>\n"
    )


def _tables(content: dict[str, Any]) -> Iterator[str]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for entry in content["findings"]:
        groups.setdefault(entry["kind"], []).append(entry)
    for kind, entries in groups.items():
        rows = "".join(
            f"<tr><td>{entry['severity']}<td>{escape(entry['id'])}<td>{_link(entry['audio_filepath'])}"
            f'<td class="number">{entry["duration"]:.2f}<td>{escape(entry["detail"])}<td>{escape(entry["text"])}</tr>'
            for entry in entries[:SHOWN]
        )
        more = f"<p>{len(entries) - SHOWN:,} more are in the JSON report.</p>" if len(entries) > SHOWN else ""
        yield (
            f'<details id="{kind}"{" open" if entries[0]["severity"] != "notice" else ""}>'
            f"<summary>{kind} ({len(entries):,})</summary>"
            f"<table><tr><th>severity<th>id<th>audio<th>seconds<th>measured<th>transcript</tr>{rows}</table>{more}"
            "</details>"
        )


def _link(path: str) -> str:
    """Link to an audio file by its name; a member of a shard has no address of its own."""
    name = escape(re.split(r"[/\\]", path)[-1])
    return name if MEMBER.fullmatch(path) else f'<a href="{escape(Path(os.path.abspath(path)).as_uri())}">{name}</a>'


def _row(*cells: str) -> str:
    first, *numbers = map(escape, cells)
    return f"<tr><td>{first}</td>" + "".join(f'<td class="number">{number}</td>' for number in numbers) + "</tr>"


def _plots(checked: Checked) -> Iterator[str]:
    facts = np.concatenate(checked.facts)
    seconds = np.concatenate([manifest.durations for manifest in checked.manifests])
    lengths = np.array([len(text.strip()) for manifest in checked.manifests for text in manifest.texts])
    heard = facts[facts["seconds"] > 0]
    yield histogram("duration, seconds", seconds)
    yield histogram("characters a second", lengths / seconds)
    yield histogram("loudest 32 ms, dBFS", heard["level"])
    yield histogram("loudest to quietest, dB", heard["range"])
    yield histogram("edge of the spectrum, dB", heard["cliff"])
    yield histogram("samples at the peak, log10 of the share", np.log10(heard["near_peak"] + 1e-7))
    yield histogram("offset from zero, % of full scale", 100 * heard["mean"])
    if checked.scores:
        yield histogram("CTC log-likelihood a token", np.concatenate(checked.scores))


def histogram(title: str, values: NDArray[Any]) -> str:
    """Draw a histogram as inline SVG; heights are square roots, so that a single outlier is seen.

    Args:
        title: what is counted, with its unit.
        values: any number of them; NaN and infinity are left out.
    """
    values = values[np.isfinite(values)]
    if not len(values):
        return ""
    values = values.astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if high - low <= 1e-9 * abs(high):  # too little for so many bins to have edges of their own
        low, high = low - max(0.5, abs(low)), high + max(0.5, abs(high))
    counts, edges = np.histogram(values, bins=BINS, range=(low, high))
    width, height = 6, 90
    bars = "".join(
        f'<rect x="{place * width}" y="{height - tall:.1f}" width="{width - 1}" height="{tall:.1f}" fill="#4a7ab5">'
        f"<title>{edges[place]:.4g} to {edges[place + 1]:.4g}: {count}</title></rect>"
        for place, count in enumerate(counts)
        if (tall := height * (count / counts.max()) ** 0.5) > 0
    )
    right = BINS * width
    return (
        f'<figure><svg width="{right}" height="{height + 16}" role="img" aria-label="{escape(title)}">{bars}'
        f'<text x="0" y="{height + 13}" font-size="11">{edges[0]:.4g}</text>'
        f'<text x="{right}" y="{height + 13}" font-size="11" text-anchor="end">{edges[-1]:.4g}</text></svg>'
        f"<figcaption>{escape(title)}; median {np.median(values):.4g}</figcaption></figure>"
    )
