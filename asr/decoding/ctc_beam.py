"""CTC prefix beam search: the most probable text, summed over its alignments, for all utterances at once.

Sources: Graves 2012, section 7.5.3; Hannun et al. 2014, arXiv:1408.2873.

Shapes: B batch, T' encoder frames, V vocabulary, K beam, C candidate tokens of a frame.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from asr.decoding.ctc import best_paths
from asr.decoding.fusion import Fusion, FusionState
from asr.decoding.options import DecodingOptions, Hypothesis
from asr.features import length_mask
from asr.tokenizer import BLANK, END

NEVER = -torch.inf
FEWEST_CANDIDATES = 40
_HASH = 6364136223846793005  # Knuth's multiplier; texts are told apart by 64-bit hashes


class _Prefixes(NamedTuple):
    """The texts in the beam; each field (B, K)."""

    blank: Tensor
    """Log-probability of all alignments that end in a blank, float64."""
    token: Tensor
    """Of those that end in the last token."""
    last: Tensor
    """The last token; BLANK for the empty text."""
    name: Tensor
    """Hash of the text."""
    parent: Tensor
    """Hash of the text without its last token."""
    lm: Tensor
    """Language model's log-probability."""
    bonus: Tensor
    """Hotwords' and length's bonus."""

    def pick(self, slots: Tensor) -> _Prefixes:
        """Take slots (B, K) of every field."""
        return _Prefixes(*(field.gather(1, slots) for field in self))


