"""Search: from encoder output to texts. `decode` is the one way in; each mode is a file of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from asr.decoding.attention import decode_attention
from asr.decoding.ctc import decode_ctc
from asr.decoding.options import DecodingOptions, Hypothesis
from asr.model.recognizer import Recognizer

__all__ = ["DecodingOptions", "Hypothesis", "decode"]


@torch.inference_mode()
def decode(model: Recognizer, encoder_out: Tensor, lengths: Tensor, options: DecodingOptions) -> list[list[Hypothesis]]:
    """Find the texts that fit the audio best.

    Args:
        model: a recogniser in evaluation mode.
        encoder_out: shape (B, T', D), from `model.encode`.
        lengths: encoder frames of each row, shape (B,).
        options: the mode and its settings.

    Returns:
        For each utterance its hypotheses, best first.
    """
    search = {"ctc": decode_ctc, "attention": decode_attention}[options.mode]
    return search(model, encoder_out, lengths, options)
