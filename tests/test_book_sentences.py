"""Sentences for a language model: none that a test was read from, each once, in the words that are compared."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
import book_sentences

TESTED = "it was the best of times it was the worst of times it was the age of wisdom"


def written(tmp_path: Path, books: dict[str, str], most: int = 5, every: int = 1) -> list[str]:
    (tmp_path / "test.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in (TESTED, "Come in now")))
    for name, text in books.items():
        (tmp_path / name).write_text(text)
    output = tmp_path / "out.txt.gz"
    book_sentences.main([tmp_path / name for name in books], [tmp_path / "test.jsonl"], most, every, output)
    return gzip.decompress(output.read_bytes()).decode().splitlines()


def test_a_paragraph_becomes_its_sentences(tmp_path):
    book = (
        "# Title: A book\n\n"
        '"Knock about? It is true," she said. "Mr. Brown--who knows?--can\'t tell."\n'
        "In 1894 he came home. _Never_ had he come so late; Rose was asleep! No.\n"
    )
    assert written(tmp_path, {"a.md": book}) == [
        "it is true she said",
        "brown who knows can't tell",
        "never had he come so late",
        "rose was asleep",
    ]


def test_what_is_tested_on_is_left_out(tmp_path):
    once = "He read: it was the best of times it was. Come in, now! They stayed at home."
    assert written(tmp_path, {"a.txt": once}) == ["they stayed at home"]
    assert written(tmp_path, {"a.txt": f"{TESTED.capitalize()}. They stayed at home."}) == []
    assert written(tmp_path, {"a.txt": f"{TESTED.capitalize()}. They stayed at home."}, 99) == ["they stayed at home"]


def test_sentences_come_once_and_some_are_passed_over(tmp_path):
    books = {"a.txt": "One two three. Two three four. Three four five.", "b.txt": "One two three. Four five six."}
    assert written(tmp_path, books) == ["one two three", "two three four", "three four five", "four five six"]
    assert written(tmp_path, books, every=2) == ["one two three", "three four five"]
