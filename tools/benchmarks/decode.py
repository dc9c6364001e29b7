"""Utterances per second of every search mode, its growth with utterances and beam, beside other toolkits' searches.

The models have random weights: only the work is measured. The decoder's end token is held down, so that every search
writes to its bound: ours and its peers take the same steps over the same audio, with the same sizes and vocabulary.
A step extends the hypotheses of one utterance by a token; they are counted as each search runs. "Joint faster by" is
a peer's time over ours, all utterances together / one by one, which is how ESPnet's search takes them.
All runs are on the CPU, and on a GPU as well where there is one. Peers are left out where they are not installed:

pip install transformers typeguard && pip install --no-deps espnet     # whose pins would change other packages
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
import yaml
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from asr.config import build, resource
from asr.decoding import DecodingOptions, decode
from asr.decoding.guard import token_bound
from asr.decoding.prefix_scores import PrefixScorer
from asr.model.config import ModelConfig
from asr.model.recognizer import Recognizer
from asr.tokenizer import BLANK, END, START, TokenizerConfig, train_tokenizer

BEAM = 10  # of peers and of what is set beside them
JOINT, ALONE = ("joint", BEAM), ("joint, one by one", BEAM)
MODES = (("ctc", 1), ("ctc_beam", BEAM), ("attention", 1), ("attention", BEAM), ("rescoring", BEAM), JOINT)
TEXTS = sorted((Path(__file__).parents[2] / "docs").glob("*.md"))  # enough words for the usual 500 subwords
TOKENS_PER_SECOND = 4  # that CTC hears, as in speech
HELD_DOWN = 1e4  # nats, which CTC cannot make up for


class Search(NamedTuple):
    """What is measured."""

    work: Callable[[], object]
    decoder: nn.Module
    method: str  # of the decoder, called once for each step
    together: int = 1  # utterances that take a step side by side

    def steps(self) -> int:
        """Count the steps of all utterances in one run."""
        with mock.patch.object(self.decoder, self.method, wraps=getattr(self.decoder, self.method)) as counted:
            self.work()
        return counted.call_count * self.together


@torch.no_grad()
def make_model(name: str) -> Recognizer:
    """Build an architecture of conf/model over 500 subwords, with posteriors as peaked as a trained model's."""
    torch.manual_seed(0)
    config = build(ModelConfig, yaml.safe_load((resource("conf") / "model" / f"{name}.yaml").read_text()), name)
    texts = [line for path in TEXTS for line in path.read_text("utf-8").splitlines()]
    model = Recognizer(config, train_tokenizer(texts, TokenizerConfig(vocabulary=500))).eval()
    model.ctc_head.weight.mul_(4)
    logits = model.ctc_head(torch.randn(1000, config.encoder.dim))
    lead = logits[:, BLANK + 1 :].amax(dim=1) - logits[:, BLANK]
    model.ctc_head.bias[BLANK] += lead.quantile(1 - TOKENS_PER_SECOND / frame_rate(model))
    # What leaves a layer norm has no mean, so that along the direction of ones there is the bias alone.
    along = torch.full_like(model.decoder.norm.bias, config.encoder.dim**-0.5)
    model.decoder.norm.bias.copy_(-along)
    model.decoder.norm.weight.neg_()  # else tied embeddings repeat one token for ever, for which CTC has no frames
    model.decoder.embedding.weight[END] = HELD_DOWN * along
    return model


def frame_rate(model: Recognizer) -> float:
    """Encoder frames of a second."""
    return 1 / model.frame_seconds


def seconds_of(searches: Collection[Search], turns: int) -> list[float]:
    """Best time of each search; they take turns, so that a change in the machine's load meets all of them."""
    times = [[time_of(search.work) for search in searches] for _ in range(turns)]
    return [min(runs) for runs in zip(*times, strict=True)]


def time_of(work: Callable[[], object]) -> float:
    """Seconds of one run."""
    began = clock()
    work()
    return clock() - began


