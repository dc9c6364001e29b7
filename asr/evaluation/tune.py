"""Tune the weights of a search on a dev set: one after another, step by step on a grid, until none helps any more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from asr.batching import group_by_length
from asr.decoding import DecodingOptions, decode
from asr.errors import ConfigError
from asr.evaluation.wer import score
from asr.manifest import Manifest
from asr.model.recognizer import Recognizer
from asr.normalize import get_normalizer

LM_WEIGHTS = (0.0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.1, 1.3)
LENGTH_BONUSES = (-0.5, 0.0, 0.1, 0.2, 0.3, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
CTC_WEIGHTS = (0.1, 0.3, 0.5, 0.7, 0.9)
ROUNDS = 4  # of all weights, at most: one weight's best place depends on the others
BATCH_SECONDS = 80.0


@dataclass(frozen=True)
class Trial:
    """One set of weights and what came of it."""

    options: DecodingOptions
    wer: float
    cer: float


def grid(options: DecodingOptions) -> dict[str, tuple[float, ...]]:
    """Tell which fields of the options count in their mode, and the values to try.

    Raises:
        ConfigError: there is nothing to tune.
    """
    found: dict[str, tuple[float, ...]] = {}
    if options.language_model:
        found["lm_weight"] = LM_WEIGHTS
    if options.mode in ("joint", "rescoring"):
        found["ctc_weight"] = CTC_WEIGHTS
    if options.mode != "ctc" or found:
        found["length_bonus"] = LENGTH_BONUSES
    if not found:
        raise ConfigError("decoding ctc without a language model has no weights to tune: choose another --decoding")
    return found


def tune(
    model: Recognizer,
    manifest: Manifest,
    options: DecodingOptions,
    normalizer: str = "basic",
    progress: Callable[[int], None] = lambda trials: None,
) -> list[Trial]:
    """Search for the weights with the lowest word error rate, coordinate by coordinate.

    The encoder runs once; each trial is a search over its output.

    Args:
        model: a recogniser in evaluation mode.
        manifest: the dev set; never the test set that is reported.
        options: where to start; fields that do not count in its mode stay.
        normalizer: what texts go through before they are compared.
        progress: called with 1 after each trial.

    Returns:
        All trials, best first; of equals, the first one tried.

    Raises:
        ConfigError: the mode has nothing to tune.
        AudioError: a file cannot be read.
        DataError: no reference holds a word.
    """
    values = grid(options)
    encoded = list(_encode(model, manifest))
    trials: dict[DecodingOptions, Trial] = {}

    def rates(candidate: DecodingOptions) -> tuple[float, float]:
        if candidate not in trials:
            trials[candidate] = _try(model, manifest, encoded, candidate, normalizer)
            progress(1)
        return trials[candidate].wer, trials[candidate].cer

    best = options
    for _ in range(ROUNDS):
        before = best
        for name, choices in values.items():
            here = getattr(best, name)
            ways = (sorted(c for c in choices if c > here), sorted((c for c in choices if c < here), reverse=True))
            for way in ways:
                for choice in way:  # on as long as it gets better
                    candidate = replace(best, **{name: choice})
                    if rates(candidate) >= rates(best):
                        break
                    best = candidate
                if getattr(best, name) != here:
                    break
        if best == before:
            break
    return sorted(trials.values(), key=lambda trial: (trial.wer, trial.cer))


def most_trials(options: DecodingOptions) -> int:
    """Tell how many trials `tune` makes at most; it mostly ends after a third of them."""
    return ROUNDS * sum(map(len, grid(options).values())) + 1


@torch.inference_mode()
def _encode(model: Recognizer, manifest: Manifest) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Yield rows, encoder output and its lengths, in batches of similar length."""
    device = next(model.parameters()).device
    for rows in group_by_length(manifest.durations.tolist(), BATCH_SECONDS):
        utterances = [manifest[row] for row in rows]
        waveforms = [torch.from_numpy(u.waveform()) for u in utterances]
        lengths = torch.tensor([len(waveform) for waveform in waveforms], device=device)
        padded = torch.nn.utils.rnn.pad_sequence(waveforms, batch_first=True).to(device)
        yield rows, *model.encode(padded, lengths)


def _try(
    model: Recognizer,
    manifest: Manifest,
    encoded: list[tuple[list[int], Tensor, Tensor]],
    options: DecodingOptions,
    normalizer: str,
) -> Trial:
    texts: dict[int, str] = {}
    for rows, encoder_out, lengths in encoded:
        for row, (best, *_) in zip(rows, decode(model, encoder_out, lengths, options), strict=True):
            texts[row] = model.tokenizer.decode(best.tokens)
    references = manifest.texts
    result = score([(references[row], texts[row]) for row in range(len(manifest))], get_normalizer(normalizer))
    return Trial(options, result.wer.rate, result.cer.rate)
