from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from asr.cli import main
from asr.model import checkpoint
from asr.tokenizer import BLANK


@pytest.fixture
def trained(model, tmp_path) -> Path:
    """A checkpoint that writes something, whatever it hears."""
    model.ctc_head.bias.data[BLANK] = -1.0
    checkpoint.save(tmp_path / "model.safetensors", model, {"metrics": {"wer": 0.9, "cer": 0.8}})
    return tmp_path / "model.safetensors"


@pytest.fixture
def asr(monkeypatch, capsys):
    """Runs the program in this process, as the console script does, from any folder."""

    def run(*arguments: object, cwd: Path | None = None) -> SimpleNamespace:
        monkeypatch.setattr(sys, "argv", ["asr", *map(str, arguments)])
        if cwd:
            monkeypatch.chdir(cwd)
        with pytest.raises(SystemExit) as ended:
            main()
        return SimpleNamespace(
            returncode=ended.value.code or 0, stdout=(output := capsys.readouterr()).out, stderr=output.err
        )

    return run


def test_help_needs_no_torch_and_names_every_verb(asr):
    code = "import sys; from asr.cli import main; sys.argv = ['asr', '--help']\ntry: main()\nexcept SystemExit: pass\n"
    code += "assert not {'torch', 'lightning', 'numpy', 'hydra', 'librosa'} & set(sys.modules), 'heavy imports'"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    for verb in ("transcribe", "prepare", "train", "evaluate", "info"):
        assert verb in result.stdout
        assert asr(verb, "--help").returncode == 0


def test_text_goes_to_standard_output_and_nothing_else_does(asr, trained, data):
    result = asr("transcribe", data / "1737-146161-0009.flac", "--model", trained)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("\n") == 1
    assert len(result.stdout.strip()) > 0


def test_bad_files_are_named_and_the_others_still_done(asr, trained, data, tmp_path):
    good = data / "1737-146161-0009.flac"
    speech, _ = soundfile.read(good)
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("this is not audio")
    (tmp_path / "cut.flac").write_bytes(good.read_bytes()[:20_000])
    soundfile.write(tmp_path / "nothing.wav", np.zeros(0), 16000)
    soundfile.write(tmp_path / "nan.wav", np.full(1600, np.nan), 16000, subtype="FLOAT")
    soundfile.write(tmp_path / "stereo44.wav", np.stack((speech, speech), 1), 44100, subtype="PCM_24")
    bad = ["missing.wav", "empty.wav", "text.wav", "cut.flac", "nothing.wav", "nan.wav", "."]
    result = asr("transcribe", *bad, good, "stereo44.wav", "--model", trained, "--output-dir", "out", cwd=tmp_path)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    for name in bad:
        lines = [line for line in result.stderr.splitlines() if line.startswith(f"error: {name}: ")]
        assert len(lines) == 1, (name, result.stderr)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["1737-146161-0009.txt", "stereo44.txt"]


def test_json_holds_the_text_and_the_account_of_every_second(asr, trained, data, tmp_path):
    result = asr("transcribe", data / "1737-146161-0009.flac", "--model", trained, "--format", "json")
    content = json.loads(result.stdout)
    assert content["text"]
    assert content["spans"][-1]["end"] == content["duration"] == 2.175


def test_decoding_and_device_are_heard(asr, trained, data):
    file = data / "1737-146161-0009.flac"
    for option, message in [
        (("--decoding", "magic"), "decoding.mode must be one of ctc, attention"),
        (("--device", "tpu"), "device must be auto, cpu or cuda"),
        (("--format", "doc"), "--format must be one of txt, json"),
        (("--model", "gone.safetensors"), "gone.safetensors: no such checkpoint"),
    ]:
        result = asr("transcribe", file, "--model", trained, *option)
        assert result.returncode == 2
        assert message in result.stderr
        assert "Traceback" not in result.stderr
    ctc, attention = (asr("transcribe", file, "--model", trained, "--decoding", mode) for mode in ("ctc", "attention"))
    assert ctc.returncode == attention.returncode == 0
    assert asr("transcribe", file, "--model", trained, "--device", "cpu").stdout == ctc.stdout


def test_evaluate_prints_what_jiwer_says(asr, trained, data, tmp_path):
    import jiwer

    result = asr("evaluate", "--manifest", data / "manifest.jsonl", "--model", trained, "--json", tmp_path / "r.json")
    assert result.returncode == 0, result.stderr
    content = json.loads((tmp_path / "r.json").read_text())
    references = [row["reference"].lower() for row in content["results"]]
    hypotheses = [row["hypothesis"] for row in content["results"]]
    assert content["wer"] == pytest.approx(jiwer.wer(references, hypotheses))
    assert content["cer"] == pytest.approx(jiwer.cer(references, hypotheses))
    assert content["utterances"] == 12
    assert f"WER {100 * content['wer']:.2f} %" in result.stdout
    assert content["substitutions"] + content["deletions"] + content["insertions"] == round(
        content["wer"] * content["words"]
    )


def test_prepare_runs_a_recipe_and_evaluate_reads_its_manifest(asr, trained, data, tmp_path):
    source = tmp_path / "recordings"
    source.mkdir()
    for line in (data / "manifest.jsonl").read_text().splitlines():
        row = json.loads(line)
        (source / row["audio_filepath"]).write_bytes((data / row["audio_filepath"]).read_bytes())
        (source / f"{row['id']}.txt").write_text(row["text"])
    result = asr("prepare", "custom", "--source", source, "--output", tmp_path / "manifests")
    assert result.returncode == 0, result.stderr
    assert "train.jsonl: 11 utterances" in result.stderr
    result = asr("evaluate", "--manifest", tmp_path / "manifests" / "dev.jsonl", "--model", trained)
    assert "1 utterances" in result.stdout
    result = asr("prepare", "custm", "--source", source, "--output", tmp_path / "manifests")
    assert result.returncode == 2
    assert "did you mean 'custom'" in result.stderr


def test_info_shows_what_is_in_a_checkpoint(asr, trained):
    content = json.loads(asr("info", trained).stdout)
    assert content["about"]["metrics"]["wer"] == 0.9
    assert content["config"]["encoder"]["kind"] == "conformer"


def test_train_refuses_an_unknown_key_in_one_line(asr):
    result = asr("train", "--config", "mini_librispeech", "model.encoder.layer=3")
    assert result.returncode == 2
    assert "did you mean 'model.encoder.layers'" in result.stderr
    assert "Traceback" not in result.stderr
    assert asr("train", "--config", "mini_librispeech", "--resume", "--init-from", "x").returncode == 2
