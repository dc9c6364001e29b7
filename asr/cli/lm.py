"""`asr lm`: language models for the search."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asr.cli.terminal import Model, console
from asr.errors import ConfigError

if TYPE_CHECKING:
    from asr.tokenizer import Tokenizer

LONGEST_SHOWN = 60  # characters of a sentence in a line of warning

app = typer.Typer(help="Language models for the search.", no_args_is_help=True)


@app.callback()
def lm() -> None:
    """Language models for the search."""


@app.command()
def build(
    texts: Annotated[
        list[Path],
        typer.Argument(help="Text files, a sentence on each line, also .gz; or manifests (.jsonl).", metavar="TEXT..."),
    ],
    output: Annotated[
        Path, typer.Option("--output", help="File to write: compact (.safetensors), or ARPA (.arpa, .arpa.gz).")
    ],
    model: Model = None,
    tokenizer: Annotated[
        Path | None, typer.Option("--tokenizer", help="A run's tokenizer.model, in place of a model's own.")
    ] = None,
    order: Annotated[int, typer.Option("--order", min=2, max=20, help="Longest n-gram, in tokens.")] = 6,
    cutoff: Annotated[
        int, typer.Option("--cutoff", min=0, help="Leave out n-grams of 3 and more tokens seen so often or less.")
    ] = 1,
    pruning: Annotated[
        float,
        typer.Option("--pruning", min=0, help="Leave out n-grams that change perplexity by less than this share."),
    ] = 0.0,
) -> None:
    """Estimate an n-gram model of a model's own tokens (modified Kneser-Ney) for --language-model.

    A model of characters wants an order of 6 to 10, one of word pieces 3 to 5; --pruning 1e-7 makes it small at little
    loss. Never build it from the texts that are tested on.
    """
    from asr.decoding.arpa import read_sentences, write_arpa
    from asr.decoding.kneser_ney import estimate
    from asr.decoding.ngram_file import write_ngrams
    from asr.tokenizer import UNKNOWN

    if not output.name.endswith((".arpa", ".arpa.gz", ".safetensors")):
        raise ConfigError(f"--output must end in .safetensors, .arpa or .arpa.gz, got {output}")
    tokens = _tokenizer(model, tokenizer)
    odd, first = 0, ""

    def encoded() -> Iterator[list[int]]:
        nonlocal odd, first
        for path in texts:
            for sentence in read_sentences(path):
                yield (ids := tokens.encode(sentence))
                if UNKNOWN in ids:
                    odd, first = odd + 1, first or sentence

    with console.status("Counting n-grams"):
        orders = estimate(encoded(), order, len(tokens), cutoff, pruning)
        if output.suffix == ".safetensors":
            about = {"texts": [path.name for path in texts], "order": order, "cutoff": cutoff, "pruning": pruning}
            write_ngrams(output, orders, tokens, about)
        else:
            write_arpa(output, orders, tokens)
    if odd:
        lacks = f"{odd} sentences hold what the model's vocabulary lacks, the first: {first[:LONGEST_SHOWN]!r}"
        console.print(f"{lacks}; write numbers and names in its letters", style="yellow")
    counts = ", ".join(f"{len(grams.log_probs)} of {n}" for n, grams in enumerate(orders, start=1))
    console.print(f"{output}: n-grams by tokens: {counts}")


def _tokenizer(model: Path | None, path: Path | None) -> Tokenizer:
    from asr.model import checkpoint
    from asr.tokenizer import load_tokenizer
    from asr.transcriber import checkpoint_file

    if model and path:
        raise ConfigError("--model and --tokenizer both name a vocabulary: choose one of them")
    return load_tokenizer(path)[0] if path else checkpoint.load(checkpoint_file(model))[0].tokenizer
