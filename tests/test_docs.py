"""The documentation: every command parses as it stands, the quick ones run, every link leads somewhere."""

from __future__ import annotations

import ast
import os
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
import pytest
import typer

from asr.cli import app, main
from asr.config import compose
from asr.training.config import TrainConfig

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*/README.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")), *RECIPES]
TOOL = re.compile(r"python (tools/\S+\.py)")
PROGRAMS = ("asr ", "python tools/")


def commands(page: Path) -> Iterator[str]:
    """Yield the `asr` and `python tools/` commands of a page: lines of code, alone, after `&&`, `|` or a launcher."""
    text = re.sub(r"\\\n\s*", " ", page.read_text("utf-8"))
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


RUN = """
asr transcribe tests/data/6848-252323-0001.flac
asr info
asr evaluate --manifest tests/data/manifest.jsonl --json a.json --report report
asr evaluate --manifest tests/data/manifest.jsonl --decoding joint --json b.json
asr compare a.json b.json
asr score --ref ref.trn --hyp hyp.trn
asr lm build my_texts.txt --output words.arpa --order 8
asr transcribe talk.mp3 --language-model words.arpa --search lm_weight=0.5
asr transcribe talk.mp3 --decoding joint
asr transcribe talk.mp3 --hotwords "Knausgaard,Bergen"
asr transcribe talk.mp3 --attention pages
asr align talk.mp3 talk.txt --format textgrid
asr transcribe my_recordings "more/*.mp3" --format srt,json --output-dir transcripts --resume --jobs 2
asr prepare custom --source my_recordings --output data/custom
asr manifest stats data/custom/train.jsonl
asr manifest convert kaldi_dir data/other/all.jsonl
asr recipe librispeech_100 --dry-run
""".strip().splitlines()


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Path:
    """A folder in which the documented file names are there."""
    folder = tmp_path_factory.mktemp("desk")
    shutil.copytree(ROOT / "tests" / "data", folder / "tests" / "data")
    clip = folder / "tests" / "data" / "1737-146161-0009.flac"
    for name in ("my_recordings", "more", "data/other", "kaldi_dir"):
        (folder / name).mkdir(parents=True)
    for number in range(2):
        shutil.copy(clip, folder / "my_recordings" / f"{number}.flac")
        (folder / "my_recordings" / f"{number}.txt").write_text("knit two together twice\n")
    shutil.copy(clip, folder / "talk.mp3")  # the content decides, not the name
    shutil.copy(clip, folder / "more" / "a.mp3")
    (folder / "talk.txt").write_text("knit two together twice\n")
    (folder / "my_texts.txt").write_text("knit two together twice\nknit seven make one\nknit two together\n" * 3)
    (folder / "ref.trn").write_text("knit two (a-1)\n")
    (folder / "hyp.trn").write_text("knit too (a-1)\n")
    for name, line in (("wav.scp", f"a {clip}"), ("text", "a knit two together twice"), ("utt2spk", "a a")):
        (folder / "kaldi_dir" / name).write_text(line + "\n")
    return folder


def test_quick_documented_commands_run(desk, monkeypatch, capsys):
    """One after the other, as a reader would; what one writes the next reads."""
    monkeypatch.chdir(desk)
    written = {command for _, command in DOCUMENTED}
    for command in RUN:
        assert command in written or not complete(command), (
            f"{command}: no longer in the documentation: take it from RUN"
        )
        monkeypatch.setattr(sys, "argv", shlex.split(command))
        with pytest.raises(SystemExit) as ended:
            main()
        output = capsys.readouterr()
        assert not ended.value.code, f"{command}: {output.err}"
    assert {"a.json", "b.json", "report", "words.arpa", "transcripts"} <= set(os.listdir(desk))
