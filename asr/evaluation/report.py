"""A result as one page to look through and listen to."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

import soundfile

from asr.errors import AudioError
from asr.evaluation.bootstrap import caution
from asr.evaluation.charts import dot_plot, histogram, parts_bar
from asr.evaluation.error_statistics import error_statistics
from asr.evaluation.results import errors_in
from asr.evaluation.slices import group
from asr.evaluation.wer import align
from asr.files import write_file
from asr.manifest import Manifest, Utterance
from asr.normalize import get_normalizer
from asr.samples import SAMPLE_RATE

TEMPLATE = Path(__file__).with_name("report.html")
MOST_UTTERANCES = 2000  # on the page, the worst; errors.txt has all
AUDIO_SECONDS = 600.0  # of the worst utterances, within the page: about 2 MB of MP3; the others are linked to


def write_report(folder: Path, result: dict[str, Any], manifest: Manifest | None = None) -> Path:
    """Write `report.html`, which needs no other file and no network, and `errors.txt`.

    Args:
        folder: where to; made if need be.
        result: of `evaluate` or `score_files`.
        manifest: where the audio is; without, there is none on the page.

    Returns:
        The page.
    """
    normalizer = get_normalizer(result["normalizer"]["name"])
    rows = sorted(result["results"], key=lambda row: (-errors_in(row), row["id"]))
    alignments = [align(normalizer(row["reference"]), normalizer(row["hypothesis"])) for row in rows]
    write_file(folder / "errors.txt", error_statistics(result, rows, alignments))
    shown = rows[:MOST_UTTERANCES]
    places = {utterance.id: utterance for utterance in manifest} if manifest else {}
    content = {
        "utterances": [
            {
                "id": row["id"],
                "speaker": str(row.get("speaker") or ""),
                "duration": row.get("duration"),
                "snr": row.get("snr"),
                "errors": errors_in(row),
                "length": row["words"],
                "words": [said if said == heard else (said, heard) for said, heard in alignment],
                "link": _link(places.get(row["id"]), folder),
                "error": row.get("error"),
            }
            for row, alignment in zip(shown, alignments, strict=False)
        ],
        "audio": _audio([places[row["id"]] for row in shown if row["id"] in places]),
        "slices": [
            {"name": f"{key} {slice_['value']}", "rows": members}
            for key, slices in result["slices"].items()
            for slice_, members in zip(slices, _members(key, slices, rows), strict=True)
        ],
        "confusions": [
            ("Substitutions", "S", result["confusions"]["substitutions"]),
            ("Deletions", "D", [(word, "", number) for word, number in result["confusions"]["deletions"]]),
            ("Insertions", "I", [("", word, number) for word, number in result["confusions"]["insertions"]]),
        ],
    }
    write_file(folder / "report.html", _page(result, content))
    return folder / "report.html"


def fill_page(template: Path, content: dict[str, Any], media: str, **parts: str) -> str:
    """Put a self-contained page together that may run its template's one style and one script and fetch nothing.

    Args:
        template: a page with the places `$policy`, `$data` and those of the parts.
        content: what its script reads.
        media: where audio may come from, as in a content security policy.
        parts: HTML for the other places; texts in it are escaped already.
    """
    text = template.read_text(encoding="utf-8")
    hashes = [
        base64.b64encode(hashlib.sha256(found.encode()).digest()).decode()
        for found in re.findall(r"<(?:style|script)>(.*?)</(?:style|script)>", text, re.DOTALL)
    ]
    policy = f"default-src 'none'; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; img-src data:; "
    return Template(text).substitute(
        policy=policy + f"media-src {media}",
        # In a script element only these three could end it or begin another; in JSON they are the same escaped.
        data=re.sub("[<>&]", lambda found: f"\\u{ord(found[0]):04x}", json.dumps(content, ensure_ascii=False)),
        **parts,
    )


def _page(result: dict[str, Any], content: dict[str, Any]) -> str:
    interval, hits = result["interval"], result["words"] - result["substitutions"] - result["deletions"]
    left_out = len(result["results"]) - len(content["utterances"])
    return fill_page(
        TEMPLATE,
        content,
        "data: file: 'self'",
        title=escape(f"{result.get('model', 'Texts')} on {result['data'].get('name', 'these texts')}"),
        subtitle=escape(" · ".join(str(result[k]) for k in ("decoding_label", "date", "commit") if result.get(k))),
        wer=f"{100 * result['wer']:.1f}",
        interval=f"95 % interval {100 * interval['low']:.1f} to {100 * interval['high']:.1f} %",
        interval_note=f"Bootstrap over {interval['blocks']:,} {interval['unit']}s{caution(interval)}.",
        words=f"{result['words']:,}",
        parts=parts_bar(hits, result["substitutions"], result["deletions"], result["insertions"]),
        figures=_figures(result),
        charts=_charts(result),
        shown=f"The worst {len(content['utterances']):,} are here, errors.txt has all." if left_out else "",
        facts="".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in _facts(result)),
    )


def _figures(result: dict[str, Any]) -> str:
    low, high = (100 * result["cer_interval"][bound] for bound in ("low", "high"))
    figures = [
        (f"{100 * result['cer']:.1f} %", f"characters wrong (95 %: {low:.1f} to {high:.1f})"),
        (f"{100 * result['raw_wer']:.1f} %", "raw WER, as written"),
        (f"{result['utterances']:,}", "utterances"),
    ]
    if "real_time_factor" in result:
        figures.append((f"{result['audio_seconds'] / 3600:.2f} h", "audio"))
        figures.append((f"{1 / max(result['real_time_factor'], 1e-9):,.0f} times", "faster than real time"))
    if result["empty_references"]:
        figures.append((f"{result['words_on_empty_references']:,}", "words where none was said"))
    return "".join(f'<div><b>{value}</b><span class="soft small">{name}</span></div>' for value, name in figures)


def _charts(result: dict[str, Any]) -> str:
    charts, first = [], 0
    for key, slices in result["slices"].items():
        charts.append(dot_plot(key, slices, result["wer"], first))
        first += len(slices)
    rates = [errors_in(row) / row["words"] for row in result["results"] if row["words"]]
    return "".join([*charts, histogram(rates)])


def _facts(result: dict[str, Any]) -> list[tuple[str, str]]:
    normalizer, data = result["normalizer"], result["data"]
    facts = [
        ("normaliser", f"{normalizer['name']}, version {normalizer['version']}, hash {normalizer['hash']}"),
        ("data", f"{data.get('name', '')}, {data['utterances']} utterances, hash {data['hash']}"),
        ("apart", f"{result['empty_references']} utterances without a word in their reference"),
    ]
    names = {"model": "model", "parameters": "parameters", "hardware": "hardware", "version": "software"}
    facts += [
        (shown, f"{result[key]:,}" if key == "parameters" else str(result[key]))
        for key, shown in names.items()
        if key in result
    ]
    if "decoding" in result:
        facts.append(
            ("decoding", ", ".join(f"{key} {value}" for key, value in result["decoding"].items() if value != ""))
        )
        facts.append(
            (
                "real-time factor",
                f"{result['real_time_factor']:.4f}, of which decoding {result['decoding_real_time_factor']:.4f}",
            )
        )
    return facts


def _members(key: str, slices: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]]) -> list[list[int]]:
    """Find again which of the utterances on the page each slice has."""
    groups = dict(group(key, [row.get(key) for row in rows]))  # of all: the edges of bands hang on every value
    found = {name: members[members < MOST_UTTERANCES].tolist() for name, members in groups.items()}
    return [found.get(each["value"], []) for each in slices]


def _audio(utterances: Sequence[Utterance]) -> dict[str, str]:
    """Encode the audio of the first utterances, as long as there is room, as data URIs."""
    encoded: dict[str, str] = {}
    left = AUDIO_SECONDS
    for utterance in utterances:
        if (left := left - utterance.duration) < 0:
            break
        try:
            waveform = utterance.waveform()
        except AudioError:
            continue  # the row says so itself
        buffer = io.BytesIO()
        # Every browser plays MP3, and it is encoded eight times as fast as Opus, at the same size.
        soundfile.write(
            buffer, waveform.clip(-1, 1), SAMPLE_RATE, format="MP3", subtype="MPEG_LAYER_III", compression_level=0.9
        )
        encoded[utterance.id] = "data:audio/mpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    return encoded


def _link(utterance: Utterance | None, folder: Path) -> str | None:
    """Point to an audio file beside the page, and to the stretch of it that is meant."""
    if utterance is None or not os.path.isfile(utterance.audio_filepath):
        return None
    path = os.path.relpath(utterance.audio_filepath, folder)
    return f"{quote(Path(path).as_posix())}#t={utterance.offset:g},{utterance.offset + utterance.duration:g}"
