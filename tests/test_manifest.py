"""Manifests: what is written comes back, what is wrong is named, and workers share one copy."""

from __future__ import annotations

import gzip
import importlib.util
import json
import multiprocessing
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

from asr import exchange
from asr.decoding.arpa import read_sentences
from asr.errors import DataError
from asr.manifest import Manifest, Utterance, read_packed, write_manifest

DATA = Path(__file__).parent / "data" / "manifest.jsonl"


def write_lines(path: Path, *lines: object) -> Path:
    path.write_text("".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines), encoding="utf-8")
    return path


def entry(name: str = "a", **changes: object) -> dict[str, object]:
    return {"id": name, "audio_filepath": f"{name}.wav", "duration": 1.5, "text": "HELLO"} | changes


def test_real_manifest_equals_its_json() -> None:
    manifest = Manifest.load(DATA)
    expected = [json.loads(line) for line in DATA.read_text().splitlines()]
    assert len(manifest) == len(expected)
    assert manifest.texts == [line["text"] for line in expected]
    assert manifest.durations.dtype == np.float64
    np.testing.assert_array_equal(manifest.durations, [line["duration"] for line in expected])
    for utterance, line in zip(manifest, expected, strict=True):
        assert (utterance.id, utterance.speaker, utterance.language) == (line["id"], line["speaker"], "")
        assert Path(utterance.audio_filepath) == DATA.parent / line["audio_filepath"]
        assert Path(utterance.audio_filepath).is_file()
    assert manifest[-1] == list(manifest)[-1]
    with pytest.raises(IndexError):
        manifest[len(manifest)]


def test_round_trip_keeps_everything(tmp_path: Path) -> None:
    written = [
        Utterance("one", str(tmp_path / "sub" / "a.wav"), 2.25, "ĉu “vi”\u2028 ne?", 0.5, "s 1", "eo"),
        Utterance("two", "/elsewhere/b.flac", 1 / 3),
    ]
    path = tmp_path / "new" / ".." / "train.jsonl"
    write_manifest(path, iter(written))
    lines = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]
    assert lines[0]["audio_filepath"] == "sub/a.wav"
    assert lines[1] == {"id": "two", "audio_filepath": "/elsewhere/b.flac", "duration": 1 / 3, "text": ""}
    assert list(Manifest.load(tmp_path / "train.jsonl")) == written


def test_moved_folder_still_finds_its_audio(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    write_manifest(tmp_path / "here" / "m.jsonl", [Utterance("a", str(tmp_path / "here" / "a.wav"), 1.0)])
    (tmp_path / "here").rename(tmp_path / "there")
    assert Manifest.load(tmp_path / "there" / "m.jsonl")[0].audio_filepath == str(tmp_path / "there" / "a.wav")


def test_interrupted_writing_leaves_the_old_manifest(tmp_path: Path) -> None:
    def broken():
        yield Utterance("b", "b.wav", 1.0)
        raise KeyboardInterrupt

    path = tmp_path / "m.jsonl"
    write_manifest(path, [Utterance("a", "a.wav", 1.0)])
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        write_manifest(path, broken())
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["m.jsonl"]


def test_missing_columns_get_defaults_and_unknown_keys_are_left_alone(tmp_path: Path) -> None:
    lines = [
        {"audio_filepath": "x/long.wav", "duration": 3, "pnc": "yes"},
        "",
        {"audio_filepath": "x/long.wav", "duration": 3.0, "offset": 4.5, "text": None, "speaker": "s"},
    ]
    manifest = Manifest.load(write_lines(tmp_path / "m.jsonl", *lines))
    audio = str(tmp_path / "x/long.wav")
    assert manifest[0] == Utterance("long", audio, 3.0)
    assert manifest[1] == Utterance("long-4.5", audio, 3.0, "", 4.5, "s")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "b", ', "line 3: not JSON"),
        ("[1, 2]", "line 3: not a JSON object"),
        ({"id": "b", "duration": 1.0}, "line 3: audio_filepath is missing"),
        (entry("b", audio_filepath=""), "line 3: audio_filepath is missing or empty"),
        ({"id": "b", "audio_filepath": "b.wav"}, "line 3: duration is missing"),
        (entry("b", duration=None), "line 3: duration is missing"),
        (entry("b", duration=0), "line 3: duration must be over 0 seconds, not 0"),
        (entry("b", duration=-1.5), "line 3: duration must be over 0 seconds, not -1.5"),
        ('{"audio_filepath": "b.wav", "duration": NaN}', "line 3: duration must be over 0 seconds, not nan"),
        (entry("b", duration="1.5"), "line 3: duration must be a number, not '1.5'"),
        (entry("b", duration=True), "line 3: duration must be a number, not True"),
        (entry("b", offset=-0.1), "line 3: offset must be 0 seconds or more, not -0.1"),
        (entry("b", speaker=1737), "line 3: speaker must be a string, not 1737"),
        (entry("b", text=["A"]), "line 3: text must be a string"),
        (entry("a"), "line 3: id 'a' is already on line 1"),
        ({"audio_filepath": "a.wav", "duration": 1.0}, "line 3: id 'a' is already on line 1"),
    ],
)
def test_wrong_line_is_named(tmp_path: Path, line: object, message: str) -> None:
    path = write_lines(tmp_path / "bad.jsonl", entry("a"), "", line, entry("c"))
    with pytest.raises(DataError) as caught:
        Manifest.load(path)
    assert f"{path}, {message}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\n\n", b'{"audio_filepath": "\xe9.wav", "duration": 1.0}\n'])
