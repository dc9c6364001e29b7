"""Bounds on what an attention decoder may write, so that it can neither loop nor babble.

An attention decoder is free to write without listening. The CTC head cannot: it writes at most one token a frame, where
it heard one. Its count of tokens therefore bounds the decoder's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from asr.model.inspection import attention_weights, cross_attention, mean_frames, progress
from asr.model.recognizer import Recognizer
from asr.tokenizer import START

# The decoder may write this many times the tokens CTC heard, and a few more: both heads cut words into tokens their
# own way, and a short text has few peaks.
SLACK_FACTOR = 1.5
SLACK_TOKENS = 5
# A phrase that comes this often in a row is a loop; people say "no no no", seldom four times.
MOST_REPEATS = 4
# Progress of the attention is judged for texts of so many tokens or more; fewer say too little.
FEWEST_TOKENS = 8
# One head at least has to follow the audio: correlation of a token's number with where in the audio the head looks ...
LEAST_CORRELATION = 0.5
# ... and frames that its look moves on for each token. A token of speech takes one frame and, mostly, many more.
LEAST_FRAMES_PER_TOKEN = 0.25


def token_bound(peaks: int, frames: int) -> int:
    """Give the most tokens a decoder may write.

    Args:
        peaks: tokens that CTC heard; where it heard none the decoder may write none.
        frames: encoder frames, the duration; CTC cannot hear more than one token in each, nor may the decoder.
    """
    return min(int(SLACK_FACTOR * peaks) + SLACK_TOKENS, frames) if peaks else 0


def runs_away(tokens: Sequence[int]) -> bool:
    """Tell whether a text holds one phrase, of any length, more than MOST_REPEATS times in a row.

    A phrase of p tokens repeated r times is a stretch of (r - 1) x p places that equal the place p before them.
    """
    for period in range(1, len(tokens) // (MOST_REPEATS + 1) + 1):
        stretch = 0
        for place in range(period, len(tokens)):
            stretch = stretch + 1 if tokens[place] == tokens[place - period] else 0
            if stretch >= MOST_REPEATS * period:
                return True
    return False


def listens(model: Recognizer, encoder_out: Tensor, lengths: Tensor, texts: Sequence[tuple[int, ...]]) -> list[bool]:
    """Tell of each text whether the decoder's attention went on through the audio while it was written.

    Args:
        model: a recogniser in evaluation mode.
        encoder_out: shape (B, T', D).
        lengths: encoder frames of each row, shape (B,).
        texts: B texts that the decoder wrote.

    Returns:
        True where a head of the cross-attention advanced, or the text is too short to tell.
    """
    if all(len(tokens) < FEWEST_TOKENS for tokens in texts):
        return [True] * len(texts)
    counts = torch.tensor([len(tokens) for tokens in texts], device=encoder_out.device)
    inputs = pad_sequence([torch.tensor((START, *tokens)) for tokens in texts], batch_first=True)[:, :-1]
    with attention_weights(model.decoder) as weights:
        model.decoder(inputs.to(encoder_out.device), encoder_out, lengths)
    correlation, moved = progress(mean_frames(cross_attention(weights)), counts)
    advances = (correlation >= LEAST_CORRELATION) & (moved >= LEAST_FRAMES_PER_TOKEN * counts[:, None])
    return (advances.any(dim=1) | (counts < FEWEST_TOKENS)).tolist()
