"""Hotwords: a bonus for words to listen for, where the audio allows for them.

First CTC is asked which of the words may be in an utterance at all (`asr.decoding.spotting`). Only these get a bonus
in its search, in every mode alike, by an automaton over tokens (Aho and Corasick 1975). A word counts only as a whole:
the bonus of its tokens is taken back when the text goes on differently, also with more letters of the same word.
"""

from __future__ import annotations

import logging
import os
import re
from collections import deque
from collections.abc import Iterator, Sequence
from copy import copy
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor

from asr.decoding.spotting import spot
from asr.errors import ConfigError
from asr.tokenizer import END, SPECIALS, UNKNOWN, WORD_START, Tokenizer

log = logging.getLogger(__name__)

# What no one says: a path, or a name that ends as lists do; `AC/DC` and `Node.js` are words.
FILE_NAME = re.compile(r".*[/\\].*\.\w+|.*\.(txt|lst|list|csv|tsv|jsonl?)", re.IGNORECASE)
MOST_SHOWN = 10  # words in a line of warning
# Letters that earn no bonus: a short word is soon found where nobody said it. On 25 utterances of Mini LibriSpeech's
# dev set with 100 words and bonus 1, 4 gave 15 of 61 words and 1 false hit; 2 gave 25 and 4, the best path 3 and 0.
FREE_LETTERS = 4


def read_hotwords(source: str) -> list[str]:
    """Read hotwords from a file with one on each line, or from a list with commas.

    Args:
        source: path of a text file, or the words themselves. Lines that begin with # are left out.

    Raises:
        ConfigError: there is no word in it, or it looks like a file that is not there.
    """
    is_file = os.path.isfile(source)  # unlike Path.is_file it bears a long list of words
    meant = FILE_NAME.fullmatch(source) or os.path.isdir(os.path.dirname(source))
    if not is_file and "," not in source and meant:
        raise ConfigError(f"{source}: no such file of hotwords")
    try:
        entries = Path(source).read_text(encoding="utf-8-sig").splitlines() if is_file else source.split(",")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{source}: hotwords cannot be read as UTF-8 text: {error}") from error
    words = [entry.strip() for entry in entries if entry.strip() and not entry.lstrip().startswith("#")]
    if not words:
        raise ConfigError(f"{source!r}: no hotword in it: write one on each line, or a list with commas")
    return words


class Hotwords:
    """Words to listen for, and what each of them is worth.

    Args:
        words: words and phrases as one would write them.
        tokenizer: turns them into the model's tokens. A word is found in this spelling only.
        bonus: nats for each letter after the first FREE_LETTERS.

    Raises:
        ConfigError: nothing is left of a word after the tokenizer's normaliser, or the model cannot write it.
    """

    def __init__(self, words: Sequence[str], tokenizer: Tokenizer, bonus: float) -> None:
        self.words = list(dict.fromkeys(tuple(tokenizer.encode(word)) for word in words))
        odd = [word for word in words if min(tokenizer.encode(word), default=UNKNOWN) < SPECIALS]
        if odd:
            raise ConfigError(
                f"the model's vocabulary lacks letters of {len(odd)} of {len(words)} hotwords, the first {odd[0]!r}: "
                "spell them with the letters of the language it was trained on"
            )
        letters = (len(tokenizer.decode(word).replace(" ", "")) for word in self.words)
        self.worth = [bonus * max(0, count - FREE_LETTERS) for count in letters]
        """The most nats that each word is helped with."""
        if short := [tokenizer.decode(word) for word, worth in zip(self.words, self.worth, strict=True) if not worth]:
            log.warning(
                "hotwords of %d letters or fewer are not helped, since they are heard everywhere: %s",
                FREE_LETTERS,
                ", ".join(short[:MOST_SHOWN]) + (", ..." if len(short) > MOST_SHOWN else ""),
            )
        self.starts = torch.tensor([piece.startswith(WORD_START) for piece in tokenizer.pieces])
        """Which tokens begin a word, shape (V,)."""

    def listen(self, log_probs: Tensor, lengths: Tensor) -> HotwordTrie:
        """Keep, for each utterance, the words that CTC hears nearly as well as the best text: within their worth.

        Args:
            log_probs: CTC's, shape (B, T', V).
            lengths: frames of each row, shape (B,).
        """
        fits = spot(log_probs, lengths, self.words, self.starts.to(log_probs.device)).cpu()
        heard = (fits > -torch.tensor(self.worth)).tolist()
        pairs = list(zip(self.words, self.worth, strict=True))
        chosen = [[pair for pair, keep in zip(pairs, row, strict=True) if keep] for row in heard]
        return HotwordTrie(chosen, self.starts)


