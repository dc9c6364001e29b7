"""`asr check` as a whole: the small version of tools/planted_defects.py, and the command line."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from examples import heed_interrupts

from asr.check import KINDS, check
from asr.check.report import histogram
from asr.cli import main
from asr.manifest import Manifest, Utterance, write_manifest

ROOT = Path(__file__).parents[1]


def planted_defects():
    spec = importlib.util.spec_from_file_location("planted_defects", ROOT / "tools" / "planted_defects.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["planted_defects"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def recordings(manifest, tmp_path) -> list[Utterance]:
    """The shipped utterances, and the same a little softer: 24 that differ in every sample."""
    softer = []
    for each in manifest:
        waveform, rate = soundfile.read(each.audio_filepath)
        path = tmp_path / f"softer-{each.id}.flac"
        soundfile.write(path, 0.7 * waveform, rate)
        softer.append(replace(each, id=f"softer-{each.id}", audio_filepath=str(path)))
    return [*manifest, *softer]


@pytest.fixture
def asr(monkeypatch, capsys):
    def run(*arguments: object):
        monkeypatch.setattr(sys, "argv", ["asr", "check", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        output = capsys.readouterr()
        return ended.value.code or 0, output.out + output.err

    return run


def test_planted_defects_are_found_and_real_speech_is_left_alone(recordings, tmp_path):
    tool = planted_defects()
    # Of two dozen utterances the usual rate of speech is not known well enough; tested in test_check_text.py.
    tool.SOUND.remove("wrong_rate")
    tool.TEXT[:] = ["no_text", "odd_characters"]  # the others take a model, tested below
    tally = tool.Tally()
    clean = tool.measure(recordings, tmp_path, 2, 0, tally, lambda manifests, listen: check(manifests))
    assert set(tally.planted) == {*tool.SOUND, *tool.TEXT, *tool.COPIES, *tool.LEAKS}
    missed = {kind: tally.named[kind] for kind in tally.planted if tally.named[kind] < tally.planted[kind]}
    assert sum(tally.named.values()) >= 0.95 * sum(tally.planted.values()), missed
    assert not clean.offenders(0).any(), [finding for finding in clean.findings if finding.offends]


def spoil(manifest: Manifest, folder: Path) -> Path:
    """Write a manifest of five utterances: two sound, an unreadable one, a silent one, and one without text."""
    first, second, third, fourth, fifth = list(manifest)[:5]
    soundfile.write(folder / "silent.wav", np.zeros(16_000), 16_000)
    (folder / "noise.flac").write_bytes(b"this is not audio")
    bad = [
        replace(third, audio_filepath=str(folder / "noise.flac")),
        replace(fourth, audio_filepath=str(folder / "silent.wav"), duration=1.0),
        replace(fifth, text="<b>& -"),
    ]
    write_manifest(folder / "train.jsonl", [first, second, *bad])
    return folder / "train.jsonl"


class Page(HTMLParser):
    """Collects tags and links; raises nothing, so unclosed tables are counted by the test."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]


