"""`asr recipe`: what a dry run promises, what a run makes, what a second run leaves alone, and what a failure says."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import soundfile
from examples import DATA
from typer.testing import CliRunner

from asr.cli import app
from asr.errors import ConfigError, DataError
from asr.manifest import Manifest
from asr.stages import Step, plan, run_step, show

TINY = [
    "model.encoder.layers=1",
    "model.encoder.dim=16",
    "model.encoder.feed_forward=16",
    "model.encoder.subsampling_channels=4",
    "model.decoder.feed_forward=16",
    "data.workers=0",
    "training.epochs=1",
    "training.accelerator=cpu",
    "tokenizer.vocabulary=30",
]


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """A few recordings of each split of spoken_digits."""
    folder = tmp_path / "fsdd" / "recordings"
    folder.mkdir(parents=True)
    samples, rate = soundfile.read(next(iter(Manifest.load(DATA / "manifest.jsonl"))).audio_filepath)
    for digit in range(6):
        for index in (0, 20, 21, 46):
            soundfile.write(folder / f"{digit}_george_{index}.wav", samples[: rate // 2], rate)
    return tmp_path / "fsdd"


def asr(*words: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


class InThisProcess:
    """Stands in for a process: five of them would spend most of this test importing torch."""

    def __init__(self, command: list[str]) -> None:
        assert command[:4] == [sys.executable, "-P", "-m", "asr.cli"]  # -P: not what lies in the folder at hand
        self.words = command[4:]

    def __enter__(self) -> InThisProcess:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def wait(self) -> int:
        return app(self.words, standalone_mode=False) or 0


def test_from_corpus_to_error_rate(tmp_path: Path, digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("asr.stages.subprocess", SimpleNamespace(Popen=InThisProcess))
    line = ["recipe", "spoken_digits", "--source", "fsdd", *TINY]

    code, promised, _ = asr(*line, "--dry-run")
    assert code == 0
    assert sorted(os.listdir(tmp_path)) == ["fsdd"]  # nothing was done
    products = [Path(shown.split("-> ")[1]) for shown in promised.splitlines() if "-> " in shown]

    code, _, told = asr(*line)
    assert code == 0
    for shown in promised.splitlines():
        if "-> " not in shown:
            assert shown in told, "the commands run are the commands promised"
    assert all(product.is_file() for product in products)
    assert {path.stem for path in tmp_path.glob("data/spoken_digits/*.jsonl")} == {"train", "dev", "test"}
    result = json.loads(Path("run/spoken_digits/results/test.json").read_text())
    assert result["utterances"] == 6

    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    code, _, told = asr(*line)
    assert code == 0
    assert [told.count(f"{stage}: skipped") for stage in ("prepare", "tokenizer", "train", "evaluate")] == [1, 1, 1, 2]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before
    assert "made by another command" not in told
    _, _, told = asr(*line, "decoding=attention", "--stage", "evaluate")
    assert "skipped" not in told
    assert json.loads(Path("run/spoken_digits/results/test.json").read_text())["decoding"]["mode"] == "attention"
    told = asr(*line, "training.epochs=7", "--stage", "train")[2]
    assert "made by another command, asr train --config spoken_digits model.encoder.layers=1" in " ".join(told.split())

    Path("run/spoken_digits/train.done").unlink()  # as after an interruption
    shown = asr(*line, "--dry-run", "--stage", "train")[1]
    assert "asr train --config spoken_digits --resume" in shown


def test_dry_run_shows_commands_that_the_program_has(tmp_path: Path) -> None:
    steps = plan(
        "an4",
        Path("my corpus"),
        tmp_path / "data",
        tmp_path / "run",
        ["--decoding", "attention"],
        ["training.epochs=3"],
    )
    lines = show(steps)
    assert f"prepare: asr prepare an4 --source 'my corpus' --output {tmp_path}/data" in lines
    assert [step.stage for step in steps] == ["prepare", "tokenizer", "train", "evaluate", "evaluate"]
    for line in lines:
        if " -> " not in line:
            verb = shlex.split(line.split(": ", 1)[1])[1]
            assert asr(verb, "--help")[0] == 0
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").touch()
    (tmp_path / "data" / "dev.jsonl").touch()
    steps = plan("an4", None, tmp_path / "data", tmp_path / "run", [], [])
    assert [step.command[4] for step in steps if step.stage == "evaluate"] == [f"{tmp_path}/data/dev.jsonl"]
    assert show(steps)[0] == "prepare: skipped, done already"


def test_a_model_is_measured_by_the_search_of_its_run() -> None:
    search = ("decoding=rescoring", "decoding.beam_size=20", "decoding.ctc_weight=0.7")
    code, shown, _ = asr("recipe", "an4", "--source", "corpus", "--dry-run", "--stage", "evaluate", *search)
    assert code == 0
    assert "--decoding rescoring --search beam_size=20 --search ctc_weight=0.7 --json" in shown


def test_results_of_an_older_model_are_measured_again(tmp_path: Path) -> None:
    model, result = tmp_path / "model.safetensors", tmp_path / "results" / "dev.json"
    result.parent.mkdir()
    made = [result, result.with_suffix(".done")]
    step = Step("evaluate", ["evaluate"], made, newer_than=(model,))
    assert not step.done
    result.touch()
    assert not step.done
    made[1].write_text('{"command": ["asr", "evaluate"]}')
    assert step.done
    assert not replace(step, command=["evaluate", "--decoding", "joint"]).done  # of another search
    model.touch()
    os.utime(result, (0, 0))
    assert not step.done


def test_data_that_changed_are_measured_anew_and_a_model_that_never_heard_them_says_so(tmp_path, capfd) -> None:
    run, data = tmp_path / "run", tmp_path / "data"
    for made in ("data/train.jsonl", "data/dev.jsonl", "run/tokenizer.model", "run/model.safetensors"):
        (tmp_path / made).parent.mkdir(exist_ok=True)
        (tmp_path / made).touch()
    (run / "train.done").write_text('{"command": ["asr", "train", "--config", "custom"]}')
    (run / "results").mkdir()
    (run / "results" / "dev.json").touch()
    steps = plan("custom", tmp_path / "more", data, run, [], [])
    steps[3].products[1].write_text(json.dumps({"command": ["asr", *steps[3].command]}))
    assert [step.done for step in steps] == [True] * 4
    for manifest in data.iterdir():
        os.utime(manifest, (2**31, 2**31))
    assert [step.done for step in steps] == [True, True, True, False]
    for step in steps[:3]:
        run_step(step)
    told = " ".join(capfd.readouterr().err.split())
    assert "its data have changed since; for a new run name another run=FOLDER" in told
    assert "--source was not looked at: delete the manifests to prepare anew" in told


def test_other_folders_reach_the_training(tmp_path: Path) -> None:
    output, run = tmp_path / "my manifests", tmp_path / "my run"
    code, shown, _ = asr("recipe", "yesno", "--dry-run", "--output", output, f"run='{run}'", "--stage", "train")
    assert code == 0
    words = shlex.split(shown.splitlines()[0])
    assert f"data.train=['{output}/train.jsonl']" in words
    assert f"-> {run}/model.safetensors" in shown


def test_a_failure_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty place").mkdir()
    code, _, told = asr("recipe", "an4", "--source", "empty place", "--stage", "prepare", "--stage", "train", "run=r")
    assert code == 2
    assert "empty place: holds no an4 to train on; give the folder an4" in capfd.readouterr().err
    told = " ".join(told.split())
    assert "stage prepare failed with exit code 2" in told
    assert "go on with: asr recipe an4 --stage prepare --stage train --source 'empty place' run=r" in told
    assert not (tmp_path / "data").exists()


def test_unknown_stage_and_corpus() -> None:
    with pytest.raises(ConfigError, match="no stage 'trian'; did you mean 'train'"):
        asr("recipe", "an4", "--stage", "trian")
    with pytest.raises(ConfigError, match="no recipe 'an5'; did you mean 'an4'"):
        asr("recipe", "an5")


def test_a_stage_that_makes_nothing_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"stage prepare made no .*train\.jsonl"):
        run_step(Step("prepare", ["--help"], [tmp_path / "train.jsonl"]))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 138)])
def test_a_recipe_that_is_told_to_stop_stops_its_stage(tmp_path: Path, number: int, code: int) -> None:
    (tmp_path / "asr.py").write_text("raise SystemExit('the folder at hand is not where programs come from')")
    mark = tmp_path / "alive"
    program = (
        "import subprocess, asr.cli as cli, asr.stages as r\n"
        "class Popen(subprocess.Popen):\n"
        "    def __init__(self, command):\n"
        f"        child = \"import time, pathlib; pathlib.Path('{mark}').touch(); time.sleep(60)\"\n"
        "        super().__init__([*command[:2], '-c', child])\n"
        "r.subprocess = type('S', (), {'Popen': Popen})\n"
        "import pathlib\n"
        "cli.app = lambda: r.run_step(r.Step('prepare', ['prepare'], [pathlib.Path('never')]))\n"
        "cli.main()\n"
    )
    process = subprocess.Popen([sys.executable, "-P", "-c", program], cwd=tmp_path)
    until = time.monotonic() + 60
    while not mark.exists() and time.monotonic() < until:
        time.sleep(0.1)
    process.send_signal(number)
    assert process.wait(20) == code  # the child would have slept for a minute
