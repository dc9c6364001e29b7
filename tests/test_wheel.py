from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CARRIED = {
    f"asr/_resources/{path.relative_to(ROOT).as_posix()}"
    for folder in ("conf", "recipes")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".yaml", ".py", ".md")
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel built from the checkout, with no network."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The wheel's content in a folder of its own, as an installer would lay it out."""
    folder = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def asr(installed: Path, folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(installed)}
    command = [sys.executable, "-m", "asr.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_wheel_carries_what_the_verbs_need_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "asr/_resources/recipes/mini_librispeech/prepare.py" in CARRIED
    assert not CARRIED - set(names)
    assert "asr/pretrained/english.safetensors" in names
    assert not [name for name in names if "tests/" in name or name.endswith(".pyc")]


def test_every_verb_works_from_any_folder(installed, tmp_path, data):
    where = "import asr, sys; sys.stdout.write(asr.__file__)"
    environment = os.environ | {"PYTHONPATH": str(installed)}
    found = subprocess.run([sys.executable, "-c", where], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert found.stdout.startswith(str(installed))

    result = asr(installed, tmp_path, "transcribe", data / "6848-252323-0001.flac")
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()
    result = asr(installed, tmp_path, "info")
    assert '"wer"' in result.stdout, result.stderr
    packed = tmp_path / "packed"
    packed.mkdir()
    for name in ("1737-146161-0009", "1737-146161-0010"):
        (packed / f"{name}.flac").write_bytes((data / f"{name}.flac").read_bytes())
        (packed / f"{name}.txt").write_text("KNIT TWO TOGETHER")
    result = asr(installed, tmp_path, "prepare", "custom", "--source", packed, "--output", "manifests")
    assert result.returncode == 0, result.stderr
    manifest = "manifests/train.jsonl"
    result = asr(installed, tmp_path, "evaluate", "--manifest", manifest)
    assert "WER" in result.stdout, result.stderr
    tiny = ("training.epochs=1", "model.encoder.dim=16", "model.encoder.layers=1", "tokenizer.kind=char")
    lists = (f"data.train=[{manifest}]", f"data.valid=[{manifest}]", "data.workers=0", "run=run")
    result = asr(installed, tmp_path, "train", "--config", "mini_librispeech", *tiny, *lists)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_torch_and_torchaudio_are_one_pair(wheel):
    """torchaudio is linked to one torch: two ranges that drift apart do not install, or crash."""
    archive = zipfile.ZipFile(wheel)
    (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    wanted = re.findall(r"^Requires-Dist: (torch|torchaudio)([<>=].*)$", archive.read(name).decode(), re.MULTILINE)
    assert sorted(package for package, _ in wanted) == ["torch", "torchaudio"]
    assert len({bounds for _, bounds in wanted}) == 1, wanted
    assert "<" in wanted[0][1]
    installed = [version(package).split(".")[:2] for package in ("torch", "torchaudio")]
    assert installed[0] == installed[1]
