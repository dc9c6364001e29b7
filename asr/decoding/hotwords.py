"""Hotwords: a bonus for each token that goes on with a word to listen for (Aho and Corasick 1975, for the matching).

A word counts only as a whole: the bonus of its tokens is taken back when the text goes on differently, also when it
goes on with more letters of the same word.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import torch

from asr.errors import ConfigError
from asr.tokenizer import END, SPECIALS, Tokenizer

WORD_START = "\u2581"


def read_hotwords(source: str) -> list[str]:
    """Read hotwords from a file with one on each line, or from a list with commas.

    Args:
        source: path of a text file, or the words themselves. Lines that begin with # are left out.

    Raises:
        ConfigError: there is no word in it, or it looks like a file that is not there.
    """
    is_file = os.path.isfile(source)  # unlike Path.is_file it bears a long list of words
    if not is_file and (source.endswith(".txt") or "/" in source):
        raise ConfigError(f"{source}: no such file of hotwords")
    try:
        entries = Path(source).read_text(encoding="utf-8").splitlines() if is_file else source.split(",")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{source}: hotwords cannot be read as UTF-8 text: {error}") from error
    words = [entry.strip() for entry in entries if entry.strip() and not entry.lstrip().startswith("#")]
    if not words:
        raise ConfigError(f"{source!r}: no hotword in it: write one on each line, or a list with commas")
    return words


class HotwordTrie:
    """All hotwords as one automaton over tokens.

    Args:
        words: words and phrases as one would write them.
        tokenizer: turns them into the model's tokens. A word is found in this spelling only.
        bonus: what each of a word's tokens adds.

    Raises:
        ConfigError: nothing is left of the words after the tokenizer's normaliser.
    """

    def __init__(self, words: Sequence[str], tokenizer: Tokenizer, bonus: float) -> None:
        encoded = [tokens for tokens in map(tokenizer.encode, words) if tokens and min(tokens) >= SPECIALS]
        if not encoded:
            raise ConfigError("the model cannot write any of the hotwords: its vocabulary lacks their letters")
        starts = [tokenizer.piece(token).startswith(WORD_START) for token in range(len(tokenizer))]
        starts[END] = True
        children, whole = self._grow(encoded)
        following = torch.zeros(len(children), len(tokenizer), dtype=torch.int64)
        self._link(children, following)
        given = [0] * len(children)  # tokens at a node that were given a bonus which is not earned yet
        for node, branches in enumerate(children):  # a child always comes after its parent
            for token, child in branches.items():
                given[child] = 1 if whole[node] and starts[token] else given[node] + 1
        held = bonus * torch.tensor(given, dtype=torch.float32)
        earned = torch.where(torch.tensor(whole)[:, None] & torch.tensor(starts), held[:, None], 0.0)
        self.following = following
        """Node after each token, shape (nodes, V)."""
        self.bonus = held[following] - held[:, None] + earned
        """What each token adds at each node, shape (nodes, V)."""

    @staticmethod
    def _grow(words: list[list[int]]) -> tuple[list[dict[int, int]], list[bool]]:
        """Lay the words side by side in a trie: each node's children by token, and whether a word ends there."""
        children: list[dict[int, int]] = [{}]
        whole = [False]
        for tokens in words:
            node = 0
            for token in tokens:
                if token not in children[node]:
                    children[node][token] = len(children)
                    children.append({})
                    whole.append(False)
                node = children[node][token]
            whole[node] = True
        return children, whole

    @staticmethod
    def _link(children: list[dict[int, int]], following: torch.Tensor) -> None:
        """Fill in where each token leads: on in the word, or to the longest end of the text that begins a word."""
        queue = deque((child, 0) for child in children[0].values())
        for token, child in children[0].items():
            following[0, token] = child
        while queue:
            node, shorter = queue.popleft()
            following[node] = following[shorter]
            for token, child in children[node].items():
                queue.append((child, int(following[shorter, token])))
                following[node, token] = child
