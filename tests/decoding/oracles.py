"""Slow and simple answers that the searches are compared with: everything is listed, nothing is pruned."""

from __future__ import annotations

import itertools
import math

import torch

from asr.model.config import DecoderConfig, EncoderConfig, ModelConfig
from asr.model.recognizer import Recognizer
from asr.tokenizer import BLANK, END, START, TokenizerConfig, train_tokenizer

WRITABLE = (1, 4, 5, 6)  # unknown, word start, a, b: what a decoder over `tiny` may write


def tiny(seed: int, sharpness: float = 3.0) -> Recognizer:
    """A recogniser of seven tokens and one layer, with outputs far from uniform."""
    torch.manual_seed(seed)
    encoder = EncoderConfig(layers=1, dim=16, heads=2, feed_forward=16, kernel=3, subsampling_channels=4)
    config = ModelConfig(encoder=encoder, decoder=DecoderConfig(layers=1, heads=2, feed_forward=16))
    model = Recognizer(config, train_tokenizer(["a b ab ba"], TokenizerConfig(kind="char"))).eval()
    model.ctc_head.weight.data.mul_(sharpness)
    model.decoder.embedding.weight.data.mul_(sharpness)
    return model


def text_probabilities(log_probs: torch.Tensor) -> dict[tuple[int, ...], float]:
    """Probability of every text: CTC's alignments (T, V), all of them, summed."""
    found: dict[tuple[int, ...], float] = {}
    frames, vocabulary = log_probs.shape
    rows = log_probs.double().exp().tolist()
    for path in itertools.product(range(vocabulary), repeat=frames):
        text = tuple(token for token, _ in itertools.groupby(path) if token != BLANK)
        found[text] = found.get(text, 0.0) + math.prod(row[token] for row, token in zip(rows, path, strict=True))
    return found


@torch.inference_mode()
def decoder_log_probs(
    model: Recognizer, encoder_out: torch.Tensor, same_length: list[tuple[int, ...]], temperature: float = 1.0
) -> list[list[float]]:
    """Log-probability of each text's tokens and of its end, from one pass over the whole text, without caches."""
    targets = torch.tensor([[*text, END] for text in same_length])
    inputs = torch.cat((torch.full((len(targets), 1), START), targets[:, :-1]), dim=1)
    audio = encoder_out.expand(len(targets), -1, -1)
    logits = model.decoder(inputs, audio, torch.full((len(targets),), audio.shape[1]))
    return (logits / temperature).log_softmax(-1).gather(2, targets[..., None])[..., 0].tolist()


def texts(longest: int, tokens: tuple[int, ...] = WRITABLE) -> list[tuple[int, ...]]:
    """Every text of at most `longest` tokens."""
    return [text for length in range(longest + 1) for text in itertools.product(tokens, repeat=length)]
