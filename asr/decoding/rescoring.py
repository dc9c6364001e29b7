"""Rescoring: the decoder reads the texts that CTC found, all at once, and has its say (WeNet, arXiv:2102.01547)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from asr.decoding.options import DecodingOptions, Hypothesis
from asr.model.recognizer import Recognizer
from asr.tokenizer import END, START

ROWS_AT_ONCE = 64  # texts that the decoder reads side by side; each brings a copy of its audio


def rescore(
    model: Recognizer,
    encoder_out: Tensor,
    lengths: Tensor,
    options: DecodingOptions,
    listened: list[list[Hypothesis]],
) -> list[list[Hypothesis]]:
    """Rank hypotheses by ctc_weight x CTC + (1 - ctc_weight) x decoder, beside language model and bonus.

    Args:
        model: a recogniser in evaluation mode.
        encoder_out: shape (B, T', D).
        lengths: encoder frames of each row, shape (B,).
        options: weights and temperature.
        listened: each utterance's hypotheses, from the prefix beam search.

    Returns:
        The same hypotheses, ranked anew; where the decoder gives no numbers CTC's ranking stays, flagged.
    """
    owners = torch.tensor([row for row, found in enumerate(listened) for _ in found], device=encoder_out.device)
    texts = [torch.tensor(hypothesis.tokens, dtype=torch.int64) for found in listened for hypothesis in found]
    scores: list[float] = []
    for first in range(0, len(texts), ROWS_AT_ONCE):
        group = slice(first, first + ROWS_AT_ONCE)
        rows = owners[group]
        scores += _read(model, encoder_out[rows], lengths[rows], texts[group], options.temperature)
    ranked, place = [], 0
    for found in listened:
        mine = scores[place : place + len(found)]
        place += len(found)
        pairs = zip(found, mine, strict=True)
        if not torch.tensor(mine).isfinite().all():
            ranked.append([replace(hypothesis, fallback="ctc") for hypothesis in found])
        else:
            ranked.append(
                sorted((_combine(*pair, options) for pair in pairs), key=lambda hypothesis: -hypothesis.score)
            )
    return ranked


def _combine(hypothesis: Hypothesis, attention: float, options: DecodingOptions) -> Hypothesis:
    score = options.ctc_weight * hypothesis.ctc + (1 - options.ctc_weight) * attention
    score += options.lm_weight * hypothesis.lm + hypothesis.bonus
    score /= (len(hypothesis.tokens) + 1) ** options.length_power
    return replace(hypothesis, score=score, attention=attention)


def _read(
    model: Recognizer, encoder_out: Tensor, lengths: Tensor, texts: list[Tensor], temperature: float
) -> list[float]:
    """Log-probability of each text, its end included, by the decoder."""
    start, end = torch.tensor([START]), torch.tensor([END])
    inputs = pad_sequence([torch.cat((start, text)) for text in texts], batch_first=True).to(encoder_out.device)
    targets = pad_sequence([torch.cat((text, end)) for text in texts], batch_first=True, padding_value=-1)
    targets = targets.to(encoder_out.device)
    log_probs = (model.decoder(inputs, encoder_out, lengths).float() / temperature).log_softmax(dim=-1)
    chosen = log_probs.gather(2, targets.clamp(min=0)[..., None])[..., 0]
    return chosen.masked_fill(targets < 0, 0.0).double().sum(dim=1).tolist()
