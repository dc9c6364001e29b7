from __future__ import annotations

import unicodedata
from dataclasses import replace

import jiwer
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.errors import ConfigError
from asr.normalize import get_normalizer

BASIC = get_normalizer("basic")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("HELLO, World!", "hello world"),
        ("It\u2019s John's -- isn't it?", "it's john's isn't it"),
        ("'quoted' rock 'n' roll dogs'", "quoted rock n roll dogs"),
        ("twenty-one \u2014 Smith & Sons", "twenty one smith and sons"),
        ("\uff28\uff25\uff2c\uff2c\uff2f \ufb01sh", "hello fish"),
        ("  a\tb\n c ", "a b c"),
        ("Stra\u00dfe, \u65e5\u672c 42", "stra\u00dfe \u65e5\u672c 42"),
        ("...", ""),
        ("don\u00b4t ex\u00adam\u200dple \u2764\ufe0f", "don't example"),
        ("T\u0308", "\u1e97"),
    ],
)
def test_basic(text, expected):
    assert BASIC(text) == expected


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=40))
def test_basic_is_done_after_once_and_leaves_words_only(text):
    once = BASIC(text)
    assert BASIC(once) == once
    assert all(c in " '" or unicodedata.category(c)[0] in "LMN" for c in once)


def test_basic_agrees_with_jiwers_own_steps_on_real_transcripts(manifest):
    steps = jiwer.Compose([jiwer.ToLowerCase(), jiwer.RemoveMultipleSpaces(), jiwer.Strip()])
    for text in manifest.texts:
        assert BASIC(text) == steps(text)


def test_none_only_strips():
    assert get_normalizer("none")("  Hello,  World! ") == "Hello,  World!"


def test_the_hash_follows_the_rules():
    assert len(BASIC.hash) == 12
    assert BASIC.hash == get_normalizer("basic").hash
    assert BASIC.hash != replace(BASIC, version="2").hash
    assert BASIC.hash != replace(BASIC, rules=get_normalizer("none").rules).hash


def test_an_unknown_name_gets_a_suggestion():
    with pytest.raises(ConfigError, match="did you mean 'basic'"):
        get_normalizer("basik")


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(max_codepoint=127), max_size=40))
def test_plain_letters_take_a_short_way_to_the_same_text(text):
    # A letter beyond ASCII at the end sends the whole text the long way.
    assert BASIC(f"{text} \u00e9") == f"{BASIC(text)} \u00e9".strip()


def test_english_is_whispers():
    whisper = pytest.importorskip("whisper_normalizer.english")
    english = get_normalizer("english")
    assert english("Mr. Smith's colour was twenty-one, won't you?") == "mister smith is color was 21 will not you"
    for text in ("Uh, I'm goin' to the theatre at 5 o'clock.", "$3.50 [noise]", "", "two hundred and one"):
        assert english(text) == " ".join(whisper.EnglishTextNormalizer()(text).split())
    assert english.version.startswith("whisper-normalizer ")
    assert len({english.hash, BASIC.hash, get_normalizer("none").hash}) == 3


def test_english_without_its_package_says_what_to_install(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "whisper_normalizer.english", None)
    get_normalizer.cache_clear()
    with pytest.raises(ConfigError, match="pip install whisper-normalizer"):
        get_normalizer("english")
