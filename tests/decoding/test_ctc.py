from __future__ import annotations

import itertools

import pytest
import torch

from asr.decoding import DecodingOptions, decode
from asr.tokenizer import BLANK


class Listens:
    """Stands in for a recogniser: its encoder output is the posteriors themselves."""

    tokenizer = None

    def ctc_log_probs(self, encoder_out: torch.Tensor) -> torch.Tensor:
        return encoder_out


def test_best_path_is_the_most_probable_path_of_all():
    torch.manual_seed(0)
    for _ in range(20):
        log_probs = torch.randn(1, 4, 3).log_softmax(-1)
        ((best,),) = decode(Listens(), log_probs, torch.tensor([4]), DecodingOptions())  # type: ignore[arg-type]
        paths = itertools.product(range(3), repeat=4)
        scores = {path: sum(log_probs[0, t, token].item() for t, token in enumerate(path)) for path in paths}
        path, score = max(scores.items(), key=lambda item: item[1])
        assert best.tokens == tuple(token for token, _ in itertools.groupby(path) if token != BLANK)
        assert best.score == pytest.approx(score, abs=1e-5)
