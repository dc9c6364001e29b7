"""CTC prefix scores: how probable it is that a text begins in a given way (Watanabe et al. 2017, algorithm 2).

The paper walks through the frames for every candidate. Here a candidate's score is one product: the probability that
the prefix is complete before each frame, times that of the candidate in it, summed over the frames. The forward
variables are needed only for the hypotheses that stay in the beam; they follow a linear recurrence over the frames,
which two cumulative sums solve. So no step loops over frames.

Shapes: B batch, K beam, C candidates of each hypothesis, T' encoder frames, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from asr.features import length_mask
from asr.tokenizer import BLANK

NEVER = -torch.inf
PADDING = -1e4  # log-probability of a token in the padding; a finite one, so that sums over frames stay numbers
LOWEST = -1e30


class PrefixScorer:
    """Scores of B x K hypotheses and of what they may go on with.

    Args:
        log_probs: CTC's, shape (B, T', V).
        lengths: frames of each row, shape (B,).
        beam: K.
    """

    def __init__(self, log_probs: Tensor, lengths: Tensor, beam: int) -> None:
        batch, frames, self.vocabulary = log_probs.shape
        valid = length_mask(lengths, frames)[..., None]
        log_probs = log_probs.masked_fill(~valid, PADDING).clamp(min=PADDING)
        log_probs[..., BLANK].masked_fill_(~valid[..., 0], 0.0)
        self._rows = log_probs.transpose(1, 2).reshape(-1, frames)  # (B x V, T'): a token's frames lie together
        self._probs = self._rows.exp()
        self._base = torch.arange(batch, device=log_probs.device)[:, None] * self.vocabulary
        self._blanks = log_probs[:, None, :, BLANK].double().cumsum(dim=2)  # (B, 1, T')
        self._last = torch.zeros(batch, beam, dtype=torch.int64, device=log_probs.device)
        nothing = torch.full((batch, beam, frames), NEVER, dtype=torch.float64, device=log_probs.device)
        self._remember(nothing, self._blanks.expand(-1, beam, -1), empty=True)

    def score(self, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """Score every candidate.

        Args:
            candidates: next tokens of each hypothesis, shape (B, K, C); neither BLANK nor the end.

        Returns:
            Log-probability that the text begins with the hypothesis and the candidate, shape (B, K, C), and that it
            ends with the hypothesis, shape (B, K); float64.
        """
        ready = self._ready  # (B, K, T')
        probs = self._probs[self._base[..., None] + candidates]  # (B, K, C, T')
        again = self._probs[self._base + self._last]  # (B, K, T')
        scores = _log_of_products(ready, probs)
        repeated = _log_of_products(self._ready_to_repeat, again[:, :, None])
        return torch.where(candidates == self._last[..., None], repeated, scores), self._end

    def advance(self, slots: Tensor, tokens: Tensor) -> None:
        """Go on with the hypotheses in `slots` (B, K), each grown by one of `tokens` (B, K)."""
        frames = self._ready.shape[2]
        places = slots[..., None].expand(-1, -1, frames)
        repeats = (self._last.gather(1, slots) == tokens)[..., None]
        ready = torch.where(repeats, self._ready_to_repeat.gather(1, places), self._ready.gather(1, places))
        of_token = self._rows[self._base + tokens].double()  # (B, K, T')
        token = _forward(ready, of_token.cumsum(dim=2))
        self._last = tokens
        self._remember(token, _forward(_later(token, NEVER), self._blanks))

    def _remember(self, token: Tensor, blank: Tensor, empty: bool = False) -> None:
        """Derive what `score` needs from the forward variables, each (B, K, T')."""
        total = torch.logaddexp(token, blank)
        self._ready = _later(total, 0.0 if empty else NEVER)
        self._ready_to_repeat = _later(blank, NEVER)
        self._end = total[..., -1]


def _later(x: Tensor, first: float) -> Tensor:
    """Move everything one frame on; `first` comes before."""
    return torch.cat((torch.full_like(x[..., :1], first), x[..., :-1]), dim=-1)


def _forward(inflow: Tensor, sums: Tensor) -> Tensor:
    """Solve x(t) = (x(t-1) + inflow(t)) p(t) for all t, in logarithms; `sums` are those of log p up to each frame."""
    return sums + (inflow - _later(sums, 0.0)).logcumsumexp(dim=-1)


def _log_of_products(logs: Tensor, probs: Tensor) -> Tensor:
    """Sum exp(logs) x probs over the frames: (B, K, T') and (B, K, C, T') give logarithms (B, K, C), float64."""
    largest = logs.amax(dim=-1, keepdim=True).clamp(min=LOWEST)
    weights = (logs - largest).exp().to(probs.dtype)
    return (probs @ weights[..., None])[..., 0].double().log() + largest
