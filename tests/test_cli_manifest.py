"""`asr manifest` from the command line, on real speech."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from examples import DATA

from asr.cli import main
from asr.manifest import Manifest, Utterance, write_manifest

SHIPPED = DATA / "manifest.jsonl"


@pytest.fixture
def asr(monkeypatch, capsys):
    """Runs `asr manifest`, as the console script does."""

    def run(*arguments: object) -> SimpleNamespace:
        monkeypatch.setattr(sys, "argv", ["asr", "manifest", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        output = capsys.readouterr()
        return SimpleNamespace(code=ended.value.code or 0, out=output.out, err=output.err)

    return run


@pytest.mark.parametrize("target", ["kaldi", "cuts.jsonl.gz", "x.csv"])
def test_convert_there_and_back(asr, tmp_path, target):
    count = len(Manifest.load(SHIPPED))
    there = asr("convert", SHIPPED, tmp_path / target)
    assert (there.code, there.out) == (0, ""), there.err
    assert f"{target}: {count} utterances" in there.err
    assert asr("convert", tmp_path / target, tmp_path / "back.jsonl").code == 0
    back = sorted(Manifest.load(tmp_path / "back.jsonl"), key=lambda utterance: utterance.id)
    assert back == sorted(Manifest.load(SHIPPED), key=lambda utterance: utterance.id)


@pytest.mark.parametrize("verb", [("convert", "--to", "kaldi"), ("stats", "--json"), ("split", "--output")])
def test_what_cannot_be_written_is_one_line(asr, tmp_path, verb):
    (tmp_path / "taken").write_text("a file, so that nothing can lie below it")
    below = tmp_path / "taken" / "x"
    name, *options = verb
    refused = asr(name, SHIPPED, *((below, *options) if name == "convert" else (*options, below)))
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert ": cannot be written: " in refused.err


def test_convert_says_what_is_lost_and_what_is_wrong(asr, tmp_path):
    write_manifest(tmp_path / "m.jsonl", [Utterance("a", str(tmp_path / "gone.wav"), 1.0, language="en")])
    assert "this format has no place for: language" in asr("convert", tmp_path / "m.jsonl", tmp_path / "m.csv").err
    lost = asr("convert", tmp_path / "m.jsonl", tmp_path / "odd", "--to", "lhotse")
    assert lost.code == 1
    assert "1 left out:\n  a: " in lost.err
    wrong = asr("convert", tmp_path / "m.jsonl", tmp_path / "x.csv", "--to", "excel")
    assert (wrong.code, wrong.err.count("\n")) == (2, 1)
    assert "no format 'excel'; there are nemo, kaldi, lhotse, csv, commonvoice" in wrong.err
    piped = tmp_path / "data" / "wav.scp"
    piped.parent.mkdir()
    piped.write_text("a sox x.wav - |\n")
    refused = asr("convert", piped.parent, tmp_path / "m.jsonl")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "a is a pipe (sox x.wav - |)" in refused.err


def test_stats(asr, tmp_path):
    result = asr("stats", SHIPPED, "--json", tmp_path / "s.json")
    manifest = Manifest.load(SHIPPED)
    numbers = json.loads((tmp_path / "s.json").read_text())
    assert numbers["hours"] == pytest.approx(sum(u.duration for u in manifest) / 3600)
    assert numbers["speakers"] == len({u.speaker for u in manifest})
    for words in ("utterances", "speakers", "characters/s", "█"):
        assert words in result.out


def test_split(asr, tmp_path):
    result = asr("split", SHIPPED, "--output", tmp_path, "--shares", "train=0.5,test=0.5")
    assert result.code == 0, result.err
    train, test = (Manifest.load(tmp_path / f"{name}.jsonl") for name in ("train", "test"))
    assert len(train) + len(test) == len(Manifest.load(SHIPPED))
    assert not {u.speaker for u in train} & {u.speaker for u in test}
    assert f"test.jsonl: {len(test)} utterances" in result.err


@pytest.mark.parametrize("shares", ["train", "train=x", "train=0.5,train=0.5", "train=0.9,dev=0", "../x=1,dev=1", "=1"])
def test_wrong_shares_are_one_line(asr, tmp_path, shares):
    result = asr("split", SHIPPED, "--output", tmp_path, "--shares", shares)
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "should be like train=0.9,dev=0.1" in result.err
    assert list(tmp_path.iterdir()) == []


def test_filter_counts_what_each_rule_drops(asr, tmp_path):
    rows = list(Manifest.load(SHIPPED))
    speaker = rows[0].speaker
    options = ["--max-duration", 10, "--max-rate", 16, "--text", "THE", "--speaker", speaker]
    result = asr("filter", SHIPPED, "--output", tmp_path / "f.jsonl", "--min-duration", 3, *options)
    expected, dropped = rows, []
    for passes in (
        lambda u: u.duration >= 3,
        lambda u: u.duration <= 10,
        lambda u: len(u.text) / u.duration <= 16,
        lambda u: "THE" in u.text,
        lambda u: u.speaker == speaker,
    ):
        before, expected = len(expected), [u for u in expected if passes(u)]
        dropped.append(before - len(expected))
    assert [int(line.split()[1].rstrip(":")) for line in result.err.splitlines()[:5]] == dropped
    if expected:
        assert list(Manifest.load(tmp_path / "f.jsonl")) == expected
    nothing = asr("filter", SHIPPED, "--output", tmp_path / "none.jsonl", "--min-duration", 1000)
    assert nothing.code == 2
    assert "no utterance passes every rule; nothing was written" in nothing.err
    assert not (tmp_path / "none.jsonl").exists()


def test_shard_writes_a_manifest_that_everything_reads(asr, tmp_path):
    result = asr("shard", SHIPPED, tmp_path / "out", "--hours", 0.01)
    assert result.code == 0, result.err
    assert len(list((tmp_path / "out").glob("manifest-*.tar"))) >= 2
    assert asr("stats", tmp_path / "out" / "manifest.jsonl").code == 0
    write_manifest(tmp_path / "bad.jsonl", [*Manifest.load(SHIPPED), Utterance("bad", "/gone.wav", 1.0)])
    bad = asr("shard", tmp_path / "bad.jsonl", tmp_path / "out")
    assert bad.code == 1
    assert "1 left out:\n  bad: /gone.wav: cannot be opened" in bad.err
    assert Path(Manifest.load(tmp_path / "out" / "bad.jsonl")[0].audio_filepath).name.startswith("bad-000000.tar:")


def test_merge_tells_utterances_of_one_name_apart(asr, tmp_path):
    for folder, names in (("first", "ab"), ("second", "bc")):
        rows = [Utterance(name, f"/{folder}/{name}.wav", 1.0, name) for name in names]
        write_manifest(tmp_path / folder / "train.jsonl", rows)
    parts = [tmp_path / "first" / "train.jsonl", tmp_path / "second" / "train.jsonl"]
    done = asr("merge", *parts, "--output", tmp_path / "all.jsonl")
    assert done.code == 0, done.err
    merged = list(Manifest.load(tmp_path / "all.jsonl"))
    assert [utterance.id for utterance in merged] == ["a", "first-b", "second-b", "c"]
    assert [utterance.audio_filepath for utterance in merged] == [
        "/first/a.wav", "/first/b.wav", "/second/b.wav", "/second/c.wav"
    ]  # fmt: skip
    assert "same name" in asr("merge", parts[0], parts[0], "--output", tmp_path / "twice.jsonl").err
    assert not (tmp_path / "twice.jsonl").exists()


def test_split_overwrites_nothing(asr, tmp_path):
    write_manifest(tmp_path / "train.jsonl", Manifest.load(SHIPPED))
    refused = asr("split", tmp_path / "train.jsonl", "--output", tmp_path)
    assert refused.code == 2
    assert "is there already" in refused.err
    assert len(Manifest.load(tmp_path / "train.jsonl")) == len(Manifest.load(SHIPPED))


@pytest.mark.parametrize("link", [False, True])
def test_a_manifest_that_is_read_is_not_replaced(asr, tmp_path, link):
    source, target = tmp_path / "m.jsonl", tmp_path / "link.jsonl"
    write_manifest(source, Manifest.load(SHIPPED))
    before = source.read_bytes()
    target.symlink_to(source.name)
    out = target if link else source
    for verb in (
        ("filter", source, "--min-duration", 3, "--output", out),
        ("merge", source, SHIPPED, "--output", out),
        ("convert", source, out),
    ):
        refused = asr(*verb)
        assert refused.code == 2
        assert "is read itself: write to another place" in refused.err
        assert source.read_bytes() == before


def test_lines_that_no_parser_bears_are_one_line(asr, tmp_path):
    row = {"audio_filepath": "a.wav", "duration": 1.0, "text": "one"}
    for odd in ("[" * 100_000 + "]" * 100_000, "9" * 5_000):
        (tmp_path / "m.jsonl").write_text(json.dumps(row)[:-1] + f', "odd": {odd}}}\n')
        refused = asr("filter", tmp_path / "m.jsonl", "--output", tmp_path / "out.jsonl")
        assert (refused.code, refused.err.count("\n")) == (2, 1), refused.err[-300:]


def test_a_name_too_long_is_one_line(asr, tmp_path):
    refused = asr("stats", tmp_path / ("x" * 300 + ".jsonl"))
    assert (refused.code, refused.err.count("\n")) == (2, 1), refused.err[-300:]
    assert "too long" in refused.err


def test_folders_are_named_as_they_are(asr, tmp_path, monkeypatch):
    (tmp_path / "one" / "two").mkdir(parents=True)
    for folder in ("one", "one/two"):
        write_manifest(tmp_path / folder / "train.jsonl", Manifest.load(SHIPPED))
    monkeypatch.chdir(tmp_path / "one" / "two")
    assert asr("merge", "../train.jsonl", "train.jsonl", "--output", tmp_path / "all.jsonl").code == 0
    ids = Manifest.load(tmp_path / "all.jsonl").table["id"].to_pylist()
    assert {name.split("-")[0] for name in ids} == {"one", "two"}
