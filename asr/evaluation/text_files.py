"""Score files of texts: lines of id and text, tables of both, JSON lines, trn, STM and CTM.

STM and CTM as in NIST's SCTK (`stm(5)`, `ctm(5)`); trn as sclite reads it.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from asr.errors import DataError
from asr.evaluation.summary import summarise
from asr.manifest import make_ids
from asr.normalize import get_normalizer

Rows = dict[str, dict[str, Any]]
"""By id: `text`, and `speaker`, `duration`, `channel` or `start` where the file says so."""
_HYPOTHESIS_KEYS = ("hypothesis", "pred_text", "text")  # in NeMo's output `text` is the reference
_REFERENCE_KEYS = ("reference", "text")
_IGNORED = "IGNORE_TIME_SEGMENT_IN_SCORING"


def score_files(
    reference: Path, hypothesis: Path, normalizer: str = "basic", slice_by: list[str] | None = None
) -> dict[str, Any]:
    """Compare two files of texts.

    Args:
        reference: .jsonl, .stm, .trn, .tsv (id and text), or any other ending but .csv for lines of id and text.
        hypothesis: the same, or .ctm. Against an .stm each of its words goes to the segment that its middle lies in, or
            else to the nearest one of its recording; else its recordings are the ids, if each has one channel.
        normalizer: what both texts go through.
        slice_by: keys of the reference file.

    Returns:
        What `summarise` measures, and `missing_hypotheses`.

    Raises:
        DataError: a line is wrong, or the hypotheses have an utterance that the references lack.
    """
    rules = get_normalizer(normalizer)
    references = read_texts(reference, _REFERENCE_KEYS)
    if reference.suffix.lower() == ".stm" and hypothesis.suffix.lower() == ".ctm":
        hypotheses = _assign(hypothesis, references)
    else:
        hypotheses = read_texts(hypothesis)
        if hypothesis.suffix.lower() == ".ctm" != reference.suffix.lower():
            hypotheses = _without_channels(hypotheses, hypothesis)
    for name in [name for name, row in references.items() if row["text"].strip().lower() == _IGNORED.lower()]:
        references.pop(name)
        hypotheses.pop(name, None)
    if extra := [name for name in hypotheses if name not in references]:
        raise DataError(
            f"{hypothesis}: {len(extra)} of {len(hypotheses)} ids are not in {reference}, the first: {extra[0]!r}"
        )
    rows = [
        {
            "id": name,
            "reference": row["text"],
            "hypothesis": hypotheses.get(name, {"text": ""})["text"],
            **{key: value for key, value in row.items() if key not in ("id", "text", "reference", "hypothesis")},
        }
        for name, row in references.items()
    ]
    result = summarise(rows, rules, slice_by)
    result["data"]["name"] = reference.name
    return result | {
        "model": hypothesis.name,
        "missing_hypotheses": sum(name not in hypotheses for name in references),
        "results": result["results"],
    }


def read_texts(path: Path, keys: Sequence[str] = _HYPOTHESIS_KEYS) -> Rows:
    """Read a file of texts by its ending.

    Args:
        path: the file.
        keys: where JSON lines have the text; the first of them that any line has counts, for all lines.

    Raises:
        DataError: the file cannot be read, is empty, a line is wrong, or an id is there twice.
    """
    ending = path.suffix.lower()
    if ending == ".csv":
        raise DataError(f"{path}: tables with commas are not read: write lines of id, tab and text, as .tsv")
    read = _json(path, keys) if ending in (".json", ".jsonl") else _FORMATS.get(ending, _text)
    rows: Rows = {}
    for number, line in _lines(path):
        for name, row in read(line, f"{path}, line {number}"):
            name = unicodedata.normalize("NFC", name)  # file systems differ in it
            if name in rows and ending != ".ctm":
                raise DataError(f"{path}, line {number}: id {name!r} is there a second time")
            if name in rows:
                row["text"] = f"{rows[name]['text']} {row['text']}"
            rows[name] = row
    if not rows:
        raise DataError(f"{path}: holds no text")
    return rows


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with open(path, encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line.strip(" \t\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def _text(line: str, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    name, _, text = line.replace("\t", " ", 1).partition(" ")
    yield name, {"text": text}


def _tsv(line: str, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    columns = line.split("\t")
    if len(columns) > 2:
        raise DataError(f"{place}: should be id, tab and text, not {len(columns)} columns: {line[:60]!r}")
    if columns != ["id", "text"]:  # the table's head
        yield columns[0], {"text": columns[1] if len(columns) == 2 else ""}


def _json(path: Path, keys: Sequence[str]) -> Callable[[str, str], Iterator[tuple[str, dict[str, Any]]]]:
    """Read JSON lines, with the text of all of them under the same key: another one may be the other side's."""
    rows = [(f"{path}, line {number}", _object(line, f"{path}, line {number}")) for number, line in _lines(path)]
    there = {name for _, row in rows for name in row}
    if not (found := [key for key in keys if key in there]):
        raise DataError(f"{path}: no line has one of {', '.join(keys)}")
    key = found[0]
    for place, row in rows:
        named = any(row.get(each) not in (None, "") for each in ("id", "audio_filepath"))
        if not named or not isinstance(row.get(key), str):
            raise DataError(f"{place}: needs an id (or audio_filepath) and {key}, which is a text")
    names = iter(_names([row for _, row in rows]))

    def read(line: str, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
        row = _object(line, place)
        speaker = {} if row.get("speaker") is None else {"speaker": str(row["speaker"])}
        known = {name: value for name, value in row.items() if _fits(name, value)}
        yield next(names), {**known, **speaker, "text": row[key]}

    return read


def _fits(name: str, value: Any) -> bool:
    """Tell whether a value is what results take it for: JSON knows no NaN, and seconds and decibels are numbers."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return math.isfinite(value) if number else name not in ("duration", "snr")


def _names(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Name rows by their ids, or by their audio as a manifest does."""
    known = ["" if row.get("id") is None else str(row["id"]) for row in rows]
    offsets = [offset if isinstance(offset := row.get("offset"), int | float) else 0.0 for row in rows]
    return make_ids(known, [str(row.get("audio_filepath") or "") for row in rows], offsets)


def _object(line: str, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: not JSON: {error}") from error
    if not isinstance(row, dict):
        raise DataError(f"{place}: not a JSON object")
    return row


def _trn(line: str, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if line.startswith(";;"):
        return
    if not (found := re.fullmatch(r"(.*?)\s*\(([^()]+)\)", line)):
        raise DataError(f"{place}: should be a text and its id in brackets, not {line[:60]!r}")
    _refuse_alternatives(found[1], place)
    # sclite takes the speaker for what stands before the first hyphen or underscore.
    yield found[2], {"text": found[1], "speaker": re.split("[-_]", found[2])[0]}


def _stm(line: str, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if line.startswith(";;"):
        return
    columns = line.split(None, 5)
    if len(columns) < 5:
        raise DataError(f"{place}: should be file, channel, speaker, begin, end and text, not {line[:60]!r}")
    file, channel, speaker, begin, end = columns[:5]
    text = columns[5] if len(columns) > 5 else ""
    label = re.match(r"<[^<>\s]*>\s*", text)  # <o,f0,male>: conditions, not words
    start, stop = _seconds(begin, place), _seconds(end, place)
    if stop < start:
        raise DataError(f"{place}: ends at {end} s, before it begins")
    spoken = text[label.end() :] if label else text
    _refuse_alternatives(spoken, place)
    where = {"recording": f"{file} {channel}", "start": start, "duration": round(stop - start, 6)}
    yield f"{file}-{channel}-{begin}-{end}", {"text": spoken, "speaker": speaker, **where}


def _refuse_alternatives(text: str, place: str) -> None:
    if re.search(r"[{}]|(?<!\S)\([^()\s]+\)(?!\S)", text):
        raise DataError(f"{place}: alternatives {{ a / b }} and optional (words) are not supported: keep one of them")


def _ctm(line: str, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if line.startswith(";;"):
        return
    recording, _, _, word = _ctm_word(line, place)
    yield recording, {"text": word}


def _ctm_word(line: str, place: str) -> tuple[str, float, float, str]:
    columns = line.split()
    if len(columns) < 5:
        raise DataError(f"{place}: should be file, channel, begin, duration and word, not {line[:60]!r}")
    if columns[4].upper().startswith("<ALT"):
        raise DataError(f"{place}: alternatives are not supported: keep one of them")
    return f"{columns[0]} {columns[1]}", _seconds(columns[2], place), _seconds(columns[3], place), columns[4]


_FORMATS: dict[str, Callable[[str, str], Iterator[tuple[str, dict[str, Any]]]]] = {
    ".tsv": _tsv,
    ".trn": _trn,
    ".stm": _stm,
    ".ctm": _ctm,
}


def _without_channels(rows: Rows, path: Path) -> Rows:
    """Name what a CTM holds by its recordings alone.

    Raises:
        DataError: one of them has several channels.
    """
    named = {name.rpartition(" ")[0]: row for name, row in rows.items()}
    if len(named) < len(rows):
        raise DataError(f"{path}: has recordings of several channels: only an .stm of references tells them apart")
    return named


def _seconds(text: str, place: str) -> float:
    try:
        if math.isfinite(value := float(text)) and value >= 0:
            return value
    except ValueError:
        pass
    raise DataError(f"{place}: {text!r} is not a number of seconds")


def _assign(path: Path, segments: Rows) -> Rows:
    """Put the words of a CTM, in the order of their times, into the segments of an STM."""
    unsorted: dict[str, list[tuple[float, float, str]]] = {}
    for name, row in segments.items():
        unsorted.setdefault(row["recording"], []).append((row["start"], row["start"] + row["duration"], name))
    places = {recording: _Spans(sorted(spans)) for recording, spans in unsorted.items()}
    words = [_ctm_word(line, f"{path}, line {number}") for number, line in _lines(path) if not line.startswith(";;")]
    texts: dict[str, list[str]] = {}
    for recording, start, duration, word in sorted(words, key=lambda word: word[:2]):
        if recording not in places:
            raise DataError(f"{path}: recording {recording!r} is not in the references")
        texts.setdefault(places[recording].nearest(start + duration / 2), []).append(word)
    return {name: {"text": " ".join(said)} for name, said in texts.items()}


class _Spans:
    """Stretches of a recording: begin, end and name, sorted; some may overlap."""

    def __init__(self, spans: list[tuple[float, float, str]]) -> None:
        self.spans = spans
        self.reach = list(accumulate((end for _, end, _ in spans), max))  # the latest end of those up to each

    def nearest(self, moment: float) -> str:
        """Give the span that began last of those that a moment lies in, or else the nearest one."""
        after = bisect_right(self.spans, (moment, math.inf, ""))
        near = []
        for place in range(after - 1, -1, -1):
            near.append(self.spans[place])
            if self.spans[place][1] >= moment:
                return self.spans[place][2]
            if self.reach[place] < moment and self.spans[place][1] == self.reach[place]:
                break  # none before it comes nearer
        near += self.spans[after : after + 1]
        return min(near, key=lambda span: max(span[0] - moment, moment - span[1], 0))[2]
