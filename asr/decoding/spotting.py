"""Which hotwords may be in an utterance: each is searched for in the CTC posteriors by itself, before the text is.

The test is a likelihood ratio: the best path that writes the whole word, from a word's start to the next one, against
the best path of any text through the same frames. It goes without a language model, so that no decoder can talk
itself into a word that is not there. Source of the idea: Andrusenko et al. 2024, arXiv:2406.07096, section 2.

Shapes: B batch, W words, U tokens of the longest word with the start of the next one, T' encoder frames, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from asr.features import length_mask
from asr.tokenizer import BLANK

LOWEST = -1e4  # stands for minus infinity in sums over frames


def spot(log_probs: Tensor, lengths: Tensor, words: Sequence[Sequence[int]], starts: Tensor) -> Tensor:
    """Measure how well each word fits where it fits best.

    Args:
        log_probs: CTC's, shape (B, T', V).
        lengths: frames of each row, shape (B,).
        words: W token sequences, none empty.
        starts: which tokens begin a word, shape (V,), bool.

    Returns:
        Nats by which the best path through the word lies below the best path through its frames, shape (B, W): 0 where
        the best path writes the word itself, below 0 elsewhere.
    """
    gaps = (log_probs - log_probs.amax(dim=2, keepdim=True)).float().clamp(min=LOWEST)
    gaps = torch.cat((gaps, gaps[..., starts].amax(dim=2, keepdim=True)), dim=2)  # token V: the next word, whichever
    valid = length_mask(lengths, log_probs.shape[1])[..., None]
    gaps = gaps.masked_fill(~valid, LOWEST)
    gaps[..., BLANK].masked_fill_(~valid[..., 0], 0.0)
    rows = [torch.tensor((*word, log_probs.shape[2]), device=log_probs.device) for word in words]
    tokens = pad_sequence(rows, batch_first=True)  # (W, U)
    last = torch.tensor([len(word) for word in words], device=log_probs.device).expand(len(log_probs), -1)[..., None]
    repeats = torch.zeros_like(tokens, dtype=torch.bool)
    repeats[:, 1:] = tokens[:, 1:] == tokens[:, :-1]
    token = torch.full((len(log_probs), *tokens.shape), LOWEST, device=log_probs.device)  # best path that ends in it
    blank = token.clone()  # or in a blank after it
    best = token[..., 0].clone()
    for frame in gaps.unbind(dim=1):
        either = torch.maximum(token, blank)
        inflow = torch.where(repeats[:, 1:], blank[..., :-1], either[..., :-1])
        inflow = torch.cat((torch.zeros_like(inflow[..., :1]), inflow), dim=2)  # a word may begin in any frame
        token = torch.maximum(token, inflow) + frame[:, tokens]
        blank = either + frame[:, None, BLANK, None]
        best = torch.maximum(best, token.gather(2, last)[..., 0])
    return torch.maximum(best, torch.maximum(token, blank).gather(2, last - 1)[..., 0])  # or the audio ends after it
