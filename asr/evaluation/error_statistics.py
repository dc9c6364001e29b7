"""Errors as plain text to search in, laid out like the error statistics that icefall's recipes write."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from asr.evaluation.results import errors_in
from asr.evaluation.wer import Alignment, Confusions, count_confusions


def error_statistics(result: dict[str, Any], rows: Sequence[dict[str, Any]], alignments: Sequence[Alignment]) -> str:
    """Write down every utterance and every word that went wrong.

    Args:
        result: of `summarise`, for the totals.
        rows: the utterances, in the order they are to stand in.
        alignments: of each row.

    Returns:
        Sections PER-UTT DETAILS, SUBSTITUTIONS, DELETIONS, INSERTIONS and PER-WORD STATS. In the first, `(a->b)` is a
        substitution, `(a->*)` a deletion and `(*->b)` an insertion.
    """
    found = count_confusions(alignment for row, alignment in zip(rows, alignments, strict=True) if row["words"])
    interval, normalizer = result["interval"], result["normalizer"]
    lines = [
        f"%WER {100 * result['wer']:.2f} [{errors_in(result)} / {result['words']}, {result['insertions']} ins, "
        f"{result['deletions']} del, {result['substitutions']} sub]",
        f"95 % interval {100 * interval['low']:.2f} to {100 * interval['high']:.2f}, by {interval['blocks']} "
        f"{interval['unit']}s; normaliser {normalizer['name']} {normalizer['hash']}",
        "Sections: PER-UTT DETAILS, SUBSTITUTIONS, DELETIONS, INSERTIONS, PER-WORD STATS",
        "",
        "PER-UTT DETAILS: (reference->hypothesis), most errors first",
        *(f"{row['id']}:\t{_marked(alignment)}" for row, alignment in zip(rows, alignments, strict=True)),
        "",
        "SUBSTITUTIONS: count reference -> hypothesis",
        *(f"{number}   {said} -> {heard}" for (said, heard), number in _sorted(found.substitutions)),
        "",
        "DELETIONS: count reference",
        *(f"{number}   {word}" for word, number in _sorted(found.deletions)),
        "",
        "INSERTIONS: count hypothesis",
        *(f"{number}   {word}" for word, number in _sorted(found.insertions)),
        "",
        "PER-WORD STATS: word  correct  all_errors  in_reference  in_hypothesis",
        *_per_word(found),
    ]
    return "\n".join(lines) + "\n"


def _marked(alignment: Alignment) -> str:
    return " ".join(said if said == heard else f"({said or '*'}->{heard or '*'})" for said, heard in alignment)


def _per_word(found: Confusions) -> list[str]:
    missed, invented = Counter(found.deletions), Counter(found.insertions)
    for (said, heard), number in found.substitutions.items():
        missed[said] += number
        invented[heard] += number
    wrong = missed + invented
    lines = []
    for word in sorted(found.hits.keys() | wrong.keys(), key=lambda word: (-wrong[word], word)):
        hits = found.hits[word]
        lines.append(f"{word}   {hits} {wrong[word]} {hits + missed[word]} {hits + invented[word]}")
    return lines


def _sorted(counter: Counter[Any]) -> list[tuple[Any, int]]:
    return sorted(counter.items(), key=lambda item: (-item[1], item[0]))