def test_command_writes_reports_and_the_manifest_without_offenders(asr, manifest, tmp_path):
    path = spoil(manifest, tmp_path)
    clean, report = tmp_path / "out" / "clean.jsonl", tmp_path / "report"
    code, output = asr(path, "--write-clean", clean, "--report", report, "--json", tmp_path / "found.json")
    assert code == 1, output
    assert "3 of 5 with errors or warnings" in output
    assert [each.id for each in Manifest.load(clean)] == [each.id for each in list(manifest)[:2]]
    assert not list(clean.parent.glob(".*")), "a temporary file stayed behind"
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert found == json.loads((report / "report.json").read_text(encoding="utf-8"))
    kinds = {(entry["kind"], entry["id"]) for entry in found["findings"]}
    rows = [each.id for each in Manifest.load(path)]
    assert {("unreadable", rows[2]), ("silent", rows[3])} <= kinds
    html = (report / "report.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(html)
    assert not [link for link in page.links if not link.startswith(("#", "file://"))], "it needs the network"
    assert (tmp_path / "noise.flac").as_uri() in page.links
    assert page.tags.count("svg") >= 5
    assert "<b>" not in html
    assert "&lt;b&gt;&amp; -" in html
    assert not re.search(r"<script|https?://", html)
    code, output = asr(clean, "--write-clean", tmp_path / "again.jsonl")
    assert code == 0, output
    assert [each.id for each in Manifest.load(tmp_path / "again.jsonl")] == rows[:2]


def test_a_model_finds_what_was_not_said_and_what_cannot_be(asr, manifest, tmp_path):
    rows = list(manifest)
    rows[5] = replace(rows[5], text=rows[9].text)
    rows[1] = replace(rows[1], text=" ".join([rows[1].text] * 6))
    write_manifest(tmp_path / "train.jsonl", rows)
    code, _ = asr(tmp_path / "train.jsonl", "--model", "embedded", "--json", tmp_path / "found.json")
    assert code == 1
    found = json.loads((tmp_path / "found.json").read_text())["findings"]
    kinds = {(finding["kind"], finding["id"]) for finding in found}
    assert {("implausible", rows[5].id), ("infeasible", rows[1].id)} <= kinds


def test_clean_copies_stay_below_their_folder(asr, manifest, tmp_path, monkeypatch):
    (tmp_path / "here" / "sub").mkdir(parents=True)
    (tmp_path / "here" / "train.jsonl").write_text("unrelated")
    for path, half in (("train.jsonl", slice(6)), ("here/sub/train.jsonl", slice(6, 12))):
        write_manifest(tmp_path / path, list(manifest)[half])
    monkeypatch.chdir(tmp_path / "here")
    asr("../train.jsonl", "sub/train.jsonl", "--write-clean", "clean")
    assert (tmp_path / "here" / "train.jsonl").read_text() == "unrelated"
    assert len(list((tmp_path / "here" / "clean").rglob("train.jsonl"))) == 2


@pytest.mark.parametrize("values", [[1.0, 1.0 - 2e-16, 1.0 + 2e-16], [0.0, 0.0], [1e9, 1e9], [-3.0]])
def test_values_that_are_nearly_one_have_a_histogram(values):
    drawn = histogram("seconds", np.array(values))
    assert sum(map(int, re.findall(r": (\d+)</title>", drawn))) == len(values)


def test_wrong_commands_are_refused_before_the_work(asr, manifest, tmp_path):
    path = spoil(manifest, tmp_path)
    other, link = tmp_path / "dev.jsonl", tmp_path / "link.jsonl"
    other.write_bytes(path.read_bytes())
    link.symlink_to(path.name)
    before = path.read_bytes(), other.read_bytes()
    for arguments, message in [
        ((path, "--write-clean", path), "must name another place"),
        ((path, other, "--write-clean", tmp_path), "must name another place"),
        ((path, "--write-clean", link), "must name another place"),
        ((path, "--write-clean", tmp_path), "is a folder"),
        ((path, path, "--write-clean", tmp_path / "o"), "two manifests have the same"),
        ((tmp_path / "gone.jsonl",), "no such manifest"),
        ((path, "--model", "gone.safetensors"), "no such checkpoint"),
        ((path, "--tokenizer", "gone.model"), "cannot be read"),
        ((path, "--tokenizer", path), "not a SentencePiece model"),
    ]:
        code, output = asr(*arguments)
        assert code == 2, output
        assert message in output
        assert "Traceback" not in output
    assert (path.read_bytes(), other.read_bytes()) == before


def test_nothing_is_written_where_nothing_is_left(asr, manifest, tmp_path):
    write_manifest(tmp_path / "a.jsonl", [replace(manifest[0], text="")])
    code, output = asr(tmp_path / "a.jsonl", "--write-clean", tmp_path / "b.jsonl")
    assert code == 1
    assert "not written" in output
    assert not (tmp_path / "b.jsonl").exists()


def test_leaks_are_held_against_the_manifest_named_first(asr, manifest, tmp_path):
    rows = list(manifest)
    write_manifest(tmp_path / "train.jsonl", [*rows[:6], replace(rows[8], speaker="a")])
    write_manifest(tmp_path / "test.jsonl", [replace(each, speaker="b") for each in rows[6:]])
    code, output = asr(tmp_path / "train.jsonl", tmp_path / "test.jsonl", "--write-clean", tmp_path / "clean")
    assert code == 1, output
    assert [each.id for each in Manifest.load(tmp_path / "clean" / "train.jsonl")] == [each.id for each in rows[:6]]
    assert len(Manifest.load(tmp_path / "clean" / "test.jsonl")) == 6


def test_one_recording_cut_twice_leaks_but_is_not_too_long(manifest, tmp_path):
    rows = list(manifest)
    (tmp_path / "link.flac").symlink_to(rows[0].audio_filepath)
    twice = replace(rows[0], id="again", duration=rows[0].duration - 0.004)
    write_manifest(tmp_path / "train.jsonl", [replace(rows[0], duration=1.5), *rows[1:3]])
    write_manifest(tmp_path / "test.jsonl", [replace(twice, offset=0.2, duration=1.5), rows[5]])
    write_manifest(tmp_path / "dev.jsonl", [replace(twice, audio_filepath=str(tmp_path / "link.flac"))])
    parts = [Manifest.load(tmp_path / f"{name}.jsonl") for name in ("train", "test", "dev")]
    found = {(each.kind, each.manifest, each.row) for each in check(parts).findings if each.kind != "leak_speaker"}
    assert {("leak_audio", 0, 0), ("leak_audio", 1, 0)} <= found
    assert not any(kind == "too_long" for kind, _, _ in found)
    write_manifest(tmp_path / "two.jsonl", [rows[0], twice])
    found = {(each.kind, each.row) for each in check([Manifest.load(tmp_path / "two.jsonl")]).findings}
    assert found == {("duplicate_audio", 1)}


def test_an_utterance_that_leaks_into_two_manifests_counts_once(manifest, tmp_path):
    """Three of ten rows share their speaker with later manifests: a leak, not the way the corpus was made."""
    rows = [replace(row, speaker=f"s{place}") for place, row in enumerate(list(manifest)[:10])]
    train = [replace(row, speaker="s1") if place in (2, 3) else row for place, row in enumerate(rows)]
    others = [
        replace(row, id=f"{row.id}-{name}", speaker="s1") for name, row in zip("ab", list(manifest)[10:], strict=True)
    ]
    for name, part in {"train": train, "dev": others[:1], "test": others[1:]}.items():
        write_manifest(tmp_path / f"{name}.jsonl", part)
    checked = check([Manifest.load(tmp_path / f"{name}.jsonl") for name in ("train", "dev", "test")])
    assert checked.counts()["warning", "leak_speaker"] == 3
    assert checked.offenders(0).sum() == 3


def test_clean_manifests_of_one_name_go_into_folders(asr, manifest, tmp_path):
    for corpus, rows in (("a", list(manifest)[:2]), ("b", list(manifest)[2:4])):
        write_manifest(tmp_path / corpus / "train.jsonl", [replace(row, speaker=corpus) for row in rows])
    asr(tmp_path / "a" / "train.jsonl", tmp_path / "b" / "train.jsonl", "--write-clean", tmp_path / "clean")
    assert sorted(str(path.relative_to(tmp_path / "clean")) for path in (tmp_path / "clean").rglob("*.jsonl")) == [
        "a/train.jsonl", "b/train.jsonl"
    ]  # fmt: skip


def test_tokenizer_says_what_cannot_be_aligned_or_written(asr, manifest, tokenizer, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(tokenizer.model)
    rows = list(manifest)[:4]
    rows[1] = replace(rows[1], text=rows[1].text * 6)  # 222 characters in 3.985 s, of which 100 fit
    rows[2] = replace(rows[2], text=rows[2].text + " ÅSE")
    write_manifest(tmp_path / "train.jsonl", rows)
    code, _ = asr(tmp_path / "train.jsonl", "--tokenizer", tmp_path / "tokenizer.model", "--json", tmp_path / "f.json")
    assert code == 1
    found = json.loads((tmp_path / "f.json").read_text(encoding="utf-8"))
    assert {(entry["kind"], entry["id"]) for entry in found["findings"]} == {
        ("infeasible", rows[1].id),
        ("odd_characters", rows[2].id),
    }
    assert not any("infeasible" in note for note in found["notes"])


def test_a_runs_tokenizer_is_read_as_the_run_has_it(asr, manifest, tokenizer, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "tokenizer.model").write_bytes(tokenizer.model)
    rows = [replace(each, text=each.text.upper()) for each in list(manifest)[:3]]
    rows[1] = replace(rows[1], text=rows[1].text + " " + rows[1].text)  # fits 40 ms frames, not 80
    write_manifest(tmp_path / "train.jsonl", rows)

    def kinds(normalizer: str, subsampling: int) -> set[tuple[str, str]]:
        setup = {"tokenizer": {"normalizer": normalizer}, "model": {"encoder": {"subsampling": subsampling}}}
        (run / "config.yaml").write_text(yaml.safe_dump(setup))
        asr(tmp_path / "train.jsonl", "--tokenizer", run / "tokenizer.model", "--json", tmp_path / "f.json")
        findings = json.loads((tmp_path / "f.json").read_text(encoding="utf-8"))["findings"]
        return {(each["kind"], each["id"]) for each in findings}

    odd = {("odd_characters", row.id) for row in rows}
    assert kinds("basic", 4) == set()
    assert kinds("basic", 8) == {("infeasible", rows[1].id)}
    assert kinds("none", 4) >= odd  # the vocabulary has small letters only
    (run / "config.yaml").write_text("- a list")
    code, output = asr(tmp_path / "train.jsonl", "--tokenizer", run / "tokenizer.model")
    assert code == 2
    assert "config.yaml: is not the configuration of a run" in output


def test_processes_change_nothing_and_every_kind_is_explained(recordings, tmp_path):
    rows = [replace(each, id=f"{copy}-{each.id}") for copy in range(3) for each in recordings]  # 72: worth processes
    write_manifest(tmp_path / "train.jsonl", rows)
    manifest = Manifest.load(tmp_path / "train.jsonl")
    steps: list[int] = []
    alone, together = check([manifest]), check([manifest], jobs=2, progress=steps.append)
    assert alone.findings == together.findings
    assert np.array_equal(alone.facts[0], together.facts[0])
    assert sum(steps) == 72
    assert {finding.kind for finding in alone.findings} <= set(KINDS)
    assert sum(finding.kind == "duplicate_audio" for finding in alone.findings) == 48


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks for its processes as Linux shows them")
def test_an_interrupt_ends_it_with_all_its_processes(manifest, tmp_path):
    rows = [replace(each, id=f"{copy}-{each.id}") for copy in range(2000) for each in manifest]
    write_manifest(tmp_path / "train.jsonl", rows)
    command = [sys.executable, "-m", "asr.cli", "check", str(tmp_path / "train.jsonl"), "--jobs", "2"]
    options = {"stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen(command, preexec_fn=heed_interrupts, **options) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        for _ in range(300):
            assert process.poll() is None, process.stderr.read()
            if len(children.read_text().split()) > 2:  # both workers and Python's resource tracker
                break
            time.sleep(0.2)
        time.sleep(3)  # into the work: an interrupt that meets an import may be swallowed by it
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    for _ in range(100):  # nobody is left of its group; the last may take a moment
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    raise AssertionError("processes are left behind")
