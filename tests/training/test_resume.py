from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from examples import heed_interrupts
from runs import TINY, composed

from asr import files
from asr.errors import CheckpointError, ConfigError, StoppedError
from asr.training.config import OptimizerConfig
from asr.training.fit import train
from asr.training.optimizers import make_optimizer, make_schedule
from asr.training.resume import AtomicCheckpointIO, KeepCheckpoints, RescaleSchedule, checkpoints_in, newest_whole
from asr.training.trainer import refuse_kept

SMALL = [override for override in TINY if "batch_seconds" not in override]
STEPS = (
    *SMALL,
    "data.batch_seconds=12",
    "data.workers=2",
    "data.speeds=[0.9,1.0,1.1]",
    "model.encoder.dropout=0.1",
    "training.average_decay=0.9",
    "optimizer.warmup_steps=2",
    "training.epochs=3",
    "training.validate_every=3",
    "training.checkpoint_minutes=1e-6",
    "training.keep_last=3",
)


def command(manifest: Path, run: Path, *more: str) -> list[str]:
    overrides = [f"data.train=[{manifest}]", f"data.valid=[{manifest}]", f"run={run}", "training.accelerator=cpu"]
    return [sys.executable, "-m", "asr.cli", "train", "--config", "mini_librispeech", *overrides, *STEPS, *more]


def fingerprint(run: Path) -> str:
    """Hash of everything a run's newest checkpoint would go on with: weights, average, optimiser."""
    state = torch.load(checkpoints_in(run / "checkpoints")[0], weights_only=True)
    digest = hashlib.sha256(str(state["global_step"]).encode())
    for part in ("current_model_state", "state_dict"):
        for name, tensor in sorted(state[part].items()):
            digest.update(name.encode() + tensor.numpy().tobytes())
    for moments in state["optimizer_states"][0]["state"].values():
        for tensor in moments.values():
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def wait_for_step(run: Path, step: int, process: subprocess.Popen) -> None:
    for _ in range(1200):
        newest = checkpoints_in(run / "checkpoints")[:1]
        if newest and int(newest[0].stem.split("-")[1]) >= step:
            return
        assert process.poll() is None, "the run ended before it could be stopped"
        time.sleep(0.05)
    raise AssertionError("no checkpoint appeared")


ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}


def test_a_run_that_was_killed_and_stopped_ends_with_the_same_bits(eight, tmp_path):
    """Killed inside an epoch, then told to stop, with workers, augmentation and dropout: the weights do not show it."""
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    subprocess.run(command(eight, whole), check=True, env=ONE_THREAD, capture_output=True)
    begin = command(eight, stopped)
    stops = (([], 2, signal.SIGKILL, -9), (["--resume"], 5, signal.SIGINT, 130), (["--resume"], 9, signal.SIGTERM, 143))
    for more, step, number, code in stops:
        process = subprocess.Popen(
            [*begin, *more],
            env=ONE_THREAD,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=heed_interrupts,
        )
        wait_for_step(stopped, step, process)
        os.killpg(process.pid, number)  # its workers, too: so do Ctrl-C, and SLURM
        _, said = process.communicate(timeout=120)
        assert process.returncode == code, said
        assert ("go on with --resume" in said) == (number != signal.SIGKILL)
    subprocess.run([*begin, "--resume"], check=True, env=ONE_THREAD, capture_output=True)
    assert fingerprint(stopped) == fingerprint(whole)


