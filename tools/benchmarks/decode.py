"""Utterances per second of every search mode, its growth with utterances and beam, beside other toolkits' searches.

The models have random weights: only the work is measured. The decoder's end token is held down, so that every search
writes to its bound, the same number of steps everywhere. Peers run where they are installed and are left out elsewhere.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from unittest import mock

import torch
import yaml
from rich.console import Console
from rich.table import Table
from torch import Tensor

from asr.config import build, resource
from asr.decoding import DecodingOptions, decode
from asr.decoding.prefix_scores import PrefixScorer
from asr.model.config import ModelConfig
from asr.model.recognizer import Recognizer
from asr.tokenizer import BLANK, END, TokenizerConfig, train_tokenizer

MODES = (("ctc", 1), ("ctc_beam", 10), ("attention", 1), ("attention", 10), ("joint", 10), ("rescoring", 10))
FRAMES_PER_SECOND = 25


def make_model(name: str) -> Recognizer:
    """Build an architecture of conf/model over an alphabet, with posteriors as peaked as a trained model's."""
    torch.manual_seed(0)
    config = build(ModelConfig, yaml.safe_load((resource("conf") / "model" / f"{name}.yaml").read_text()), name)
    tokenizer = train_tokenizer(["the quick brown fox jumps over the lazy dog"], TokenizerConfig(kind="char"))
    model = Recognizer(config, tokenizer).eval()
    model.ctc_head.weight.data.mul_(4)
    model.ctc_head.bias.data[BLANK] = 3.0
    model.decoder.embedding.weight.data[END] = 0.0
    return model


