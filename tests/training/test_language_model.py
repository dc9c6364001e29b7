"""`asr train --config lm/...`, from end to end on a few sentences."""

from __future__ import annotations

import csv
import math
import os
import signal

import pytest
import torch

from asr.config import compose
from asr.errors import ConfigError, DataError, StoppedError
from asr.model.language_model_file import load_neural_language_model
from asr.tokenizer import END
from asr.training.language_model import LanguageModelModule, LanguageModelRun, train_language_model
from asr.training.trainer import refuse_kept
from asr.transcriber import EMBEDDED, Transcriber

WORDS = ["the", "cat", "dog", "sat", "ate", "on", "a", "mat", "and", "log"]
SENTENCES = [f"{WORDS[n % 10]} {WORDS[n * n % 7]} {WORDS[n // 3 % 10]} {WORDS[n * 3 % 8]}" for n in range(60)]
TOKENIZER = Transcriber.load().model.tokenizer


def settings(folder, *more):
    (folder / "text.txt").write_text("".join(f"{sentence}\n" for sentence in SENTENCES[10:]))
    (folder / "valid.txt").write_text("".join(f"{sentence.title()}.\n" for sentence in SENTENCES[:10]))
    changes = (
        f"text=[{folder}/text.txt]",
        f"valid=[{folder}/valid.txt]",
        f"run={folder}/run",
        "model.layers=1",
        "model.dim=16",
        "model.heads=2",
        "model.feed_forward=32",
        "model.dropout=0.1",
        "batch_tokens=400",
        "max_tokens=100",
        "optimizer.learning_rate=1e-2",
        "optimizer.warmup_steps=4",
        "training.epochs=3",
        "training.average_decay=0.5",
        "training.accelerator=cpu",
    )
    return compose(LanguageModelRun, "lm/books", [*changes, *more])


def test_a_run_learns_and_its_perplexities_are_what_the_saved_model_gives(tmp_path):
    path = train_language_model(settings(tmp_path), EMBEDDED)
    model, about = load_neural_language_model(path, TOKENIZER)
    total, tokens, words = 0.0, 0, 0
    for sentence in SENTENCES[:10]:  # one after the other, token by token, as a search would
        log_probs, state = model.start(1, torch.device("cpu"))
        for token in (*TOKENIZER.encode(sentence), END):
            total -= float(log_probs[0, token])
            tokens += 1
            log_probs, state = model.step(torch.tensor([token]), state)
        words += len(sentence.split()) + 1
    with (tmp_path / "run" / "metrics.csv").open() as file:
        logged = [row for row in csv.DictReader(file) if row["valid/token_perplexity"]]
    assert float(logged[-1]["valid/token_perplexity"]) == pytest.approx(math.exp(total / tokens), rel=1e-2)
    assert float(logged[-1]["valid/word_perplexity"]) == pytest.approx(math.exp(total / words), rel=5e-2)
    assert float(logged[-1]["valid/token_perplexity"]) < 0.8 * float(logged[0]["valid/token_perplexity"])
    assert about["metrics"]["token_perplexity"] == pytest.approx(float(logged[-1]["valid/token_perplexity"]), abs=1e-3)
    assert about["data"] == {"texts": ["text.txt"], "sentences": 50}
    assert path.read_bytes() in [kept.read_bytes() for kept in (tmp_path / "run" / "best").iterdir()]
    with pytest.raises(ConfigError, match="holds a run already"):
        train_language_model(settings(tmp_path), EMBEDDED)
    with pytest.raises(ConfigError, match=r"model\.layers=9: a run keeps what it began with"):
        refuse_kept(["model.layers=9"], settings(tmp_path, "model.layers=9"))


def test_many_small_batches_make_the_step_of_a_large_one(tmp_path):
    """Batches hold unlike numbers of tokens, and each token counts alike."""
    common = ("model.dropout=0.0", "training.epochs=1", "training.average_decay=0", "optimizer.warmup_steps=1")
    weights = []
    for name, sizes in (
        ("small", ("batch_tokens=150", "optimizer.accumulate=1000")),
        ("large", ("batch_tokens=99999",)),
    ):
        (tmp_path / name).mkdir()
        path = train_language_model(settings(tmp_path / name, *common, *sizes), EMBEDDED)
        weights.append(load_neural_language_model(path, TOKENIZER)[0].state_dict())
    for key, weight in weights[0].items():
        torch.testing.assert_close(weight, weights[1][key], atol=2e-5, rtol=1e-4)


def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path, monkeypatch):
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
    whole = train_language_model(settings(tmp_path / "whole"), EMBEDDED)
    step = LanguageModelModule.training_step

    def stop(self, batch, batch_index):
        if self.trainer.global_step == 7:  # in the middle of the second epoch
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batch, batch_index)

    monkeypatch.setattr(LanguageModelModule, "training_step", stop)
    with pytest.raises(StoppedError):
        train_language_model(settings(tmp_path / "broken"), EMBEDDED)
    monkeypatch.undo()
    with pytest.raises(ConfigError, match="another model: add tokenizer_from=embedded"):
        train_language_model(settings(tmp_path / "broken", "tokenizer_from=x"), EMBEDDED, resume=True)
    forgotten = settings(tmp_path / "broken", "model.layers=2")  # a run keeps its architecture
    resumed = train_language_model(forgotten, EMBEDDED, resume=True)
    one, other = (load_neural_language_model(path, TOKENIZER)[0].state_dict() for path in (whole, resumed))
    for name, weight in one.items():
        torch.testing.assert_close(other[name], weight, atol=1e-6, rtol=0)


def test_what_is_wrong_is_told_in_one_line(tmp_path):
    with pytest.raises(ConfigError, match="nothing to resume"):
        train_language_model(settings(tmp_path), EMBEDDED, resume=True)
    with pytest.raises(DataError, match=r"gone\.txt"):
        train_language_model(settings(tmp_path, "text=[gone.txt]"), EMBEDDED)
    with pytest.raises(DataError, match="too few sentences"):
        train_language_model(settings(tmp_path, "text=[]"), EMBEDDED)
    with pytest.raises(ConfigError, match="max_tokens"):
        settings(tmp_path, "max_tokens=401")
    with pytest.raises(ConfigError, match="did you mean 'lm/books'"):
        compose(LanguageModelRun, "lm/book")
