"""Sentences for a language model from books, none of which holds what is tested on.

python tools/book_sentences.py books/*/*.md --without data/mini_librispeech/dev.jsonl --output sentences.txt.gz

Each file is a book, plain text or Markdown with a paragraph on each line, also .gz. Left out are sentences that share
seven words in a row with a test's text, or equal one, and books that hold more than `--most` of such runs of words: a
test was read from them. Sentences come once, in the words that are compared: no punctuation, no capitals. Those with
digits are left out, since nobody knows how they are said.
"""

from __future__ import annotations

import argparse
import gzip
import re
from collections.abc import Iterator
from pathlib import Path

from rich.progress import track

from asr.decoding.arpa import read_sentences
from asr.files import write_file
from asr.normalize import get_normalizer

RUN = 7  # words in a row that two texts seldom share by chance
WORDS = range(3, 60)  # of a sentence: shorter ones are headings and exclamations, longer ones tables
END = re.compile(r"(?<=[.!?;])[\"'\u201d\u2019)_*]*\s+(?=[\"'\u201c\u2018(_*]*[A-Z])")
normalize = get_normalizer("basic")


def sentences(book: Path) -> Iterator[list[str]]:
    """Yield the words of each sentence of a book."""
    for line in read_sentences(book):
        if not line.startswith("#"):
            for part in END.split(line):
                words = normalize(part.replace("--", " ").replace("_", "")).split()
                if len(words) in WORDS and not re.search(r"[^a-z' ]", " ".join(words)):
                    yield words


def runs(words: list[str]) -> set[tuple[str, ...]]:
    """Give every seven words in a row, and a shorter text whole."""
    return {tuple(words[start : start + RUN]) for start in range(max(1, len(words) - RUN + 1))}


def main(books: list[Path], without: list[Path], most: int, every: int, output: Path) -> None:
    """Write the sentences, and say what was left out."""
    tested = set().union(*(runs(normalize(text).split()) for path in without for text in read_sentences(path)))
    kept: dict[str, None] = {}  # in order, each once
    dropped, left_out = [], 0
    for book in track(books, description="Reading"):
        found = list(sentences(book))
        shared = [runs(words) & tested for words in found]
        if len({run for each in shared for run in each if len(run) == RUN}) > most:
            dropped.append(book.name)
            continue
        left_out += sum(map(bool, shared))
        free = [" ".join(words) for words, common in zip(found, shared, strict=True) if not common]
        kept.update(dict.fromkeys(free[::every]))
    write_file(output, gzip.compress("".join(f"{sentence}\n" for sentence in kept).encode(), mtime=0))
    print(f"{output}: {len(kept)} sentences of {len(books) - len(dropped)} books, {sum(map(len, kept))} characters")
    print(f"left out: {left_out} sentences, and these books: {', '.join(dropped) or 'none'}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("books", type=Path, nargs="+")
    parser.add_argument("--without", type=Path, nargs="+", default=[], help="manifests, or texts with one on each line")
    parser.add_argument(
        "--most", type=int, default=5, help="runs of seven words that a book may share: more are no chance"
    )
    parser.add_argument("--every", type=int, default=1, help="keep every so many-th sentence")
    parser.add_argument("--output", type=Path, required=True, help="a .txt.gz file")
    main(**vars(parser.parse_args()))
