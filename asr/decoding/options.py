"""What a search is told, and what it finds."""

from __future__ import annotations

from dataclasses import dataclass

from asr.errors import ConfigError

MODES = ("ctc", "attention")


@dataclass(frozen=True)
class DecodingOptions:
    """How texts are searched for."""

    mode: str = "ctc"
    """`ctc`: the best token of each frame. `attention`: the decoder's best token, one after another."""

    def __post_init__(self) -> None:
        """Check the mode's name."""
        if self.mode not in MODES:
            raise ConfigError(f"decoding.mode must be one of {', '.join(MODES)}, got {self.mode!r}")


@dataclass(frozen=True)
class Hypothesis:
    """One candidate text."""

    tokens: tuple[int, ...]
    """Token ids, without start and end."""
    token_log_probs: tuple[float, ...]
    """Natural log-probability of each token."""
    score: float
    """What the search ranks by: the sum of the log-probabilities, the end's included."""
    fallback: str | None = None
    """`ctc` when the decoder ran away and the CTC text was taken instead."""