def test_file_that_is_no_manifest(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"m\.jsonl: (holds no utterances|cannot be read)"):
        Manifest.load(path)
    with pytest.raises(DataError, match="no such manifest"):
        Manifest.load(tmp_path / "absent.jsonl")


def test_large_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    count = 200_000
    with open(tmp_path / "big.jsonl", "w") as file:
        for row in range(count):
            line = {"audio_filepath": f"{row % 7}/{row}.flac", "duration": 0.5 + row % 100 / 10, "text": f"WORD {row}"}
            file.write(json.dumps(line) + "\n")
    manifest = Manifest.load(tmp_path / "big.jsonl")
    np.testing.assert_array_equal(manifest.durations, [0.5 + row % 100 / 10 for row in range(count)])
    assert manifest.texts == [f"WORD {row}" for row in range(count)]
    for row in (0, 1, 65_536, 131_071, count - 1):
        assert manifest[row] == Utterance(
            str(row), str(tmp_path / f"{row % 7}/{row}.flac"), 0.5 + row % 100 / 10, f"WORD {row}"
        )
    short = manifest.filter(1.0)
    assert len(short) == sum(0.5 + row % 100 / 10 <= 1.0 for row in range(count))
    assert short[6].id == "100"
    assert os.listdir(tmp_path / "temporary") == []  # the mapped file has no name any more


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps"), reason="looks at Linux's memory maps")
def test_forked_worker_shares_the_table(tmp_path: Path) -> None:
    manifest = Manifest.load(
        write_lines(tmp_path / "m.jsonl", *(entry(str(row), text="X" * 1000) for row in range(5000)))
    )

    def read(pipe) -> None:
        text = sum(len(utterance.text) for utterance in manifest)
        region = Path("/proc/self/smaps").read_text().split(".arrow", 1)[1]
        resident, private = (int(region.split(key)[1].split()[0]) for key in ("Rss:", "Anonymous:"))
        pipe.send((text, resident > 4000, private))  # kB: the text was read from the mapped file, and none of it copied

    here, there = multiprocessing.Pipe()
    worker = multiprocessing.get_context("fork").Process(target=read, args=(there,))
    worker.start()
    assert here.poll(30)
    assert here.recv() == (5_000_000, True, 0)
    worker.join()


def test_filter_and_concatenate(tmp_path: Path) -> None:
    first = Manifest.load(write_lines(tmp_path / "1.jsonl", entry("a", duration=1.0), entry("b", duration=9.0)))
    second = Manifest.load(write_lines(tmp_path / "2.jsonl", entry("c", duration=2.0)))
    both = Manifest.concatenate([first, second])
    assert [utterance.id for utterance in both] == ["a", "b", "c"] == [both[row].id for row in range(3)]
    np.testing.assert_array_equal(both.durations, [1.0, 9.0, 2.0])
    assert [utterance.id for utterance in both.filter(2.0)] == ["a", "c"]
    assert len(both.filter(9.0)) == 3
    with pytest.raises(DataError, match=r"1\.jsonl, .*2\.jsonl: every utterance is longer than 0\.5 seconds"):
        both.filter(0.5)
    with pytest.raises(DataError, match=r"id 'c' is in more than one of .*1\.jsonl.*2\.jsonl"):
        Manifest.concatenate([both, second])


def packed(name: str, **changes: object) -> dict[str, object]:
    line = {"id": name, "audio": f"d/{name}.opus", "text": "hi", "speaker": "s", "duration": 1.0, "split": "train"}
    return line | changes


