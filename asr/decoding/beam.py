"""Beam search with the decoder, alone or with CTC prefix scores, for all utterances and hypotheses at once.

Source: Watanabe et al. 2017, "Hybrid CTC/attention architecture for end-to-end speech recognition", section III-B.

Shapes: B batch, K beam, C candidate tokens of each hypothesis, V vocabulary, P finished hypotheses kept.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from asr.decoding.fusion import Fusion, FusionState
from asr.decoding.options import DecodingOptions, Hypothesis
from asr.decoding.prefix_scores import PrefixScorer
from asr.model.recognizer import Recognizer
from asr.tokenizer import BLANK, END, START

NEVER = -torch.inf
IMPOSSIBLE = -1e5  # log-probability of a token where the decoder gives no number
NOT_TEXT = 3  # BLANK, START and END are no tokens to go on with
FAR_BEHIND = 15.0  # nats: a running hypothesis so far below what has ended is given up


class _Beam(NamedTuple):
    """The running hypotheses; each field (B, K), float64."""

    score: Tensor
    """Weighted sum of everything but CTC, whose prefix scores are not sums over the tokens."""
    attention: Tensor
    lm: Tensor
    bonus: Tensor

    def grow(self, slots: Tensor, tokens: Tensor, added: tuple[Tensor, ...]) -> _Beam:
        """Take `slots` (B, K), and add what `tokens` (B, K) add, from the next tokens' scores, each (B, K, V)."""
        places = slots[..., None].expand(-1, -1, added[0].shape[2])
        return _Beam(
            *(
                field.gather(1, slots) + new.gather(1, places).gather(2, tokens[..., None])[..., 0]
                for field, new in zip(self, added, strict=True)
            )
        )


class _Finished(NamedTuple):
    """The best hypotheses that have ended; each field (B, P)."""

    score: Tensor
    """What they are ranked by."""
    step: Tensor
    """In which step they ended: their number of tokens."""
    slot: Tensor
    """Where in the beam they were."""
    ctc: Tensor
    attention: Tensor
    lm: Tensor
    bonus: Tensor

    def merge(self, more: _Finished) -> _Finished:
        """Keep the best P of both."""
        both = [torch.cat(pair, dim=1) for pair in zip(self, more, strict=True)]
        best = both[0].topk(self.score.shape[1], dim=1).indices
        return _Finished(*(field.gather(1, best) for field in both))


def beam_search(
    model: Recognizer,
    encoder_out: Tensor,
    lengths: Tensor,
    options: DecodingOptions,
    fusion: Fusion,
    bounds: Tensor,
    log_probs: Tensor | None,
) -> list[list[Hypothesis]]:
    """Write all hypotheses token by token until none that still runs can become one of the best.

    Args:
        model: a recogniser in evaluation mode.
        encoder_out: shape (B, T', D).
        lengths: encoder frames of each row, shape (B,).
        options: beam and weights.
        fusion: language model, hotwords, length bonus.
        bounds: most tokens of each utterance, shape (B,).
        log_probs: CTC's, shape (B, T', V), for the joint search; None for the decoder alone.

    Returns:
        Up to `nbest` hypotheses for each utterance, best first; none where none ended within its bound.
    """
    batch, beam, device = len(lengths), options.beam_size, encoder_out.device
    cache = model.decoder.start(encoder_out, lengths, hypotheses=beam)
    vocabulary = len(model.tokenizer)
    state = FusionState(fusion, batch * beam, vocabulary, device)
    prefix = PrefixScorer(log_probs, lengths, beam) if log_probs is not None and options.ctc_weight else None
    weight = options.ctc_weight if prefix else 0.0
    zero = torch.zeros(batch, beam, dtype=torch.float64, device=device)
    running = _Beam(zero.clone(), zero, zero, zero)
    running.score[:, 1:] = NEVER
    none = zero[:, : options.nbest]
    finished = _Finished(none + NEVER, none.long(), none.long(), none, none, none, none)
    slot_numbers = torch.arange(beam, device=device)
    base = beam * torch.arange(batch, device=device)[:, None]  # first row of each utterance
    token = torch.full((batch * beam,), START, device=device)
    history: list[tuple[Tensor, Tensor]] = []
    done = torch.zeros(batch, dtype=torch.bool, device=device)
    for step in range(int(bounds.max()) + 1):
        logits = model.decoder.step(token, cache)
        attention = _next_log_probs(logits, options.temperature).view(batch, beam, vocabulary)
        lm, bonus = (part.view(batch, beam, vocabulary) for part in (state.lm, state.bonus))
        local = (1 - weight) * attention + fusion.lm_weight * lm + bonus
        local[..., [BLANK, START]] = NEVER
        ends, scores, tokens, ctc = _extend(running, local, prefix, options)

        # Ends count if they are among the K best of everything; the K best of the others run on.
        scores, best = scores.flatten(1).topk(beam, dim=1)
        least = torch.cat((ends, scores), dim=1).topk(beam, dim=1).values[:, -1:]
        ends = ends.masked_fill((ends < least) | (done | (bounds < step))[:, None], NEVER)
        parts = [field + new[..., END] for field, new in zip(running[1:], (attention, lm, bonus), strict=True)]
        here = slot_numbers.expand_as(best)
        ranks = ends / (step + 1) ** options.length_power
        finished = finished.merge(_Finished(ranks, torch.full_like(here, step), here, ctc, *parts))
        done |= _ended(finished, scores[:, 0], state.most_bonus, step, bounds, options)
        if bool(done.all()):
            break

        slots, written = best // tokens.shape[2], tokens.flatten(1).gather(1, best)
        running = running.grow(slots, written, (local, attention, lm, bonus))
        history.append((slots, written))
        rows, token = (base + slots).flatten(), written.flatten()
        if beam > 1:
            cache.select(rows)
        state.advance(rows, token)
        if prefix:
            prefix.advance(slots, written)
    return _hypotheses(finished, history)


