"""Subtitles: srt and vtt. Segments are cut into cues at word times, and cues into lines of like lengths."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from asr.errors import ConfigError
from asr.transcript import Segment, Transcript, Word

LONGEST_PAUSE = 1.0  # seconds: words on either side of a longer pause are never in one cue
SHORT_PAUSE = 0.25  # seconds: after such a pause a cue may well end
SHORTEST_CUE = 1.0  # seconds that a cue stays on the screen if the next one leaves it the time
SENTENCE_ENDS = (".", "?", "!", "\u2026", "\u3002", "\uff1f", "\uff01")  # the last four: ... and the East Asian ones
CLAUSE_ENDS = (",", ";", ":", "\u2013", "\u2014", "\u3001", "\uff0c")  # the last four: dashes, and East Asian commas


@dataclass(frozen=True)
class SubtitleOptions:
    """How text is cut into cues."""

    max_line_width: int = 42
    """Most characters on a line; a word that is longer is broken."""
    max_line_count: int = 2
    """Most lines of a cue; only a single word that is longer than that takes more."""
    max_cue_seconds: float = 7.0
    """Longest a cue stays on the screen."""
    min_gap: float = 0.08
    """Least seconds between two cues, that let the eye see that the text has changed; or a quarter of the time from one
    to the next, if that is less."""

    def __post_init__(self) -> None:
        """Refuse sizes that hold no text."""
        if self.max_line_width < 1 or self.max_line_count < 1:
            raise ConfigError("max_line_width and max_line_count must be 1 or more")
        if not (0.1 <= self.max_cue_seconds < float("inf") and 0 <= self.min_gap <= 1):
            raise ConfigError("max_cue_seconds must be 0.1 or more, and min_gap lie in 0..1 seconds")


@dataclass(frozen=True)
class Cue:
    """Text on the screen."""

    start: int
    """Milliseconds."""
    end: int
    """Milliseconds."""
    lines: tuple[str, ...]
    """At least one."""


def to_srt(transcript: Transcript, options: SubtitleOptions) -> str:
    """SubRip: numbered cues, times with a comma. The format escapes nothing; an arrow in the text loses a dash."""
    blocks = []
    for number, cue in enumerate(make_cues(transcript, options), start=1):
        text = re.sub("--+>", "->", "\n".join(cue.lines))
        blocks.append(f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{text}\n")
    return "\n".join(blocks)


def to_vtt(transcript: Transcript, options: SubtitleOptions) -> str:
    """WebVTT (W3C); `&`, `<` and `>` are escaped."""
    blocks = ["WEBVTT\n"]
    for cue in make_cues(transcript, options):
        text = "\n".join(cue.lines).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        blocks.append(f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{text}\n")
    return "\n".join(blocks)


def make_cues(transcript: Transcript, options: SubtitleOptions) -> list[Cue]:
    """Cut a transcript into cues.

    A cue holds at most `max_line_count` lines, its words are spoken within `max_cue_seconds`, and none of them follows
    a pause over LONGEST_PAUSE. Of the ways to cut that are left, one is taken that has few cues, of like lengths,
    which end with a sentence or before a pause. No cue begins before the one before it has ended.

    Args:
        transcript: a segment without word times counts as if its characters were spoken evenly.
        options: the limits.

    Returns:
        The cues in order.
    """
    groups = [group for segment in transcript.segments for group in _cut(_timed(segment), options)]
    starts = [round(1000 * group[0].start) for group in groups]
    gap, longest = round(1000 * options.min_gap), round(1000 * options.max_cue_seconds)
    last = round(1000 * transcript.duration)
    starts.append(last + gap)
    cues: list[Cue] = []
    for group, (start, following) in zip(groups, pairwise(starts), strict=True):
        start = max(start, cues[-1].end) if cues else start
        pause = min(gap, (following - start) // 4)  # the text matters more
        end = max(round(1000 * group[-1].end), start + round(1000 * SHORTEST_CUE))
        end = min(end, following - pause, start + longest, last)
        end = max(end, start + 1)  # a cue must last; if need be the next one waits
        cues.append(Cue(start, end, tuple(_lines([word.text for word in group], options))))
    return cues


def _timed(segment: Segment) -> list[Word]:
    """The words, at their times or else spread evenly by their letters."""
    if segment.words:
        return [word for word in segment.words if word.text.strip()]
    words = segment.text.split()
    ends = list(accumulate((len(word) + 1 for word in words), initial=0))
    scale = (segment.end - segment.start) / max(1, ends[-1])
    return [
        Word(word, segment.start + scale * before, segment.start + scale * after, 0.0)
        for word, (before, after) in zip(words, pairwise(ends), strict=True)
    ]


def _cut(words: list[Word], options: SubtitleOptions) -> list[list[Word]]:
    """Part words into cues at the least total cost, as a typesetter parts a paragraph into lines."""
    best: list[tuple[float, int]] = [(0.0, 0)]  # for each number of words: cost, and where the last cue begins
    for end in range(1, len(words) + 1):
        ways = []
        for begin in range(end - 1, -1, -1):
            if begin < end - 1 and not _fits(words[begin:end], options):
                break
            ways.append((best[begin][0] + _cost(words, begin, end, options), begin))
        best.append(min(ways))
    cuts = [len(words)]
    while cuts[-1]:
        cuts.append(best[cuts[-1]][1])
    return [words[begin:end] for begin, end in pairwise(reversed(cuts))]


def _fits(words: list[Word], options: SubtitleOptions) -> bool:
    """Tell whether words may be one cue; if they may not, no longer stretch that ends like them may."""
    if words[1].start - words[0].end > LONGEST_PAUSE:
        return False
    if words[-1].end - words[0].start > options.max_cue_seconds:
        return False
    text = " ".join(word.text for word in words)
    return len(textwrap.wrap(text, options.max_line_width, break_on_hyphens=False)) <= options.max_line_count


def _cost(words: list[Word], begin: int, end: int, options: SubtitleOptions) -> float:
    """Half for the cue, up to one for the room it leaves, and up to two for ending where nothing ends."""
    length = sum(len(word.text) + 1 for word in words[begin:end]) - 1
    empty = max(0.0, 1 - length / (options.max_line_width * options.max_line_count))
    last = words[end - 1].text
    if end == len(words) or last.endswith(SENTENCE_ENDS):
        torn = 0.0
    elif last.endswith(CLAUSE_ENDS) or words[end].start - words[end - 1].end >= SHORT_PAUSE:
        torn = 0.3
    else:
        torn = 2.0
    return 0.5 + empty**2 + torn


def _lines(words: Sequence[str], options: SubtitleOptions) -> list[str]:
    """Wrap words into as few lines as they need, as even as they get."""
    text = " ".join(words)
    widest = min(options.max_line_width, len(text.expandtabs()))  # beyond the text all widths are the same
    wrapped = [textwrap.wrap(text, width, break_on_hyphens=False) for width in range(widest, 0, -1)]
    return min((lines for lines in wrapped if len(lines) == len(wrapped[0])), key=lambda lines: max(map(len, lines)))


def _clock(milliseconds: int, mark: str) -> str:
    seconds, fraction = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{mark}{fraction:03d}"
