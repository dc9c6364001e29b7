"""Beginning with another model: blocks added, its vocabulary kept, extended or changed, weights frozen, adapters."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatch

import torch
from torch import Tensor, nn

from asr.errors import ConfigError
from asr.model.recognizer import Recognizer
from asr.tokenizer import SPECIALS, UNKNOWN, Tokenizer, TokenizerConfig, extend_tokenizer, train_tokenizer
from asr.training.config import FinetuneConfig

log = logging.getLogger(__name__)

ROWS = ("decoder.embedding.weight", "ctc_head.weight", "ctc_head.bias")  # what has one row for each token
MOST_SHOWN = 40  # letters in a line of warning
ADAPTED = ("encoder.blocks.", "decoder.blocks.")
CLOSING = {  # the layers that the branches of a block end in: without them it only passes its input on
    "conformer": ("first_half.2.", "attention.attention.out.", "convolution.project.", "second_half.2."),
    "e_branchformer": ("first_half.2.", "merge.", "second_half.2."),
    "transformer": ("attention.attention.out.", "feed_forward.2."),
}
SCALE = 2.0  # of the adapters' product, the usual alpha = 2 x rank


def begin_with(
    source: Recognizer, texts: Sequence[str], finetune: FinetuneConfig, tokenizer: TokenizerConfig
) -> Recognizer:
    """Make the model that a fine-tuning run begins with.

    Args:
        source: the model whose weights and architecture are taken.
        texts: transcripts of the new data.
        finetune: what becomes of the blocks and the vocabulary.
        tokenizer: the settings of a new vocabulary.

    Returns:
        The source itself if it keeps its blocks and its vocabulary; otherwise a copy in which each output row that has
        its token in both vocabularies is the source's, and the others begin at random.
    """
    if finetune.added_blocks:
        source = deepen(source, finetune.added_blocks)
    if finetune.tokenizer == "keep":
        _warn_of_unknown(source.tokenizer, texts)
        return source.train()
    extended = finetune.tokenizer == "extend"
    wanted = extend_tokenizer(source.tokenizer, texts) if extended else train_tokenizer(texts, tokenizer)
    model = Recognizer(source.config, wanted)
    begin, end = model.state_dict(), source.state_dict()
    mine, theirs = _shared_rows(wanted, source.tokenizer)
    for name, weight in end.items():
        if name in ROWS:
            begin[name][mine] = weight[theirs]
        else:
            begin[name] = weight
    model.load_state_dict(begin)
    new = len(wanted) - len(mine)
    if new:
        log.warning("%d of %d tokens are new: their output rows begin at random", new, len(wanted))
    return model.train()


def _warn_of_unknown(tokenizer: Tokenizer, texts: Sequence[str]) -> None:
    """Say what cannot be written in a vocabulary that is kept, since the model would learn to write nothing there."""
    odd = [text for text in texts if UNKNOWN in tokenizer.encode(text)]
    if not odd:
        return
    letters = {letter for text in odd for letter in tokenizer.normalizer(text)}
    unknown = sorted(letter for letter in letters if UNKNOWN in tokenizer.encode(letter))
    log.warning(
        "%d of %d texts hold what the model's vocabulary lacks, and it will learn to write nothing there: %s; "
        "finetune.tokenizer=extend adds it, or write numbers and names in letters that it knows",
        len(odd),
        len(texts),
        " ".join(unknown[:MOST_SHOWN]) or "rare combinations of letters",
    )


def deepen(source: Recognizer, added: int) -> Recognizer:
    """Make a model with more encoder blocks that begins where the source stands.

    Args:
        source: the model whose weights are taken.
        added: encoder blocks to put in, at most as many as it has.

    Returns:
        A model that hears nearly the same. Transformer blocks pass their input on exactly; the others end in a norm,
        whose weight and bias are set to what undoes it for inputs of the spread that the block before gives.

    Raises:
        ConfigError: the source has fewer blocks.
    """
    config, blocks = source.config.encoder, source.encoder.blocks
    if added > len(blocks):
        raise ConfigError(f"finetune.added_blocks must be at most the {len(blocks)} blocks of the model, got {added}")
    copied = {math.ceil(len(blocks) * place / added) - 1 for place in range(1, added + 1)}  # spread, the last included
    order = [(old, new) for old in range(len(blocks)) for new in ((False, True) if old in copied else (False,))]
    encoder = replace(config, layers=len(order))
    model = Recognizer(replace(source.config, encoder=encoder), source.tokenizer)
    begin = {name: w for name, w in source.state_dict().items() if not name.startswith("encoder.blocks.")}
    for place, (old, new) in enumerate(order):
        block = dict(blocks[old].state_dict())
        if new:
            block |= {name: torch.zeros_like(w) for name, w in block.items() if name.startswith(CLOSING[config.kind])}
            if config.kind != "transformer":
                weight, bias = block["out_norm.weight"], block["out_norm.bias"]  # the input is normal x weight + bias
                spread = (weight.square().mean() + bias.var(unbiased=False)).sqrt()
                block["out_norm.weight"] = spread.expand_as(weight)
                block["out_norm.bias"] = bias.mean().expand_as(bias)
        begin |= {f"encoder.blocks.{place}.{name}": w for name, w in block.items()}
    model.load_state_dict(begin)
    return model


def _shared_rows(mine: Tokenizer, theirs: Tokenizer) -> tuple[Tensor, Tensor]:
    """Pair the ids of tokens that are written the same; special tokens keep their ids."""
    places = {theirs.piece(token): token for token in range(SPECIALS, len(theirs))}
    pairs = [(token, token) for token in range(SPECIALS)]
    pairs += [(token, places[mine.piece(token)]) for token in range(SPECIALS, len(mine)) if mine.piece(token) in places]
    both = torch.tensor(pairs)
    return both[:, 0], both[:, 1]


def restrict(model: Recognizer, finetune: FinetuneConfig) -> None:
    """Freeze weights and put in adapters, as told.

    Raises:
        ConfigError: a pattern names no weight, nothing is left to learn, or peft is not installed.
    """
    if finetune.lora_rank:
        _adapt(model, finetune)
    for pattern in finetune.freeze:
        named = [weight for name, weight in model.named_parameters() if fnmatch(name, pattern)]
        if not named:
            raise ConfigError(f"finetune.freeze: no weight is named like {pattern!r}, such as encoder.blocks.0.*")
        for weight in named:
            weight.requires_grad_(False)
    if not any(weight.requires_grad for weight in model.parameters()):
        raise ConfigError("finetune.freeze: nothing is left to learn")


def _adapt(model: Recognizer, finetune: FinetuneConfig) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ConfigError("finetune.lora_rank needs the package peft: pip install 'asr[lora]'") from error
    linear = [name for name, part in model.named_modules() if isinstance(part, nn.Linear) and name.startswith(ADAPTED)]
    rank = finetune.lora_rank
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=SCALE * rank, target_modules=linear), model)  # type: ignore
    if finetune.tokenizer != "keep":
        for name, weight in model.named_parameters():
            weight.requires_grad_(weight.requires_grad or name in ROWS)  # new rows cannot stay at random


def merged(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add adapters to the weights they adapt: W + scale x B A.

    Args:
        weights: state of a recogniser, with adapters or without.

    Returns:
        State of a recogniser without adapters.
    """
    plain = {}
    for name, weight in weights.items():
        if ".lora_" in name:
            continue
        stem, base, kind = name.partition(".base_layer.")
        if base and kind == "weight":
            down, up = (weights[f"{stem}.lora_{side}.default.weight"] for side in "AB")
            weight = weight + SCALE * up @ down
        plain[f"{stem}.{kind}" if base else name] = weight
    return plain
