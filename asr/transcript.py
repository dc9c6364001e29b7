"""What a transcription is: segments of text with their times, and an account of every second of the audio."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

KINDS = ("decoded", "non_speech", "failed")  # what can become of a stretch of audio


@dataclass(frozen=True)
class Word:
    """One word and when it was said."""

    text: str
    """As it is written in the segment's text."""
    start: float
    """Seconds from the start of the file."""
    end: float
    """Seconds from the start of the file."""
    confidence: float
    """How sure the model is, 0 to 1."""


@dataclass(frozen=True)
class Segment:
    """A stretch that was decoded in one piece."""

    text: str
    """What was said; may be empty."""
    start: float
    """Seconds from the start of the file."""
    end: float
    """Seconds from the start of the file."""
    tokens: tuple[int, ...]
    """Token ids of the text."""
    score: float
    """Log-probability of the text, as the search ranked it."""
    fallback: str | None = None
    """`ctc` where the decoder ran away, or gave no numbers, and CTC's text or ranking was taken."""
    words: tuple[Word, ...] = ()
    """The words with their times, where they were asked for."""
    spread: bool = False
    """Whether the words' times are spread evenly, because the text does not fit the audio's frames."""


@dataclass(frozen=True)
class Span:
    """What became of a stretch of audio."""

    start: float
    """Seconds from the start of the file."""
    end: float
    """Seconds from the start of the file."""
    kind: str
    """`decoded`, `non_speech` (no one speaks there; not decoded) or `failed`."""
    reason: str | None = None
    """Why it failed, where it did."""


@dataclass(frozen=True)
class Transcript:
    """The text of one recording."""

    source: str
    """The file, as it was named."""
    duration: float
    """Seconds."""
    segments: tuple[Segment, ...]
    """The texts in order; stretches without words have none."""
    spans: tuple[Span, ...]
    """Every second of the file, in order and without gaps."""
    model: str
    """Name of the model that listened."""
    channel: int | None = None
    """Which channel it is the text of, counted from 1; None where all channels were mixed."""

    @property
    def text(self) -> str:
        """The whole text."""
        return " ".join(segment.text for segment in self.segments if segment.text)

    @property
    def coverage(self) -> dict[str, float]:
        """Seconds of each kind of span; together they are the duration."""
        return {kind: sum(span.end - span.start for span in self.spans if span.kind == kind) for kind in KINDS}

    def to_dict(self) -> dict[str, Any]:
        """Give plain values with `text` first; times and scores are rounded to thousandths."""
        return {"text": self.text} | _rounded(asdict(self) | {"coverage": self.coverage})


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 3) if math.isfinite(value) else None  # JSON has no word for infinity
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value
