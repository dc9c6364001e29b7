from __future__ import annotations

import json
import math
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from asr.errors import ConfigError, DataError
from asr.manifest import Manifest, Utterance, write_manifest
from asr.model.inspection import attention_weights
from asr.tokenizer import SPECIALS

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "tools"))
import attention_walkthrough  # noqa: E402
import long_range  # noqa: E402

DOC = REPOSITORY / "docs" / "attention.md"
MINIATURE = long_range.Settings(steps=3, batch=4, longest=2, tested=3, chains=2, dim=16, layers=1)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stretches of half a second of shipped utterances in place of single words, two speakers with two words each."""
    manifest = Manifest.load(REPOSITORY / "tests" / "data" / "manifest.jsonl")
    first = {utterance.speaker: utterance for utterance in manifest}
    words = [
        Utterance(f"{name}-{word}", first[name].audio_filepath, 0.4 + 0.1 * word, ("one", "two")[word], word / 2, name)
        for name in sorted(first)[:2]
        for word in (0, 1)
    ]
    folder = tmp_path_factory.mktemp("words")
    for split in ("train", "test"):
        write_manifest(folder / f"{split}.jsonl", words)
    return folder


def test_it_runs_from_recordings_to_plot_and_goes_on_where_it_was_stopped(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out" / "long_range.json"
    result = long_range.run_all(folder, output, 1, MINIATURE, workers=2)

    assert [run["variant"] for run in result["runs"]] == list(long_range.VARIANTS)
    assert all(len(run["wer"]) == MINIATURE.tested and min(run["wer"]) >= 0 for run in result["runs"])
    assert json.loads(output.read_text(encoding="utf-8")) == result
    long_range.draw(result, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert len(long_range.table(result).splitlines()) == 2 + MINIATURE.tested

    *kept, _ = result["runs"]
    marked = [run | {"seconds": -1} for run in kept]
    output.write_text(json.dumps(result | {"runs": marked}), encoding="utf-8")
    again = long_range.run_all(folder, output, 1, MINIATURE, workers=1)
    assert again["runs"][:-1] == marked  # not run again
    assert again["runs"][-1]["wer"] == result["runs"][-1]["wer"]  # run again, to the same figures
    with pytest.raises(ConfigError, match="other settings"):
        long_range.run_all(folder, output, 1, replace(MINIATURE, steps=4), workers=1)


@pytest.mark.parametrize(
    ("argument", "place"), [("data/spoken_digits", Path("run")), ("--draw", REPOSITORY / "docs" / "pictures")]
)
def test_only_draw_begins_with_the_published_result(
    monkeypatch: pytest.MonkeyPatch, argument: str, place: Path
) -> None:
    result = json.loads((long_range.PICTURES / "long_range.json").read_text(encoding="utf-8"))
    used: list[Path] = []
    monkeypatch.setattr(long_range, "run_all", lambda folder, output, *others: used.append(output) or result)
    monkeypatch.setattr(long_range, "draw", lambda result, path: used.append(path))
    monkeypatch.setattr(sys, "argv", ["long_range.py", argument])
    long_range.main()
    trained = [] if argument == "--draw" else [place / "long_range.json"]
    assert used == [*trained, place / "long_range.png"]


def test_a_word_that_was_not_trained_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="'one' is not a word"):
        long_range.read(folder / "test.jsonl", ["two"], mels=40)


def test_a_chain_is_its_recordings_one_after_the_other(folder: Path) -> None:
    recordings, vocabulary = long_range.read(folder / "train.jsonl", None, mels=40)
    chains = long_range.draw_chains(recordings, 3, 20, np.random.default_rng(0))
    seconds = {"one": 0.4, "two": 0.5}
    frames = {word: round(100 * seconds[word]) + 1 for word in vocabulary}
    for tokens, length, features in zip(chains.tokens, chains.lengths, chains.features, strict=True):
        words = [int(token) - SPECIALS for token in tokens]
        assert int(length) == sum(frames[vocabulary[word]] for word in words)
        whole = features[:length].numpy()
        found = [
            rows
            for rows in recordings.speakers.values()
            if np.array_equal(
                whole,
                np.concatenate(
                    [recordings.features[row] for word in words for row in rows if recordings.words[row] == word]
                ),
            )
        ]
        assert len(found) == 1  # all of one speaker


@pytest.mark.parametrize("variant", long_range.VARIANTS)
def test_only_cross_attention_sees_more_than_one_vector(variant: str) -> None:
    torch.manual_seed(0)
    model = long_range.ChainModel(variant, 2, MINIATURE).eval()
    features, lengths = torch.randn(2, 80, 40), torch.tensor([80, 40])
    features[1, 40:] = 0
    chains = long_range.Chains(features, lengths, torch.tensor([[4, 5], [5, 4]]))
    memory, valid = model.memory(features, lengths)
    frames, count = model.encoder(model.norm(features, lengths), lengths)
    assert count.tolist() == [20, 10]
    with attention_weights(model.decoder) as weights:
        model.loss(chains)
    seen = weights["blocks.0.cross_attention"]  # (B, H, U + 1, K)
    torch.testing.assert_close(seen.sum(dim=-1), torch.ones(seen.shape[:-1]))
    if variant in ("mean", "last"):
        assert (tuple(memory.shape), valid.tolist(), seen.shape[-1]) == ((2, 1, 16), [1, 1], 1)
        wanted = frames[1, :10].mean(dim=0) if variant == "mean" else frames[1, 9]
        torch.testing.assert_close(memory[1, 0], wanted)
    else:
        assert (tuple(memory.shape), valid.tolist(), seen.shape[-1]) == ((2, 20, 16), [20, 10], 20)
        assert not seen[1, ..., 10:].any()


def test_all_variants_have_the_same_parameters_but_for_the_additive_vector() -> None:
    sizes = {
        variant: sum(part.numel() for part in long_range.ChainModel(variant, 2, MINIATURE).parameters())
        for variant in long_range.VARIANTS
    }
    assert sizes["mean"] == sizes["last"] == sizes["dot"] == sizes["additive"] - MINIATURE.dim


@pytest.mark.parametrize("variant", long_range.VARIANTS)
def test_greedy_decoding_takes_the_likeliest_word_each_time(variant: str) -> None:
    """Stepping with a cache against the whole decoder, run again for each word."""
    torch.manual_seed(1)
    model = long_range.ChainModel(variant, 2, MINIATURE).eval()
    chains = long_range.Chains(torch.randn(3, 60, 40), torch.full((3,), 60), torch.zeros(3, 1, dtype=torch.int64))
    written = model.write(chains, most=5)
    with torch.inference_mode():
        memory, lengths = model.memory(chains.features, chains.lengths)
        for row, tokens in enumerate(written):
            so_far = [long_range.START]
            for token in [*tokens, *([long_range.END] if len(tokens) < 5 else [])]:
                logits = model.decoder(torch.tensor([so_far]), memory[row : row + 1], lengths[row : row + 1])
                assert int(logits[0, -1].argmax()) == token
                so_far.append(token)


def test_training_lowers_the_loss(folder: Path) -> None:
    settings = replace(MINIATURE, steps=100, longest=1, dim=32)
    recordings, vocabulary = long_range.read(folder / "train.jsonl", None, settings.mels)
    torch.manual_seed(0)
    model = long_range.ChainModel("dot", len(vocabulary), settings)
    losses = list(long_range.train(model, recordings, settings, seed=0))
    assert np.mean(losses[-10:]) < 0.5 * math.log(2)  # below a guess between two words, and an end that is known


@pytest.fixture(scope="module")
def walk() -> attention_walkthrough.Walk:
    """The walk-through of the document, computed anew."""
    return attention_walkthrough.walk()


def test_the_walk_gives_what_the_model_itself_computed(walk: attention_walkthrough.Walk) -> None:
    by_hand = walk.query[0, 0] @ walk.memory.key[0, 0].T / math.sqrt(walk.query.shape[-1])
    torch.testing.assert_close(walk.scores[0, 0], by_hand)
    recorded = walk.recorded[attention_walkthrough.HEAD, attention_walkthrough.LETTER]
    torch.testing.assert_close(walk.weights[0, 0, 0], recorded, atol=1e-5, rtol=1e-4)
    summed = sum(weight * value for weight, value in zip(recorded, walk.memory.value[0, 0], strict=True))
    torch.testing.assert_close(walk.context[0, 0, 0], summed, atol=1e-4, rtol=1e-3)


def test_the_document_quotes_the_numbers_of_the_walk(walk: attention_walkthrough.Walk) -> None:
    said = attention_walkthrough.describe(walk)
    quoted = DOC.read_text(encoding="utf-8").split("```text\n")[1].split("\n```")[0]
    assert NUMBER.sub("0", quoted) == NUMBER.sub("0", said)  # the words between the numbers
    both = [[float(number) for number in NUMBER.findall(text)] for text in (quoted, said)]
    np.testing.assert_allclose(*both, atol=0.021)  # another processor may round the second decimal differently


def test_the_document_holds_the_table_and_the_facts_of_the_result() -> None:
    result = json.loads((long_range.PICTURES / "long_range.json").read_text(encoding="utf-8"))
    document = DOC.read_text(encoding="utf-8")
    assert long_range.table(result) in document
    settings = result["settings"]
    seeds = len({run["seed"] for run in result["runs"]})
    for fact in (
        result["date"],
        f"{settings['steps']} steps",
        f"1 to {settings['longest']} words",
        f"{settings['chains']} chains",
        f"--seeds {seeds}",
        f"{next(run['parameters'] for run in result['runs']):,} parameters",
    ):
        assert fact in document
    assert {run["variant"] for run in result["runs"]} == set(long_range.VARIANTS)


@pytest.mark.parametrize("picture", ["attention_steps.png", "attention_heads.png", "long_range.png"])
def test_the_pictures_of_the_document_are_there(picture: str) -> None:
    assert f"](pictures/{picture})" in DOC.read_text(encoding="utf-8")
    assert (long_range.PICTURES / picture).read_bytes().startswith(b"\x89PNG")