def _next_log_probs(logits: Tensor, temperature: float) -> Tensor:
    """Turn the decoder's logits (R, V) into log-probabilities; what is not a number becomes impossible."""
    log_probs = (logits.float() / temperature).log_softmax(dim=-1)
    return log_probs.nan_to_num(nan=IMPOSSIBLE).clamp(min=IMPOSSIBLE)


def _extend(
    running: _Beam, local: Tensor, prefix: PrefixScorer | None, options: DecodingOptions
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Score the end, and the most promising next tokens, of each hypothesis.

    Args:
        running: the beam.
        local: what each next token adds, without CTC, shape (B, K, V).
        prefix: CTC prefix scores, or None.
        options: beam, candidates, CTC's weight.

    Returns:
        Scores of the ends (B, K); scores of the candidates (B, K, C); the candidates (B, K, C); CTC's log-probability
        of each hypothesis as a whole text (B, K).
    """
    count = (
        options.beam_size if prefix is None else options.candidates or options.beam_size + options.beam_size // 2 + 1
    )
    ends = running.score + local[..., END]
    values, tokens = local.index_fill(2, ends.new_tensor([END], dtype=torch.int64), NEVER).topk(
        min(count, local.shape[2] - NOT_TEXT), dim=2
    )
    scores = running.score[..., None] + values
    if prefix is None:
        return ends, scores, tokens, torch.zeros_like(ends)
    begins, whole = prefix.score(tokens)
    return ends + options.ctc_weight * whole, scores + options.ctc_weight * begins, tokens, whole


def _ended(
    finished: _Finished, best: Tensor, most_bonus: Tensor, step: int, bounds: Tensor, options: DecodingOptions
) -> Tensor:
    """Tell which utterances have nothing to gain from another step, shape (B,).

    Scores only sink with length, but for hotwords, the length bonus and the normalisation, of which the most is
    expected. So that these do not make every search go on to its bound, one that fell too far behind is given up.

    Args:
        finished: what has ended so far.
        best: score of the best running hypothesis, shape (B,).
        most_bonus: the most that one token can be helped with, shape (B,).
        step: tokens of what ended in this step.
        bounds: most tokens of each utterance, shape (B,).
        options: length normalisation.
    """
    worst = finished.score[:, -1]
    power = options.length_power
    hope = best + most_bonus * (bounds - step).clamp(min=0)
    hope = torch.where(hope < 0, hope / (bounds + 1.0) ** power, hope / (step + 2.0) ** power)
    behind = best < worst * (step + 1.0) ** power - FAR_BEHIND  # of what has ended, as if it were as long
    return (worst >= hope) | behind | (bounds <= step)


def _hypotheses(finished: _Finished, history: list[tuple[Tensor, Tensor]]) -> list[list[Hypothesis]]:
    """Walk back from each end to the start."""
    steps = [[part.tolist() for part in step] for step in history]
    results = []
    for row, ends in enumerate(zip(*(field.tolist() for field in finished), strict=True)):
        found = []
        for score, length, slot, *parts in zip(*ends, strict=True):
            if score == NEVER:
                continue
            tokens = []
            for slots, written in reversed(steps[:length]):
                tokens.append(written[row][slot])
                slot = slots[row][slot]
            found.append(Hypothesis(tuple(reversed(tokens)), score, None, *parts))
        results.append(found)
    return results
