from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from asr.errors import CheckpointError, ConfigError
from asr.model.language_model import LanguageModelConfig, NeuralLanguageModel
from asr.model.language_model_file import load_neural_language_model, save_language_model
from asr.tokenizer import BLANK, START, TokenizerConfig, train_tokenizer

CPU = torch.device("cpu")
TOKENIZER = train_tokenizer(["the cat sat on the mat", "a dog"], TokenizerConfig(kind="char"))
V = len(TOKENIZER)


def tiny(seed: int = 0) -> NeuralLanguageModel:
    torch.manual_seed(seed)
    return NeuralLanguageModel(V, LanguageModelConfig(layers=2, dim=16, heads=2, feed_forward=32)).eval()


def whole(model: NeuralLanguageModel, text: list[int]) -> torch.Tensor:
    """Answers after each token of one text, from one pass and no cache, shape (U + 1, V)."""
    with torch.no_grad():
        return model(torch.tensor([[START, *text]]))[0]


def test_steps_equal_the_whole_pass_for_rows_that_move_at_different_times_and_change_places():
    model = tiny()
    generator = torch.Generator().manual_seed(1)
    texts: list[list[int]] = [[] for _ in range(5)]
    _, state = model.start(5, CPU)
    for _ in range(40):
        tokens = torch.randint(4, V, (5,), generator=generator)
        tokens[torch.rand(5, generator=generator) < 0.5] = BLANK
        _, state = model.step(tokens, state)
        for text, token in zip(texts, tokens.tolist(), strict=True):
            text += [token] if token != BLANK else []
        rows = torch.randint(0, 5, (5,), generator=generator)
        state = model.select(rows, state)
        texts = [list(texts[row]) for row in rows.tolist()]
        for row, text in enumerate(texts):
            torch.testing.assert_close(state.log_probs[row], whole(model, text)[-1], atol=1e-5, rtol=0)


def test_the_pool_stays_small_however_long_the_search(monkeypatch):
    monkeypatch.setattr("asr.model.language_model.ROOM", 16)
    model = tiny()
    _, state = model.start(3, CPU)
    for count in range(1, 61):  # two of the three texts are dropped after every step
        _, state = model.step(torch.tensor([4, 5, 6]), state)
        state = model.select(torch.tensor([count % 3] * 3), state)
    assert len(state.pool.layers[0].key) < 3 * 61
    path = [(4, 5, 6)[count % 3] for count in range(1, 61)]
    torch.testing.assert_close(state.log_probs[0], whole(model, path)[-1], atol=1e-5, rtol=0)


def test_a_state_stays_good_after_its_successors_went_other_ways(monkeypatch):
    monkeypatch.setattr("asr.model.language_model.ROOM", 4)
    model = tiny()
    _, before = model.step(torch.tensor([4, 5]), model.start(2, CPU)[1])
    for token in (6, 7, 8):
        state = before
        for _ in range(3):
            log_probs, state = model.step(torch.tensor([token, BLANK]), state)
        torch.testing.assert_close(log_probs[0], whole(model, [4] + 3 * [token])[-1], atol=1e-5, rtol=0)
        torch.testing.assert_close(log_probs[1], whole(model, [5])[-1], atol=1e-5, rtol=0)


def test_batched_is_as_alone_and_everything_sums_to_one():
    model = tiny()
    together, _ = model.step(torch.tensor([4, 5, 6]), model.start(3, CPU)[1])
    for row, token in enumerate((4, 5, 6)):
        alone, _ = model.step(torch.tensor([token]), model.start(1, CPU)[1])
        torch.testing.assert_close(together[row], alone[0], atol=1e-6, rtol=0)
    assert together.exp().sum(dim=1).tolist() == pytest.approx([1.0] * 3, abs=1e-5)
    assert float(together[:, [BLANK, START]].exp().max()) == 0


def test_a_search_under_autocast_goes_on():
    model = tiny()
    with torch.autocast("cpu", torch.bfloat16):  # as validation runs in mixed precision
        log_probs, state = model.step(torch.tensor([4]), model.start(1, CPU)[1])
        log_probs, _ = model.step(torch.tensor([5]), state)
    torch.testing.assert_close(log_probs[0], whole(model, [4, 5])[-1], atol=0.1, rtol=0)


def test_the_future_is_not_seen():
    model = tiny()
    one, other = whole(model, [4, 5, 6, 7]), whole(model, [4, 5, 9, 9])
    torch.testing.assert_close(one[:3], other[:3])
    assert not torch.allclose(one[3], other[3])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_model_follows_the_search_to_its_device():
    model = tiny()
    expected = whole(model, [4, 5])
    log_probs, state = model.start(1, torch.device("cuda"))
    for token in (4, 5):
        log_probs, state = model.step(torch.tensor([token], device="cuda"), state)
    torch.testing.assert_close(log_probs[0].cpu(), expected[-1], atol=1e-4, rtol=0)


def test_a_file_gives_the_model_back(tmp_path):
    model = tiny()
    save_language_model(tmp_path / "lm.safetensors", model, TOKENIZER, {"made": "here"})
    loaded, about = load_neural_language_model(tmp_path / "lm.safetensors", TOKENIZER)
    assert about == {"made": "here"}
    assert not loaded.training
    torch.testing.assert_close(whole(loaded, [4, 5]), whole(model, [4, 5]), atol=0.02, rtol=0)  # stored in float16


def test_files_that_do_not_fit_are_refused_in_one_line(tmp_path):
    path = tmp_path / "lm.safetensors"
    save_language_model(path, tiny(), TOKENIZER, {})
    other = train_tokenizer(["xyz"], TokenizerConfig(kind="char"))
    with pytest.raises(CheckpointError, match="tokens are not this recogniser's"):
        load_neural_language_model(path, other)
    tensors = load_file(path)
    pieces = json.dumps([TOKENIZER.piece(token) for token in range(V)])
    good = {"format": "asr-lm-1", "pieces": pieces, "about": "{}", "config": "{}"}
    huge = json.dumps({"layers": 10**9})
    wide = json.dumps({"layers": 2, "dim": 10**9, "heads": 1, "feed_forward": 1})
    for changes, message in [
        ({"format": "asr-1"}, "no language model"),
        ({"config": huge}, "more layers"),
        ({"config": wide}, "has shape"),
        ({"config": '{"eval": 1}'}, "eval"),
        ({"pieces": "["}, "does not fit together"),
    ]:
        save_file(tensors, path, good | changes)
        with pytest.raises(CheckpointError, match=message) as caught:
            load_neural_language_model(path, TOKENIZER)
        assert "\n" not in str(caught.value)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="damaged"):
        load_neural_language_model(path, TOKENIZER)


@pytest.mark.parametrize("values", [{"dim": 30, "heads": 4}, {"layers": 0}, {"dropout": 1.0}, {"dropout": math.nan}])
def test_impossible_sizes_are_refused(values):
    with pytest.raises(ConfigError):
        LanguageModelConfig(**values)