class HotwordTrie:
    """The hotwords of each utterance as an automaton over tokens.

    Args:
        chosen: for each utterance its words' tokens and what each is worth.
        starts: which tokens begin a word, shape (V,), bool.
    """

    def __init__(self, chosen: Sequence[Sequence[tuple[tuple[int, ...], float]]], starts: Tensor) -> None:
        parts = [_automaton(words, starts) for words in chosen]
        counts = [len(bonus) for _, bonus in parts]
        firsts = list(accumulate(counts[:-1], initial=0))
        self.roots = torch.tensor(firsts)
        """Node that each utterance begins at, shape (B,)."""
        self.following = torch.cat([nodes + first for (nodes, _), first in zip(parts, firsts, strict=True)])
        """Node after each token, shape (nodes, V)."""
        self.bonus = torch.cat([bonus for _, bonus in parts])
        """What each token adds at each node, shape (nodes, V)."""
        self.most = torch.stack([bonus.max() for _, bonus in parts])
        """The most that one token can add in each utterance, shape (B,)."""

    def of(self, row: int) -> HotwordTrie:
        """Give the automaton of one utterance alone."""
        only = copy(self)
        only.roots, only.most = self.roots[row : row + 1], self.most[row : row + 1]
        return only


def _automaton(words: Sequence[tuple[tuple[int, ...], float]], starts: Tensor) -> tuple[Tensor, Tensor]:
    """Link words to an automaton: the node after each token, and what each token adds, both (nodes, V).

    A word's worth is lent token by token, evenly. It is earned where the next word begins or the text ends.
    """
    children: list[dict[int, int]] = [{}]
    worth = [0.0]  # of the word that ends at a node
    share = [0.0]  # the most that a word has been lent at a node
    for tokens, value in words:
        node = 0
        for count, token in enumerate(tokens, start=1):
            if token not in children[node]:
                children[node][token] = len(children)
                children.append({})
                worth.append(0.0)
                share.append(0.0)
            node = children[node][token]
            share[node] = max(share[node], value * count / len(tokens))
        worth[node] = value
    ends = starts.clone()
    ends[END] = True
    following = torch.zeros(len(children), len(starts), dtype=torch.int64)
    paid = [0.0] * len(children)  # what words on the way to a node have earned, at its beginning or within it
    earned = [0.0] * len(children)  # what is earned at a node where the next word begins
    for node, shorter in _link(children, following):
        earned[node] = max(0.0, worth[node] - paid[node]) if worth[node] else earned[shorter]
        for token, child in children[node].items():
            paid[child] = paid[node] + earned[node] * bool(ends[token])
    held = (torch.tensor(share) - torch.tensor(paid)).clamp(min=0.0)
    return following, held[following] - held[:, None] + torch.tensor(earned)[:, None] * ends


def _link(children: list[dict[int, int]], following: Tensor) -> Iterator[tuple[int, int]]:
    """Fill in where each token leads: on in the word, or to the longest end of the text that begins a word.

    Yields:
        Each node with the one of that longest end, shorter ones first.
    """
    queue = deque([(0, 0)])
    while queue:
        node, shorter = queue.popleft()
        yield node, shorter
        following[node] = following[shorter]
        for token, child in children[node].items():
            queue.append((child, int(following[shorter, token]) if node else 0))
            following[node, token] = child
