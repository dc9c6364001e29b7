"""Attention search: the decoder writes one token after another, each the most likely next."""

from __future__ import annotations

import torch
from torch import Tensor

from asr.decoding.ctc import decode_ctc
from asr.decoding.guard import runs_away, token_bound
from asr.decoding.options import DecodingOptions, Hypothesis
from asr.model.recognizer import Recognizer
from asr.tokenizer import END, START


def decode_attention(
    model: Recognizer, encoder_out: Tensor, lengths: Tensor, options: DecodingOptions
) -> list[list[Hypothesis]]:
    """Decode greedily, all utterances side by side, until each has ended or reached its bound.

    Args:
        model: a recogniser in evaluation mode.
        encoder_out: shape (B, T', D).
        lengths: encoder frames of each row, shape (B,).
        options: not consulted; there is nothing to set.

    Returns:
        One hypothesis for each utterance: the decoder's, or the CTC path's, flagged, where the guard tripped.
    """
    listened = decode_ctc(model, encoder_out, lengths, options)
    bounds = torch.tensor([token_bound(len(hypotheses[0].tokens)) for hypotheses in listened])
    tokens, log_probs = _write(model, encoder_out, lengths, int(bounds.max()))
    results = []
    for row, bound in enumerate(bounds.tolist()):
        hypothesis = _hypothesis(tokens[row], log_probs[row])
        if len(hypothesis.tokens) > bound or runs_away(hypothesis.tokens):
            ctc = listened[row][0]
            hypothesis = Hypothesis(ctc.tokens, ctc.token_log_probs, ctc.score, fallback="ctc")
        results.append([hypothesis])
    return results


def _write(
    model: Recognizer, encoder_out: Tensor, lengths: Tensor, longest: int
) -> tuple[list[list[int]], list[list[float]]]:
    """Step until every row has ended, or has one token more than the longest bound allows."""
    cache = model.decoder.start(encoder_out, lengths)
    token = torch.full((len(lengths),), START, device=encoder_out.device)
    ended = torch.zeros_like(token, dtype=torch.bool)
    tokens, log_probs = [], []
    for _ in range(longest + 1):
        logits, cache = model.decoder.step(token, cache)
        best, token = logits.float().log_softmax(dim=-1).max(dim=-1)  # (B,)
        token = token.masked_fill(ended, END)
        tokens.append(token)
        log_probs.append(best)
        ended = ended | (token == END)
        if bool(ended.all()):
            break
    return torch.stack(tokens, dim=1).tolist(), torch.stack(log_probs, dim=1).tolist()


def _hypothesis(tokens: list[int], log_probs: list[float]) -> Hypothesis:
    end = tokens.index(END) if END in tokens else len(tokens)
    return Hypothesis(tuple(tokens[:end]), tuple(log_probs[:end]), sum(log_probs[: end + 1]))
