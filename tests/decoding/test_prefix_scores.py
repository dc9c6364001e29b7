from __future__ import annotations

import math

import pytest
import torch
from decoding.oracles import text_probabilities

from asr.decoding.prefix_scores import PrefixScorer


def expected(probabilities, prefix):
    """Probability of all texts that begin so, and of the text itself."""
    begins = sum(p for text, p in probabilities.items() if text[: len(prefix)] == prefix)
    return begins, probabilities.get(prefix, 0.0)


def log(value):
    return math.log(value) if value > 0 else -math.inf


@pytest.mark.parametrize("seed", range(5))
def test_prefix_scores_are_sums_over_all_alignments(seed):
    torch.manual_seed(seed)
    frames, vocabulary = 5, 4
    log_probs = (3 * torch.randn(2, frames, vocabulary)).log_softmax(-1)
    lengths = torch.tensor([frames, frames - 2])
    oracle = [text_probabilities(log_probs[row, : lengths[row]]) for row in range(2)]
    scorer = PrefixScorer(log_probs, lengths, beam=3)
    candidates = torch.tensor([1, 2, 3]).expand(2, 3, 3)
    prefixes = [[(), (), ()], [(), (), ()]]
    for slots, tokens in [
        ([[0, 0, 0], [0, 1, 2]], [[1, 2, 3], [3, 3, 1]]),
        ([[0, 0, 2], [0, 0, 1]], [[1, 2, 1], [3, 1, 2]]),  # a repeated token, and two that share a parent
        ([[1, 0, 1], [2, 2, 0]], [[2, 1, 3], [2, 1, 3]]),
    ]:
        begins, whole = scorer.score(candidates)
        for row in range(2):
            for slot, prefix in enumerate(prefixes[row]):
                assert float(whole[row, slot]) == pytest.approx(log(expected(oracle[row], prefix)[1]), abs=1e-5)
                for token in (1, 2, 3):
                    right = log(expected(oracle[row], (*prefix, token))[0])
                    found = float(begins[row, slot, token - 1])
                    assert found == pytest.approx(right, abs=1e-5) or (right == -math.inf and found < -1000)
        scorer.advance(torch.tensor(slots), torch.tensor(tokens))
        prefixes = [
            [(*prefixes[row][slot], token) for slot, token in zip(slots[row], tokens[row], strict=True)]
            for row in range(2)
        ]


def test_the_recurrence_equals_a_walk_through_the_frames():
    """The paper's loop, over a long utterance with probabilities from near one to near zero."""
    torch.manual_seed(0)
    frames, text = 300, [3, 3, 1, 4, 1, 5, 2, 2, 5, 1, 3]
    log_probs = (8 * torch.randn(1, frames, 6)).log_softmax(-1)
    scorer = PrefixScorer(log_probs, torch.tensor([frames]), beam=1)
    x = log_probs[0].double()
    token, blank = torch.full((frames,), -math.inf).double(), x[:, 0].cumsum(0)
    for place, new in enumerate(text):
        ready = blank if place and text[place - 1] == new else torch.logaddexp(token, blank)
        more, clear = torch.full_like(token, -math.inf), torch.full_like(token, -math.inf)
        score = more[0] = x[0, new] if place == 0 else more[0]
        for t in range(1, frames):
            more[t] = torch.logaddexp(more[t - 1], ready[t - 1]) + x[t, new]
            clear[t] = torch.logaddexp(more[t - 1], clear[t - 1]) + x[t, 0]
            score = torch.logaddexp(score, ready[t - 1] + x[t, new])
        begins, whole = scorer.score(torch.tensor([[[new]]]))
        assert float(begins) == pytest.approx(float(score), abs=1e-4)
        assert float(whole) == pytest.approx(float(torch.logaddexp(token[-1], blank[-1])), abs=1e-6)
        token, blank = more, clear
        scorer.advance(torch.zeros(1, 1, dtype=torch.int64), torch.tensor([[new]]))
