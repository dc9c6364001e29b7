"""What can be wrong with transcripts: emptiness, odd characters, and a length that does not fit the audio."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from asr.check.findings import Finding
from asr.normalize import get_normalizer
from asr.tokenizer import UNKNOWN, Tokenizer

# What fewer utterances than this have is not the corpus's way of writing: digits where numbers are spelled out, symbols
# that are read aloud, letters of another script. In Common Voice and LJSpeech each of these is under 0.1 %.
RARE = 0.01
FEW = 3  # ... or no more than these, in sets too small for a share to mean anything
OUTLIER = 5.0  # robust deviations; natural: at most 0.3 % of any of eight corpora lie beyond ...
FACTOR = 1.5  # ... and from the usual rate by this much: in a short text the pauses around it weigh more than the words
LEAST_DEVIATION = 0.1  # of log durations; one careful reader (LJSpeech) has 0.09, and small sets show less by chance
FEWEST = 20  # utterances from which a median and a deviation can be taken

Infeasible = Callable[[Sequence[str], NDArray[np.float64]], NDArray[np.bool_]]
"""Tells for texts and seconds which no CTC alignment can write."""
READ_ALOUD = "&@#*%/\\_[]{}<>|~^=+"  # punctuation to Unicode, but words to a reader
MARKUP = re.compile(r"<[^<>]*>|\[[^\[\]]*\]|\{[^{}]*\}|&#?\w+;|https?://\S+|\\[ntr]\b")
# UTF-8 that was read as Latin-1 or Windows-1252: an accented capital followed by a sign or control character.
BROKEN = re.compile("[\u00c2-\u00f4][\u0080-\u00bf\u20ac\u201a-\u203a\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192]")


def judge_texts(
    texts: Sequence[str], seconds: NDArray[np.float64], number: int, tokenizer: Tokenizer | None
) -> Iterator[Finding]:
    """Say what is wrong with the transcripts of a manifest.

    Args:
        texts: one for each utterance.
        seconds: of each utterance.
        number: of the manifest.
        tokenizer: what the texts will be written in; None looks at the characters alone.
    """
    normalize = get_normalizer("basic")
    lengths = np.array([len(normalize(text)) for text in texts])
    for row in np.flatnonzero(lengths == 0).tolist():
        yield Finding("no_text", number, row, repr(texts[row]) if texts[row] else "the transcript is empty")
    for row, detail, severity in _odd(texts, tokenizer):
        yield Finding("odd_characters", number, row, detail, severity)
    yield from _rate_outliers(lengths, seconds, number)


def _odd(texts: Sequence[str], tokenizer: Tokenizer | None) -> Iterator[tuple[int, str, str]]:
    classes = [_classes(text) for text in texts]
    used = Counter(name for found in classes for name in found)
    rare = {name for name, count in used.items() if count <= max(FEW, RARE * len(texts))}
    for row, (text, found) in enumerate(zip(texts, classes, strict=True)):
        odd = {name: sample for name, sample in found.items() if name in rare or name in ("control", "broken encoding")}
        if tokenizer and (unknown := _unknown(text, tokenizer)):
            odd["not in the tokenizer"] = unknown
        severity = "" if odd else "notice"
        if not odd and "markup" in found:  # as the corpus is written, but normalised it is trained as words
            odd["markup"] = found["markup"]
        if odd:
            yield row, ", ".join(f"{name} {sample!r}" for name, sample in odd.items()), severity


def _classes(text: str) -> dict[str, str]:
    """Name the classes of remarkable characters in a text, each with an example."""
    found: dict[str, str] = {}
    if text.isascii() and text.replace(" ", "").isalpha():
        return found
    if match := MARKUP.search(text):
        found["markup"] = match[0]
    if match := BROKEN.search(text):
        found["broken encoding"] = match[0]
    for character in text:
        if name := _class(character):
            found.setdefault(name, character)
    return found


def _class(character: str) -> str:
    """Name what is remarkable about a character; empty for Latin letters and common punctuation."""
    category = unicodedata.category(character)
    if character == "\ufffd" or (category in ("Cc", "Cs", "Co", "Cn") and character not in "\t\n"):
        return "control"
    if category[0] == "S" or character in READ_ALOUD:
        return f"symbol {character}"
    if category[0] == "N":
        return "digit"
    if category[0] == "L":
        script = unicodedata.name(character, "UNKNOWN").split()[0]
        return "" if script in ("LATIN", "MODIFIER", "FEMININE", "MASCULINE") else f"{script.lower()} letter"
    return ""


def _unknown(text: str, tokenizer: Tokenizer) -> str:
    """Collect the words that the tokenizer cannot write."""
    if UNKNOWN not in tokenizer.encode(text):
        return ""
    return " ".join(word for word in text.split() if UNKNOWN in tokenizer.encode(word)) or text


def _rate_outliers(lengths: NDArray[np.int64], seconds: NDArray[np.float64], number: int) -> Iterator[Finding]:
    spoken = (lengths > 0) & (seconds > 0)
    if spoken.sum() < FEWEST:
        return
    deviations = np.zeros(len(lengths))
    deviations[spoken] = rate_deviations(lengths[spoken], seconds[spoken])
    usual = float(np.median(lengths[spoken] / seconds[spoken]))
    rates = lengths / np.maximum(seconds, 1e-9)
    odd = ((deviations > OUTLIER) & (rates < usual / FACTOR)) | ((deviations < -OUTLIER) & (rates > usual * FACTOR))
    for row in np.flatnonzero(odd).tolist():
        yield Finding(
            "speaking_rate",
            number,
            row,
            f"{rates[row]:.1f} characters a second (usual {usual:.1f}), {abs(deviations[row]):.1f} deviations "
            + ("too fast" if deviations[row] < 0 else "too slow"),
        )


def rate_deviations(lengths: NDArray[np.int64], seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Measure how far each duration is from what its text lets expect, in robust deviations.

    Durations are a line over the characters: a fixed silence, then so much for each. Its slope is the median over pairs
    of utterances, each of the shorter half with one of the longer half, after Theil (1950) and Sen (1968): up to a
    quarter of wrong transcripts, however long, do not bend it. Log ratios to the line are divided by the median
    absolute deviation of their own side: pauses make a longer tail than haste.

    Args:
        lengths: characters, shape (N,).
        seconds: durations, shape (N,).

    Returns:
        Shape (N,); negative where there is too much text for the time.
    """
    order = np.argsort(lengths, kind="stable")
    short, long = order[: len(order) // 2], order[-(len(order) // 2) :]
    apart = lengths[long] > lengths[short]
    slopes = (seconds[long] - seconds[short])[apart] / (lengths[long] - lengths[short])[apart]
    slope = max(0.0, float(np.median(slopes))) if len(slopes) else 0.0
    expected = slope * lengths + float(np.median(seconds - slope * lengths))
    expected = np.maximum(expected, 0.05 * float(np.median(seconds)))
    ratios = np.log(seconds / expected)
    ratios -= np.median(ratios)
    below, above = (
        1.4826 * float(np.median(side)) if len(side) else 1.0 for side in (-ratios[ratios < 0], ratios[ratios > 0])
    )
    return ratios / np.where(ratios < 0, max(below, LEAST_DEVIATION), max(above, LEAST_DEVIATION))


def judge_feasibility(
    texts: Sequence[str],
    seconds: NDArray[np.float64],
    number: int,
    infeasible: Infeasible,
) -> Iterator[Finding]:
    """Name the utterances with too few encoder frames for their tokens.

    Args:
        texts: one for each utterance.
        seconds: of audio that is there.
        number: of the manifest.
        infeasible: tells for texts and seconds which cannot be aligned; it knows tokenizer and model.
    """
    for row in np.flatnonzero(infeasible(texts, seconds)).tolist():
        yield Finding("infeasible", number, row, f"{len(texts[row])} characters in {seconds[row]:.2f} s")
