"""What a model thinks of transcripts, with the embedded one: weak, but real."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from asr.check import check
from asr.evaluation import plausibility
from asr.evaluation.plausibility import TranscriptJudge, infeasible_rows
from asr.manifest import Manifest, write_manifest
from asr.model import checkpoint
from asr.transcriber import EMBEDDED


@pytest.fixture(scope="module")
def embedded():
    return checkpoint.load(EMBEDDED)[0]


def test_scores_are_those_of_each_utterance_alone(embedded, manifest):
    rows = np.isin(np.arange(12), (0, 3, 7))
    together, _ = TranscriptJudge(embedded).score(manifest, rows)
    assert np.isnan(together[~rows]).all()
    for row in np.flatnonzero(rows):
        alone, strangers = TranscriptJudge(embedded).score(manifest, np.arange(12) == row)
        assert alone[row] == pytest.approx(together[row], abs=1e-4)
        assert np.isnan(strangers).all(), "there is no stranger to compare with"


def test_a_swapped_transcript_is_named_and_only_that(embedded, manifest, tmp_path):
    rows = list(manifest)
    rows[5] = replace(rows[5], text=rows[9].text)
    write_manifest(tmp_path / "train.jsonl", rows)
    done: list[int] = []
    judge = TranscriptJudge(embedded, done.append)
    checked = check([Manifest.load(tmp_path / "train.jsonl")], plausibility=judge)
    assert [finding.row for finding in checked.findings if finding.kind == "implausible"] == [5]
    assert sum(done) == 12
    assert np.isfinite(checked.scores[0]).all()


def test_a_model_that_has_learnt_nothing_says_so(model, manifest):
    judged = TranscriptJudge(model)(manifest, np.ones(12, dtype=bool))
    assert not judged.implausible
    assert "cannot tell" in judged.note


@pytest.mark.parametrize("factor", [4, 8])
def test_infeasible_is_where_torch_finds_no_alignment(tokenizer, factor):
    texts = ["a", "aa", "ab", "hello", "hello" * 3, "aaaa" * 3, "abcd" * 3]
    seconds = np.repeat([0.05, 0.2, 0.4, 0.6, 1.0], len(texts))
    found = infeasible_rows(tokenizer, factor)(texts * 5, seconds)
    for text, second, marked in zip(texts * 5, seconds, found, strict=True):
        frames = int(second * 16_000) // 160 + 1
        for _ in range(factor.bit_length() - 1):
            frames = -(-frames // 2)
        tokens = torch.tensor(tokenizer.encode(text))
        log_probs = torch.zeros(frames, 1, len(tokenizer)).log_softmax(-1)
        loss = torch.nn.functional.ctc_loss(log_probs, tokens[None], [frames], [len(tokens)], reduction="sum")
        assert bool(torch.isinf(loss)) == marked, (text, second)


def test_one_endless_text_does_not_pad_all_others(tokenizer, monkeypatch):
    sizes, real = [], plausibility.infeasible
    monkeypatch.setattr(plausibility, "infeasible", lambda f, t, n: sizes.append(t.numel()) or real(f, t, n))
    found = infeasible_rows(tokenizer, 4)(["A B"] * 2000 + ["A" * 100_000], np.full(2001, 2.0))
    assert np.flatnonzero(found).tolist() == [2000]
    assert max(sizes) < 2_000_000
