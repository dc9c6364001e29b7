"""The documentation: every command parses as it stands, those of README and docs run, every link leads somewhere."""

from __future__ import annotations

import ast
import glob
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import numpy as np
import pytest
import runs
import soundfile
import typer
from examples import make_digits, make_librispeech

from asr.cli import app, main
from asr.config import compose
from asr.evaluation.results import check_table
from asr.manifest import Manifest, write_manifest
from asr.model import checkpoint
from asr.training.config import TrainConfig
from asr.transcriber import EMBEDDED

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*/README.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")), *RECIPES]
TOOL = re.compile(r"python (tools/\S+\.py)")
PROGRAMS = ("asr ", "python tools/")


def commands(page: Path) -> Iterator[str]:
    """Yield the `asr` and `python tools/` commands of a page: lines of code, alone, after `&&`, `|` or a launcher."""
    text = re.sub(r" *\\\n\s*", " ", page.read_text("utf-8"))
    for line in text.splitlines():
        inline = [found for found in re.findall(r"`([^`]+)`", line) if found.startswith(PROGRAMS)]
        shell = [line.strip()] if line.startswith("    ") else [line] if line.startswith(PROGRAMS) else []
        for code in [*shell, *inline]:
            code = re.sub(r"\s#\s.*| {2,}#.*", "", code).replace("-m asr.cli ", "; asr ")
            code = re.sub(r"^srun .*?(?=asr )", "", code)
            yield from (part for part in map(str.strip, re.split(r"&&|[|;]", code)) if part.startswith(PROGRAMS))


def expanded(words: list[str]) -> list[str]:
    """Write out a{b,c}d, as bash does."""
    whole: list[str] = []
    for word in words:
        found = re.fullmatch(r"(.*?)\{([^}]*,[^}]*)\}(.*)", word)
        whole += [f"{found[1]}{part}{found[3]}" for part in found[2].split(",")] if found else [word]
    return whole


def complete(command: str) -> bool:
    """Tell a command from the name of one, such as `asr check` or `asr prepare commonvoice` in a sentence."""
    return not re.search(r"<\w+>|^asr --help$", command) and not re.fullmatch(
        r"asr [a-z]+( [a-z_]+)?( --[a-z-]+)?( [A-Z]+)*|.*\.\.\..*", command
    )


DOCUMENTED = sorted({(page, command) for page in PAGES for command in commands(page)})
WHOLE = [(page, command) for page, command in DOCUMENTED if complete(command)]


@cache
def composed(name: str, overrides: tuple[str, ...]) -> TrainConfig:
    """Check a configuration, once for all pages that name it."""
    return compose(TrainConfig, name, overrides)


def parse(arguments: list[str]) -> dict[str, object]:
    """Parse a command line as `asr` would, without running it; gives the verb's parameters."""
    command: click.Command = typer.main.get_command(app)
    words, parent = arguments, click.Context(command, info_name="asr")
    while hasattr(command, "commands"):
        assert words, "no verb"
        assert words[0] in command.commands, f"no verb {words[0]!r}"
        command, words = command.commands[words[0]], words[1:]
    return command.make_context(command.name, list(words), parent=parent).params


def test_enough_commands_are_found():
    assert len([command for _, command in WHOLE if command.startswith("asr ")]) > 60
    assert any(command.startswith("python tools/") for _, command in DOCUMENTED)


@pytest.mark.parametrize(
    "page,command", [row for row in WHOLE if row[1].startswith("asr ")], ids=lambda value: str(value)
)
def test_documented_asr_command_parses(page, command):
    words = expanded(shlex.split(command))[1:]
    try:
        parameters = parse(words)
    except Exception as error:  # typer's own kinds of click's exceptions
        pytest.fail(f"{page.name}: {command}: {type(error).__name__}: {getattr(error, 'message', error)}")
    if words[0] in ("train", "recipe", "tokenizer"):
        name = str(parameters.get("config") or parameters["corpus"])
        if not name.startswith("lm/"):
            composed(name, tuple(parameters["overrides"] or ()))
    if words[0] == "prepare":
        assert words[1] in {path.parent.name for path in RECIPES}


@pytest.mark.parametrize(
    "wrong,why",
    [
        ("transcribe a.wav --no-such-option", "No such option"),
        ("evaluate --beam-size many", "valid integer"),
        ("sing a.wav", "no verb"),
        ("lm make x", "no verb"),
    ],
)
def test_a_false_command_does_not_parse(wrong, why):
    with pytest.raises(Exception, match=why):
        parse(wrong.split())


