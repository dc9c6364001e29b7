"""When each word was said and how sure the model is of it, by CTC alignment of the model's own tokens.

The best path through the CTC posteriors that writes exactly the text (Viterbi; torchaudio's `forced_align`) gives each
token a frame or two. CTC is peaky (Zeyer et al. 2021, arXiv:2105.14849): a token's peak lies somewhere within its
sound, so that a word begins before its first peak and ends after its last. Its bounds are therefore sought in the
audio between two words' peaks: at the edges of the longest pause there, or else where it is quietest.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchaudio.functional import TokenSpan, forced_align, merge_tokens

from asr.errors import DataError
from asr.samples import SAMPLE_RATE
from asr.tokenizer import BLANK, UNKNOWN, WORD_START, Tokenizer
from asr.transcript import Word
from asr.writers.subtitles import SENTENCE_ENDS

LOUDNESS_RATE = 100  # values of the loudness curve a second
LOUDNESS_WINDOW = 0.025  # seconds that each of them is measured over
NEIGHBOURHOOD = 10.0  # seconds on either side from which it is learnt what is loud and what is quiet here
# A pause is quieter than this share of the way from the quiet (5 %) to the loud (95 %) in decibels. Shares from 0.15 to
# 0.45 all give a median error of 12 to 13 ms on spoken digits; small ones have the least mean, large ones stand noise.
PAUSE_LEVEL = 0.25
GREATEST_RANGE = 50.0  # decibels between loud and quiet; digital silence is quieter than any room
SHORTEST_PAUSE = 0.02  # seconds
# How long before its first peak a word begins, and how long after its last one it ends, where there is no pause to
# see at either end of the audio: medians of the embedded model on spoken digits.
LEAD = 0.06
TAIL = 0.10
WILDCARD = math.log(0.5)  # of a character that the vocabulary lacks: more than a blank in sound, less in silence
CLOSING = "\"')\u2019\u201d\u00bb"  # what may stand behind the end of a sentence; the last three: quotation marks
MOST_CELLS = 2**31 - 1  # of frames times states; `forced_align` counts them in 32 bits and crashes beyond


class Spelling(NamedTuple):
    """A word and how the vocabulary writes it."""

    text: str
    """The word as it is shown."""
    tokens: tuple[int, ...]
    """Its token ids; none for a word that is not spoken, such as a dash."""


class Alignment(NamedTuple):
    """The words of a text with their times."""

    words: tuple[Word, ...]
    spread: bool
    """Whether CTC cannot write the text, mostly for too few frames, and the times are spread evenly instead."""
    log_prob: float
    """Log-probability of the best path that writes the text; minus infinity where there is none."""


def spell_tokens(tokenizer: Tokenizer, tokens: Sequence[int]) -> list[Spelling]:
    """Part the tokens of a hypothesis into words; the words' texts are those of the decoded text."""
    groups: list[list[int]] = []
    for token in tokens:
        if not groups or tokenizer.piece(token).startswith(WORD_START):
            groups.append([])
        groups[-1].append(token)
    spelled = [Spelling(tokenizer.decode(group), tuple(group)) for group in groups]
    return [word for word in spelled if word.text]


def spell_text(tokenizer: Tokenizer, text: str) -> list[Spelling]:
    """Part a text into words as they are written; each is normalised, then cut into tokens, by itself."""
    return [Spelling(word, tuple(tokenizer.encode(word))) for word in text.split()]


