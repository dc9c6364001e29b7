"""Utterances per second of every search mode, its growth with utterances and beam, beside other toolkits' searches.

The models have random weights: only the work is measured. The decoder's end token is held down, so that every search
writes to its bound: ours and its peers take the same steps over the same audio, with the same sizes and vocabulary.
Peers run where they are installed (`pip install transformers typeguard && pip install --no-deps espnet`) and are left
out elsewhere. It runs on a GPU where there is one.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
import yaml
from rich.console import Console
from rich.table import Table
from torch import Tensor

from asr.config import build, resource
from asr.decoding import DecodingOptions, decode
from asr.decoding.guard import token_bound
from asr.decoding.prefix_scores import PrefixScorer
from asr.model.config import ModelConfig
from asr.model.recognizer import Recognizer
from asr.tokenizer import BLANK, END, TokenizerConfig, train_tokenizer

MODES = (("ctc", 1), ("ctc_beam", 10), ("attention", 1), ("attention", 10), ("joint", 10), ("rescoring", 10))
FRAMES_PER_SECOND = 25
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
TEXTS = sorted((Path(__file__).parents[2] / "docs").glob("*.md"))  # enough words for the usual 500 subwords
HELD_DOWN = 10.0


def make_model(name: str) -> Recognizer:
    """Build an architecture of conf/model over 500 subwords, with posteriors as peaked as a trained model's."""
    torch.manual_seed(0)
    config = build(ModelConfig, yaml.safe_load((resource("conf") / "model" / f"{name}.yaml").read_text()), name)
    texts = [line for path in TEXTS for line in path.read_text("utf-8").splitlines()]
    model = Recognizer(config, train_tokenizer(texts, TokenizerConfig(vocabulary=500))).eval().to(DEVICE)
    model.ctc_head.weight.data.mul_(4)
    model.ctc_head.bias.data[BLANK] = 10.0  # some four tokens a second are heard
    # What leaves a layer norm has no mean, so that along the direction of ones there is the bias alone.
    along = torch.full_like(model.decoder.norm.bias, config.encoder.dim**-0.5)
    model.decoder.norm.bias.data.copy_(-HELD_DOWN * along)
    model.decoder.embedding.weight.data[END] = HELD_DOWN * along
    return model


def seconds_of(work: Callable[[], object], repeats: int) -> float:
    """Best time of several runs, after one to warm up."""
    work()
    times = []
    for _ in range(repeats):
        began = clock()
        work()
        times.append(clock() - began)
    return min(times)


def clock() -> float:
    """Read the clock when the device has done what it was given."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def prefix_seconds(work: Callable[[], object]) -> float:
    """Time that one run spends in CTC prefix scoring."""
    total = 0.0

    def timed(method: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            nonlocal total
            began = clock()
            try:
                return method(*arguments)
            finally:
                total += clock() - began

        return call

    with (
        mock.patch.object(PrefixScorer, "score", timed(PrefixScorer.score)),
        mock.patch.object(PrefixScorer, "advance", timed(PrefixScorer.advance)),
    ):
        work()
    return total


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what can be chosen."""
    parser.add_argument("--model", default="conformer_xs", help="a file of conf/model")
    parser.add_argument("--utterances", type=int, default=8, help="side by side")
    parser.add_argument("--seconds", type=float, default=10.0, help="audio of each utterance")
    parser.add_argument("--repeats", type=int, default=2, help="the best of so many runs counts")
    parser.add_argument("--peers", action=argparse.BooleanOptionalAction, default=True, help="other toolkits as well")


def run(arguments: argparse.Namespace) -> None:
    """Print a table of modes and peers, and one of growth."""
    model, console = make_model(arguments.model), Console(width=120)
    frames, rows = int(arguments.seconds * FRAMES_PER_SECOND), arguments.utterances
    encoder_out = torch.randn(2 * rows, frames, model.config.encoder.dim, device=DEVICE)
    bounds = bounds_of(model, encoder_out)

    def search(mode: str, beam: int, first: int, count: int) -> Callable[[], object]:
        audio, lengths = encoder_out[first : first + count], torch.full((count,), frames, device=DEVICE)
        return lambda: decode(model, audio, lengths, DecodingOptions(mode=mode, beam_size=beam))

    def add(name: str, beam: int, work: Callable[[], object], repeats: int, steps: int, share: str = "") -> float:
        spent = seconds_of(work, repeats)
        rate = f"{steps / spent:.0f}" if steps else ""
        table.add_row(name, str(beam), f"{rows / spent:.2f}", rate, f"{spent / rows / arguments.seconds:.4f}", share)
        return spent

    threads = f"{torch.get_num_threads()} threads" if DEVICE.type == "cpu" else torch.cuda.get_device_name()
    title = (
        f"{arguments.model}, {len(model.tokenizer)} tokens, {rows} x {arguments.seconds:g} s, {threads}, search only"
    )
    table = Table("search", "beam", "utterances/s", "tokens/s", "real-time factor", "CTC prefix scores", title=title)
    steps, ours = sum(bounds[:rows]), 0.0
    for mode, beam in MODES:
        work = search(mode, beam, 0, rows)
        writes = steps if mode in ("attention", "joint") else 0
        share = f"{100 * prefix_seconds(work) / seconds_of(work, 1):.0f} %" if mode == "joint" else ""
        spent = add(mode, beam, work, arguments.repeats, writes, share)
        ours = spent if mode == "joint" else ours
    singles = [search("joint", 10, row, 1) for row in range(rows)]
    alone = add("joint, one by one", 10, lambda: [single() for single in singles], 1, steps)
    for name, peer in PEERS.items() if arguments.peers else ():
        try:
            theirs = add(name, 10, peer(model, encoder_out[:rows], bounds[:rows]), 1, steps)
        except ImportError as error:
            table.add_row(name, "", f"left out: {error.name or error} is not installed", "", "", "")
            continue
        console.print(f"{name}: our joint search is {theirs / ours:.1f} times as fast, one by one {theirs / alone:.1f}")
    console.print(table)
    growth = Table("search", "utterances", "beam", "seconds", "times the first", title="growth")
    for mode in ("ctc_beam", "joint"):
        first = 0.0
        for count, beam in ((rows, 5), (2 * rows, 5), (rows, 10), (rows, 20)):
            spent = seconds_of(search(mode, beam, 0, count), arguments.repeats)
            first = first or spent
            growth.add_row(mode, str(count), str(beam), f"{spent:.2f}", f"{spent / first:.2f}")
    console.print(growth)