@pytest.mark.parametrize("tool", sorted({TOOL.match(c)[1] for _, c in DOCUMENTED if TOOL.match(c)}))
def test_documented_tool_has_the_options(tool):
    """A tool's options stand in its own source, or in that of the benchmark it is asked for."""
    for page, command in DOCUMENTED:
        if not command.startswith(f"python {tool}"):
            continue
        words = shlex.split(command)[2:]
        sources = [ROOT / tool]
        assert sources[0].is_file(), f"{page.name}: {command}: no such file"
        if tool == "tools/benchmark.py" and words and words[0].isidentifier() | ("-" in words[0]):
            sources.append(ROOT / "tools" / "benchmarks" / f"{words[0].replace('-', '_')}.py")
            assert sources[-1].is_file(), f"{page.name}: {command}: no such benchmark"
        known = {
            node.value
            for source in sources
            for node in ast.walk(ast.parse(source.read_text("utf-8")))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        for word in words:
            if word.startswith("--"):
                assert word.split("=")[0] in known, f"{page.name}: {command}: no option {word}"


def test_the_step_of_the_gpu_page_runs_on_a_cpu():
    command = [sys.executable, "tools/benchmarks/step.py", "asr", "--device", "cpu", "--steps", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert len(json.loads(done.stdout)) == 1


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MkDocs make them."""
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```|`[^`\n]*`(?!\])", "", page.read_text("utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        goal = (page.parent / path).resolve() if path else page
        assert goal.exists(), f"{page.name}: {target}: no such file"
        assert goal.is_relative_to(ROOT)
        if anchor and goal.suffix == ".md":
            assert anchor in anchors(goal), f"{page.name}: {target}: no such heading"


def test_every_page_is_in_the_navigation():
    named = set(re.findall(r":?\s(\w+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), flags=re.MULTILINE))
    assert named == {page.name for page in (ROOT / "docs").glob("*.md")}


def test_the_table_of_dependencies_names_those_of_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text("utf-8").lower(), re.MULTILINE))
    rows = re.findall(
        r"^\| ([\w-]+) \| (\d\S*) \|", (ROOT / "docs" / "dependencies.md").read_text("utf-8"), re.MULTILINE
    )
    assert {name for name, _ in rows} == {re.split(r"[><=\[]", each)[0] for each in project["dependencies"]}
    assert dict(rows) == {name: pins[name] for name, _ in rows}


def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    for page in (tmp_path / "site").glob("*.html"):
        loaded = re.findall(r"<(?:script|img|link)[^>]+(?:src|href)=\"?(https?://[^\"\s>]+)", page.read_text("utf-8"))
        assert not [url for url in loaded if "canonical" not in url], f"{page.name} loads {loaded}"


# Every command of README and docs, in an order in which each finds what it reads. After `+` stands what a test adds, to
# keep a run small, or in place of a download, a GPU, several devices; later words win.
SMALL = "training.batches=2 training.epochs=1 training.accelerator=cpu training.loggers=[] data.workers=0"
SHORT = {
    "TINY": f"{' '.join(runs.TINY)} {SMALL}",
    "SMALL": SMALL,
    "MINI": "data.train=[data/mini_librispeech/train.jsonl] data.valid=[data/mini_librispeech/dev.jsonl]",
    "ONE": "training.devices=1 training.nodes=1",
    "LETTERS": "model.layers=1 model.dim=16 model.heads=2 model.feed_forward=32 training.epochs=1",
}
RUN = """
asr transcribe tests/data/6848-252323-0001.flac
asr transcribe tests/data/6848-252323-0001.flac --device auto
asr transcribe -
asr info
asr evaluate --manifest dev.jsonl --json a.json
asr evaluate --manifest tests/data/manifest.jsonl --json a.json --report report
asr evaluate --manifest tests/data/manifest.jsonl --decoding joint --json b.json
asr compare a.json b.json
asr score --ref ref.trn --hyp hyp.trn
asr score --ref tests/data/manifest.jsonl --hyp hyp.txt --json score.json
asr evaluate --non-speech noises.jsonl
asr evaluate --manifest data/an4/test.jsonl --results recipes/an4/README.md
asr lm build my_texts.txt --output words.arpa --order 8
asr lm build books.txt --output lm.safetensors
asr transcribe talk.mp3 --language-model words.arpa --search lm_weight=0.5
asr evaluate --manifest dev.jsonl --decoding ctc_beam --language-model words.arpa --tune
asr transcribe talk.mp3 --decoding joint
asr transcribe talk.mp3 --decoding ctc
asr transcribe talk.mp3 --hotwords "Knausgaard,Bergen"
asr transcribe talk.mp3 --attention pages
asr transcribe talk.mp3 meeting.m4a --format srt,json --output-dir transcripts --resume
asr transcribe my_recordings "more/*.mp3" --format srt,json --output-dir transcripts --resume --jobs 2
asr align talk.mp3 talk.txt --format textgrid
asr align talk.mp3 talk.txt --format textgrid --output-dir aligned
asr prepare custom --source my_recordings --output data/custom
asr check data/custom/train.jsonl data/custom/dev.jsonl --report check
asr check data/custom/train.jsonl data/custom/dev.jsonl --report check --write-clean data/clean
asr manifest stats data/custom/train.jsonl
asr manifest convert kaldi_dir train.jsonl
asr manifest convert kaldi_dir data/other/all.jsonl
asr manifest split data/other/all.jsonl --output data/other
asr recipe librispeech_100 --dry-run
asr recipe yesno + --dry-run
asr recipe librispeech --source /corpora/LibriSpeech --stage prepare + --source corpora/LibriSpeech
asr recipe custom --source my_recordings + TINY
asr info run/custom/model.safetensors
asr evaluate --model run/custom/model.safetensors --manifest data/custom/dev.jsonl --json dev.json
asr transcribe talk.mp3 --model run/custom/model.safetensors
asr average run/custom/best/*.safetensors --output averaged.safetensors
asr export --onnx model.onnx --model run/custom/model.safetensors
asr train --config custom --init-from embedded optimizer.learning_rate=5e-4 + SMALL run=run/from_embedded
asr train --config custom --init-from embedded optimizer.learning_rate=5e-4 'data.train=[data/clean/train.jsonl]' 'data.valid=[data/clean/dev.jsonl]' + SMALL run=run/from_clean
asr train --config custom --init-from embedded optimizer.learning_rate=5e-4 run=run/tuned + SMALL run=run/named
asr train --config custom --init-from embedded optimizer.learning_rate=5e-4 finetune.tokenizer=extend training.epochs=10 run=run/tuned + SMALL
asr train --config custom --resume optimizer.learning_rate=5e-4 training.epochs=10 run=run/tuned + SMALL training.epochs=2
asr train --config lm/books 'text=[books.txt]' + LETTERS
asr train --config lm/books 'text=[books.txt]' tokenizer_from=run/custom/model.safetensors + LETTERS run=run/lm_custom
asr prepare mini_librispeech --output data/mini_librispeech + --source corpora/LibriSpeech
asr prepare spoken_digits --output data/spoken_digits + --source corpora/digits
asr manifest shard data/mini_librispeech/train.jsonl data/shards --hours 2
asr tokenizer --config mini_librispeech + tokenizer.vocabulary=60
asr train --config mini_librispeech + TINY
asr train --config mini_librispeech --resume + TINY training.epochs=2
asr train --config mini_librispeech 'data.train=[data/shards/train.jsonl]' + TINY run=run/shards
asr train --config mini_librispeech training.epochs=5 model.encoder.layers=8 run=run/deeper + TINY
asr train --config mini_librispeech debug=fast run=run/fast + TINY
asr train --config mini_librispeech debug=fast data.batch_seconds=auto + TINY run=run/auto
asr train --config mini_librispeech debug=overfit run=run/overfit 'data.train=[data/mini_librispeech/eight.jsonl]' 'data.valid=[data/mini_librispeech/eight.jsonl]' + TINY
asr train --config mini_librispeech debug=profile run=run/profile + TINY
asr evaluate --manifest data/mini_librispeech/dev.jsonl --model run/mini_librispeech/model.safetensors
asr evaluate --manifest data/mini_librispeech/dev.jsonl --model run/mini_librispeech/model.safetensors --report report
asr train --config mini_librispeech training.accelerator=gpu data.batch_seconds=1200 data.workers=8 + TINY run=run/gpu
asr train --config english_embedded training.accelerator=gpu training.epochs=200 data.batch_seconds=600 + TINY MINI
asr evaluate --manifest data/mini_librispeech/dev.jsonl --device cuda --json gpu.json + --device cpu
asr evaluate --manifest data/mini_librispeech/dev.jsonl --decoding joint --beam-size 10 --device cuda + --device cpu
asr train --config librispeech training.devices=8 + TINY ONE
asr train --config librispeech training.devices=8 training.nodes=4 + TINY ONE run=run/nodes
asr train --config librispeech training.devices=8 training.strategy=fsdp training.average_decay=0 model.encoder.stochastic_depth=0 + TINY ONE run=run/fsdp
asr train --config librispeech_100 training.accelerator=gpu training.devices=2 training.strategy=fsdp training.average_decay=0 model.encoder.stochastic_depth=0 + TINY MINI ONE
"""  # noqa: E501


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Path:
    """A folder in which the documented file names are there."""
    folder = tmp_path_factory.mktemp("desk")
    shutil.copytree(ROOT / "tests" / "data", folder / "tests" / "data")
    recordings = list(Manifest.load(folder / "tests" / "data" / "manifest.jsonl"))
    for name in ("my_recordings", "more", "data/other", "data/an4", "kaldi_dir", "recipes/an4"):
        (folder / name).mkdir(parents=True)
    kaldi: dict[str, list[str]] = {"wav.scp": [], "text": [], "utt2spk": []}
    for recording in recordings:
        shutil.copy(recording.audio_filepath, folder / "my_recordings")
        (folder / "my_recordings" / f"{recording.id}.txt").write_text(recording.text)
        for name, value in zip(kaldi, (recording.audio_filepath, recording.text, recording.speaker), strict=True):
            kaldi[name].append(f"{recording.id} {value}\n")
    for name, lines in kaldi.items():
        (folder / "kaldi_dir" / name).write_text("".join(sorted(lines)))
    for name in ("talk.mp3", "meeting.m4a", "more/a.mp3"):
        shutil.copy(recordings[0].audio_filepath, folder / name)  # the content decides, not the name
    (folder / "talk.txt").write_text(recordings[0].text)
    texts = "".join(f"{recording.text.lower()}\n" for recording in recordings)
    for name in ("my_texts.txt", "books.txt"):
        (folder / name).write_text(texts * 3)
    (folder / "hyp.txt").write_text("".join(f"{recording.id} {recording.text}\n" for recording in recordings))
    (folder / "ref.trn").write_text("knit two (a-1)\n")
    (folder / "hyp.trn").write_text("knit too (a-1)\n")
    for name in ("dev.jsonl", "data/an4/test.jsonl"):
        write_manifest(folder / name, recordings[:2])
    rate = 16_000
    hiss = np.random.default_rng(0).normal(scale=0.01, size=2 * rate)
    soundfile.write(folder / "hiss.wav", hiss, rate)
    (folder / "noises.jsonl").write_text('{"id": "hiss", "audio_filepath": "hiss.wav", "duration": 2.0, "text": ""}\n')
    shutil.copy(ROOT / "recipes" / "an4" / "README.md", folder / "recipes" / "an4")
    for part in ("train-clean-100", "train-clean-5"):
        make_librispeech(folder / "corpora", part, {"6848": "19", "3947": "26"})
    make_librispeech(folder / "corpora", "dev-clean-2", {"1737": "84"})
    make_digits(folder / "corpora" / "digits")
    return folder


def test_every_command_of_readme_and_docs_is_run():
    run = {line.partition(" + ")[0] for line in RUN.strip().splitlines()}
    written = {command for page, command in WHOLE if page not in RECIPES and command.startswith("asr ")}
    assert written - run == set(), "put it into RUN"
    assert run - {command for _, command in DOCUMENTED} == set(), "no longer in the documentation: take it from RUN"


def test_documented_commands_run(desk, monkeypatch, capsys):
    """One after the other, as a reader would; what one writes the next reads."""
    monkeypatch.chdir(desk)
    for line in RUN.strip().splitlines():
        words = shlex.split(" ".join(SHORT.get(word, word) for word in line.split() if word != "+"))
        words = [path for word in words for path in (sorted(glob.glob(word)) if "*.safetensors" in word else [word])]
        if "eight.jsonl" in line:
            shutil.copy("data/mini_librispeech/train.jsonl", "data/mini_librispeech/eight.jsonl")
        if "strategy=fsdp" in line:  # leaves a process group and its address behind
            done = subprocess.run(
                [sys.executable, "-m", "asr.cli", *words[1:]], capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{line}: {done.stderr}"
            continue
        monkeypatch.setattr(sys, "argv", words)
        with open("talk.mp3", "rb") as talk:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(talk))
            with pytest.raises(SystemExit) as ended:
                main()
        output = capsys.readouterr()
        assert not ended.value.code, f"{line}: {output.err}"
    left = {"a.json", "b.json", "report", "words.arpa", "transcripts", "model.onnx"}
    assert left <= {path.name for path in desk.iterdir()}
    for name in ("from_embedded", "named", "tuned"):
        assert checkpoint.describe(desk / "run" / name / "model.safetensors")["about"]["began_with"] == EMBEDDED.name
    assert "averaged" in checkpoint.describe(desk / "averaged.safetensors")["about"]
    assert check_table(desk / "recipes" / "an4" / "README.md") == 1
