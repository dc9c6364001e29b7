"""Bounds on what an attention decoder may write, so that it can neither loop nor babble.

An attention decoder is free to write without listening. The CTC head cannot: it writes at most one token a frame, where
it heard one. Its count of tokens therefore bounds the decoder's.
"""

from __future__ import annotations

from collections.abc import Sequence

# The decoder may write this many times the tokens CTC heard, and a few more: both heads cut words into tokens their
# own way, and a short text has few peaks.
SLACK_FACTOR = 1.5
SLACK_TOKENS = 5
# A phrase that comes this often in a row is a loop; people say "no no no", seldom four times.
MOST_REPEATS = 4


def token_bound(peaks: int) -> int:
    """Give the most tokens a decoder may write where CTC heard `peaks` tokens; none where it heard none."""
    return int(SLACK_FACTOR * peaks) + SLACK_TOKENS if peaks else 0


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
