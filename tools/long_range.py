"""Why attention: error against length, with one context vector and with cross-attention, on chains of spoken digits.

asr prepare spoken_digits --output data/spoken_digits
python tools/long_range.py data/spoken_digits               # train, test, table and plot; goes on where it was stopped
python tools/long_range.py --draw                           # the published table and plot again, from their JSON file

Every variant has the same encoder and the same decoder (those of `asr.model`) and is trained with the same batches of
chains. They differ in what the decoder's cross-attention sees: one vector for the whole chain, either the mean of the
encoder's frames or the last frame, or all frames, scored by dot product or additively. This repeats the experiment of
Bahdanau et al. 2015 (arXiv:1409.0473, figure 2) with speech. docs/attention.md says what came out.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from asr.errors import AsrError, ConfigError, DataError
from asr.evaluation.evaluate import hardware
from asr.evaluation.wer import score
from asr.features import FeatureNorm, LogMel
from asr.files import replacing
from asr.losses import attention_loss, decoder_inputs
from asr.manifest import Manifest
from asr.model.config import DecoderConfig, EncoderConfig
from asr.model.decoder import Decoder
from asr.model.encoder import Encoder
from asr.normalize import get_normalizer
from asr.tokenizer import END, SPECIALS, START

OUTPUT = Path("run/long_range.json")
PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
VARIANTS = {
    "mean": "one vector: mean of the frames",
    "last": "one vector: the last frame",
    "dot": "cross-attention, dot product",
    "additive": "cross-attention, additive",
}


@dataclass(frozen=True)
class Settings:
    """What all runs share."""

    steps: int = 1500
    """Training steps of each run."""
    batch: int = 64
    """Words in a batch; all its chains have the same number of words, so that little is padding."""
    longest: int = 4
    """Words in the longest chain trained on. The first three eighths of the steps go from single words to it."""
    tested: int = 10
    """Words in the longest chain tested on."""
    chains: int = 100
    """Test chains of each length; the same for all runs."""
    rate: float = 2e-3
    """Highest learning rate."""
    dim: int = 64
    """Width of encoder and decoder; four heads."""
    layers: int = 2
    """Conformer blocks of the encoder; the decoder has one block."""
    mels: int = 40
    """Mel bins."""


class Recordings(NamedTuple):
    """Single spoken words of one split."""

    features: list[NDArray[np.float32]]
    """Log-mel features of each recording, (frames, mels)."""
    words: list[int]
    """Which word each recording is."""
    speakers: dict[str, list[int]]
    """The recordings of each speaker."""


class Chains(NamedTuple):
    """A batch of chains, each of one speaker."""

    features: Tensor
    """Shape (B, T, M), zero in the padding."""
    lengths: Tensor
    """Frames of each chain, (B,)."""
    tokens: Tensor
    """Words of each chain as tokens, (B, U)."""


class ChainModel(nn.Module):
    """The encoder and the decoder of `asr.model`, and between them all frames or one vector.

    Args:
        variant: one of VARIANTS.
        words: size of the vocabulary without special tokens.
        settings: sizes.
    """

    def __init__(self, variant: str, words: int, settings: Settings) -> None:
        super().__init__()
        self.variant = variant
        dim = settings.dim
        sizes = {"heads": 4, "feed_forward": 2 * dim, "dropout": 0.0}
        self.norm = FeatureNorm(settings.mels)
        self.encoder = Encoder(
            settings.mels,
            EncoderConfig(
                layers=settings.layers, dim=dim, kernel=7, subsampling=4, subsampling_channels=dim // 8, **sizes
            ),
        )
        scoring = "additive" if variant == "additive" else "dot"
        self.decoder = Decoder(SPECIALS + words, dim, DecoderConfig(layers=1, scoring=scoring, **sizes))

    def memory(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Give what the decoder may look at.

        Args:
            features: log-mel features, shape (B, T, M).
            lengths: frames of each row, (B,).

        Returns:
            Shape (B, K, D), and how many of the K vectors are valid (B,). K is 1 in the variants with one vector.
        """
        out, lengths = self.encoder(self.norm(features, lengths), lengths)  # (B, T', D)
        if self.variant == "mean":
            out = out.sum(dim=1, keepdim=True) / lengths[:, None, None]
        elif self.variant == "last":
            out = out[torch.arange(len(out)), lengths - 1][:, None]
        else:
            return out, lengths
        return out, torch.ones_like(lengths)

    def loss(self, chains: Chains) -> Tensor:
        """Teacher-forced cross-entropy of a batch, the mean over its words and end tokens."""
        tokens = chains.tokens
        logits = self.decoder(decoder_inputs(tokens), *self.memory(chains.features, chains.lengths))
        lengths = torch.full((len(tokens),), tokens.shape[1])
        return attention_loss(logits, tokens, lengths, smoothing=0.0) / (tokens.numel() + len(tokens))

    @torch.inference_mode()
    def write(self, chains: Chains, most: int) -> list[list[int]]:
        """Decode greedily up to the end token, or to `most` tokens."""
        memory, lengths = self.memory(chains.features, chains.lengths)
        cache = self.decoder.start(memory, lengths)
        token = torch.full((len(memory),), START)
        written = []
        for _ in range(most):
            logits = self.decoder.step(token, cache)
            token = logits.argmax(dim=-1)
            written.append(token)
        rows = torch.stack(written, dim=1).tolist()
        return [row[: row.index(END)] if END in row else row for row in rows]


