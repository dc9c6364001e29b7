from __future__ import annotations

import pytest

from asr.errors import CheckpointError, ConfigError, DataError
from asr.tokenizer import (
    BLANK,
    END,
    SPECIALS,
    START,
    UNKNOWN,
    Tokenizer,
    TokenizerConfig,
    extend_tokenizer,
    train_tokenizer,
)


@pytest.mark.parametrize("kind", ["unigram", "bpe", "char"])
def test_texts_survive_the_round_trip(manifest, kind):
    tokenizer = train_tokenizer(manifest.texts, TokenizerConfig(kind=kind, vocabulary=80))
    for text in manifest.texts:
        tokens = tokenizer.encode(text)
        assert min(tokens) >= SPECIALS
        assert tokenizer.decode(tokens) == tokenizer.normalizer(text)
        assert tokenizer.decode([START, BLANK, *tokens, END]) == tokenizer.normalizer(text)
    again = Tokenizer(tokenizer.model)
    assert len(again) == len(tokenizer)
    assert again.encode(manifest.texts[0]) == tokenizer.encode(manifest.texts[0])
    assert train_tokenizer(manifest.texts, TokenizerConfig(kind=kind, vocabulary=80)).model == tokenizer.model


def test_characters_have_one_token_each(tokenizer):
    assert len(tokenizer.encode("knit two")) == len("_knit_two")


def test_an_unseen_character_is_unknown_and_vanishes_from_the_text(tokenizer):
    assert tokenizer.decode(tokenizer.encode("knit \u65e5 two")) == "knit two"


def test_long_texts_count():
    assert UNKNOWN not in train_tokenizer(["a b c", "xyz " * 1100], TokenizerConfig(kind="char")).encode("xyz")


def test_spaces_that_are_not_blanks_are_characters():
    tokenizer = train_tokenizer(["un deux"], TokenizerConfig(kind="char", normalizer="none"))
    larger = extend_tokenizer(tokenizer, ["un\u00a0!"])
    assert larger.decode(larger.encode("un\u00a0!")) == "un\u00a0!"


def test_wrong_input_is_refused():
    with pytest.raises(CheckpointError, match="not a SentencePiece model"):
        Tokenizer(b"nonsense")
    with pytest.raises(DataError, match="no text"):
        train_tokenizer(["", "..."], TokenizerConfig())
    with pytest.raises(ConfigError, match="must be one of unigram, bpe, char"):
        TokenizerConfig(kind="words")
    with pytest.raises(ConfigError, match="did you mean 'basic'"):
        TokenizerConfig(normalizer="basik")


def test_the_alphabet_may_be_larger_than_the_vocabulary_that_characters_ignore():
    text = "".join(map(chr, range(0x4E00, 0x4E00 + 600)))
    assert UNKNOWN not in train_tokenizer([text], TokenizerConfig(kind="char")).encode(text)
    with pytest.raises(ConfigError, match="vocabulary=100 is too small"):
        train_tokenizer([text], TokenizerConfig(vocabulary=100))
