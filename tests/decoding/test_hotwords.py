from __future__ import annotations

import itertools

import pytest
import torch
from examples import DATA, waveforms
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.decoding import DecodingOptions, decode
from asr.decoding.hotwords import FREE_LETTERS, Hotwords, HotwordTrie, read_hotwords
from asr.decoding.options import MODES
from asr.decoding.spotting import spot
from asr.errors import ConfigError
from asr.model import checkpoint
from asr.tokenizer import BLANK, END, TokenizerConfig, train_tokenizer
from asr.transcriber import EMBEDDED

TOKENIZER = train_tokenizer(["ann anna new york newark a b c d"], TokenizerConfig(kind="char"))
WORDS = ["ann", "new york", "new", "york d", "anna b"]


STARTS = Hotwords(["ann"], TOKENIZER, 1.0).starts


def automaton(words, bonus):
    encoded = [tuple(TOKENIZER.encode(word)) for word in words]
    return HotwordTrie([[(tokens, bonus * len(tokens)) for tokens in encoded]], STARTS)


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
    assert given_bonus(automaton(WORDS, 2.0), text) == pytest.approx(2.0 * tokens)


@settings(max_examples=60, deadline=None)
@given(text=st.lists(st.sampled_from(["ann", "anna", "new", "york", "a", "b"]), max_size=8).map(" ".join))
def test_a_single_hotword_is_paid_once_for_each_time_it_is_said(text):
    assert given_bonus(automaton(["ann"], 1.5), text) == pytest.approx(6.0 * text.split().count("ann"))


def test_hotwords_come_from_a_list_or_a_file(tmp_path):
    assert read_hotwords("new york, ann ,,b") == ["new york", "ann", "b"]
    path = tmp_path / "words.txt"
    path.write_text("# names\nnew york\n\nann\n", encoding="utf-8")
    assert read_hotwords(str(path)) == ["new york", "ann"]
    with pytest.raises(ConfigError, match="no such file"):
        read_hotwords(str(tmp_path / "gone.txt"))
    with pytest.raises(ConfigError, match="no hotword"):
        read_hotwords(" , ")
    with pytest.raises(ConfigError, match="lacks letters of 1 of 2 hotwords, the first 'ŧaŧ'"):
        Hotwords(["ann", "ŧaŧ"], TOKENIZER, 1.0)


def test_long_words_are_worth_more_and_case_and_punctuation_do_not_matter(caplog):
    hotwords = Hotwords(["New York!", "new york", "ann"], TOKENIZER, 2.0)
    assert hotwords.words == [tuple(TOKENIZER.encode("new york")), tuple(TOKENIZER.encode("ann"))]
    assert hotwords.worth == [2.0 * (7 - FREE_LETTERS), 0.0]
    assert caplog.messages == ["hotwords of 4 letters or fewer are not helped, since they are heard everywhere: ann"]


def test_the_best_place_of_a_word_equals_the_best_of_all_alignments():
    generator = torch.Generator().manual_seed(1)
    lengths = torch.tensor([6, 4])
    log_probs = (3 * torch.randn(2, 6, len(TOKENIZER), generator=generator)).log_softmax(-1)
    words = [TOKENIZER.encode(word) for word in ("a", "aa", "b")]
    found = spot(log_probs, lengths, words, STARTS)
    gaps = (log_probs - log_probs.amax(dim=2, keepdim=True)).tolist()
    start = STARTS.nonzero()[:, 0].tolist()
    for row, frames in enumerate(lengths.tolist()):
        for column, word in enumerate(words):
            best = -float("inf")
            for first, last in itertools.combinations(range(frames + 1), 2):
                for path in itertools.product({BLANK, *word, *start}, repeat=last - first):
                    text = [token for token, _ in itertools.groupby(path) if token != BLANK]
                    whole = text[:-1] == word and text[-1] in start if text else False
                    if whole or (last == frames and text == word):
                        score = sum(gaps[row][first + place][token] for place, token in enumerate(path))
                        best = max(best, score)
            assert float(found[row, column]) == pytest.approx(best, abs=1e-4) or best < -1e3


def test_only_words_that_are_heard_get_a_bonus():
    log_probs = torch.full((2, 12, len(TOKENIZER)), -9.0)
    for frame, token in enumerate(TOKENIZER.encode("newark")):
        log_probs[0, frame, token] = 0.0
    log_probs[0, 7:, BLANK] = 0.0
    log_probs[1, :, BLANK] = 0.0
    heard = Hotwords(["newark", "new york"], TOKENIZER, 1.0).listen(log_probs, torch.tensor([12, 12]))
    tokens = [*TOKENIZER.encode("newark"), END]
    for row, worth in enumerate((6 - FREE_LETTERS, 0.0)):
        node, total = int(heard.of(row).roots[0]), 0.0
        for token in tokens:
            total += float(heard.bonus[node, token])
            node = int(heard.following[node, token])
        assert total == pytest.approx(worth)