def read(path: Path, vocabulary: Sequence[str] | None, mels: int) -> tuple[Recordings, list[str]]:
    """Read a manifest of single words and compute the features of each recording.

    Args:
        path: the manifest.
        vocabulary: the words; None takes those of the manifest.
        mels: mel bins.

    Returns:
        The recordings, and the vocabulary.

    Raises:
        DataError: no such manifest, or a text of it is not in the vocabulary.
    """
    manifest = Manifest.load(path)
    vocabulary = list(vocabulary or sorted(set(manifest.texts)))
    if unknown := set(manifest.texts) - set(vocabulary):
        raise DataError(f"{path}: {min(unknown)!r} is not a word of the training set; use manifests of single words")
    log_mel = LogMel(mels)
    features, words, speakers = [], [], defaultdict(list)
    for row, utterance in enumerate(manifest):
        waveform = torch.from_numpy(utterance.waveform())[None]
        features.append(log_mel(waveform, torch.tensor([waveform.shape[1]]))[0][0].numpy())
        words.append(vocabulary.index(utterance.text))
        speakers[utterance.speaker].append(row)
    return Recordings(features, words, dict(speakers)), vocabulary


def draw_chains(recordings: Recordings, length: int, count: int, rng: np.random.Generator) -> Chains:
    """Put random recordings of one speaker one after the other, `length` of them in each of `count` chains."""
    names = sorted(recordings.speakers)
    rows = [rng.choice(recordings.speakers[names[rng.integers(len(names))]], length) for _ in range(count)]
    chains = [torch.from_numpy(np.concatenate([recordings.features[each] for each in row])) for row in rows]
    tokens = torch.tensor([[SPECIALS + recordings.words[recording] for recording in row] for row in rows])
    lengths = torch.tensor([len(chain) for chain in chains])
    return Chains(nn.utils.rnn.pad_sequence(chains, batch_first=True), lengths, tokens)


