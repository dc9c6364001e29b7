"""Loggers beside the CSV file, each without any network; they may not be installed."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from runs import TINY, composed

from asr.errors import ConfigError
from asr.training import fit
from asr.training.fit import train


def test_wandb_writes_an_offline_run(eight, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    train(composed("mini_librispeech", eight, tmp_path / "run", *TINY, "debug=fast", "training.loggers=[wandb]"))
    wandb.finish()  # writes what it still holds
    (written,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    assert b"valid/wer" in written.read_bytes()
    assert (tmp_path / "run" / "wandb_id").read_text() in written.name  # a run that goes on is the same run


def test_mlflow_writes_a_data_base(eight, tmp_path):
    pytest.importorskip("mlflow")
    train(composed("mini_librispeech", eight, tmp_path / "run", *TINY, "debug=fast", "training.loggers=[mlflow]"))
    with closing(sqlite3.connect(tmp_path / "run" / "mlflow.db")) as written:
        ((rate,),) = written.execute("SELECT value FROM metrics WHERE key = 'valid/wer'")
    assert rate > 0


def test_a_logger_that_is_not_installed_is_named(eight, tmp_path, monkeypatch):
    def absent(*arguments, **options):
        raise ModuleNotFoundError("No module named 'wandb'")

    monkeypatch.setattr(fit, "WandbLogger", absent)
    with pytest.raises(ConfigError, match=r"training\.loggers: No module named 'wandb'; pip install"):
        train(composed("mini_librispeech", eight, tmp_path / "run", *TINY, "training.loggers=[wandb]"))
