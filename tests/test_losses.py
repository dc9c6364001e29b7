from __future__ import annotations

import itertools
import math

import pytest
import torch

from asr.losses import attention_loss, consistency_loss, ctc_loss, decoder_inputs, infeasible
from asr.tokenizer import BLANK, END, START


def brute_force_ctc(log_probs: torch.Tensor, target: list[int]) -> float:
    """Sum the probability of every path that collapses to the target."""
    frames, vocabulary = log_probs.shape
    total = 0.0
    for path in itertools.product(range(vocabulary), repeat=frames):
        if [token for token, _ in itertools.groupby(path) if token != BLANK] == target:
            total += math.exp(sum(log_probs[t, token].item() for t, token in enumerate(path)))
    return -math.log(total)


@pytest.mark.parametrize("target", [[1], [1, 2], [2, 2], [1, 2, 1], []])
def test_ctc_equals_the_sum_over_all_paths(target):
    torch.manual_seed(0)
    log_probs = torch.randn(1, 5, 3).log_softmax(-1)
    tokens = torch.tensor([target + [0] * (3 - len(target))])
    ours = ctc_loss(log_probs, torch.tensor([5]), tokens, torch.tensor([len(target)]))
    assert ours.item() == pytest.approx(brute_force_ctc(log_probs[0], target), abs=1e-4)


def test_infeasible_texts_are_counted_and_give_no_gradient():
    log_probs = torch.randn(3, 3, 5).log_softmax(-1).requires_grad_()
    frames, lengths = torch.tensor([3, 3, 3]), torch.tensor([3, 3, 4])
    tokens = torch.tensor([[1, 2, 3, 0], [1, 1, 2, 0], [1, 2, 3, 4]])
    assert infeasible(frames, tokens, lengths).tolist() == [False, True, True]
    ctc_loss(log_probs, frames, tokens, lengths).backward()
    assert log_probs.grad is not None
    assert log_probs.grad[0].abs().sum() > 0
    assert log_probs.grad[1:].abs().sum() == 0


def test_a_repeat_in_the_padding_is_no_repeat():
    assert not infeasible(torch.tensor([2]), torch.tensor([[1, 2, 0, 0]]), torch.tensor([2])).any()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_attention_loss_equals_its_formula(smoothing):
    torch.manual_seed(0)
    tokens, lengths = torch.tensor([[5, 6, 7], [8, 0, 0]]), torch.tensor([3, 1])
    logits = torch.randn(2, 4, 10)
    expected = 0.0
    for row, target in enumerate([[5, 6, 7, END], [8, END]]):
        log_probs = logits[row].log_softmax(-1)
        for position, token in enumerate(target):
            expected -= (1 - smoothing) * log_probs[position, token] + smoothing * log_probs[position].mean()
    torch.testing.assert_close(attention_loss(logits, tokens, lengths, smoothing), torch.as_tensor(expected))


def test_decoder_inputs_begin_with_start():
    assert decoder_inputs(torch.tensor([[5, 6]])).tolist() == [[START, 5, 6]]


def test_consistency_equals_its_formula_frame_by_frame():
    torch.manual_seed(0)
    log_probs = torch.randn(4, 5, 3).log_softmax(-1)  # two views of two utterances
    frames = torch.tensor([5, 2, 5, 2])
    expected = 0.0
    for one, other, length in ((0, 2, 5), (1, 3, 2)):
        for t in range(length):
            for p, q in ((one, other), (other, one)):
                for token in range(3):
                    share = math.exp(log_probs[p, t, token])
                    expected += 0.5 * share * (log_probs[p, t, token].item() - log_probs[q, t, token].item())
    assert consistency_loss(log_probs, frames).item() == pytest.approx(expected, abs=1e-5)
    assert expected > 0


def test_views_that_agree_are_consistent_whatever_stands_in_the_padding():
    log_probs = torch.randn(1, 5, 3).log_softmax(-1).repeat(2, 1, 1)
    log_probs[1, 3:] = torch.randn(2, 3).log_softmax(-1)
    assert consistency_loss(log_probs, torch.tensor([3, 3])).item() == pytest.approx(0, abs=1e-6)


def test_consistency_draws_each_view_towards_the_other_as_a_fixed_target():
    """Without the stop-gradient, a view would also be drawn by the divergence it is the target of."""
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 3, requires_grad=True)
    consistency_loss(logits.log_softmax(-1), torch.tensor([4, 4])).backward()
    probs = logits.detach().softmax(-1)
    # d KL(target || softmax(logits)) / d logits = softmax(logits) - target
    torch.testing.assert_close(logits.grad, 0.5 * (probs - probs.flip(0)), atol=1e-6, rtol=1e-5)
