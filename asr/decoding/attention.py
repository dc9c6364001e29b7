"""Attention search, alone or joint with CTC: beam search under the guard."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from asr.decoding.beam import IMPOSSIBLE, beam_search
from asr.decoding.ctc import best_paths
from asr.decoding.ctc_beam import search_prefixes
from asr.decoding.fusion import Fusion
from asr.decoding.guard import listens, runs_away, token_bound
from asr.decoding.options import DecodingOptions, Hypothesis
from asr.model.recognizer import Recognizer


def decode_attention(
    model: Recognizer,
    encoder_out: Tensor,
    lengths: Tensor,
    options: DecodingOptions,
    fusion: Fusion,
    log_probs: Tensor,
) -> list[list[Hypothesis]]:
    """Search with the decoder; in `joint` mode CTC prefix scores take part.

    Args:
        model: a recogniser in evaluation mode.
        encoder_out: shape (B, T', D).
        lengths: encoder frames of each row, shape (B,).
        options: mode, beam and weights.
        fusion: language model, hotwords, length bonus.
        log_probs: CTC's, shape (B, T', V).

    Returns:
        For each utterance its hypotheses, best first; only CTC's best text, flagged, where the guard tripped.
    """
    heard = best_paths(log_probs, lengths)
    peaks = [len(best.tokens) for best, *_ in heard]
    bounds = [token_bound(*pair) for pair in zip(peaks, lengths.tolist(), strict=True)]
    joint = log_probs if options.mode == "joint" and options.ctc_weight else None
    limit = torch.tensor(bounds, device=lengths.device)
    written = beam_search(model, encoder_out, lengths, options, fusion, limit, joint)
    best = [found[0].tokens if found and joint is None else () for found in written]  # CTC keeps joint texts going on
    heeds = listens(model, encoder_out, lengths, best)
    results: list[list[Hypothesis]] = []
    for row, (found, ctc, heeded) in enumerate(zip(written, heard, heeds, strict=True)):
        trusted = [hypothesis for hypothesis in found if not runs_away(hypothesis.tokens)]
        if heeded and found and trusted[:1] == found[:1] and found[0].attention > IMPOSSIBLE:
            results.append(trusted)
            continue
        if fusion.language_model or fusion.hotwords:  # they have their say in the fallback, too
            alone = replace(options, mode="ctc_beam")
            (ctc,) = search_prefixes(log_probs[row : row + 1], lengths[row : row + 1], alone, fusion.of_row(row), 1)
        results.append([replace(ctc[0], fallback="ctc")])
    return results
