"""Search: from encoder output to texts. `decode` is the one way in; each mode is a file of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from asr.decoding.attention import decode_attention
from asr.decoding.ctc import best_paths
from asr.decoding.ctc_beam import search_prefixes
from asr.decoding.fusion import Fusion
from asr.decoding.language_model import LanguageModel
from asr.decoding.options import DecodingOptions, Hypothesis
from asr.decoding.rescoring import rescore
from asr.model.recognizer import Recognizer

__all__ = ["DecodingOptions", "Fusion", "Hypothesis", "LanguageModel", "decode"]


@torch.inference_mode()
def decode(
    model: Recognizer,
    encoder_out: Tensor,
    lengths: Tensor,
    options: DecodingOptions,
    fusion: Fusion | None = None,
) -> list[list[Hypothesis]]:
    """Find the texts that fit the audio best.

    Args:
        model: a recogniser in evaluation mode.
        encoder_out: shape (B, T', D), from `model.encode`.
        lengths: encoder frames of each row, shape (B,).
        options: the mode and its settings.
        fusion: what `Fusion.of` has read of the files that the options name; None reads them, or remembers the last.

    Returns:
        For each utterance its hypotheses, best first: at least one, at most `options.nbest`.

    Raises:
        ConfigError: the language model or the hotwords cannot be read, or do not fit the model.
    """
    if not encoder_out.numel():  # no utterance, or no frame of any
        return [[Hypothesis((), 0.0)] for _ in lengths]
    log_probs = model.ctc_log_probs(encoder_out)
    if options.temperature != 1:
        log_probs = (log_probs / options.temperature).log_softmax(dim=-1)
    fusion = fusion or Fusion.of(options, model.tokenizer)
    if options.mode == "ctc" and not (fusion.language_model or fusion.hotwords):
        return best_paths(log_probs, lengths)  # it has no hypotheses that anything could be added to
    fusion = fusion.listen(log_probs, lengths)
    if options.mode in ("attention", "joint"):
        return decode_attention(model, encoder_out, lengths, options, fusion, log_probs)
    most = None if options.mode == "rescoring" else options.nbest  # to be ranked anew it takes all
    found = search_prefixes(log_probs, lengths, options, fusion, most)
    if options.mode == "rescoring":
        found = rescore(model, encoder_out, lengths, options, found)
    return [hypotheses[: options.nbest] for hypotheses in found]
