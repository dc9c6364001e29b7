"""The attention mechanism on one real utterance, with the actual numbers of one head of the embedded model.

python tools/attention_walkthrough.py          # prints the numbers of docs/attention.md and draws its pictures

The decoder reads the reference text (teacher forcing) and at one letter the three functions of `asr.model.attention`
are called by hand: score, weigh, aggregate. A test compares what is printed here with what the document says.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from asr.audio import load_mono
from asr.files import replacing
from asr.losses import decoder_inputs
from asr.manifest import Manifest
from asr.model import checkpoint
from asr.model.attention import KeyValue, aggregate, score, weigh
from asr.model.inspection import attention_weights
from asr.transcriber import EMBEDDED

REPOSITORY = Path(__file__).parents[1]
PICTURES = REPOSITORY / "docs" / "pictures"
UTTERANCE = "1737-146161-0009"
LAYER = "decoder.blocks.0.cross_attention"
HEAD = 1  # the one of the four that moves on most steadily in this utterance
LETTER = 17  # the r of "together"


@dataclass(frozen=True)
class Walk:
    """What the mechanism computes when one letter is to be written; B and H are 1 where they stand."""

    letters: list[str]
    """The text, one token each; spaces are written as `_`."""
    features: Tensor
    """Normalised log-mel features, (T, M)."""
    frames: int
    """Encoder frames T'."""
    query: Tensor
    """Of the one letter and head, (1, 1, 1, d)."""
    memory: KeyValue
    """Keys and values of the head, each (1, 1, T', d)."""
    scores: Tensor
    """(1, 1, 1, T')."""
    weights: Tensor
    """(1, 1, 1, T')."""
    context: Tensor
    """(1, 1, 1, d)."""
    recorded: Tensor
    """Weights of all heads and positions as the model itself computed them, (H, U + 1, T')."""
    probability: float
    """What the decoder gives the letter in the end."""


@torch.inference_mode()
def walk() -> Walk:
    """Listen to the utterance, read its text, and compute one head's attention for one letter by hand."""
    model, _ = checkpoint.load(EMBEDDED)
    manifest = Manifest.load(REPOSITORY / "tests" / "data" / "manifest.jsonl")
    utterance = next(each for each in manifest if each.id == UTTERANCE)
    waveform = torch.from_numpy(load_mono(utterance.audio_filepath))[None]
    samples = torch.tensor([waveform.shape[1]])
    tokens = torch.tensor([model.tokenizer.encode(utterance.text)])
    asked: list[Tensor] = []  # what the cross-attention is asked with
    layer = model.decoder.blocks[0].cross_attention
    hook = layer.register_forward_pre_hook(lambda _, args: asked.append(args[0]))
    with attention_weights(model) as recorded:
        encoder_out, frames = model.encode(waveform, samples)  # (1, T', D)
        logits = model.decoder(decoder_inputs(tokens), encoder_out, frames)
    hook.remove()

    one = slice(HEAD, HEAD + 1)
    query = layer.split(layer.query(asked[0]))[:, one, LETTER : LETTER + 1]
    memory = KeyValue(*(part[:, one] for part in layer.project(encoder_out)))
    scores = score(query, memory.key)
    weights = weigh(scores, None)
    return Walk(
        letters=[model.tokenizer.piece(token).replace("\u2581", "_") for token in tokens[0].tolist()],
        features=model.norm(*model.log_mel(waveform, samples))[0],
        frames=int(frames),
        query=query,
        memory=memory,
        scores=scores,
        weights=weights,
        context=aggregate(weights, memory.value),
        recorded=recorded[LAYER][0],
        probability=logits[0, LETTER].softmax(dim=-1)[tokens[0, LETTER]].item(),
    )


def describe(walk: Walk) -> str:
    """Write the numbers, one step of the mechanism a line."""

    def row(numbers: Tensor) -> str:
        return " ".join(f"{number:.2f}" for number in numbers.tolist())

    scores, weights = walk.scores[0, 0, 0], walk.weights[0, 0, 0]
    best = weights.topk(5).indices.sort().values
    written = "".join(walk.letters[:LETTER])
    return "\n".join(
        [
            f"features           {tuple(walk.features.shape)}   frames of 10 ms, mel bins",
            f"encoder frames     {walk.frames}   of 40 ms",
            f"written so far     {written}   next: {walk.letters[LETTER]}",
            f"query              {tuple(walk.query.shape)}   begins {row(walk.query[0, 0, 0, :4])}",
            f"keys               {tuple(walk.memory.key.shape)}   frame {best[0]} begins "
            f"{row(walk.memory.key[0, 0, best[0], :4])}",
            f"values             {tuple(walk.memory.value.shape)}   frame {best[0]} begins "
            f"{row(walk.memory.value[0, 0, best[0], :4])}",
            f"score              {tuple(walk.scores.shape)}   from {scores.min():.2f} to {scores.max():.2f}, "
            f"mean {scores.mean():.2f}",
            f"five best frames   {' '.join(map(str, best.tolist()))}",
            f"  their seconds    {row(best * 0.04)}",
            f"  their scores     {row(scores[best])}",
            f"weigh              {tuple(walk.weights.shape)}   sum {weights.sum():.2f}",
            f"  their weights    {row(weights[best])}   together {weights[best].sum():.2f}",
            f"aggregate          {tuple(walk.context.shape)}   begins {row(walk.context[0, 0, 0, :4])}",
            f"letter             {walk.letters[LETTER]}   gets probability {walk.probability:.2f}",
        ]
    )


def draw_steps(walk: Walk, path: Path) -> None:
    """Draw the features, and on the same time axis the scores and the weights of the one letter."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    mel, scored, weighed = figure.subplots(3, 1, sharex=True, height_ratios=(2, 1, 1))
    seconds = (torch.arange(walk.frames) * 0.04).numpy()
    extent = (0.0, 0.01 * len(walk.features), 0.0, float(walk.features.shape[1]))
    mel.imshow(walk.features.T, origin="lower", aspect="auto", extent=extent, cmap="magma")
    mel.set(ylabel="mel bin", title=f"{UTTERANCE}: “{''.join(walk.letters).strip('_').replace('_', ' ')}”")
    scored.bar(seconds, walk.scores[0, 0, 0].numpy(), width=0.036, color="C1", align="edge")
    scored.set(ylabel="score")
    weighed.bar(seconds, walk.weights[0, 0, 0].numpy(), width=0.036, color="C0", align="edge")
    weighed.set(ylabel="weight", xlabel="seconds")
    scored.set_title(f"head {HEAD + 1}, before it writes the “{walk.letters[LETTER]}” of “together”", fontsize=10)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)


def draw_heads(walk: Walk, path: Path) -> None:
    """Draw the weights of all heads: letters to be written against time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 7.5), layout="constrained")
    grid = figure.subplots(2, 2, sharex=True, sharey=True)
    names = [*walk.letters, "end"]
    for head, axes in enumerate(grid.flat):
        extent = (0.0, 0.04 * walk.frames, len(names) - 0.5, -0.5)
        axes.imshow(walk.recorded[head], aspect="auto", extent=extent, cmap="Blues", vmin=0, vmax=1)
        axes.set_title(f"head {head + 1}", fontsize=10)
        axes.set_yticks(range(len(names)), names, fontsize=8)
    for axes in grid[1]:
        axes.set_xlabel("seconds")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)


def main() -> None:
    """Print and draw."""
    steps = walk()
    print(describe(steps))
    draw_steps(steps, PICTURES / "attention_steps.png")
    draw_heads(steps, PICTURES / "attention_heads.png")


if __name__ == "__main__":
    main()