def align(
    log_probs: Tensor,
    frame_times: NDArray[np.float64],
    waveform: NDArray[np.float32],
    spellings: Sequence[Spelling],
    tokenizer: Tokenizer,
) -> Alignment:
    """Find the times of words in one stretch of audio.

    A word's confidence is the product, over its tokens, of the CTC posterior at the token's peak on the alignment path:
    the chance that all of them are right, if they err independently. A long word has more tokens to be wrong in; with
    the geometric mean, which leaves that out, confidences of the embedded model are 0.42 too high on average on
    Mini LibriSpeech's dev set, and with the product 0.02 off. A character that the vocabulary lacks is aligned with
    whatever is said there; a word with such characters, a word without tokens and a word whose times are spread have
    confidence 0.

    Args:
        log_probs: CTC log-probabilities of the encoder's frames, shape (T', V), float32.
        frame_times: when the middle of each frame is, in seconds from the first sample, shape (T',).
        waveform: mono samples at 16 kHz, shape (S,).
        spellings: the words in order.
        tokenizer: the one the words are spelled with.

    Returns:
        The words. Their times do not decrease and lie within the audio; words without tokens last no time
        and stand where the next word starts if they open it, such as a speaker's dash, or else where the last one ends.

    Raises:
        DataError: audio and text are too long to be aligned in one piece (about half an hour).
    """
    duration = len(waveform) / SAMPLE_RATE
    spoken = [spelling for spelling in spellings if spelling.tokens]
    tokens = torch.tensor([token for spelling in spoken for token in spelling.tokens], dtype=torch.int64)
    repeats = int((tokens[1:] == tokens[:-1]).sum())
    if not spoken or len(tokens) + repeats > len(log_probs) or not torch.isfinite(log_probs).all():
        return Alignment(tuple(_spread(spellings, duration)), True, -math.inf)
    if len(log_probs) * (2 * len(tokens) + 1) > MOST_CELLS:
        raise DataError(f"{duration:.0f} s of audio are too long to be aligned in one piece: cut audio and text")
    log_probs = log_probs.detach().float().cpu().clone()
    log_probs[:, UNKNOWN] = WILDCARD
    path, scores = forced_align(log_probs[None], tokens[None], blank=BLANK)
    spans = merge_tokens(path[0], scores[0], blank=BLANK)
    ends = list(accumulate((len(spelling.tokens) for spelling in spoken), initial=0))
    groups = [spans[first:last] for first, last in pairwise(ends)]
    peaks = [_peaks(group, frame_times, tokenizer) for group in groups]
    bounds = _bounds(peaks, _loudness(waveform), duration)
    confidences = [_confidence(group, scores[0]) for group in groups]
    return Alignment(tuple(_timed(spellings, bounds, confidences)), False, float(scores.sum()))


def _timed(
    spellings: Sequence[Spelling], bounds: Sequence[tuple[float, float]], confidences: Sequence[float]
) -> list[Word]:
    """Give the words with sound their bounds, and the others a moment: the next one's start or the last one's end."""
    words: list[Word] = []
    reached, spoken = 0.0, 0
    for spelling in spellings:
        if spelling.tokens:
            (begin, reached), confidence = bounds[spoken], confidences[spoken]
            spoken += 1
        else:
            if spoken < len(bounds) and _opens(spelling.text, words[-1].text if words else "."):
                reached = bounds[spoken][0]
            begin, confidence = reached, 0.0
        words.append(Word(spelling.text, begin, reached, confidence))
    return words


def _opens(text: str, before: str) -> bool:
    """Tell whether a word without sound belongs to what follows: a speaker's dash, a bracket or mark that opens."""
    return before.rstrip(CLOSING).endswith(SENTENCE_ENDS) or unicodedata.category(text[0]) in ("Ps", "Pi")


def _spread(spellings: Sequence[Spelling], duration: float) -> list[Word]:
    """Give each word a share of the time by its letters."""
    ends = list(accumulate((len(spelling.text) for spelling in spellings), initial=0))
    scale = duration / max(1, ends[-1])
    return [
        Word(spelling.text, scale * before, scale * after, 0.0)
        for spelling, (before, after) in zip(spellings, pairwise(ends), strict=True)
    ]


def _confidence(group: Sequence[TokenSpan], scores: Tensor) -> float:
    if any(span.token == UNKNOWN for span in group):
        return 0.0
    return math.exp(sum(float(scores[span.start : span.end].max()) for span in group))