def seconds_of(work: Callable[[], object], repeats: int) -> float:
    """Best time of several runs, after one to warm up."""
    work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def prefix_seconds(work: Callable[[], object]) -> float:
    """Time that one run spends in CTC prefix scoring."""
    total = 0.0

    def timed(method: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            nonlocal total
            began = time.perf_counter()
            try:
                return method(*arguments)
            finally:
                total += time.perf_counter() - began

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
    """Print a table of modes, one of growth, and one of peers."""
    model, console = make_model(arguments.model), Console()
    frames = int(arguments.seconds * FRAMES_PER_SECOND)
    encoder_out = torch.randn(2 * arguments.utterances, frames, model.config.encoder.dim)

    def search(mode: str, beam: int, rows: int) -> Callable[[], object]:
        lengths = torch.full((rows,), frames)
        return lambda: decode(model, encoder_out[:rows], lengths, DecodingOptions(mode=mode, beam_size=beam))

    rows = arguments.utterances
    title = f"{arguments.model}, {rows} x {arguments.seconds:g} s, {torch.get_num_threads()} threads, search only"
    table = Table("search", "beam", "utterances/s", "real-time factor", "CTC prefix scores", title=title)
    for mode, beam in MODES:
        spent = seconds_of(search(mode, beam, rows), arguments.repeats)
        share = f"{100 * prefix_seconds(search(mode, beam, rows)) / spent:.0f} %" if mode == "joint" else ""
        table.add_row(mode, str(beam), f"{rows / spent:.2f}", f"{spent / rows / arguments.seconds:.4f}", share)
    if arguments.peers:
        add_peers(table, model, encoder_out[:rows], arguments)
    console.print(table)
    growth = Table("search", "utterances", "beam", "seconds", "times the first", title="growth")
    for mode in ("ctc_beam", "joint"):
        first = 0.0
        for count, beam in ((rows, 5), (2 * rows, 5), (rows, 10), (rows, 20)):
            spent = seconds_of(search(mode, beam, count), arguments.repeats)
            first = first or spent
            growth.add_row(mode, str(count), str(beam), f"{spent:.2f}", f"{spent / first:.2f}")
    console.print(growth)


def add_peers(table: Table, model: Recognizer, encoder_out: Tensor, arguments: argparse.Namespace) -> None:
    """Add rows for what is installed; say what is not."""
    for name, peer in (("transformers generate", with_transformers), ("ESPnet batch beam search", with_espnet)):
        try:
            work, beam = peer(model, encoder_out)
        except ImportError as error:
            table.add_row(name, "", f"left out: {error.name or error} is not installed", "", "")
            continue
        spent = seconds_of(work, 1) / len(encoder_out)
        table.add_row(name, str(beam), f"{1 / spent:.2f}", f"{spent / arguments.seconds:.4f}", "")


def steps_of(model: Recognizer, encoder_out: Tensor) -> int:
    """Tokens that our own search writes for the longest utterance."""
    lengths = torch.full((len(encoder_out),), encoder_out.shape[1])
    heard = decode(model, encoder_out, lengths, DecodingOptions(mode="ctc"))
    return min(encoder_out.shape[1], max(int(1.5 * len(best.tokens)) + 5 for best, *_ in heard))


def joint_steps(model: Recognizer, row: Tensor) -> int:
    """Steps that our joint search takes for one utterance (T', D)."""
    with mock.patch.object(PrefixScorer, "score", autospec=True, side_effect=PrefixScorer.score) as score:
        decode(model, row[None], torch.tensor([len(row)]), DecodingOptions(mode="joint", beam_size=10))
    return score.call_count


def with_transformers(model: Recognizer, encoder_out: Tensor) -> tuple[Callable[[], object], int]:
    """Whisper's decoder of the same size, beam search by `generate`; it has no CTC."""
    from transformers import WhisperConfig, WhisperForConditionalGeneration  # pyright: ignore[reportMissingImports]
    from transformers.modeling_outputs import BaseModelOutput  # pyright: ignore[reportMissingImports]

    sizes, steps = model.config.decoder, steps_of(model, encoder_out)
    config = WhisperConfig(
        vocab_size=len(model.tokenizer), d_model=encoder_out.shape[2], decoder_layers=sizes.layers, encoder_layers=1,
        decoder_attention_heads=sizes.heads, decoder_ffn_dim=sizes.feed_forward, max_target_positions=steps + 2,
        encoder_attention_heads=sizes.heads, max_source_positions=encoder_out.shape[1], pad_token_id=0, bos_token_id=2,
        eos_token_id=3, decoder_start_token_id=2,
    )  # fmt: skip
    whisper = WhisperForConditionalGeneration(config).eval()
    whisper.generation_config.max_length = None  # pyright: ignore[reportOptionalMemberAccess]

    @torch.inference_mode()
    def work() -> object:
        return super(WhisperForConditionalGeneration, whisper).generate(
            encoder_outputs=BaseModelOutput(encoder_out), max_new_tokens=steps, min_new_tokens=steps, num_beams=10,
            do_sample=False,
            attention_mask=torch.ones(encoder_out.shape[:2], dtype=torch.long),
            decoder_input_ids=torch.full((len(encoder_out), 1), 2),
        )  # fmt: skip

    return work, 10


def with_espnet(model: Recognizer, encoder_out: Tensor) -> tuple[Callable[[], object], int]:
    """ESPnet's joint search, decoder and CTC of the same size; it takes one utterance at a time."""
    from espnet.nets.batch_beam_search import BatchBeamSearch  # pyright: ignore[reportMissingImports]
    from espnet.nets.scorers.ctc import CTCPrefixScorer  # pyright: ignore[reportMissingImports]
    from espnet.nets.scorers.length_bonus import LengthBonus  # pyright: ignore[reportMissingImports]
    from espnet2.asr.ctc import CTC  # pyright: ignore[reportMissingImports]
    from espnet2.asr.decoder.transformer_decoder import TransformerDecoder  # pyright: ignore[reportMissingImports]

    sizes, dim, vocabulary = model.config.decoder, encoder_out.shape[2], len(model.tokenizer)
    decoder = TransformerDecoder(vocabulary, dim, sizes.heads, sizes.feed_forward, sizes.layers).eval()
    ctc = CTC(vocabulary, dim).eval()
    ctc.ctc_lo.weight.data, ctc.ctc_lo.bias.data = model.ctc_head.weight.data, model.ctc_head.bias.data
    search = BatchBeamSearch(
        scorers={"decoder": decoder, "ctc": CTCPrefixScorer(ctc=ctc, eos=END), "length_bonus": LengthBonus(vocabulary)},
        weights={"decoder": 0.7, "ctc": 0.3, "length_bonus": 0.0}, beam_size=10, vocab_size=vocabulary, sos=2, eos=END,
        pre_beam_score_key="full",
    )  # fmt: skip
    ratios = [joint_steps(model, row) / len(row) for row in encoder_out]  # as many steps as our search takes

    @torch.inference_mode()
    def work() -> object:
        return [search(row, maxlenratio=r) for row, r in zip(encoder_out, ratios, strict=True)]

    return work, 10
