"""Language model files: ARPA, the plain text that every n-gram toolkit reads and writes, also gzipped."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from asr.errors import ConfigError, DataError
from asr.files import replacing
from asr.tokenizer import Tokenizer

LONGEST_LINE = 1 << 16  # characters: a word, an n-gram of them, or what was never an ARPA file


@dataclass(frozen=True)
class NGrams:
    """All n-grams of one order; M of them."""

    contexts: NDArray[np.int64]
    """Row of the first n - 1 tokens of each among the n-grams of the order below, shape (M,); 0 in order 1."""
    tokens: NDArray[np.int64]
    """The last token of each, shape (M,)."""
    log_probs: NDArray[np.float64]
    """Natural log-probability of the last token after the others, shape (M,)."""
    backoffs: NDArray[np.float64]
    """Natural logarithm of the weight of what was not seen after this n-gram, shape (M,); 0 in the highest order."""


def read_arpa(path: Path | str, tokenizer: Tokenizer) -> list[NGrams]:
    """Read the n-grams of a file whose words are the tokens of a tokenizer.

    Args:
        path: an ARPA file; gzipped if its name ends in .gz.
        tokenizer: names the tokens.

    Returns:
        The n-grams of order 1, 2, ...

    Raises:
        ConfigError: the file is missing, damaged, or its words are not this tokenizer's tokens.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: no such language model; `asr lm build` makes one")
    ids = {piece: token for token, piece in enumerate(tokenizer.pieces)}
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8") as lines:
            return list(_sections(_bounded(lines), ids))
    except KeyError as error:
        raise ConfigError(f"{path}: {error.args[0]!r} is no token of this model: build one with --model") from error
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise ConfigError(f"{path}: not an ARPA file, or damaged: {error}") from error


def read_sentences(path: Path | str) -> Iterator[str]:
    """Yield the sentences of a text file, one on each line, or the transcripts of a manifest (.jsonl); also gzipped.

    Raises:
        DataError: the file is missing, is no UTF-8 text, or a line of the manifest has no text.
    """
    path = Path(path)
    opened = gzip.open if path.suffix == ".gz" else open
    manifest = ".jsonl" in path.suffixes
    number = 0
    try:
        with opened(path, "rt", encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):  # noqa: B007 (the error names it)
                if line.strip():
                    text = json.loads(line)["text"] if manifest else line.strip()
                    if not isinstance(text, str):
                        raise TypeError
                    yield text
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: line {number} is no utterance with a `text`") from error
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text: {error}") from error


def write_arpa(path: Path | str, orders: list[NGrams], tokenizer: Tokenizer) -> None:
    """Write an ARPA file atomically; the same n-grams give the same bytes.

    Args:
        path: where to; gzipped if its name ends in .gz.
        orders: the n-grams of order 1, 2, ...
        tokenizer: names the tokens.

    Raises:
        WriteError: the file cannot be written.
    """
    path = Path(path)
    with replacing(path) as temporary, temporary.open("wb") as raw:
        binary = gzip.GzipFile("", "wb", 6, raw, mtime=0) if path.suffix == ".gz" else raw
        with TextIOWrapper(binary, encoding="utf-8", newline="\n") as text:
            text.writelines(_lines(orders, tokenizer.pieces))


def _lines(orders: list[NGrams], pieces: list[str]) -> Iterator[str]:
    yield "\\data\\\n"
    for order, grams in enumerate(orders, start=1):
        yield f"ngram {order}={len(grams.log_probs)}\n"
    texts: list[str] = [""]  # of the n-grams of the order below
    for order, grams in enumerate(orders, start=1):
        yield f"\n\\{order}-grams:\n"
        begins, ends = grams.contexts.tolist(), grams.tokens.tolist()
        texts = [f"{texts[begin]} {pieces[end]}".lstrip(" ") for begin, end in zip(begins, ends, strict=True)]
        columns = ((grams.log_probs / math.log(10)).tolist(), texts, (grams.backoffs / math.log(10)).tolist())
        for log_prob, words, backoff in zip(*columns, strict=True):
            yield f"{log_prob:.6f}\t{words}\t{backoff:.6f}\n" if order < len(orders) else f"{log_prob:.6f}\t{words}\n"
    yield "\n\\end\\\n"


def _bounded(file: TextIO) -> Iterator[str]:
    """Yield the lines of a file, none of which may be so long that it is none."""
    while line := file.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE:
            raise ValueError(f"it has a line of {LONGEST_LINE} characters or more")
        yield line


def _sections(lines: Iterator[str], ids: dict[str, int]) -> Iterator[NGrams]:
    """Read one order after the other, in as many lines as the head promises."""
    counts = []
    for line in lines:
        if line.startswith("ngram "):
            counts.append(int(line.partition("=")[2]))
        elif counts and not line.strip():
            break
    if not counts:
        raise ValueError("it has no line `ngram 1=...`")
    if counts[0] > len(ids):
        raise ValueError(f"it has {counts[0]} words, more than the {len(ids)} tokens of this model")
    found: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []  # names of each order, sorted, and their rows
    for order, count in enumerate(counts, start=1):
        if next((line.strip() for line in lines if line.strip()), "") != f"\\{order}-grams:":
            raise ValueError(f"it has no section of {order}-grams")
        section = list(islice(lines, count))
        if len(section) < count:
            raise ValueError(f"it ends within the {order}-grams")
        words, log_probs, backoffs = _section(section, order, ids)
        contexts = np.zeros(count, dtype=np.int64)
        for (names, rows), column in zip(found, words, strict=False):
            wanted = contexts * len(ids) + column
            places = np.searchsorted(names, wanted).clip(max=max(0, len(names) - 1))
            if not np.array_equal(names[places] if len(names) else names, wanted):
                raise ValueError(f"it has {order}-grams whose first {order - 1} words are no n-gram")
            contexts = rows[places]
        names = contexts * len(ids) + words[-1]
        rows = np.argsort(names, kind="stable")
        found.append((names[rows], rows))
        yield NGrams(contexts, words[-1], log_probs, backoffs)


def _fields(line: str) -> list[str]:
    """Split at blanks, tabs and line ends alone: other spaces, such as French has before its marks, are tokens."""
    return [field for field in line.replace("\t", " ").replace("\n", " ").split(" ") if field]


def _section(
    lines: list[str], order: int, ids: dict[str, int]
) -> tuple[list[NDArray[np.int64]], NDArray[np.float64], NDArray[np.float64]]:
    """Read the token ids column by column, the log-probabilities and the backoffs."""
    fields = _fields(" ".join(lines))
    width = order + 2
    if len(fields) != width * len(lines):  # some or all lines come without a backoff weight
        rows = [_fields(line) for line in lines]
        if not {len(row) for row in rows} <= {width - 1, width}:
            raise ValueError(f"a line of the {order}-grams has the wrong number of words")
        fields = [field for row in rows for field in (row if len(row) == width else [*row, "0"])]
    words = [np.fromiter(map(ids.__getitem__, fields[column::width]), np.int64) for column in range(1, order + 1)]
    log_probs, backoffs = (
        np.array(fields[column::width], dtype=np.float64) * math.log(10) for column in (0, order + 1)
    )
    if not (np.isfinite(log_probs).all() and np.isfinite(backoffs).all()):
        raise ValueError(f"the {order}-grams have weights that are no numbers")
    return words, log_probs, backoffs
