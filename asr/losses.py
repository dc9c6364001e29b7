"""The training objective: attention, CTC and its companions, as sums that are divided by tokens once, over all ranks.

Shapes: B batch, U tokens, T' encoder frames, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional

from asr.features import length_mask
from asr.tokenizer import BLANK, END, START

IGNORED = -100  # torch's mark for targets that do not count


class Losses(NamedTuple):
    """Sums over a batch, each a scalar tensor; divide by `tokens` for means."""

    total: Tensor
    """(1 - ctc_weight) x attention + ctc_weight x (ctc, mixed with intermediate, + cr_ctc_weight x consistency)."""
    ctc: Tensor
    """Of the last encoder layer; with two views of each utterance this and the others are means over the views."""
    attention: Tensor
    tokens: Tensor
    """Target tokens, without start and end."""
    infeasible: Tensor
    """Utterances with too few frames for their text; CTC cannot learn from them and gives them no gradient."""
    intermediate: Tensor
    """CTC loss of the intermediate layers, their mean; 0 without any."""
    consistency: Tensor
    """How far the CTC posteriors of two views are apart; 0 with one view."""


def attention_loss(logits: Tensor, tokens: Tensor, lengths: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy of the decoder with label smoothing, summed over tokens and the end token.

    Args:
        logits: the decoder's output for `decoder_inputs(tokens)`, shape (B, U + 1, V).
        tokens: target texts, shape (B, U), int64.
        lengths: tokens of each text, shape (B,).
        smoothing: share of the probability spread evenly over the vocabulary.
    """
    targets = functional.pad(tokens, (0, 1))  # (B, U + 1)
    targets = targets.scatter(1, lengths[:, None], END)
    targets = targets.masked_fill(~length_mask(lengths + 1, targets.shape[1]), IGNORED)
    return functional.cross_entropy(
        logits.float().flatten(0, 1),
        targets.flatten(),
        ignore_index=IGNORED,
        label_smoothing=smoothing,
        reduction="sum",
    )


def decoder_inputs(tokens: Tensor) -> Tensor:
    """Put the start token before each text: (B, U) to (B, U + 1)."""
    return functional.pad(tokens, (1, 0), value=START)


def ctc_loss(log_probs: Tensor, frames: Tensor, tokens: Tensor, lengths: Tensor) -> Tensor:
    """Negative log-likelihood of the texts over all alignments, summed (Graves et al. 2006).

    Args:
        log_probs: log-probabilities, shape (B, T', V), float32.
        frames: encoder frames of each row, shape (B,).
        tokens: target texts, shape (B, U), int64.
        lengths: tokens of each text, shape (B,).
    """
    return functional.ctc_loss(
        log_probs.transpose(0, 1), tokens, frames, lengths, blank=BLANK, reduction="sum", zero_infinity=True
    )


def infeasible(frames: Tensor, tokens: Tensor, lengths: Tensor) -> Tensor:
    """Mark texts that no CTC alignment can write: more tokens, and blanks between repeats, than frames.

    Args:
        frames: encoder frames of each row, shape (B,).
        tokens: target texts, shape (B, U).
        lengths: tokens of each text, shape (B,).

    Returns:
        Shape (B,), bool.
    """
    same = (tokens[:, 1:] == tokens[:, :-1]) & length_mask(lengths, tokens.shape[1])[:, 1:]
    return lengths + same.sum(dim=1) > frames


def consistency_loss(log_probs: Tensor, frames: Tensor) -> Tensor:
    """Divergence of two views' CTC posteriors, each drawn towards the other (Yao et al. 2024, section 3.2, CR-CTC).

    Half the sum over frames of KL(sg(a) || b) + KL(sg(b) || a): no gradient flows into the side that is the target.

    Args:
        log_probs: log-probabilities of all first views, then of all second views, shape (2B, T', V), float32.
        frames: encoder frames of each row, shape (2B,).

    Returns:
        Sum over utterances and frames, a scalar.
    """
    targets = log_probs.detach().roll(len(log_probs) // 2, dims=0)  # each row meets its other view
    divergence = (targets.exp() * (targets - log_probs)).sum(dim=-1)  # (2B, T')
    return 0.5 * (divergence * length_mask(frames, log_probs.shape[1])).sum()
