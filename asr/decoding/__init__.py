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
from asr.tokenizer import Tokenizer

__all__ = ["DecodingOptions", "Hypothesis", "LanguageModel", "decode", "read_files"]


def read_files(options: DecodingOptions, tokenizer: Tokenizer) -> None:
    """Read the language model and the hotwords that the options name, once for all; errors come before the work does.

    Raises:
        ConfigError: one of them cannot be read, or does not fit the tokenizer.
    """
    Fusion.of(options, tokenizer)


@torch.inference_mode()
def decode(
    model: Recognizer,
    encoder_out: Tensor,
    lengths: Tensor,
    options: DecodingOptions,
    language_model: LanguageModel | None = None,
) -> list[list[Hypothesis]]:
    """Find the texts that fit the audio best.

    Nothing is remembered from one call to the next but the files of language models and hotwords.

    Args:
        model: a recogniser in evaluation mode.
        encoder_out: shape (B, T', D), from `model.encode`.
        lengths: encoder frames of each row, shape (B,).
        options: the mode and its settings.
        language_model: goes before the one that the options name.

    Returns:
        For each utterance its hypotheses, best first: at least one, at most `options.nbest`.

    Raises:
        ConfigError: the language model or the hotwords cannot be read, or do not fit the model.
    """
    if not encoder_out.numel():  # no utterance, or no frame of any
        return [[Hypothesis((), (), 0.0)] for _ in lengths]
    log_probs = model.ctc_log_probs(encoder_out)
    if options.temperature != 1:
        log_probs = (log_probs / options.temperature).log_softmax(dim=-1)
    plain = language_model is None and not options.language_model and not options.hotwords
    if options.mode == "ctc" and plain:  # the best path has no hypotheses that anything could be added to
        return best_paths(log_probs, lengths)
    fusion = Fusion.of(options, model.tokenizer, language_model).listen(log_probs, lengths)
    if options.mode in ("attention", "joint"):
        return decode_attention(model, encoder_out, lengths, options, fusion, log_probs)
    most = None if options.mode == "rescoring" else options.nbest  # to be ranked anew it takes all
    found = search_prefixes(log_probs, lengths, options, fusion, most)
    if options.mode == "rescoring":
        found = rescore(model, encoder_out, lengths, options, found)
    return [hypotheses[: options.nbest] for hypotheses in found]
