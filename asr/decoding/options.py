"""What a search is told, and what it finds."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from asr.config import check_choice
from asr.errors import ConfigError

MODES = ("ctc", "ctc_beam", "attention", "joint", "rescoring")


@dataclass(frozen=True)
class DecodingOptions:
    """How texts are searched for."""

    mode: str = "ctc"
    """`ctc`: the best token of each frame. `ctc_beam`: the most probable text of the CTC head. `attention`: beam search
    with the decoder. `joint`: with the decoder and CTC prefix scores (Watanabe et al. 2017). `rescoring`: the texts of
    `ctc_beam`, ranked again with the decoder. With a language model or hotwords, `ctc` searches as `ctc_beam` does."""
    beam_size: int = 10
    """Hypotheses kept side by side; 1 is greedy. `ctc` has none."""
    nbest: int = 1
    """Hypotheses returned for each utterance, at most `beam_size`. More than one are ranked by exact sums over CTC's
    alignments, which one alone is not with an n-gram model: the first may then be another."""
    candidates: int = 0
    """Next tokens considered for each frame (`ctc_beam`) or hypothesis (`joint`); 0 for 1.5 times the beam, or 40 in
    `ctc_beam` where that is more."""
    ctc_weight: float = 0.3
    """Share of the CTC score in `joint` and `rescoring`; the decoder has the rest."""
    temperature: float = 1.0
    """Divides both heads' logits; over 1 makes the model less sure of itself."""
    length_bonus: float = 0.0
    """Added to the score for each token, or taken off if below 0. Mends a language model's liking for short texts."""
    length_normalization: float | None = None
    """The final score is divided by (tokens + 1) to this power (Wu et al. 2016, arXiv:1609.08144, section 7). None is 1
    in `attention` with a beam over 1, where label smoothing makes the end likely everywhere and short texts would win,
    and 0 elsewhere."""
    language_model: str = ""
    """What `asr lm build` or `asr train --config lm/...` made, or an ARPA file in the model's tokens, also gzipped;
    empty for none. When a checkpoint is loaded, `embedded` is the one in the package, of English letters."""
    lm_weight: float = 0.3
    """Weight of the language model's log-probabilities."""
    hotwords: str = ""
    """Words and phrases to listen for: a text file with one on each line, or a list with commas; empty for none."""
    hotword_bonus: float = 1.0
    """Nats for each letter of a hotword after the fourth: so much worse than the best text may it fit the audio, and
    so much is it helped. Words of four letters or fewer are not helped. More finds more, and invents more."""
    confidence_power: float = 1.0
    """Each word's confidence, CTC's probability of its tokens, is raised to this power. A language model makes words
    right that CTC alone doubts: `asr evaluate --tune` fits the power to how often words are right."""

    def __post_init__(self) -> None:
        """Check every field."""
        check_choice("decoding.mode", self.mode, MODES)
        for name, minimum in (("beam_size", 1), ("nbest", 1), ("candidates", 0), ("lm_weight", 0.0)):
            if not getattr(self, name) >= minimum:
                raise ConfigError(f"decoding.{name} must be at least {minimum}, got {getattr(self, name)}")
        for name in ("lm_weight", "length_bonus"):
            if not math.isfinite(getattr(self, name)):
                raise ConfigError(f"decoding.{name} must be a number, got {getattr(self, name)}")
        if not 0 <= self.ctc_weight <= 1:
            raise ConfigError(f"decoding.ctc_weight must lie in 0..1, got {self.ctc_weight}")
        if self.mode == "joint" and self.ctc_weight == 1:
            raise ConfigError("decoding.ctc_weight 1 leaves the decoder out: use decoding.mode=ctc_beam")
        if not 0 < self.temperature < float("inf"):
            raise ConfigError(f"decoding.temperature must be over 0, got {self.temperature}")
        if not 0 <= self.length_power <= 2:
            raise ConfigError(f"decoding.length_normalization must lie in 0..2, got {self.length_normalization}")
        if not 0 < self.confidence_power < float("inf"):
            raise ConfigError(f"decoding.confidence_power must be over 0, got {self.confidence_power}")
        if not 0 <= self.hotword_bonus < float("inf"):
            raise ConfigError(f"decoding.hotword_bonus must be at least 0, got {self.hotword_bonus}")
        if self.mode != "ctc" and self.nbest > self.beam_size:
            raise ConfigError(f"decoding.nbest {self.nbest} is over decoding.beam_size {self.beam_size}")

    def changes(self) -> dict[str, Any]:
        """Give what is not as by default, but for the mode."""
        return {
            field.name: value
            for field in fields(self)
            if field.name != "mode" and (value := getattr(self, field.name)) != field.default
        }

    def idle(self) -> set[str]:
        """Name the settings that change nothing in this mode, with this language model and these hotwords or none."""
        names = set() if self.language_model or not self.lm_weight else {"lm_weight"}
        names |= set() if self.hotwords else {"hotword_bonus"}
        if self.mode not in ("joint", "rescoring"):
            names.add("ctc_weight")
        if self.mode == "ctc" and not (self.language_model or self.hotwords):
            names |= {"beam_size", "nbest", "candidates", "length_bonus", "length_normalization"}
        return names

    @property
    def length_power(self) -> float:
        """What `length_normalization` is in this mode."""
        if self.length_normalization is None:
            return 1.0 if self.mode == "attention" and self.beam_size > 1 else 0.0
        return self.length_normalization


@dataclass(frozen=True)
class Hypothesis:
    """One candidate text."""

    tokens: tuple[int, ...]
    """Token ids, without start and end."""
    score: float
    """What the search ranks by: the weighted sum of the parts below, normalised by length if that is asked for."""
    fallback: str | None = None
    """`ctc` when the decoder ran away, or gave no numbers, and CTC's text or ranking was taken instead."""
    ctc: float = 0.0
    """Log-probability of the text (in `ctc`: of its best path) by the CTC head; 0 where it took no part."""
    attention: float = 0.0
    """Log-probability of the text and its end by the decoder; 0 where it took no part."""
    lm: float = 0.0
    """Log-probability of the text and its end by the language model; 0 where it took no part."""
    bonus: float = 0.0
    """What hotwords and the length bonus added."""
