"""`asr lm build`, the search options of `transcribe` and `evaluate`, and `evaluate --tune`, from end to end."""

from __future__ import annotations

import json
import re

import pytest
from examples import DATA
from typer.testing import CliRunner

from asr.cli import app
from asr.errors import ConfigError

AUDIO = str(DATA / "1737-146161-0009.flac")


def asr(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lm")
    (folder / "text.txt").write_text("knit two together twice\nmake one knit two together\nknit seven make one\n" * 3)
    for name in ("lm.arpa.gz", "lm.safetensors"):
        asr("lm", "build", folder / "text.txt", "--output", folder / name, "--order", 5, "--cutoff", 0)
    return folder / "lm.arpa.gz"


def test_every_search_option_changes_the_text(lm, tmp_path):
    alone = ("--search", "language_model=", "--search", "lm_weight=0")  # without what the checkpoint recommends
    plain = asr("transcribe", AUDIO, "--decoding", "ctc_beam", *alone, "--no-vad")
    fused = asr("transcribe", AUDIO, "--language-model", lm, "--search", "lm_weight=1", "--no-vad")
    assert "together" in fused
    assert fused != plain
    compact = lm.with_name("lm.safetensors")
    assert fused == asr("transcribe", AUDIO, "--language-model", compact, "--search", "lm_weight=1", "--no-vad")
    (tmp_path / "words.txt").write_text("together\ntwice\n")
    listened = asr("transcribe", AUDIO, "--hotwords", tmp_path / "words.txt", "--search", "hotword_bonus=5", "--no-vad")
    assert "together" in listened
    assert listened != plain
    settings = (DATA / "1737-146161-0013.flac", "--decoding", "joint", "--search", "ctc_weight=0.5", "--no-vad")
    narrow, wide = (asr("transcribe", *settings, "--beam-size", beam) for beam in (1, 6))
    assert narrow != wide


def test_sentences_that_the_vocabulary_lacks_letters_of_are_counted(tmp_path):
    (tmp_path / "text.txt").write_text("knit two together\ntake 5 mg\n120\n")
    command = ["lm", "build", str(tmp_path / "text.txt"), "--output", str(tmp_path / "lm.arpa"), "--order", "2"]
    said = " ".join(CliRunner().invoke(app, command).stderr.split())
    assert "2 sentences hold what the model's vocabulary lacks, the first: 'take 5 mg'" in said


@pytest.mark.parametrize(
    "option, message",
    [
        (("--search", "lm_wieght=1"), "did you mean 'lm_weight'"),
        (("--search", "lm_weight"), "write key=value"),
        (("--search", "lm_weight=much"), "lm_weight"),
        (("--language-model", "gone.arpa"), "gone.arpa: no such language model"),
        (("--hotwords", "gone.txt"), "gone.txt: no such file of hotwords"),
        (("--hotwords", "gone/terms.dict"), "gone/terms.dict: no such file of hotwords"),
        (("--decoding", "ctc", "--beam-size", "5"), "beam_size does nothing in ctc as it is: it needs another mode"),
        (("--decoding", "ctc", "--search", "lm_weight=0.5"), "lm_weight does nothing in ctc as it is: it needs a lang"),
        (("--decoding", "ctc_beam", "--search", "ctc_weight=0.5"), "ctc_weight does nothing in ctc_beam"),
        (("--decoding", "joint", "--beam-size", "0"), "beam_size must be at least 1"),
    ],
)
def test_what_is_wrong_is_told_before_any_audio_is_read(option, message):
    with pytest.raises(ConfigError, match=message):
        asr("transcribe", AUDIO, *option)


def test_tune_prints_its_trials_best_first(lm, tmp_path):
    rows = [json.loads(line) for line in (DATA / "manifest.jsonl").read_text().splitlines()]
    short = [row | {"audio_filepath": str(DATA / row["audio_filepath"])} for row in rows if row["duration"] < 4]
    (tmp_path / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in short))
    options = ("--decoding", "ctc_beam", "--beam-size", 3, "--language-model", lm)
    output = asr("evaluate", "--manifest", tmp_path / "dev.jsonl", *options, "--tune")
    table = [line.split("│")[1:-1] for line in output.splitlines() if line.startswith("│")]
    rates = [float(cells[2]) for cells in table]
    assert rates == sorted(rates)
    assert len(rates) > 4
    best = output.splitlines()[-1]
    weights = f"--search lm_weight={table[0][0].strip()} --search length_bonus={table[0][1].strip()}"
    assert re.fullmatch(rf"best: {weights} --search confidence_power=[\d.]+", best)
    said = asr("evaluate", "--manifest", tmp_path / "dev.jsonl", *options, *best.split()[1:])
    assert f"WER {rates[0]:.2f} %" in said
    with pytest.raises(ConfigError, match="no weights to tune"):
        asr("evaluate", "--manifest", tmp_path / "dev.jsonl", "--decoding", "ctc", "--tune")