def test_read_packed(tmp_path: Path) -> None:
    write_lines(
        tmp_path / "manifest.jsonl", packed("a"), packed("b", split="test", language="en", source="x"), packed("c")
    )
    splits = read_packed(tmp_path)
    assert {split: [u.id for u in utterances] for split, utterances in splits.items()} == {
        "train": ["a", "c"],
        "test": ["b"],
    }
    assert splits["test"] == [Utterance("b", str(tmp_path / "d/b.opus"), 1.0, "hi", 0.0, "s", "en")]


def test_packed_lines_without_an_id_are_named_as_in_a_manifest(tmp_path: Path) -> None:
    lines = [{"audio": audio, "duration": 1.0} for audio in ("s0/001.wav", "s1/001.wav")]
    write_lines(tmp_path / "manifest.jsonl", *lines, packed("a"), {"audio": "x.wav", "duration": 1.0, "offset": 2.5})
    (utterances,) = read_packed(tmp_path).values()
    write_lines(tmp_path / "m.jsonl", *({"audio_filepath": line["audio"]} | line for line in lines))
    assert [u.id for u in utterances] == ["s0/001", "s1/001", "a", "x-2.5"]
    assert [u.id for u in Manifest.load(tmp_path / "m.jsonl")] == ["s0/001", "s1/001"]


@pytest.mark.parametrize("audio", ["../outside.wav", "/etc/passwd", "d/../../x.wav", "link/x.wav"])
def test_packed_audio_outside_the_folder_is_refused(tmp_path: Path, audio: str) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "link").symlink_to(tmp_path)
    write_lines(tmp_path / "corpus" / "manifest.jsonl", packed("a"), packed("b", audio=audio))
    with pytest.raises(DataError, match=r"manifest\.jsonl, line 2: audio .* lies outside the folder"):
        read_packed(tmp_path / "corpus")


