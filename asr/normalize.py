"""Text normalisers: what both sides go through before words are compared or become tokens.

Each has a name, a version and a hash of its rules, and every word error rate is reported with them.
"""

from __future__ import annotations

import hashlib
import inspect
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version

from asr.config import suggest
from asr.errors import ConfigError


@dataclass(frozen=True)
class Normalizer:
    """A named, versioned way of writing a text."""

    name: str
    version: str
    rules: Callable[[str], str]

    def __call__(self, text: str) -> str:
        """Normalise one text."""
        return self.rules(text)

    @property
    def hash(self) -> str:
        """First 12 hexadecimal digits of SHA-256 over name, version and source, so that an edit shows."""
        definition = f"{self.name}\n{self.version}\n{inspect.getsource(self.rules)}"
        return hashlib.sha256(definition.encode()).hexdigest()[:12]


def _none(text: str) -> str:
    return text.strip()


def _basic(text: str) -> str:
    if text.isascii():  # the long way gives the same, four times as slowly
        text = re.sub("[^a-z0-9' ]", " ", text.lower().replace("`", "'").replace("&", " and "))
        return " ".join((re.sub(r"(?<![^ '])'|'(?![^ '])", " ", text) if "'" in text else text).split())
    text = re.sub("[\u2018\u2019\u201b\u00b4`]", "'", text)
    # Soft hyphens, joiners, directions and emoji variants are invisible: they neither end a word nor make one.
    text = re.sub("[\u00ad\u061c\u200c-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]", "", text)
    # Twice, because a lower-case letter may compose with an accent where its capital does not.
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).lower()).replace("&", " and ")
    text = "".join(c if c == "'" or unicodedata.category(c)[0] in "LMN" else " " for c in text)
    text = re.sub(r"(?<![^\s'])'|'(?![^\s'])", " ", text)  # apostrophes stay inside words only
    return " ".join(text.split())


def _english() -> Normalizer:
    """Make Whisper's English normaliser (Radford et al. 2022, arXiv:2212.04356, appendix C), by its package."""
    try:
        from whisper_normalizer.english import EnglishTextNormalizer
    except ImportError as error:
        raise ConfigError("normaliser 'english' needs a package: pip install whisper-normalizer") from error
    normalize = EnglishTextNormalizer()

    def rules(text: str) -> str:
        return " ".join(normalize(text).split())

    return Normalizer("english", f"whisper-normalizer {version('whisper-normalizer')}", rules)


_MAKERS: dict[str, Callable[[], Normalizer]] = {
    "none": lambda: Normalizer("none", "1", _none),
    "basic": lambda: Normalizer("basic", "1", _basic),
    "english": _english,
}


@cache
def get_normalizer(name: str) -> Normalizer:
    """Find a normaliser.

    Args:
        name: `none` leaves a text alone but for the blanks around it; `basic` applies Unicode NFKC, lower case, and
            drops punctuation except apostrophes inside words. Letters and digits of every script stay. `english` is
            Whisper's: it also writes numbers as digits, spells the American way, writes contractions out and drops
            fillers, so its rates are not comparable with those that LibriSpeech papers report.

    Raises:
        ConfigError: there is no normaliser of that name, or its package is not installed.
    """
    if name not in _MAKERS:
        raise ConfigError(f"no normaliser {name!r}{suggest(name, list(_MAKERS))}")
    return _MAKERS[name]()