def test_a_run_folder_is_not_overwritten_and_must_hold_something_to_resume(eight, tmp_path):
    config = composed("mini_librispeech", eight, tmp_path / "run", *TINY, "training.epochs=1")
    with pytest.raises(ConfigError, match="nothing to resume"):
        train(config, resume=True)
    train(config)
    with pytest.raises(ConfigError, match="holds a run already"):
        train(config)
    for name, value in (("model.loss.ctc_weight", 0.125), ("optimizer.layer_decay", 0.5), ("finetune.lora_rank", 2)):
        changes = (*TINY, "training.epochs=2", f"{name}={value}")
        with pytest.raises(ConfigError, match=f"{name}={value}: a run keeps what it began with"):
            refuse_kept(changes, composed("mini_librispeech", eight, tmp_path / "run", *changes))
    refuse_kept((*TINY, "training.epochs=2"), composed("mini_librispeech", eight, tmp_path / "run", *TINY))
    shutil.rmtree(tmp_path / "run" / "checkpoints")  # which takes up most of the room
    with pytest.raises(ConfigError, match="holds a run already"):
        train(config)


def test_a_damaged_checkpoint_is_passed_over(eight, tmp_path, caplog):
    steps = ("training.epochs=2", "training.keep_last=2", *TINY)
    train(composed("mini_librispeech", eight, tmp_path / "run", *steps))
    newest, older = checkpoints_in(tmp_path / "run" / "checkpoints")
    newest.write_bytes(newest.read_bytes()[:-1000])
    assert newest_whole(newest.parent) == older
    assert f"{newest} is damaged" in caplog.text
    assert checkpoints_in(newest.parent) == [older]  # it does not count as the newest when old ones are deleted
    left = newest.with_name(".0123-step-000000009.ckpt")
    left.touch()  # by a process that was killed while it wrote
    train(composed("mini_librispeech", eight, tmp_path / "run", *steps, "training.epochs=3"), resume=True)
    assert not left.exists()
    newest, older = checkpoints_in(tmp_path / "run" / "checkpoints")
    newest.unlink()
    older.write_bytes(b"")
    with pytest.raises(CheckpointError, match="no whole checkpoint"):
        newest_whole(newest.parent)


@pytest.mark.parametrize("schedule, steps", [("cosine", 50), ("wsd", 200)])
def test_the_rate_goes_on_at_the_same_share_where_an_epoch_has_other_steps(schedule, steps):
    """Half of ten epochs of 100 steps, then epochs of 50 or 200, as with twice or half as many devices."""
    config = OptimizerConfig(schedule=schedule, warmup_steps=10, decay_share=0.5)
    weight = torch.nn.Linear(2, 2)
    before, after = (make_schedule(make_optimizer(weight, config), config, 10 * each) for each in (100, steps))
    before.last_epoch = after.last_epoch = 500
    rescale = RescaleSchedule()
    rescale.load_state_dict({"epoch_steps": 100.0})
    running = SimpleNamespace(scheduler=after)
    trainer = SimpleNamespace(estimated_stepping_batches=10 * steps, max_epochs=10, lr_scheduler_configs=[running])
    rescale.on_train_start(trainer, None)
    assert after.last_epoch == 5 * steps
    assert after.lr_lambdas[0](after.last_epoch) == pytest.approx(before.lr_lambdas[0](500), abs=0.01)
    rescale.on_train_start(trainer, None)
    assert after.last_epoch == 5 * steps
    assert rescale.state_dict() == {"epoch_steps": steps}


def test_a_full_disk_costs_the_checkpoint_only(tmp_path, caplog, monkeypatch):
    """/dev/full refuses every byte, as a full disk does."""
    path = tmp_path / "step-1.ckpt"
    monkeypatch.setattr(files, "uuid4", lambda: SimpleNamespace(hex="a"))
    (tmp_path / ".a-step-1.ckpt").symlink_to("/dev/full")
    AtomicCheckpointIO().save_checkpoint({"weights": torch.randn(100_000)}, path)
    assert caplog.text.count(f"{path}: cannot be written") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_costs_the_checkpoint_only(tmp_path, caplog):
    (tmp_path / "file").touch()
    AtomicCheckpointIO().save_checkpoint({"weights": torch.zeros(3)}, tmp_path / "file" / "step-1.ckpt")
    assert caplog.text.count("step-1.ckpt: cannot be written") == 1


