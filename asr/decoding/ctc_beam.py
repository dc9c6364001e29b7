"""CTC prefix beam search: the most probable text, summed over its alignments, for all utterances at once.

Sources: Graves 2012, section 7.5.3; Hannun et al. 2014, arXiv:1408.2873. Silence: Chen et al. 2016, "Phone synchronous
speech recognition with CTC lattices". Recombination: Ney and Ortmanns 2000, "Progress in dynamic programming search
for LVCSR", section IV.

This is numpy, on the CPU wherever the model is: each frame takes some fifty small steps, which as tensors take four
times as long, and on a GPU longer than that.

Shapes: B batch, T' encoder frames, V vocabulary, K beam, C columns: BLANK, for staying as one is, and candidate tokens;
R = B x K rows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from asr.decoding.alternatives import NEVER, Merge, Numbers, Scores, unfold
from asr.decoding.ctc import best_paths
from asr.decoding.fusion import Fusion, FusionState
from asr.decoding.options import DecodingOptions, Hypothesis
from asr.features import length_mask
from asr.tokenizer import BLANK, END

FEWEST_CANDIDATES = 40
CERTAIN = 0.99
"""Probability of a blank from which on a frame tells nothing after another such one, and is left out."""
RECOMBINED_EVERY = 3
"""Frames from one recombination to the next: looking for equals takes time, and the beam holds a few of them well."""
_HASH = 6364136223846793005  # Knuth's multiplier; texts are told apart by 64-bit hashes


class _Prefixes(NamedTuple):
    """The texts in the beam; each field (R,)."""

    blank: Scores
    """Log-probability of all alignments that end in a blank."""
    token: Scores
    """Of those that end in the last token."""
    last: Numbers
    """The last token; BLANK for the empty text."""
    name: Numbers
    """Hash of the text."""
    parent: Numbers
    """Hash of the text without its last token."""
    lm: Scores
    """Language model's log-probability."""
    bonus: Scores
    """Hotwords' and length's bonus."""


