"""Language models: what a search asks of one.

An n-gram model (`asr.decoding.ngram`) and a neural one look the same to every search.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class LanguageModel(Protocol):
    """Gives the next token's probability after the tokens so far, for many rows at once.

    The state is whatever the model likes; a search only hands it back.
    """

    def start(self, rows: int, device: torch.device) -> tuple[Tensor, Any]:
        """Begin `rows` texts.

        Returns:
            Log-probabilities of the first token, natural, shape (rows, V), float32, and the state.
        """
        ...

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Append one token to each row.

        Args:
            tokens: shape (rows,). A row whose token is BLANK stands still: it keeps its state and its answer, which
                a search that goes by frames needs.
            state: from `start`, `step` or `select`; it may be changed in place.

        Returns:
            Log-probabilities of the next token, shape (rows, V), and the state.
        """
        ...

    def select(self, rows: Tensor, state: Any) -> Any:
        """Keep the texts `rows`, shape (rows,), in that order; a text may come more than once, or not at all."""
        ...

    def futures(self, state: Any) -> NDArray[np.int64] | None:
        """Number the rows, shape (rows,): those with the same number get the same answers to whatever follows.

        None for a model that hears all of a text, which tells any two apart.
        """
        ...
