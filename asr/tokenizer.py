"""Text to token ids and back: SentencePiece subwords or characters, carried inside the checkpoint as bytes."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sentencepiece
import yaml

from asr.config import check_choice
from asr.errors import CheckpointError, ConfigError, DataError
from asr.normalize import get_normalizer

BLANK = 0  # CTC's "nothing here"
UNKNOWN = 1
START = 2  # the decoder's first input
END = 3  # the decoder's last output
SPECIALS = 4  # ids below this are never text
WORD_START = "\u2581"  # SentencePiece's mark before a word's first letter


@dataclass(frozen=True)
class TokenizerConfig:
    """How text becomes tokens."""

    kind: str = "unigram"
    """`unigram` or `bpe` subwords (Kudo and Richardson 2018, arXiv:1808.06226), or `char`."""
    vocabulary: int = 500
    """Tokens wanted, specials included; fewer are made when the text is too small. Ignored by `char`."""
    normalizer: str = "basic"
    """Normaliser applied to transcripts before they become tokens; see `asr.normalize`."""

    def __post_init__(self) -> None:
        """Check the kind, the size and the normaliser's name."""
        check_choice("tokenizer.kind", self.kind, ("unigram", "bpe", "char"))
        if self.vocabulary <= SPECIALS:
            raise ConfigError(f"tokenizer.vocabulary must be over {SPECIALS}, got {self.vocabulary}")
        get_normalizer(self.normalizer)


class Tokenizer:
    """A SentencePiece model and the normaliser that its texts went through.

    Args:
        model: the serialised SentencePiece model.
        normalizer: name of the normaliser.

    Raises:
        CheckpointError: the bytes are no SentencePiece model with this package's special tokens.
    """

    def __init__(self, model: bytes, normalizer: str = "basic") -> None:
        self.model = model
        self.normalizer = get_normalizer(normalizer)
        try:
            self._pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise CheckpointError("the tokenizer is not a SentencePiece model: train the model again") from error
        specials = (self._pieces.pad_id(), self._pieces.unk_id(), self._pieces.bos_id(), self._pieces.eos_id())
        if specials != (BLANK, UNKNOWN, START, END):
            raise CheckpointError(f"the tokenizer's special tokens are {specials}, not (0, 1, 2, 3)")

    def __len__(self) -> int:
        """Count the tokens, specials included."""
        return self._pieces.get_piece_size()

    def encode(self, text: str) -> list[int]:
        """Normalise a text and return its token ids, without start and end."""
        return self._pieces.encode(self.normalizer(text))

    def decode(self, tokens: Iterable[int]) -> str:
        """Turn token ids back into text; special tokens, and spaces but for one between words, leave no trace."""
        text = self._pieces.decode([token for token in tokens if token >= SPECIALS])
        return re.sub(" +", " ", text).strip()

    def piece(self, token: int) -> str:
        """Return one token as it is written in the vocabulary; a word's start is marked by WORD_START."""
        return self._pieces.id_to_piece(token)

    @property
    def pieces(self) -> list[str]:
        """All tokens as they are written, by their ids."""
        return [self.piece(token) for token in range(len(self))]


def load_tokenizer(path: Path) -> tuple[Tokenizer, dict[str, Any]]:
    """Read a training run's `tokenizer.model`, with the normaliser that the run's `config.yaml` beside it names.

    Args:
        path: the SentencePiece model; without a `config.yaml` beside it the normaliser is the default.

    Returns:
        The tokenizer, and the run's configuration; empty where there is none.

    Raises:
        ConfigError: one of the files cannot be read.
        CheckpointError: it is no SentencePiece model.
    """
    try:
        setup = path.with_name("config.yaml")
        run = yaml.safe_load(setup.read_text(encoding="utf-8")) if setup.is_file() else {}
        normalizer = run.get("tokenizer", {}).get("normalizer", TokenizerConfig().normalizer)
        return Tokenizer(path.read_bytes(), normalizer), run
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}: name a run's tokenizer.model") from error
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError) as error:
        raise ConfigError(
            f"{path.with_name('config.yaml')}: is not the configuration of a run: move it away"
        ) from error


def train_tokenizer(texts: Sequence[str], config: TokenizerConfig) -> Tokenizer:
    """Learn a vocabulary from transcripts.

    Args:
        texts: transcripts of the training data.
        config: kind and size.

    Returns:
        The tokenizer; the same texts give the same one.

    Raises:
        DataError: there is no text to learn from.
        ConfigError: the vocabulary is smaller than the alphabet.
    """
    normalizer = get_normalizer(config.normalizer)
    sentences = [sentence for sentence in map(normalizer, texts) if sentence]
    if not sentences:
        raise DataError("no text to learn a tokenizer from: every transcript is empty after normalisation")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=model,
            model_type=config.kind,
            vocab_size=config.vocabulary,
            hard_vocab_limit=False,  # a small corpus gets a smaller vocabulary, not an error
            character_coverage=1.0,
            normalization_rule_name="identity",
            pad_id=BLANK,
            pad_piece="<blank>",
            unk_id=UNKNOWN,
            bos_id=START,
            eos_id=END,
            max_sentence_length=1 << 30,  # the highest: longer texts than this are dropped without a word
            num_threads=1,  # more threads would make the order of ties, and so the vocabulary, a matter of luck
            minloglevel=2,
            use_all_vocab=config.kind == "char",  # else characters beyond `vocab_size` would be unknown
        )
    except RuntimeError as error:
        raise ConfigError(
            f"tokenizer.vocabulary={config.vocabulary} is too small for the characters of the texts: raise it, or take "
            f"tokenizer.kind=char ({' '.join(str(error).split())})"
        ) from error
    return Tokenizer(model.getvalue(), config.normalizer)


def extend_tokenizer(tokenizer: Tokenizer, texts: Iterable[str]) -> Tokenizer:
    """Add the characters that texts have and a vocabulary lacks; all ids there are stay what they are.

    Args:
        tokenizer: the vocabulary to begin with.
        texts: transcripts of the new data.
    """
    from sentencepiece import sentencepiece_model_pb2  # needs protobuf, and only fine-tuning needs this

    known = set(tokenizer.pieces)
    written = {character for text in texts for character in tokenizer.normalizer(text) if character != " "}
    model = sentencepiece_model_pb2.ModelProto.FromString(tokenizer.model)  # type: ignore[attr-defined]
    lowest = min(piece.score for piece in model.pieces)
    for number, character in enumerate(sorted(written - known), start=1):
        model.pieces.add(piece=character, score=lowest - number)  # the rarest of all, so that no text is cut anew
    return Tokenizer(model.SerializeToString(), tokenizer.normalizer.name)