def test_wrong_packed_line_is_named(tmp_path: Path) -> None:
    write_lines(tmp_path / "manifest.jsonl", packed("a"), packed("b", duration="long"))
    with pytest.raises(DataError, match="line 2: duration must be a number"):
        read_packed(tmp_path)
    write_lines(tmp_path / "manifest.jsonl", packed("a"), {"id": "b", "duration": 1.0})
    with pytest.raises(DataError, match="line 2: audio is missing"):
        read_packed(tmp_path)


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps_rollup"), reason="looks at Linux's memory accounts")
def test_epochs_of_reading_add_no_memory(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location(
        "manifest_benchmark", Path(__file__).parents[1] / "tools" / "benchmarks" / "manifest.py"
    )
    assert spec is not None
    assert spec.loader is not None
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    benchmark.write_synthetic(tmp_path / "m.jsonl", 30_000)

    def growth(rows) -> float:
        sizes = benchmark.memory(rows, workers=2, epochs=2)
        return sizes[-1].anonymous - sizes[0].anonymous

    manifest = Manifest.load(tmp_path / "m.jsonl")
    assert growth(manifest) < 4  # MB
    # The same as a Python list shows that the measurement sees growth: reading counts references, which copies pages.
    assert growth(list(manifest)) > 8


def test_absolute_paths_of_every_system_are_kept(tmp_path: Path) -> None:
    names = ["/a/b.wav", "C:\\speech\\c.wav", "D:/speech/d.wav", "\\\\server\\share\\e.wav", "C.wav", "x:y.wav"]
    path = write_lines(tmp_path / "m.jsonl", *(entry(str(row), audio_filepath=n) for row, n in enumerate(names)))
    found = [utterance.audio_filepath for utterance in Manifest.load(path)]
    assert found == [*names[:4], str(tmp_path / "C.wav"), str(tmp_path / "x:y.wav")]


def test_select_keeps_rows_and_may_keep_none(tmp_path: Path) -> None:
    manifest = Manifest.load(write_lines(tmp_path / "m.jsonl", entry("a"), entry("b"), entry("c")))
    assert [utterance.id for utterance in manifest.select(np.array([True, False, True]))] == ["a", "c"]
    assert len(manifest.select(np.zeros(3, dtype=bool))) == 0
    assert manifest.table["id"].to_pylist() == ["a", "b", "c"]


def test_an_id_that_is_there_twice_is_not_written(tmp_path):
    with pytest.raises(DataError, match="'a' is there twice"):
        write_manifest(tmp_path / "m.jsonl", [Utterance("a", "x.wav", 1.0), Utterance("a", "y.wav", 1.0)])
    assert list(tmp_path.iterdir()) == []


def test_a_packed_manifest_and_a_damaged_one(tmp_path):
    line = b'{"audio_filepath": "a.wav", "duration": 1}\n'
    (tmp_path / "m.jsonl.gz").write_bytes(gzip.compress(line))
    assert len(Manifest.load(tmp_path / "m.jsonl.gz")) == 1
    (tmp_path / "m.jsonl.gz").write_bytes(gzip.compress(line + b'{"duration": 1}\n'))
    with pytest.raises(DataError, match="line 2: audio_filepath is missing"):
        Manifest.load(tmp_path / "m.jsonl.gz")
    damaged = bytearray(gzip.compress(line))
    damaged[10] = 0xFF  # there is no such kind of block
    (tmp_path / "m.jsonl.gz").write_bytes(damaged)
    with pytest.raises(DataError, match=r"m\.jsonl"):
        Manifest.load(tmp_path / "m.jsonl.gz")
    with pytest.raises(DataError, match=r"m\.jsonl"):
        exchange.read(tmp_path / "m.jsonl.gz")


def test_keys_without_a_meaning_here_are_carried_where_asked_for(tmp_path: Path) -> None:
    others = {"accent": "scottish", "lang_id": 3, "others": [1], "pnc": None}
    path = write_lines(tmp_path / "m.jsonl", entry("a", **others), entry("b"))
    assert [utterance.others for utterance in Manifest.load(path)] == ["", ""]
    manifest = Manifest.load(path, others=True)
    write_manifest(tmp_path / "again.jsonl", manifest.select(np.array([True, False])))
    (line,) = (tmp_path / "again.jsonl").read_text().splitlines()
    assert json.loads(line) == entry("a", **others)


def test_a_byte_order_mark_is_no_part_of_a_manifest(tmp_path: Path) -> None:
    row = {"audio_filepath": "a.wav", "duration": 1.0, "text": "one", "gender": "f"}
    (tmp_path / "m.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8-sig")
    for others in (False, True):
        assert Manifest.load(tmp_path / "m.jsonl", others=others).texts == ["one"]
    assert list(read_sentences(tmp_path / "m.jsonl")) == ["one"]


def test_a_zipped_manifest_is_written_as_one(tmp_path: Path) -> None:
    rows = [Utterance("a", str(tmp_path / "a.wav"), 1.0, "x")]
    write_manifest(tmp_path / "m.jsonl.gz", rows)
    assert json.loads(gzip.decompress((tmp_path / "m.jsonl.gz").read_bytes()))["id"] == "a"
    assert list(Manifest.load(tmp_path / "m.jsonl.gz")) == rows


def test_files_of_one_name_in_several_folders_need_no_ids(tmp_path: Path) -> None:
    lines = [
        {"audio_filepath": name, "duration": 1.0, "offset": offset}
        for name, offset in (("a/1.wav", 0), ("b/1.wav", 0), ("b/1.wav", 10000.12), ("b/1.wav", 10000.14))
    ]
    path = write_lines(tmp_path / "m.jsonl", *lines)
    assert Manifest.load(path).table["id"].to_pylist() == ["a/1", "b/1", "b/1-10000.12", "b/1-10000.14"]
    path = write_lines(tmp_path / "m.jsonl", *lines[1:])
    assert Manifest.load(path).table["id"].to_pylist() == ["1", "1-10000.12", "1-10000.14"]
    path = write_lines(tmp_path / "m.jsonl", *lines, lines[1])
    with pytest.raises(DataError, match="line 5: id 'b/1' is already on line 2"):
        Manifest.load(path)


def test_paths_behind_a_link_lead_where_they_did(tmp_path: Path) -> None:
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real/deep")
    (tmp_path / "real" / "a.wav").touch()
    path = write_lines(tmp_path / "link" / "m.jsonl", {"audio_filepath": "../a.wav", "duration": 1.0})
    (utterance,) = Manifest.load(tmp_path / "link" / path.name)
    assert Path(utterance.audio_filepath).is_file()
    write_manifest(tmp_path / "copy.jsonl", [utterance])
    (again,) = Manifest.load(tmp_path / "copy.jsonl")
    assert os.path.samefile(again.audio_filepath, tmp_path / "real" / "a.wav")


def test_a_line_may_be_long(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "m.jsonl", entry("a", words=[{"word": "hello"}] * 200_000), entry("b"))
    assert path.stat().st_size > 3_000_000
    assert Manifest.load(path).table["id"].to_pylist() == ["a", "b"]


@pytest.mark.parametrize("key", ["audio", "text"])
@pytest.mark.parametrize("character", ["\\u0000", "\\ud800"])
def test_packed_characters_that_cannot_be_written_are_named(tmp_path: Path, key: str, character: str) -> None:
    line = json.dumps({"audio": "a.wav", "duration": 1.0, "text": "x"} | {key: "b?.wav"}).replace("?", character)
    write_lines(tmp_path / "manifest.jsonl", line)
    with pytest.raises(DataError, match=f"line 1: {key} holds characters that cannot be written"):
        read_packed(tmp_path)