def clock() -> float:
    """Read the clock when the GPU, if there is one, has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def prefix_share(work: Callable[[], object]) -> float:
    """Share of one run's time that CTC prefix scoring takes."""
    total = 0.0

    def timed(method: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            nonlocal total
            began, result = clock(), method(*arguments)
            total += clock() - began
            return result

        return call

    parts: dict[str, Any] = {name: timed(getattr(PrefixScorer, name)) for name in ("__init__", "score", "advance")}
    with mock.patch.multiple(PrefixScorer, **parts):
        spent = time_of(work)
    return total / spent


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what can be chosen."""
    parser.add_argument("--model", default="conformer_xs", help="a file of conf/model")
    parser.add_argument("--utterances", type=int, default=8, help="side by side")
    parser.add_argument("--seconds", type=float, default=10.0, help="audio of each utterance")
    parser.add_argument("--turns", type=int, default=3, help="the best of so many runs counts")
    parser.add_argument("--peers", action=argparse.BooleanOptionalAction, default=True, help="other toolkits as well")


def run(arguments: argparse.Namespace) -> None:
    """Print the tables for the CPU, and for a GPU."""
    console, model = Console(width=120), make_model(arguments.model)
    frames = int(arguments.seconds * frame_rate(model))
    encoder_out = torch.randn(2 * arguments.utterances, frames, model.config.encoder.dim)
    for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        model.to(device)
        speed(model, encoder_out[: arguments.utterances].to(device), arguments, console)
        growth(model, encoder_out.to(device), arguments, console)


def ours(model: Recognizer, encoder_out: Tensor, mode: str, beam: int) -> Search:
    """Our search, of all utterances together."""
    lengths = torch.full((len(encoder_out),), encoder_out.shape[1], device=encoder_out.device)
    options = DecodingOptions(mode=mode, beam_size=beam)
    return Search(lambda: decode(model, encoder_out, lengths, options), model.decoder, "step", len(encoder_out))


def speed(model: Recognizer, encoder_out: Tensor, arguments: argparse.Namespace, console: Console) -> None:
    """Print a table of modes and peers."""
    device, rows, bounds = encoder_out.device, len(encoder_out), bounds_of(model, encoder_out)
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} thread(s)"
    title = f"{arguments.model}, {len(model.tokenizer)} tokens, {rows} x {arguments.seconds:g} s, {where}, search only"
    names = ("search", "beam", "utterances/s", "steps", "steps/s", "CTC prefix scores", "joint faster by")
    table = Table(*names, title=title)
    singles = [ours(model, x[None], "joint", BEAM) for x in encoder_out]
    searches = {(mode, beam): ours(model, encoder_out, mode, beam) for mode, beam in MODES}
    searches[ALONE] = Search(lambda: [single.work() for single in singles], model.decoder, "step")
    for name, peer in PEERS.items() if arguments.peers else ():
        try:
            searches[name, BEAM] = peer(model, encoder_out, bounds)
        except ImportError as error:
            console.print(f"{name}: left out: {error.name or error} is not installed")
    steps = {key: search.steps() for key, search in searches.items()}  # this warms up, too
    spent = dict(zip(searches, seconds_of(searches.values(), arguments.turns), strict=True))
    for (name, beam), seconds in spent.items():
        taken = steps[name, beam]
        assert taken == 0 or taken >= sum(bounds), f"{name} ended early: {taken} steps, not {sum(bounds)}"
        rate = (str(taken), f"{taken / seconds:.0f}") if taken else ("", "")
        share = f"{100 * prefix_share(searches[name, beam].work):.0f} %" if (name, beam) in (JOINT, ALONE) else ""
        ratios = [f"{seconds / spent[key]:.1f}" for key in (JOINT, ALONE)] if name in PEERS else []
        table.add_row(name, str(beam), f"{rows / seconds:.2f}", *rate, share, " / ".join(ratios))
    console.print(table)


def growth(model: Recognizer, encoder_out: Tensor, arguments: argparse.Namespace, console: Console) -> None:
    """Print how the time grows with utterances and beam."""
    table = Table("search", "utterances", "beam", "seconds", "times the first", title=f"growth, {encoder_out.device}")
    rows = arguments.utterances
    for mode in ("ctc_beam", "joint"):
        sizes = ((rows, 5), (2 * rows, 5), (rows, 10), (rows, 20))
        times = seconds_of([ours(model, encoder_out[:count], mode, beam) for count, beam in sizes], arguments.turns)
        for (count, beam), spent in zip(sizes, times, strict=True):
            table.add_row(mode, str(count), str(beam), f"{spent:.2f}", f"{spent / times[0]:.2f}")
    console.print(table)


def bounds_of(model: Recognizer, encoder_out: Tensor) -> list[int]:
    """Tokens that a decoder may write for each utterance, which it does with its end held down."""
    lengths = torch.full((len(encoder_out),), encoder_out.shape[1], device=encoder_out.device)
    heard = decode(model, encoder_out, lengths, DecodingOptions(mode="ctc"))
    return [token_bound(len(best.tokens), encoder_out.shape[1]) for best, *_ in heard]


def with_transformers(model: Recognizer, encoder_out: Tensor, bounds: list[int]) -> Search:
    """Whisper's decoder of the same size, beam search by `generate`, all at once to the longest; it has no CTC."""
    from transformers import WhisperConfig, WhisperForConditionalGeneration  # pyright: ignore[reportMissingImports]
    from transformers.modeling_outputs import BaseModelOutput  # pyright: ignore[reportMissingImports]
    from transformers.models.whisper import generation_whisper as own  # pyright: ignore[reportMissingImports]

    sizes, steps = model.config.decoder, max(bounds)
    config = WhisperConfig(
        vocab_size=len(model.tokenizer), d_model=encoder_out.shape[2], decoder_layers=sizes.layers, encoder_layers=1,
        decoder_attention_heads=sizes.heads, decoder_ffn_dim=sizes.feed_forward, max_target_positions=steps + 2,
        encoder_attention_heads=sizes.heads, max_source_positions=encoder_out.shape[1], pad_token_id=BLANK,
        bos_token_id=START, eos_token_id=END, decoder_start_token_id=START,
    )  # fmt: skip
    whisper = WhisperForConditionalGeneration(config).eval().to(encoder_out.device)  # pyright: ignore[reportArgumentType]
    start = torch.full((len(encoder_out), 1), START, device=encoder_out.device)

    @torch.inference_mode()
    def work() -> object:  # Whisper's own `generate` would cut long audio and suppress tokens of its vocabulary
        return super(own.WhisperGenerationMixin, whisper).generate(  # pyright: ignore[reportAttributeAccessIssue]
            encoder_outputs=BaseModelOutput(encoder_out), decoder_input_ids=start, num_beams=BEAM,
            max_new_tokens=steps, min_new_tokens=steps, do_sample=False,
        )  # fmt: skip

    return Search(work, whisper.model.decoder, "forward", len(encoder_out))


def with_espnet(model: Recognizer, encoder_out: Tensor, bounds: list[int]) -> Search:
    """ESPnet's joint search, decoder and CTC of the same size; it takes one utterance at a time."""
    from espnet.nets.batch_beam_search import BatchBeamSearch  # pyright: ignore[reportMissingImports]
    from espnet.nets.scorers.ctc import CTCPrefixScorer  # pyright: ignore[reportMissingImports]
    from espnet2.asr.ctc import CTC  # pyright: ignore[reportMissingImports]
    from espnet2.asr.decoder.transformer_decoder import TransformerDecoder  # pyright: ignore[reportMissingImports]

    logging.getLogger("espnet").setLevel(logging.ERROR)  # that its texts are as long as they may be is meant here
    sizes, dim, vocabulary = model.config.decoder, encoder_out.shape[2], len(model.tokenizer)
    decoder = TransformerDecoder(vocabulary, dim, sizes.heads, sizes.feed_forward, sizes.layers)
    decoder.eval().to(encoder_out.device)
    decoder.output_layer.bias.data[END] = -HELD_DOWN  # pyright: ignore[reportOptionalMemberAccess]
    ctc = CTC(vocabulary, dim).eval().to(encoder_out.device)
    ctc.ctc_lo.load_state_dict(model.ctc_head.state_dict())  # the same posteriors
    share = DecodingOptions().ctc_weight
    search = BatchBeamSearch(
        scorers={"decoder": decoder, "ctc": CTCPrefixScorer(ctc=ctc, eos=END)}, beam_size=BEAM, vocab_size=vocabulary,
        weights={"decoder": 1 - share, "ctc": share}, sos=START, eos=END, pre_beam_score_key="full",
    )  # fmt: skip

    @torch.inference_mode()
    def work() -> object:
        return [search(row, maxlenratio=-bound) for row, bound in zip(encoder_out, bounds, strict=True)]

    return Search(work, decoder, "batch_score")


PEERS = {"transformers generate, no CTC": with_transformers, "ESPnet batch beam search": with_espnet}