def search_prefixes(
    log_probs: Tensor, lengths: Tensor, options: DecodingOptions, fusion: Fusion
) -> list[list[Hypothesis]]:
    """Find the most probable texts.

    Args:
        log_probs: CTC's, shape (B, T', V).
        lengths: frames of each row, shape (B,).
        options: beam, candidates, normalisation; `nbest` is not consulted.
        fusion: language model, hotwords, length bonus.

    Returns:
        Up to `beam_size` hypotheses for each utterance, best first; where scores are no numbers, the best path.
    """
    batch, frames, vocabulary = log_probs.shape
    beam = options.beam_size
    # Padding is all blank, for certain: it changes nothing.
    valid = length_mask(lengths, frames)[..., None]
    blanks = torch.full((vocabulary,), NEVER, device=log_probs.device)
    blanks[BLANK] = 0.0
    log_probs = torch.where(valid, log_probs, blanks)
    wanted = options.candidates or max(FEWEST_CANDIDATES, beam + beam // 2)
    tops, tokens = log_probs[..., 1:].topk(min(wanted, vocabulary - 1), dim=-1)  # (B, T', C)
    tops, tokens = tops.double(), tokens + 1
    prefixes = _first(batch, beam, log_probs.device)
    state = fusion.start(batch * beam, vocabulary, log_probs.device)
    base = beam * torch.arange(batch, device=log_probs.device)[:, None]  # first row of each utterance
    history: list[tuple[Tensor, Tensor]] = []
    for frame in range(frames):
        prefixes, slots, written = _advance(prefixes, log_probs[:, frame], tops[:, frame], tokens[:, frame], state)
        history.append((slots, written))
        state.select((base + slots).flatten())
        state.step(written.flatten())
    lm, bonus = (part.view(batch, beam, -1)[..., END] for part in (state.lm, state.bonus))
    prefixes = prefixes._replace(lm=prefixes.lm + lm, bonus=prefixes.bonus + bonus)
    found = _hypotheses(prefixes, history, log_probs, state, options.length_normalization)
    # No beam holds scores that are no numbers: the best path passes them on to who asked.
    return (
        found
        if all(found)
        else [texts or path for texts, path in zip(found, best_paths(log_probs, lengths), strict=True)]
    )


def _first(batch: int, beam: int, device: torch.device) -> _Prefixes:
    """Begin with the empty text alone."""
    nothing = torch.full((batch, beam), NEVER, dtype=torch.float64, device=device)
    blank = nothing.clone()
    blank[:, 0] = 0.0
    zero = torch.zeros(batch, beam, dtype=torch.int64, device=device)
    return _Prefixes(blank, nothing, zero + BLANK, zero, zero - 1, zero.double(), zero.double())


def _advance(
    prefixes: _Prefixes, log_probs: Tensor, tops: Tensor, tokens: Tensor, state: FusionState
) -> tuple[_Prefixes, Tensor, Tensor]:
    """Let every text stay or grow by one token, and keep the best.

    Args:
        prefixes: what is in the beam.
        log_probs: of this frame, shape (B, V).
        tops: log-probabilities of the candidate tokens, shape (B, C).
        tokens: the candidates, shape (B, C).
        state: scores of next tokens.

    Returns:
        The new beam; the slot that each of its texts comes from (B, K); the token that it was given, or BLANK (B, K).
    """
    batch, beam = prefixes.last.shape
    total = torch.logaddexp(prefixes.blank, prefixes.token)  # (B, K)
    of_last = log_probs.gather(1, prefixes.last).double()
    stay_blank = total + log_probs[:, BLANK : BLANK + 1]
    stay_token = prefixes.token + of_last

    # A token that repeats the last one is new only after a blank.
    repeats = prefixes.last[:, :, None] == tokens[:, None]  # (B, K, C)
    grown = torch.where(repeats, prefixes.blank[:, :, None], total[:, :, None]) + tops[:, None]

    # A text that grows into another one of the beam adds to it, and is no candidate of its own.
    descends = prefixes.name[:, None, :] == prefixes.parent[:, :, None]  # (B, child, parent)
    has_parent, parent = descends.any(dim=-1) & (total > NEVER), descends.int().argmax(dim=-1)  # empty slots stay so
    same = prefixes.last.gather(1, parent) == prefixes.last
    inflow = torch.where(same, prefixes.blank.gather(1, parent), total.gather(1, parent)) + of_last
    stay_token = torch.where(has_parent, torch.logaddexp(stay_token, inflow), stay_token)
    column = tokens[:, None] == prefixes.last[:, :, None]  # (B, child, C)
    merged = has_parent & column.any(dim=-1)
    places = torch.where(merged, parent * tokens.shape[1] + column.int().argmax(dim=-1), beam * tokens.shape[1])
    spare = grown.new_zeros(batch, 1)  # takes what is merged nowhere
    flat = torch.cat((grown.flatten(1), spare), dim=1).scatter_(1, places, NEVER)[:, :-1]  # (B, K x C)

    chosen = tokens[:, None].expand(-1, beam, -1)
    lm, bonus = (part.view(batch, beam, -1).gather(2, chosen) for part in (state.lm, state.bonus))  # (B, K, C)
    fused = prefixes.lm * state.fusion.lm_weight + prefixes.bonus  # (B, K)
    growth = fused[:, :, None] + state.fusion.lm_weight * lm + bonus
    ranked = torch.cat((torch.logaddexp(stay_blank, stay_token) + fused, flat + growth.flatten(1)), dim=1)
    best = ranked.topk(beam, dim=1).indices  # (B, K)
    grows = best >= beam
    pick = torch.where(grows, best - beam, 0)
    slots = torch.where(grows, pick // tokens.shape[1], best)
    written = torch.where(grows, tokens.gather(1, pick % tokens.shape[1]), BLANK)
    old = prefixes.pick(slots)
    return (
        _Prefixes(
            torch.where(grows, NEVER, stay_blank.gather(1, slots)),
            torch.where(grows, flat.gather(1, pick), stay_token.gather(1, slots)),
            torch.where(grows, written, old.last),
            torch.where(grows, old.name * _HASH + written, old.name),
            torch.where(grows, old.name, old.parent),
            old.lm + torch.where(grows, lm.flatten(1).gather(1, pick), 0.0),
            old.bonus + torch.where(grows, bonus.flatten(1).gather(1, pick), 0.0),
        ),
        slots,
        written,
    )


def _hypotheses(
    prefixes: _Prefixes, history: list[tuple[Tensor, Tensor]], log_probs: Tensor, state: FusionState, power: float
) -> list[list[Hypothesis]]:
    """Walk back from the last frame to the tokens of each text, and rank the texts."""
    slots = torch.arange(prefixes.last.shape[1], device=log_probs.device).expand_as(prefixes.last)
    backwards = []
    for come_from, written in reversed(history):
        backwards.append(written.gather(1, slots))
        slots = come_from.gather(1, slots)
    written = torch.stack(backwards[::-1], dim=2)  # (B, K, T'), BLANK where nothing was written
    peaks, counts = _peaks(written, log_probs)
    ctc = torch.logaddexp(prefixes.blank, prefixes.token)
    score = ctc + state.fusion.lm_weight * prefixes.lm + prefixes.bonus
    score = score / (counts + 1.0) ** power
    results = []
    parts = (written, counts, peaks, score, ctc, prefixes.lm, prefixes.bonus)
    for rows in zip(*(part.tolist() for part in parts), strict=True):
        found = []
        for path, count, peak, *scores in zip(*rows, strict=True):
            if scores[0] > NEVER:
                tokens = tuple(token for token in path if token != BLANK)
                found.append(Hypothesis(tokens, tuple(peak[:count]), scores[0], None, scores[1], 0.0, *scores[2:]))
        results.append(sorted(found, key=lambda hypothesis: -hypothesis.score))
    return results


def _peaks(written: Tensor, log_probs: Tensor) -> tuple[Tensor, Tensor]:
    """Each token's largest log-probability from where it is written to where the next one is.

    Args:
        written: tokens by frame, shape (B, K, T').
        log_probs: shape (B, T', V).

    Returns:
        Peaks of shape (B, K, T'), the first ones valid, and the count of tokens (B, K).
    """
    batch, beam, frames = written.shape
    number = (written != BLANK).cumsum(dim=2)  # tokens so far
    since = torch.where(written != BLANK, torch.arange(frames, device=written.device), 0).cummax(dim=2).values
    last = written.gather(2, since)
    values = log_probs[:, None].expand(-1, beam, -1, -1).gather(3, last[..., None])[..., 0]
    peaks = values.new_full((batch, beam, frames + 1), NEVER).scatter_reduce_(2, number, values, "amax")
    return peaks[..., 1:], number[..., -1]