def _peaks(group: Sequence[TokenSpan], frame_times: NDArray[np.float64], tokenizer: Tokenizer) -> tuple[float, float]:
    """Seconds of a word's first and last peak; a mark of the word's start that stands alone has no sound."""
    sounding = [span for span in group if tokenizer.piece(span.token) != WORD_START] or group
    return float(frame_times[sounding[0].start]), float(frame_times[sounding[-1].end - 1])


def _loudness(waveform: NDArray[np.float32]) -> NDArray[np.float64]:
    """Decibels around every hundredth of a second, from the first sample to the last."""
    hop, window = SAMPLE_RATE // LOUDNESS_RATE, int(LOUDNESS_WINDOW * SAMPLE_RATE)
    power = np.pad(np.square(waveform, dtype=np.float64), (window // 2, window // 2 + hop))
    sums = np.concatenate(([0.0], np.cumsum(power)))
    first = np.arange(0, len(waveform) + 1, hop)
    return 10 * np.log10(np.maximum(sums[first + window] - sums[first], 0) / window + 1e-10)


def _bounds(
    peaks: Sequence[tuple[float, float]], loudness: NDArray[np.float64], duration: float
) -> list[tuple[float, float]]:
    """Start and end of each word, in seconds, from the first and last peak of each."""
    peaks = [(min(first, duration), min(last, duration)) for first, last in peaks]  # the last frame may lie beyond
    starts, ends = [_between(0.0, peaks[0][0], loudness) or (0.0, max(0.0, peaks[0][0] - LEAD))], []
    for (_, last), (first, _) in pairwise(peaks):
        pause = _between(last, first, loudness) or _quietest(last, first, loudness)
        ends.append(pause[0])
        starts.append(pause)
    last = _between(peaks[-1][1], duration, loudness) or (min(duration, peaks[-1][1] + TAIL), duration)
    bounds = list(zip((pause[1] for pause in starts), [*ends, last[0]], strict=True))
    for place, (start, end) in enumerate(bounds):
        if start == end:  # the word's peaks lie in what passes for a pause
            before = bounds[place - 1][1] if place else 0.0
            after = bounds[place + 1][0] if place + 1 < len(bounds) else duration
            bounds[place] = max(before, peaks[place][0] - LEAD), min(after, peaks[place][1] + TAIL)
    return bounds


def _between(begin: float, end: float, loudness: NDArray[np.float64]) -> tuple[float, float] | None:
    """Find the longest pause between two moments, in seconds; None if there is none."""
    first, last = _places(begin, end, loudness)
    near = loudness[max(0, first - int(NEIGHBOURHOOD * LOUDNESS_RATE)) : last + int(NEIGHBOURHOOD * LOUDNESS_RATE)]
    quiet, loud = np.quantile(near, (0.05, 0.95))
    quiet = max(quiet, loud - GREATEST_RANGE)
    silent = loudness[first:last] < quiet + PAUSE_LEVEL * (loud - quiet)
    edges = np.flatnonzero(np.diff(silent, prepend=False, append=False)).reshape(-1, 2)
    if not len(edges):
        return None
    start, stop = (edges[np.argmax(edges[:, 1] - edges[:, 0])] + first).tolist()
    if stop - start < SHORTEST_PAUSE * LOUDNESS_RATE:
        return None
    start -= 1  # the first quiet value's window begins half a window after the sound has ended
    return max(begin, start / LOUDNESS_RATE), min(end, stop / LOUDNESS_RATE)


def _quietest(begin: float, end: float, loudness: NDArray[np.float64]) -> tuple[float, float]:
    """Find the quietest moment between two; twice, as the end of one word and the start of the next."""
    first, last = _places(begin, end, loudness)
    moment = (first + int(np.argmin(loudness[first:last]))) / LOUDNESS_RATE if last > first else (begin + end) / 2
    moment = min(max(moment, begin), end)
    return moment, moment


def _places(begin: float, end: float, loudness: NDArray[np.float64]) -> tuple[int, int]:
    """Numbers of the first value from a moment on, and of the one after the last value up to another."""
    return round(begin * LOUDNESS_RATE), min(len(loudness), round(end * LOUDNESS_RATE) + 1)