def bounds_of(model: Recognizer, encoder_out: Tensor) -> list[int]:
    """Tokens that a decoder may write for each utterance, which it does with its end held down."""
    lengths = torch.full((len(encoder_out),), encoder_out.shape[1], device=DEVICE)
    heard = decode(model, encoder_out, lengths, DecodingOptions(mode="ctc"))
    return [token_bound(len(best.tokens), encoder_out.shape[1]) for best, *_ in heard]


def with_transformers(model: Recognizer, encoder_out: Tensor, bounds: list[int]) -> Callable[[], object]:
    """Whisper's decoder of the same size, beam search by `generate`, all at once to the longest; it has no CTC."""
    from transformers import WhisperConfig, WhisperForConditionalGeneration  # pyright: ignore[reportMissingImports]
    from transformers.modeling_outputs import BaseModelOutput  # pyright: ignore[reportMissingImports]

    sizes, steps = model.config.decoder, max(bounds)
    config = WhisperConfig(
        vocab_size=len(model.tokenizer), d_model=encoder_out.shape[2], decoder_layers=sizes.layers, encoder_layers=1,
        decoder_attention_heads=sizes.heads, decoder_ffn_dim=sizes.feed_forward, max_target_positions=steps + 2,
        encoder_attention_heads=sizes.heads, max_source_positions=encoder_out.shape[1], pad_token_id=0, bos_token_id=2,
        eos_token_id=3, decoder_start_token_id=2,
    )  # fmt: skip
    whisper = WhisperForConditionalGeneration(config).eval().to(DEVICE)
    whisper.generation_config.max_length = None  # pyright: ignore[reportOptionalMemberAccess]

    @torch.inference_mode()
    def work() -> object:
        return super(WhisperForConditionalGeneration, whisper).generate(
            encoder_outputs=BaseModelOutput(encoder_out), max_new_tokens=steps, min_new_tokens=steps, num_beams=10,
            do_sample=False,
            attention_mask=torch.ones(encoder_out.shape[:2], dtype=torch.long, device=DEVICE),
            decoder_input_ids=torch.full((len(encoder_out), 1), 2, device=DEVICE),
        )  # fmt: skip

    return work


def with_espnet(model: Recognizer, encoder_out: Tensor, bounds: list[int]) -> Callable[[], object]:
    """ESPnet's joint search, decoder and CTC of the same size; it takes one utterance at a time."""
    from espnet.nets.batch_beam_search import BatchBeamSearch  # pyright: ignore[reportMissingImports]
    from espnet.nets.scorers.ctc import CTCPrefixScorer  # pyright: ignore[reportMissingImports]
    from espnet.nets.scorers.length_bonus import LengthBonus  # pyright: ignore[reportMissingImports]
    from espnet2.asr.ctc import CTC  # pyright: ignore[reportMissingImports]
    from espnet2.asr.decoder.transformer_decoder import TransformerDecoder  # pyright: ignore[reportMissingImports]

    logging.getLogger("espnet").setLevel(logging.ERROR)  # that its texts are as long as they may be is meant here
    sizes, dim, vocabulary = model.config.decoder, encoder_out.shape[2], len(model.tokenizer)
    decoder = TransformerDecoder(vocabulary, dim, sizes.heads, sizes.feed_forward, sizes.layers).eval().to(DEVICE)
    decoder.output_layer.bias.data[END] = -(HELD_DOWN**2)
    ctc = CTC(vocabulary, dim).eval().to(DEVICE)
    ctc.ctc_lo.load_state_dict(model.ctc_head.state_dict())
    search = BatchBeamSearch(
        scorers={"decoder": decoder, "ctc": CTCPrefixScorer(ctc=ctc, eos=END), "length_bonus": LengthBonus(vocabulary)},
        weights={"decoder": 0.7, "ctc": 0.3, "length_bonus": 0.0}, beam_size=10, vocab_size=vocabulary, sos=2, eos=END,
        pre_beam_score_key="full",
    )  # fmt: skip

    @torch.inference_mode()
    def work() -> object:
        found = [search(row, maxlenratio=-bound) for row, bound in zip(encoder_out, bounds, strict=True)]
        written = [len(best.yseq) - 2 for best, *_ in found]
        assert written == bounds, (written, bounds)  # as many tokens as our search writes
        return found

    return work


PEERS = {"transformers generate, no CTC": with_transformers, "ESPnet batch beam search": with_espnet}