def test_old_checkpoints_stay_while_new_ones_cannot_be_written(eight, tmp_path, monkeypatch):
    steps = ("training.epochs=3", "training.keep_last=1", *TINY)
    save = AtomicCheckpointIO.save_checkpoint

    def full_after_the_first(self, checkpoint, path, storage_options=None):
        if checkpoint["epoch"] == 0:
            save(self, checkpoint, path, storage_options)

    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", full_after_the_first)
    train(composed("mini_librispeech", eight, tmp_path / "run", *steps))
    kept = checkpoints_in(tmp_path / "run" / "checkpoints")
    assert [torch.load(path, weights_only=True)["epoch"] for path in kept] == [0]


def test_the_best_models_are_kept(eight, tmp_path):
    steps = ("training.epochs=4", "training.keep_best=2", *TINY)
    train(composed("mini_librispeech", eight, tmp_path / "run", *steps))
    assert len(list((tmp_path / "run" / "best").iterdir())) == 2


@pytest.mark.parametrize("stop_after", [1, 2], ids=["between epochs", "at the end"])
def test_a_stop_on_the_last_step_of_an_epoch_leaves_out_no_validation(eight, tmp_path, monkeypatch, stop_after):
    config = composed("mini_librispeech", eight, tmp_path / "run", *TINY, "training.epochs=2")
    whole = composed("mini_librispeech", eight, tmp_path / "whole", *TINY, "training.epochs=2")
    train(whole)
    ended = KeepCheckpoints.on_train_batch_end

    def told_to_stop(self, trainer, *arguments):
        if trainer.current_epoch + 1 == stop_after and arguments[-1] + 1 == trainer.num_training_batches:
            self.signal = signal.SIGTERM
        ended(self, trainer, *arguments)

    monkeypatch.setattr(KeepCheckpoints, "on_train_batch_end", told_to_stop)
    if stop_after == 1:
        with pytest.raises(StoppedError, match="stopped and saved"):
            train(config)
        monkeypatch.undo()
    train(config, resume=stop_after == 1)
    assert fingerprint(tmp_path / "run") == fingerprint(tmp_path / "whole")
    for run in ("run", "whole"):
        assert sorted(path.name for path in (tmp_path / run / "best").iterdir()) == [
            "epoch-001.safetensors",
            "epoch-002.safetensors",
        ]


def test_one_stop_that_comes_twice_still_saves_and_another_does_not(tmp_path, monkeypatch):
    keep = KeepCheckpoints(tmp_path, 10.0, 2)
    keep._note(signal.SIGTERM, None)
    keep._note(signal.SIGTERM, None)  # the launcher passes on what the whole group has got
    assert keep.signal == signal.SIGTERM
    monkeypatch.setattr("asr.training.resume.ONE_STOP", 0.0)
    with pytest.raises(KeyboardInterrupt):
        keep._note(signal.SIGTERM, None)


def test_the_last_epoch_is_validated_whatever_the_interval(eight, tmp_path):
    steps = ("training.epochs=3", "training.validate_every=2", *TINY)
    train(composed("mini_librispeech", eight, tmp_path / "run", *steps))
    best = [path.name for path in (tmp_path / "run" / "best").iterdir()]
    assert sorted(best) == ["epoch-002.safetensors", "epoch-003.safetensors"]


class Attack:
    """A pickle that leaves a trace where it is run."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.trace),)


def test_code_in_a_checkpoint_is_not_run(eight, tmp_path):
    config = composed("mini_librispeech", eight, tmp_path / "run", *TINY, "training.epochs=1")
    train(config)
    (newest,) = checkpoints_in(tmp_path / "run" / "checkpoints")[:1]
    state = torch.load(newest, weights_only=True) | {"surprise": Attack(tmp_path / "attacked")}
    torch.save(state, newest.with_name("step-999999999.ckpt"))
    with pytest.raises(pickle.UnpicklingError, match=r"[Ww]eights"):
        train(config, resume=True)
    assert not (tmp_path / "attacked").exists()
