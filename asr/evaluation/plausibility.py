"""Transcripts that a model's CTC head finds implausible, or cannot align at all: for `asr check`.

The score of an utterance is the log-likelihood of its transcript over all alignments, for each token. A wrong
transcript scores like a stranger's, so each group of like lengths is also scored with its transcripts passed on by one:
that is how this very model scores wrong texts of this very corpus, whatever its quality.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from asr.batching import group_by_length
from asr.check import Infeasible, Plausibility
from asr.features import FRAME_SHIFT
from asr.losses import infeasible
from asr.manifest import Manifest
from asr.model.recognizer import Recognizer
from asr.model.subsampling import subsampled_length
from asr.samples import SAMPLE_RATE
from asr.tokenizer import BLANK, Tokenizer

# Robust deviations below the corpus's median. With the embedded model wrong texts of six corpora lie 5.2 or further
# below, and of 1,100 right ones two lie beyond 4.5.
OUTLIER = 4.5
# ... and at least this far on the way from the median of right to the median of wrong transcripts: in a corpus that the
# model knows well the deviation is so small that any unclear word would be an outlier.
TOWARDS_WRONG = 0.5
FEWEST = 10  # utterances from which a median and a deviation can be taken
BATCH_SECONDS = 160.0  # of padded audio
LONGEST = 60.0  # seconds; attention over more takes too much memory, and such an utterance is no training material
CHARACTERS = 1_000_000  # padded, turned into tokens at once
WORST = -30.0  # score of a text that the model gives no chance at all


def infeasible_rows(tokenizer: Tokenizer, factor: int) -> Infeasible:
    """Make the function that finds texts too long for their audio.

    Args:
        tokenizer: what texts are written in.
        factor: feature frames for each encoder frame, 4 or 8.

    Returns:
        A function of texts and seconds that marks the infeasible.
    """

    def find(texts: Sequence[str], seconds: NDArray[np.float64]) -> NDArray[np.bool_]:
        samples = torch.from_numpy((seconds * SAMPLE_RATE).astype(np.int64))
        frames = subsampled_length(samples // FRAME_SHIFT + 1, factor)
        marks = np.zeros(len(texts), dtype=bool)
        for rows in group_by_length(list(map(len, texts)), CHARACTERS):  # one endless text must not pad all others
            tokens, lengths = _tokens(tokenizer, [texts[row] for row in rows])
            marks[rows] = infeasible(frames[rows], tokens, lengths).numpy()
        return marks

    return find


class TranscriptJudge:
    """Compares transcripts with what a model hears.

    Args:
        model: a recogniser in evaluation mode.
        progress: called with the number of utterances done since.
    """

    def __init__(self, model: Recognizer, progress: Callable[[int], None] = lambda utterances: None) -> None:
        self.model = model
        self.progress = progress

    def __call__(self, manifest: Manifest, usable: NDArray[np.bool_]) -> Plausibility:
        """Score the usable rows of a manifest, and name the outliers.

        Args:
            manifest: utterances.
            usable: mask of the rows that have audio and text.
        """
        scores, strangers = self.score(manifest, usable)
        rows = np.flatnonzero(np.isfinite(scores))
        if len(rows) < FEWEST:
            return Plausibility(scores, {}, f"implausible: not checked: {len(rows)} utterances are too few")
        right, wrong = float(np.median(scores[rows])), float(np.nanmedian(strangers))
        halfway = right + TOWARDS_WRONG * (wrong - right)
        below = right - scores[rows][(scores[rows] < right) & (scores[rows] > halfway)]  # the wrong would widen it
        deviation = 1.4826 * float(np.median(below)) if len(below) else 0.0
        if right - wrong < OUTLIER * deviation:
            note = f"this model cannot tell right from wrong transcripts here ({right:.2f} and {wrong:.2f} a token)"
            return Plausibility(scores, {}, f"implausible: not checked: {note}")
        limit = min(right - OUTLIER * deviation, halfway)
        return Plausibility(
            scores,
            {
                int(row): f"log-likelihood {scores[row]:.2f} a token; usual {right:.2f}, another's text {wrong:.2f}"
                for row in rows
                if scores[row] < limit
            },
            "",
        )

    @torch.inference_mode()
    def score(self, manifest: Manifest, usable: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Score each usable row with its own transcript, and with that of an utterance of like length.

        Returns:
            Two arrays of log-likelihoods for each token; NaN for rows that are not usable, or longer than LONGEST.
        """
        scores, strangers = np.full((2, len(manifest)), np.nan)
        fits = np.flatnonzero(usable & (manifest.durations <= LONGEST))
        for group in group_by_length(manifest.durations[fits].tolist(), BATCH_SECONDS):
            rows = fits[group].tolist()
            utterances = [manifest[row] for row in rows]
            waveforms = [torch.from_numpy(each.waveform()) for each in utterances]
            device = next(self.model.parameters()).device
            lengths = torch.tensor([len(waveform) for waveform in waveforms], device=device)
            encoder_out, frames = self.model.encode(pad_sequence(waveforms, batch_first=True).to(device), lengths)
            log_probs, frames = self.model.ctc_log_probs(encoder_out).cpu(), frames.cpu()
            tokens, counts = _tokens(self.model.tokenizer, [each.text for each in utterances])
            scores[rows] = _per_token(log_probs, frames, tokens, counts)
            if len(rows) > 1:
                strangers[rows] = _per_token(log_probs, frames, tokens.roll(1, 0), counts.roll(1, 0))
            self.progress(len(rows))
        return scores, strangers


def _tokens(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    encoded = [torch.tensor(tokenizer.encode(text), dtype=torch.int64) for text in texts]
    return pad_sequence(encoded, batch_first=True), torch.tensor([len(each) for each in encoded])


def _per_token(log_probs: Tensor, frames: Tensor, tokens: Tensor, counts: Tensor) -> NDArray[np.float64]:
    """Log-likelihood of each text for each of its tokens; infinite losses become WORST."""
    losses = functional.ctc_loss(log_probs.transpose(0, 1), tokens, frames, counts, blank=BLANK, reduction="none")
    return (-losses / counts.clamp_min(1)).clamp_min(WORST).double().numpy()
