"""What a search adds to the model's own scores: language model, hotwords, a bonus for length.

Shapes: R rows (hypotheses), V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from asr.decoding.hotwords import Hotwords, HotwordTrie, read_hotwords
from asr.decoding.language_model import LanguageModel
from asr.decoding.language_model_file import load_language_model
from asr.decoding.options import DecodingOptions
from asr.files import stamp
from asr.tokenizer import BLANK, END, Tokenizer


@dataclass(frozen=True)
class Fusion:
    """Language model, hotwords and length bonus, each of which may be missing."""

    language_model: LanguageModel | None = None
    """Scores next tokens; weighed by `lm_weight`."""
    lm_weight: float = 0.0
    """Weight of its log-probabilities."""
    hotwords: Hotwords | None = None
    """Words to listen for."""
    heard: HotwordTrie | None = None
    """Adds its bonus to tokens that go on with a hotword that may be in the utterance."""
    length_bonus: float = 0.0
    """Added for each token but the end."""

    @classmethod
    def of(cls, options: DecodingOptions, tokenizer: Tokenizer, language_model: LanguageModel | None = None) -> Fusion:
        """Read what the options name; a language model given here goes before the one that they name.

        Raises:
            ConfigError: the language model or the hotwords cannot be read, or do not fit the tokenizer.
        """
        if language_model is None and options.language_model:
            language_model = load_language_model(options.language_model, tokenizer)
        hotwords = None
        if words := options.hotwords:
            hotwords = _hotwords(words, options.hotword_bonus, tokenizer, stamp(words))
        return cls(language_model, options.lm_weight, hotwords, length_bonus=options.length_bonus)

    def listen(self, log_probs: Tensor, lengths: Tensor) -> Fusion:
        """Find out which hotwords may be in each utterance; before this none of them counts.

        Args:
            log_probs: CTC's, shape (B, T', V).
            lengths: frames of each row, shape (B,).
        """
        return replace(self, heard=self.hotwords.listen(log_probs, lengths)) if self.hotwords else self

    def of_row(self, row: int) -> Fusion:
        """Give what one utterance of the batch needs."""
        return replace(self, heard=self.heard.of(row)) if self.heard else self


class FusionState:
    """Scores of every next token of R hypotheses, equally many of each utterance side by side; moves on with them."""

    def __init__(self, fusion: Fusion, rows: int, vocabulary: int, device: torch.device) -> None:
        self.fusion = fusion
        zeros = torch.zeros(1, 1, device=device).expand(rows, vocabulary)
        self.lm: Tensor = zeros
        """Log-probabilities of each next token, unweighted, shape (R, V)."""
        self._lm_state: Any = None
        if fusion.language_model is not None:
            self.lm, self._lm_state = fusion.language_model.start(rows, device)
        heard = fusion.heard
        roots = heard.roots if heard else torch.zeros(1, dtype=torch.int64)
        self._node = roots.to(device).repeat_interleave(rows // len(roots))
        length = torch.full((vocabulary,), fusion.length_bonus, device=device)
        length[END] = 0.0
        self._length = length.expand(rows, vocabulary)
        self.most_bonus: Tensor = (heard.most.to(device) if heard else zeros[0, :1]) + max(0.0, fusion.length_bonus)
        """The most that one token can add to `bonus`, shape (B,), or (1,) for all alike."""
        self._bonuses = heard.bonus.to(device) if heard else None
        self._following = heard.following.to(device) if heard else None

    @property
    def bonus(self) -> Tensor:
        """What hotwords and the length bonus add to each next token, shape (R, V)."""
        return self._length if self._bonuses is None else self._length + self._bonuses[self._node]

    def futures(self) -> NDArray[np.int64] | None:
        """Number the hypotheses, shape (R,): those with the same number get the same scores for whatever follows.

        None where no two do: without a language model a search has nothing to gain from it, and a neural one hears all
        of a text.
        """
        model = self.fusion.language_model
        futures = model.futures(self._lm_state) if model else None
        if futures is None or self._following is None:
            return futures
        return futures * len(self._following) + self._node.cpu().numpy()

    def advance(self, rows: Tensor, tokens: Tensor) -> None:
        """Go on with hypotheses `rows`, shape (R,), in that order, each grown by one of `tokens`, shape (R,).

        BLANK adds nothing.
        """
        if self.fusion.language_model is not None:
            state = self.fusion.language_model.select(rows, self._lm_state)
            self.lm, self._lm_state = self.fusion.language_model.step(tokens, state)
        if self._following is not None:
            node = self._node[rows]
            self._node = torch.where(tokens == BLANK, node, self._following[node, tokens])


@lru_cache(maxsize=4)
def _hotwords(hotwords: str, bonus: float, tokenizer: Tokenizer, stamp: tuple[str, int, int] | None) -> Hotwords:
    """Read hotwords, or remember them; another `stamp` is another file."""
    return Hotwords(read_hotwords(hotwords), tokenizer, bonus)