@np.errstate(invalid="ignore")  # scores that are no numbers are dealt with at the end
def search_prefixes(
    log_probs: Tensor, lengths: Tensor, options: DecodingOptions, fusion: Fusion, most: int | None = None
) -> list[list[Hypothesis]]:
    """Find the most probable texts.

    Args:
        log_probs: CTC's, shape (B, T', V).
        lengths: frames of each row, shape (B,).
        options: beam, candidates, normalisation; `nbest` is not consulted.
        fusion: language model, hotwords, length bonus.
        most: hypotheses given for each utterance; all of the beam by default.

    Returns:
        Hypotheses of each utterance, best first; where scores are no numbers, the best path.
    """
    batch, _, vocabulary = log_probs.shape
    beam, device = options.beam_size, log_probs.device
    heard = _without_long_silence(log_probs.float().cpu(), lengths.cpu())
    scores, tokens = _candidates(heard, options.candidates or max(FEWEST_CANDIDATES, beam + beam // 2))
    frames = heard.numpy()
    prefixes = _first(batch, beam)
    owner = np.arange(batch * beam) // beam
    state = FusionState(fusion, batch * beam, vocabulary, device)
    history: list[tuple[Numbers, Numbers]] = []
    merges: dict[int, Merge] = {}
    recombining = not options.length_power  # which ranks by what the search itself does not know yet
    for frame in range(heard.shape[1]):
        prefixes, rows, written = _advance(prefixes, frames[:, frame], scores[:, frame], tokens[:, frame], owner, state)
        history.append((rows, written))
        state.advance(torch.from_numpy(rows).to(device), torch.from_numpy(written).to(device))
        if recombining and frame % RECOMBINED_EVERY == 0 and (futures := state.futures()) is not None:
            merges[frame] = _recombine(prefixes, futures, state.fusion.lm_weight, batch)
    lm, bonus = (part[:, END].cpu().numpy() for part in (state.lm, state.bonus))
    prefixes = prefixes._replace(lm=prefixes.lm + lm, bonus=prefixes.bonus + bonus)
    found = _hypotheses(prefixes, history, merges, heard, state, options.length_power, most or beam)
    # No beam holds scores that are no numbers: the best path passes them on to who asked.
    return (
        found
        if all(found)
        else [texts or path for texts, path in zip(found, best_paths(log_probs, lengths), strict=True)]
    )


def _without_long_silence(log_probs: Tensor, lengths: Tensor) -> Tensor:
    """Leave out frames that are blank for certain and follow on such a one; gives (B, fewer T', V).

    Texts stay as they are in such a frame. The first of them has to be there: a token after it may repeat the last one.
    """
    valid = length_mask(lengths, log_probs.shape[1])
    silent = log_probs[..., BLANK] > np.log(CERTAIN)
    kept = valid.clone()
    kept[:, 1:] &= ~(silent[:, 1:] & silent[:, :-1])
    most = max(1, int(kept.sum(dim=1).max()))  # one frame of padding where there is nothing to hear
    order = (~kept).to(torch.uint8).argsort(dim=1, stable=True)[:, :most]
    # Padding is all blank, for certain: it changes nothing.
    blank = torch.full((log_probs.shape[2],), NEVER)
    blank[BLANK] = 0.0
    picked = log_probs.gather(1, order[..., None].expand(-1, -1, log_probs.shape[2]))
    return torch.where(kept.gather(1, order)[..., None], picked, blank)


def _candidates(log_probs: Tensor, count: int) -> tuple[Scores, Numbers]:
    """Give the columns' log-probabilities and tokens, both (B, T', C); the first is BLANK."""
    batch, frames, vocabulary = log_probs.shape
    if count >= vocabulary - 1:
        return log_probs.double().numpy(), np.broadcast_to(np.arange(vocabulary), log_probs.shape)
    tops, tokens = log_probs[..., 1:].topk(count, dim=-1)
    blank = torch.full((batch, frames, 1), BLANK)
    return torch.cat((log_probs[..., :1], tops), dim=2).double().numpy(), torch.cat((blank, tokens + 1), dim=2).numpy()


def _first(batch: int, beam: int) -> _Prefixes:
    """Begin with the empty text alone."""
    nothing = np.full(batch * beam, NEVER)
    blank = nothing.copy()
    blank[::beam] = 0.0
    zero = np.zeros(batch * beam, dtype=np.int64)
    return _Prefixes(blank, nothing, zero + BLANK, zero, zero - 1, zero.astype(np.float64), zero.astype(np.float64))


def _advance(
    prefixes: _Prefixes, frame: NDArray[np.float32], scores: Scores, tokens: Numbers, owner: Numbers, state: FusionState
) -> tuple[_Prefixes, Numbers, Numbers]:
    """Let every text stay or grow by one token, and keep the best.

    Args:
        prefixes: what is in the beam.
        frame: log-probabilities of all tokens, shape (B, V).
        scores: of the columns' tokens, shape (B, C).
        tokens: the columns', shape (B, C).
        owner: utterance of each row, shape (R,).
        state: scores of next tokens.

    Returns:
        The new beam; the row that each of its texts comes from (R,); the token that it was given, or BLANK (R,).
    """
    (batch, columns), beam = tokens.shape, len(prefixes.last) // len(tokens)
    stay_blank, heard = _listen(prefixes, frame, scores, tokens, owner)
    next_lm, next_bonus = (part.cpu().numpy() for part in (state.lm, state.bonus))  # (R, V)
    if columns < frame.shape[1]:
        chosen = tokens.repeat(beam, axis=0)
        next_lm, next_bonus = (np.take_along_axis(part, chosen, axis=1) for part in (next_lm, next_bonus))
    weight = state.fusion.lm_weight
    fused = weight * prefixes.lm + prefixes.bonus
    ranked = heard + (fused[:, None] + (weight * next_lm + next_bonus))
    ranked[:, 0] = np.logaddexp(stay_blank, heard[:, 0]) + fused
    best = ranked.reshape(batch, -1).argpartition(-beam, axis=1)[:, -beam:]  # (B, K)
    cells = best.ravel() + beam * columns * owner
    rows, column = np.divmod(cells, columns)
    written = tokens[owner, column]
    grows = column > 0
    old = _Prefixes(*(field.take(rows) for field in prefixes))
    new = _Prefixes(
        np.where(grows, NEVER, stay_blank.take(rows)),
        heard.take(cells),
        np.where(grows, written, old.last),
        np.where(grows, old.name * _HASH + written, old.name),
        np.where(grows, old.name, old.parent),
        old.lm + next_lm.take(cells) * grows,
        old.bonus + next_bonus.take(cells) * grows,
    )
    return new, rows, written


def _recombine(prefixes: _Prefixes, futures: Numbers, lm_weight: float, batch: int) -> Merge:
    """Keep, of texts that nothing to come tells apart, the best alone: the others would only take places in the beam.

    Args:
        prefixes: what is in the beam; the places of the others become empty.
        futures: rows with the same number get the same scores from language model and hotwords from here on, (R,).
        lm_weight: of the language model.
        batch: number of utterances B.

    Returns:
        What was dropped.
    """
    futures, last = futures.reshape(batch, -1), prefixes.last.reshape(batch, -1)
    parts = np.stack((np.logaddexp(prefixes.blank, prefixes.token), prefixes.lm, prefixes.bonus), axis=1)  # (R, 3)
    score = (parts @ [1.0, lm_weight, 1.0]).reshape(batch, -1)
    same = (futures[:, :, None] == futures[:, None]) & (last[:, :, None] == last[:, None])
    beaten = (same & (score[:, :, None] < score[:, None])).any(axis=2) & (score > NEVER)
    utterance, place = beaten.nonzero()
    best = np.where(same[utterance, place], score[utterance], NEVER).argmax(axis=1)
    dropped, kept = (utterance * score.shape[1] + column for column in (place, best))
    merge = Merge(dropped, kept, parts[dropped] - parts[kept])
    prefixes.blank[dropped] = prefixes.token[dropped] = NEVER
    return merge


def _listen(
    prefixes: _Prefixes, frame: NDArray[np.float32], scores: Scores, tokens: Numbers, owner: Numbers
) -> tuple[Scores, Scores]:
    """Score one more frame of every text, by CTC alone.

    Args:
        prefixes: what is in the beam.
        frame: as for `_advance`.
        scores: as for `_advance`.
        tokens: as for `_advance`.
        owner: as for `_advance`.

    Returns:
        Log-probabilities that a text stays and ends in a blank, shape (R,); that it ends in its last token, in the
        column of BLANK, and that it grows by a candidate, in the others, shape (R, C).
    """
    blank, token, last, name, parent, *_ = prefixes
    (batch, columns), vocabulary = tokens.shape, frame.shape[1]
    beam = len(last) // batch
    total = np.logaddexp(blank, token)
    of_last = frame[owner, last].astype(np.float64)
    stay_token = token + of_last

    # The column of each row's last token. What is no candidate has BLANK's, which is written last.
    column = last
    if columns < vocabulary:
        column_of = np.zeros((batch, vocabulary), dtype=np.int64)
        np.put_along_axis(column_of, tokens, np.arange(columns)[None], axis=1)
        column = column_of[owner, last]
    # A token that repeats the last one is new only after a blank.
    heard = (total.reshape(batch, beam, 1) + scores[:, None]).reshape(-1, columns)
    heard[np.arange(len(last)), column] = blank + of_last

    # A text that grows into another one of the beam adds to it, and is no candidate of its own.
    utterance, child, source = (parent.reshape(batch, beam, 1) == name.reshape(batch, 1, beam)).nonzero()
    child, source = utterance * beam + child, utterance * beam + source
    alive = (total[child] > NEVER) & (total[source] > NEVER)  # empty slots stay so
    child, source = child[alive], source[alive]
    added = last[child]
    inflow = np.where(last[source] == added, blank[source], total[source]) + of_last[child]
    stay_token[child] = np.logaddexp(stay_token[child], inflow)
    heard[source, column[child]] = NEVER
    heard[:, 0] = stay_token
    return total + frame[owner, BLANK].astype(np.float64), heard


def _hypotheses(
    prefixes: _Prefixes,
    history: list[tuple[Numbers, Numbers]],
    merges: dict[int, Merge],
    log_probs: Tensor,
    state: FusionState,
    power: float,
    most: int,
) -> list[list[Hypothesis]]:
    """Walk back from the last frame to the tokens of each text, rank the texts, and tell about the best of them."""
    batch, weight = len(log_probs), state.fusion.lm_weight
    parts = np.stack((np.logaddexp(prefixes.blank, prefixes.token), prefixes.lm, prefixes.bonus))  # (3, R)
    if merges and most > 1:
        texts, parts = unfold(history, merges, parts, weight, batch, most)
        parts[0] = np.where(parts[0] > NEVER, _listen_again(texts, log_probs), NEVER)
    else:
        rows = np.arange(len(prefixes.last))
        backwards = []
        for come_from, written in reversed(history):
            backwards.append(written[rows])
            rows = come_from[rows]
        texts = np.stack(backwards[::-1], axis=1).reshape(batch, -1, len(history))  # (B, K, T'), or BLANK
        parts = parts.reshape(3, batch, -1)
    ranks = parts[0] + weight * parts[1] + parts[2]
    ranks /= (np.count_nonzero(texts != BLANK, axis=2) + 1.0) ** power
    best = np.argsort(-ranks, axis=1, kind="stable")[:, :most]  # (B, N)
    paths = np.take_along_axis(texts, best[..., None], axis=1)
    others = (np.take_along_axis(part, best, axis=1) for part in (ranks, *parts))
    results = []
    for utterance in zip(*(part.tolist() for part in (paths, *others)), strict=True):
        found = []
        for path, score, ctc, lm, bonus in zip(*utterance, strict=True):
            if score > NEVER:
                tokens = tuple(token for token in path if token != BLANK)
                found.append(Hypothesis(tokens, score, None, ctc, 0.0, lm, bonus))
        results.append(found)
    return results


def _listen_again(texts: Numbers, log_probs: Tensor) -> Scores:
    """Sum over all alignments of texts by frame, (B, N, T'), which CTC's own scores are no sums over; gives (B, N)."""
    written = torch.from_numpy(texts)
    counts = (written != BLANK).sum(dim=2)
    lengths = torch.full_like(counts[0], log_probs.shape[1])
    scores = [
        -functional.ctc_loss(
            heard[:, None].expand(-1, len(rows), -1), rows[rows != BLANK], lengths, count, BLANK, reduction="none"
        )
        for heard, rows, count in zip(log_probs, written, counts, strict=True)
    ]
    return torch.stack(scores).double().numpy()
