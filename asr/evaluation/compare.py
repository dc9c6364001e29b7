"""Two results of the same utterances: which is better, by how much, and how sure that is."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from asr.errors import DataError
from asr.evaluation.bootstrap import caution, difference
from asr.evaluation.results import errors_in


def compare(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Compare two results utterance by utterance.

    Args:
        first: a result of `evaluate` or `score_files`.
        second: another.

    Returns:
        Both rates; `difference` of the second from the first, below zero where the second is better, its 95 % interval
        and its p-value (paired bootstrap by speaker); how many utterances are better, worse and the same; and under
        `changed` those whose text or number of errors is another, most harmed first.

    Raises:
        DataError: they were normalised in different ways, or measured on different utterances or references.
    """
    _check(first, second)
    theirs = {row["id"]: row for row in second["results"]}
    pairs = [(row, theirs[row["id"]]) for row in first["results"]]
    spoken = [(a, b) for a, b in pairs if a["words"]]
    before, after = (np.array([errors_in(pair[side]) for pair in spoken]) for side in (0, 1))
    words = np.array([a["words"] for a, _ in spoken])
    found = difference(before, after, words, [str(a.get("speaker") or "") for a, _ in spoken])
    change = after - before
    changed = [
        {
            "id": a["id"],
            "reference": a["reference"],
            "first": a["hypothesis"],
            "second": b["hypothesis"],
            "errors": [errors_in(a), errors_in(b)],
            "words": a["words"],
        }
        for a, b in pairs
        if a["hypothesis"] != b["hypothesis"] or errors_in(a) != errors_in(b)
    ]
    return {
        "first": _side(first),
        "second": _side(second),
        "difference": found.value,
        "interval": asdict(found.interval),
        "p_value": found.p_value,
        "better": int((change < 0).sum()),
        "worse": int((change > 0).sum()),
        "same": int((change == 0).sum()),
        "normalizer": first["normalizer"],
        "data": first["data"],
        "changed": sorted(changed, key=lambda row: (row["errors"][0] - row["errors"][1], row["id"])),
    }


def describe(result: dict[str, Any], show: int) -> list[str]:
    """Write a comparison as lines of text, with the `show` utterances that changed most."""
    interval = result["interval"]
    verdict = "no difference that these utterances can show"
    if result["p_value"] < 0.05:
        verdict = f"B is {'better' if result['difference'] < 0 else 'worse'}"
    low, high = (f"{100 * interval[bound]:+.2f}" for bound in ("low", "high"))
    lines = [
        *(
            f"{name}  WER {100 * result[side]['wer']:6.2f} %  {result[side]['label']}"
            for name, side in (("A", "first"), ("B", "second"))
        ),
        f"B - A  {100 * result['difference']:+.2f} points, 95 % interval {low} to {high}, p = {result['p_value']:.4f}"
        f"  (paired, by {interval['blocks']} {interval['unit']}s{caution(interval)})",
        f"{verdict}; {result['better']} utterances better, {result['worse']} worse, {result['same']} with as many "
        f"errors, {len(result['changed'])} with another text",
    ]
    for row in sorted(result["changed"], key=lambda row: -abs(row["errors"][1] - row["errors"][0]))[:show]:
        lines += ["", f"{row['id']}: {row['errors'][0]} -> {row['errors'][1]} errors in {row['words']} words"]
        lines += [f"  reference  {row['reference']}", f"  A          {row['first']}", f"  B          {row['second']}"]
    return lines


def _check(first: dict[str, Any], second: dict[str, Any]) -> None:
    ours, theirs = first["normalizer"], second["normalizer"]
    if ours["hash"] != theirs["hash"]:
        names = " and ".join(f"{n['name']} {n['version']} (hash {n['hash']})" for n in (ours, theirs))
        raise DataError(f"the normalisers differ: {names}: measure both with the same --normalizer")
    if first["data"]["hash"] != second["data"]["hash"]:
        a, b = ({row["id"]: row["reference"] for row in side["results"]} for side in (first, second))
        apart = sorted(a.keys() ^ b.keys())
        other = [name for name in a.keys() & b.keys() if a[name] != b[name]]
        what = f"id {apart[0]!r} is in one only" if apart else f"{min(other, default='')!r} has another reference"
        raise DataError(
            f"the data differ: hash {first['data']['hash']} ({len(a)} utterances) and {second['data']['hash']} "
            f"({len(b)} utterances); {what}: measure both on the same manifest"
        )


def _side(result: dict[str, Any]) -> dict[str, Any]:
    parts = [str(result[key]) for key in ("model", "decoding_label", "date", "commit") if result.get(key)]
    return {"wer": result["wer"], "low": result["interval"]["low"], "high": result["interval"]["high"]} | {
        "label": ", ".join(parts)
    }
