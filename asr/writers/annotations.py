"""Formats that other speech tools read: ctm and stm of NIST's SCTK, and Praat's TextGrid."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from asr.errors import ConfigError
from asr.transcript import Transcript, Word

Interval = tuple[int, int, str]
"""Start and end in milliseconds, and the text."""


def to_ctm(transcript: Transcript, recording: str = "") -> str:
    """One line for each word: recording, channel, start, duration, word, confidence (`ctm(5)` of SCTK).

    Times are in seconds. The recording is by default the file's name without ending; blanks in it become `_`.

    Raises:
        ConfigError: the transcript has no word times.
    """
    recording = f"{_recording(transcript, recording)} {transcript.channel or 1}"
    lines = []
    for word in _words(transcript, "ctm"):
        start, end = round(1000 * word.start), round(1000 * word.end)
        lines.append(
            f"{recording} {start / 1000:.3f} {(end - start) / 1000:.3f} {_joined(word.text)} {word.confidence:.3f}\n"
        )
    return "".join(lines)


def to_stm(transcript: Transcript, recording: str = "") -> str:
    """One line for each segment: recording, channel, speaker, start, end, text (`stm(5)` of SCTK)."""
    recording = f"{_recording(transcript, recording)} {transcript.channel or 1} unknown"
    segments = [segment for segment in transcript.segments if segment.text.strip()]
    return "".join(
        f"{recording} {segment.start:.3f} {segment.end:.3f} {' '.join(segment.text.split())}\n" for segment in segments
    )


def to_textgrid(transcript: Transcript) -> str:
    """Two tiers of intervals, `words` and `segments`, in Praat's long text format.

    Intervals without text fill the gaps. Praat has no interval without a duration: a word that has none, such as a
    dash, is written into the word before it if it stands at its end, or else into the next.

    Raises:
        ConfigError: the transcript has no word times.
    """
    end = round(1000 * transcript.duration)
    words = [(round(1000 * word.start), round(1000 * word.end), word.text) for word in _words(transcript, "textgrid")]
    segments = [
        (round(1000 * segment.start), round(1000 * segment.end), segment.text) for segment in transcript.segments
    ]
    lines = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        "xmin = 0",
        f"xmax = {end / 1000}",
        "tiers? <exists>",
        "size = 2",
        "item []:",
        *_tier(1, "words", words, end),
        *_tier(2, "segments", segments, end),
    ]
    return "\n".join(lines) + "\n"


def _words(transcript: Transcript, format: str) -> list[Word]:
    """All words.

    Raises:
        ConfigError: a segment has text and no word.
    """
    if any(segment.text.strip() and not segment.words for segment in transcript.segments):
        raise ConfigError(f"{format} needs word times: transcribe with word_timestamps=True (--word-timestamps)")
    return [word for segment in transcript.segments for word in segment.words]


def _recording(transcript: Transcript, name: str) -> str:
    return _joined(name or Path(transcript.source).stem) or "audio"


def _joined(text: str) -> str:
    return "_".join(text.split())  # a blank would be the end of the column


def _tier(number: int, name: str, intervals: Iterable[Interval], end: int) -> list[str]:
    tiled = _tiled(intervals, end)
    lines = [
        f"    item [{number}]:",
        '        class = "IntervalTier"',
        f'        name = "{name}"',
        "        xmin = 0",
        f"        xmax = {end / 1000}",
        f"        intervals: size = {len(tiled)}",
    ]
    for place, (start, stop, text) in enumerate(tiled, start=1):
        quoted = " ".join(text.split()).replace('"', '""')
        lines += [
            f"        intervals [{place}]:",
            f"            xmin = {start / 1000}",
            f"            xmax = {stop / 1000}",
            f'            text = "{quoted}"',
        ]
    return lines


def _tiled(intervals: Iterable[Interval], end: int) -> list[Interval]:
    """Fill the gaps; the intervals are in order and do not overlap by more than rounding."""
    tiled: list[Interval] = []
    reached, waiting = 0, ""
    for start, stop, text in intervals:
        start, stop, text = max(start, reached), min(stop, end), f"{waiting} {text}".strip()
        waiting = ""
        if start < stop:
            tiled += [(reached, start, "")] * (start > reached) + [(start, stop, text)]
            reached = stop
        elif tiled and start == reached:
            tiled[-1] = (*tiled[-1][:2], f"{tiled[-1][2]} {text}")
        else:
            waiting = text
    return tiled + [(reached, end, waiting)] * (reached < end)
