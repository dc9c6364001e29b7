from __future__ import annotations

from pathlib import Path

from asr.config import compose
from asr.manifest import Manifest, write_manifest
from asr.tokenizer import TokenizerConfig, train_tokenizer
from asr.training.config import TrainConfig
from asr.training.vocabulary import prepare_tokenizer


def composed(run: Path, manifest: Path, *more: str) -> TrainConfig:
    return compose(TrainConfig, "an4", [f"data.train=[{manifest}]", f"run={run}", *more])


def test_a_prepared_tokenizer_is_used_until_settings_or_texts_change(
    tmp_path: Path, manifest: Manifest, monkeypatch, caplog
) -> None:
    utterances = list(manifest)
    write_manifest(tmp_path / "train.jsonl", utterances)
    config = composed(tmp_path / "run", tmp_path / "train.jsonl")
    first = prepare_tokenizer(config)
    assert first.model == train_tokenizer(manifest.texts, TokenizerConfig(kind="char")).model
    assert (tmp_path / "run" / "tokenizer.model").read_bytes() == first.model

    made = (tmp_path / "run" / "tokenizer.model").stat().st_mtime_ns
    assert prepare_tokenizer(config).model == first.model
    assert (tmp_path / "run" / "tokenizer.model").stat().st_mtime_ns == made
    assert not caplog.records

    other = composed(tmp_path / "run", tmp_path / "train.jsonl", "tokenizer.kind=unigram", "tokenizer.vocabulary=60")
    assert len(prepare_tokenizer(other)) == 60
    assert "trained anew" in caplog.text
    write_manifest(tmp_path / "train.jsonl", utterances[:3])
    assert (
        prepare_tokenizer(config).model
        == train_tokenizer([u.text for u in utterances[:3]], TokenizerConfig(kind="char")).model
    )
