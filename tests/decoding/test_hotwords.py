from __future__ import annotations

import pytest
import torch
from examples import DATA, waveforms
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.decoding import DecodingOptions, decode
from asr.decoding.hotwords import HotwordTrie, read_hotwords
from asr.errors import ConfigError
from asr.model import checkpoint
from asr.tokenizer import END, TokenizerConfig, train_tokenizer
from asr.transcriber import EMBEDDED

TOKENIZER = train_tokenizer(["ann anna new york newark a b c d"], TokenizerConfig(kind="char"))
WORDS = ["ann", "new york", "new", "york d", "anna b"]


def given_bonus(trie: HotwordTrie, text: str, ended: bool = True) -> float:
    node, total = 0, 0.0
    for token in [*TOKENIZER.encode(text), *([END] if ended else [])]:
        total += float(trie.bonus[node, token])
        node = int(trie.following[node, token])
    return total


@pytest.mark.parametrize(
    "text, tokens",
    [
        ("ann", 4),
        ("anna", 0),  # another word
        ("hann", 0),
        ("a ann b", 4),
        ("ann ann", 8),
        ("new", 4),
        ("newark", 0),
        ("new york", 9),
        ("new yorkd", 4),  # `new` is a word of its own
        ("new a", 4),
        ("york", 0),
        ("york d", 7),
    ],
)
def test_whole_words_keep_their_bonus_and_nothing_else_does(text, tokens):
    assert given_bonus(HotwordTrie(WORDS, TOKENIZER, 2.0), text) == pytest.approx(2.0 * tokens)


@settings(max_examples=60, deadline=None)
@given(text=st.lists(st.sampled_from(["ann", "anna", "new", "york", "a", "b"]), max_size=8).map(" ".join))
def test_a_single_hotword_is_paid_once_for_each_time_it_is_said(text):
    assert given_bonus(HotwordTrie(["ann"], TOKENIZER, 1.5), text) == pytest.approx(6.0 * text.split().count("ann"))


def test_hotwords_come_from_a_list_or_a_file(tmp_path):
    assert read_hotwords("new york, ann ,,b") == ["new york", "ann", "b"]
    path = tmp_path / "words.txt"
    path.write_text("# names\nnew york\n\nann\n", encoding="utf-8")
    assert read_hotwords(str(path)) == ["new york", "ann"]
    with pytest.raises(ConfigError, match="no such file"):
        read_hotwords(str(tmp_path / "gone.txt"))
    with pytest.raises(ConfigError, match="no hotword"):
        read_hotwords(" , ")
    with pytest.raises(ConfigError, match="cannot write any"):
        HotwordTrie(["ŧŧŧ"], TOKENIZER, 1.0)


@pytest.fixture(scope="module")
def heard():
    """The embedded model and what it hears in the shipped utterances, with their transcripts."""
    import json

    model = checkpoint.load(EMBEDDED)[0]
    rows = [json.loads(line) for line in (DATA / "manifest.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["duration"] < 6]
    waveform, lengths = waveforms(*[row["audio_filepath"].removesuffix(".flac") for row in rows])
    with torch.inference_mode():
        return model, model.encode(waveform, lengths), [row["text"].lower().split() for row in rows]


def words(heard, mode, hotwords):
    model, encoded, _ = heard
    bonus = 0.5 if mode == "joint" else 1.0
    options = DecodingOptions(mode=mode, beam_size=5, hotwords=hotwords, hotword_bonus=bonus, ctc_weight=0.5)
    return [model.tokenizer.decode(best.tokens).split() for best, *_ in decode(model, *encoded, options)]


def recall(found, truth, wanted):
    pairs = list(zip(found, truth, strict=True))
    hits = sum(min(text.count(word), true.count(word)) for text, true in pairs for word in wanted)
    return hits / sum(true.count(word) for true in truth for word in wanted)


@pytest.mark.parametrize("mode", ["ctc", "ctc_beam", "joint", "rescoring"])
def test_recall_of_long_words_goes_up_without_inventions(heard, mode):
    truth = heard[2]
    rare = sorted({word for text in truth for word in text if len(word) > 4})
    assert len(rare) >= 10
    plain, helped = words(heard, mode, ""), words(heard, mode, ",".join(rare))
    assert recall(helped, truth, rare) > recall(plain, truth, rare) + 0.2
    strangers = ["xylophone", "bulldozer", "quarterback", "jellyfish", "zimbabwe"]
    found = words(heard, mode, ",".join(strangers))
    assert not any(word in strangers for text in found for word in text)