@pytest.fixture(scope="module")
def heard():
    """The embedded model and what it hears in the shipped utterances, with their transcripts."""
    import json

    model = checkpoint.load(EMBEDDED)[0]
    rows = [json.loads(line) for line in (DATA / "manifest.jsonl").read_text().splitlines()]
    waveform, lengths = waveforms(*[row["audio_filepath"].removesuffix(".flac") for row in rows])
    with torch.inference_mode():
        return model, model.encode(waveform, lengths), [row["text"].lower().split() for row in rows]


def words(heard, mode, hotwords):
    model, (encoded, lengths), _ = heard
    options = DecodingOptions(mode=mode, beam_size=5, hotwords=hotwords)
    return [model.tokenizer.decode(best.tokens).split() for best, *_ in decode(model, encoded, lengths, options)]


def judge(found, truth, listed):
    """Count how often listed words were found where they were said, invented where nobody said them, and repeated."""
    pairs = [(text.count(word), true.count(word)) for text, true in zip(found, truth, strict=True) for word in listed]
    invented = sum(wrote for wrote, said in pairs if not said)
    repeated = sum(max(0, wrote - said) for wrote, said in pairs if said)
    return sum(min(pair) for pair in pairs), invented, repeated


STRANGERS = ["xylophone", "bulldozer", "quarterback", "jellyfish", "zimbabwe", "mountain", "wonderful", "tomorrow"]


@pytest.mark.parametrize("mode", MODES)
def test_recall_of_rare_words_goes_up_without_inventions(heard, mode):
    truth = heard[2]
    rare = sorted({word for text in truth for word in text if len(word) > FREE_LETTERS + 2})
    assert len(rare) >= 20
    listed = rare + STRANGERS
    searched = "ctc_beam" if mode == "ctc" else mode  # with hotwords `ctc` searches as `ctc_beam` does
    hits, invented, repeated = judge(words(heard, searched, ""), truth, listed)
    more_hits, more_invented, more_repeated = judge(words(heard, mode, ",".join(listed)), truth, listed)
    spoken = sum(text.count(word) for text in truth for word in rare)
    assert more_hits > hits or hits > 0.95 * spoken
    assert more_invented <= invented
    assert more_repeated <= repeated + (mode == "attention")  # a weak decoder says "herself the herself" once


def test_a_word_within_a_longer_one_counts_where_the_longer_one_does_not_go_on():
    """`york` is within `new york city`; text that leaves the longer one must not lose it."""
    words = automaton(["york", "new york city"], 1.0)
    york, city = len(TOKENIZER.encode("york")), len(TOKENIZER.encode("new york city"))
    for text, expected in (
        ("new york", york),
        ("new york a", york),
        ("york", york),
        ("new york city", city),  # the longer one's worth is all there is
        ("new york city york", city + york),
        ("new yorkd", 0),
        ("a york b new york", 2 * york),
    ):
        assert given_bonus(words, text) == pytest.approx(expected), text


@settings(max_examples=200, deadline=None)
@given(
    listed=st.lists(st.sampled_from([*WORDS, "york", "a b", "b", "new york d"]), min_size=1, max_size=5, unique=True),
    text=st.lists(st.sampled_from(["ann", "anna", "new", "york", "a", "b", "d"]), max_size=7),
)
def test_nothing_lent_is_kept_and_every_listed_word_that_ends_the_text_is_earned(listed, text):
    total = given_bonus(automaton(listed, 1.0), " ".join(text))
    found = [len(TOKENIZER.encode(word)) for word in listed if f" {word} " in f" {' '.join(text)} "]
    assert total >= max(found, default=0) - 1e-4
    assert total <= len(TOKENIZER.encode(" ".join(text))) * len(listed) + 1e-4
    if not found:
        assert total == pytest.approx(0.0, abs=1e-4)


def test_names_with_strokes_and_files_with_a_mark(tmp_path):
    assert read_hotwords("AC/DC,Metallica") == ["AC/DC", "Metallica"]
    assert read_hotwords("AC/DC") == ["AC/DC"]
    path = tmp_path / "words.txt"
    path.write_text("\ufeff# names of our town\nann\n", encoding="utf-8")
    assert read_hotwords(str(path)) == ["ann"]
    with pytest.raises(ConfigError, match="no such file"):
        read_hotwords(f"{tmp_path}/gone")