def train(model: ChainModel, recordings: Recordings, settings: Settings, seed: int) -> Iterator[float]:
    """Train a model in place, from single words to chains of `settings.longest`; yields the loss of each step."""
    model.norm.fit([torch.from_numpy(each) for each in recordings.features])
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(model.parameters(), settings.rate, weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.rate, settings.steps + 1, pct_start=0.1)
    for step in range(settings.steps):
        reach = min(settings.longest, 1 + 2 * step * settings.longest // settings.steps)
        length = int(rng.integers(1, reach + 1))
        loss = model.loss(draw_chains(recordings, length, settings.batch // length, rng))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        yield loss.item()


def error_rates(
    model: ChainModel, recordings: Recordings, vocabulary: Sequence[str], settings: Settings
) -> list[float]:
    """Measure the word error rate on chains of 1, 2, ... words, decoded greedily."""
    rates = []
    for length in range(1, settings.tested + 1):
        chains = draw_chains(recordings, length, settings.chains, np.random.default_rng(length))
        texts = [
            [" ".join(vocabulary[token - SPECIALS] for token in row if token >= SPECIALS) for row in rows]
            for rows in (chains.tokens.tolist(), model.write(chains, 2 * settings.tested))
        ]
        rates.append(score(list(zip(*texts, strict=True)), get_normalizer("none")).wer.rate)
    return rates


def run(
    train_set: Recordings, test_set: Recordings, vocabulary: Sequence[str], variant: str, seed: int, settings: Settings
) -> dict[str, Any]:
    """Train one variant from one seed and test it; the same arguments give the same result."""
    torch.set_num_threads(1)
    start = time.process_time()
    torch.manual_seed(seed)
    model = ChainModel(variant, len(vocabulary), settings)
    losses = []
    for loss in train(model, train_set, settings, seed):
        losses.append(loss)
        if len(losses) % 100 == 0:
            print(f"{variant}, seed {seed}: step {len(losses)}, loss {np.mean(losses[-100:]):.3f}", flush=True)
    return {
        "variant": variant,
        "seed": seed,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "loss": float(np.mean(losses[-100:])),
        "wer": error_rates(model.eval(), test_set, vocabulary, settings),
        "seconds": round(time.process_time() - start),
    }


def run_all(folder: Path, output: Path, seeds: int, settings: Settings, workers: int) -> dict[str, Any]:
    """Run every variant from every seed, but not what the output file holds already; it is written after each run.

    Args:
        folder: holds train.jsonl and test.jsonl.
        output: the JSON file.
        seeds: runs of each variant.
        settings: what all runs share.
        workers: runs side by side, each with one thread.

    Returns:
        What is in the file then.

    Raises:
        ConfigError: the file holds runs with other settings.
        DataError: the manifests are not there, or are not of single words.
    """
    result = {
        "date": str(date.today()),
        "hardware": hardware(torch.device("cpu")),
        "settings": asdict(settings),
        "runs": [],
    }
    if output.exists():
        result = json.loads(output.read_text(encoding="utf-8"))
        if result["settings"] != asdict(settings):
            raise ConfigError(f"{output}: holds runs with other settings; give another --output, or remove it")
    done = {(run["variant"], run["seed"]) for run in result["runs"]}
    left = [(variant, seed) for seed in range(seeds) for variant in VARIANTS if (variant, seed) not in done]
    train_set, vocabulary = read(folder / "train.jsonl", None, settings.mels)
    test_set, _ = read(folder / "test.jsonl", vocabulary, settings.mels)
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        runs = [pool.submit(run, train_set, test_set, vocabulary, *each, settings) for each in left]
        for finished in as_completed(runs):
            result["runs"].append(finished.result())
            result["runs"].sort(key=lambda run: (list(VARIANTS).index(run["variant"]), run["seed"]))
            with replacing(output) as temporary:
                temporary.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def table(result: dict[str, Any]) -> str:
    """Write the word error rates as Markdown: mean over the seeds, and lowest to highest, in percent."""
    lengths = range(1, result["settings"]["tested"] + 1)
    lines = ["| words | " + " | ".join(VARIANTS.values()) + " |", "|---" * (1 + len(VARIANTS)) + "|"]
    rates = {variant: _rates(result, variant) for variant in VARIANTS}
    for length in lengths:
        cells = [
            f"{column.mean():.1f} ({column.min():.1f} to {column.max():.1f})"
            for column in (each[:, length - 1] for each in rates.values())
        ]
        lines.append(f"| {length} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(result: dict[str, Any], path: Path) -> None:
    """Plot error against length: the mean over the seeds as a bold line, each seed as a thin one."""
    from matplotlib.figure import Figure

    settings = result["settings"]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    lengths = np.arange(1, settings["tested"] + 1)
    for (variant, name), style in zip(VARIANTS.items(), ("C3s--", "C1^--", "C0o-", "C2D-"), strict=True):
        rates = _rates(result, variant)
        axes.plot(lengths, rates.mean(axis=0), style, label=name)
        axes.plot(lengths, rates.T, color=style[:2], alpha=0.35, linewidth=0.8)
    axes.axvspan(lengths[0], settings["longest"], color="0.93", zorder=0)
    axes.text(settings["longest"] - 0.05, 2, "lengths trained on", ha="right", color="0.4")
    axes.set(xlabel="words in the chain", ylabel="word error rate (%)", xticks=lengths, ylim=(0, None))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=2)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)


def _rates(result: dict[str, Any], variant: str) -> np.ndarray:
    """Word error rates in percent, (seeds, lengths)."""
    return 100 * np.array([run["wer"] for run in result["runs"] if run["variant"] == variant])


def main() -> None:
    """Parse, run, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="holds train.jsonl and test.jsonl of single words")
    parser.add_argument("--output", type=Path, help=f"{OUTPUT}, or with --draw the published file")
    parser.add_argument("--draw", action="store_true", help="train nothing")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=Settings.steps)
    parser.add_argument("--workers", type=int, default=2, help="runs side by side, each with one thread")
    arguments = parser.parse_args()
    if not arguments.draw and not arguments.folder:
        parser.error("give the folder with train.jsonl and test.jsonl, or --draw")
    output = arguments.output or (PICTURES / OUTPUT.name if arguments.draw else OUTPUT)
    try:
        if arguments.draw:
            result = json.loads(output.read_text(encoding="utf-8"))
        else:
            settings = Settings(steps=arguments.steps)
            result = run_all(arguments.folder, output, arguments.seeds, settings, arguments.workers)
    except (AsrError, FileNotFoundError) as error:
        parser.error(str(error))
    print(table(result))
    draw(result, output.with_suffix(".png"))


if __name__ == "__main__":
    main()
