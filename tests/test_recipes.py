"""Recipes, each on a miniature of its corpus in its own layout, from a folder and from a local stand-in server."""

from __future__ import annotations

import gzip
import http.server
import io
import json
import os
import re
import shutil
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from examples import REAL, make_digits, make_librispeech

from asr.config import compose, resource
from asr.corpora import hold_out
from asr.download import download, unpack
from asr.errors import ConfigError, DataError
from asr.manifest import Manifest, Utterance
from asr.recipes import corpora, load, prepare, run_prepare
from asr.training.config import TrainConfig


def by_split(paths: list[Path]) -> dict[str, Manifest]:
    return {path.stem: Manifest.load(path) for path in paths}


def ids(manifest: Manifest) -> set[str]:
    return {utterance.id for utterance in manifest}


class Server(http.server.BaseHTTPRequestHandler):
    """Serves what is in `files`, knows Range as static file servers do, and breaks off where told."""

    files: dict[str, bytes]
    break_at: int | None
    ranges: bool
    asked: list[str | None]

    def do_GET(self) -> None:
        cls = type(self)
        cls.asked.append(self.headers["Range"])
        content = cls.files.get(self.path)
        if content is None:
            return self.send_error(404)
        start = int(re.findall(r"\d+", self.headers["Range"])[0]) if self.headers["Range"] and cls.ranges else 0
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            return self.end_headers()
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        stop, cls.break_at = cls.break_at, None
        self.wfile.write(content[start:stop])
        return None

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[str, type[Server]]]:
    handler = type("Handler", (Server,), {"files": {}, "break_at": None, "ranges": True, "asked": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", handler
        running.shutdown()
        thread.join()


def tar_of(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(folder, arcname=folder.name)
    return buffer.getvalue()


def zip_of(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, path.relative_to(folder.parent))
    return buffer.getvalue()


def assert_second_run_changes_nothing(run: Callable[[], list[Path]], capsys: pytest.CaptureFixture[str]) -> None:
    before = [(path, path.stat().st_mtime_ns) for path in run()]
    capsys.readouterr()
    assert [(path, path.stat().st_mtime_ns) for path in run()] == before
    assert "already prepared" in capsys.readouterr().err


# Finding recipes


def test_every_recipe_is_small_and_explained() -> None:
    assert set(corpora()) == {
        "aishell", "an4", "commonvoice", "custom", "gigaspeech", "librispeech", "librispeech_100", "ljspeech",
        "mini_librispeech", "speechocean762", "spoken_digits", "tedlium3", "voxforge", "voxpopuli", "yesno",
    }  # fmt: skip
    for corpus in corpora():
        folder = resource("recipes") / corpus
        code = (folder / "prepare.py").read_text()
        assert len(code.splitlines()) <= 150, corpus
        assert f"asr prepare {corpus} --" in code
        readme = (folder / "README.md").read_text()
        assert f"asr recipe {corpus}" in readme
        assert readme.index("<!-- results:begin -->") < readme.index("<!-- results:end -->")
        recipe = load(corpus)
        assert hasattr(recipe, "download") != hasattr(recipe, "OBTAIN")
        composed = compose(TrainConfig, corpus)
        assert composed.run == f"run/{corpus}"
        assert composed.data.train == [f"data/{corpus}/train.jsonl"]
        assert composed.data.valid == [f"data/{corpus}/dev.jsonl"]


def test_unknown_recipe_and_missing_source(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"no recipe 'mini_librispech'; did you mean 'mini_librispeech'.*spoken_digits"
    ):
        run_prepare("mini_librispech", None, tmp_path)
    with pytest.raises(ConfigError, match=r"no recipe"):
        run_prepare("../recipes/custom", None, tmp_path)
    with pytest.raises(DataError, match="absent: no such folder"):
        run_prepare("custom", tmp_path / "absent", tmp_path / "out")
    with pytest.raises(DataError, match="--source"):
        run_prepare("custom", None, tmp_path / "out")
    (tmp_path / "empty").mkdir()
    for corpus in corpora():
        if not hasattr(load(corpus), "download"):
            with pytest.raises(DataError, match=f"{corpus}: .*--source"):
                run_prepare(corpus, None, tmp_path / "out")
        with pytest.raises(DataError, match="empty"):
            run_prepare(corpus, tmp_path / "empty", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# mini_librispeech


@pytest.mark.parametrize("inside", ["", "LibriSpeech", "LibriSpeech/train-clean-5"])
def test_mini_librispeech_from_its_own_layout(tmp_path: Path, inside: str) -> None:
    train = make_librispeech(tmp_path, "train-clean-5", {"1737": "19", "3947": "26"})
    dev = make_librispeech(tmp_path, "train-clean-5", {"6848": "6848"})
    test = make_librispeech(tmp_path, "dev-clean-2", {"1737": "84"})
    splits = by_split(run_prepare("mini_librispeech", tmp_path / inside, tmp_path / "out"))
    expected = {"train": train, "dev": dev, "test": test}
    if inside.endswith("5"):
        del expected["test"]
    assert {split: {u.id: u.text for u in manifest} for split, manifest in splits.items()} == expected
    for utterance in splits["train"]:
        assert utterance.speaker == utterance.id.split("-")[0]
        assert utterance.duration == soundfile.info(utterance.audio_filepath).duration


def test_mini_librispeech_names_a_missing_file(tmp_path: Path) -> None:
    texts = make_librispeech(tmp_path, "train-clean-5", {"1737": "1737", "3947": "26"})
    gone = next(tmp_path.rglob(f"{max(texts)}.flac"))
    gone.unlink()
    with pytest.raises(DataError, match=f"1 of {len(texts)} audio files cannot be used, the first: .*{gone.name}"):
        run_prepare("mini_librispeech", tmp_path, tmp_path / "out")
    assert not list(tmp_path.glob("out/*.jsonl"))


def test_mini_librispeech_packed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open(tmp_path / "manifest.jsonl", "w") as file:
        for split, speaker in (("train", "19"), ("dev", "3947"), ("test", "84")):
            (tmp_path / split).mkdir()
            (tmp_path / split / "a.opus").touch()
            line = {"id": f"{speaker}-1-0", "audio": f"{split}/a.opus", "text": "A", "speaker": speaker}
            file.write(json.dumps(line | {"duration": 2.0, "split": split}) + "\n")
    out = tmp_path / "out"
    splits = by_split(run_prepare("mini_librispeech", tmp_path, out))
    assert {split: ids(manifest) for split, manifest in splits.items()} == {
        "train": {"19-1-0"},
        "dev": {"3947-1-0"},
        "test": {"84-1-0"},
    }
    assert_second_run_changes_nothing(lambda: run_prepare("mini_librispeech", tmp_path, out), capsys)


def test_mini_librispeech_download(
    tmp_path: Path, server: tuple[str, type[Server]], capsys: pytest.CaptureFixture[str]
) -> None:
    train = make_librispeech(tmp_path / "1", "train-clean-5", {"1737": "19", "3947": "3947"})
    test = make_librispeech(tmp_path / "2", "dev-clean-2", {"6848": "84"})
    url, handler = server
    handler.files = {
        "/31/train-clean-5.tar.gz": tar_of(tmp_path / "1" / "LibriSpeech"),
        "/31/dev-clean-2.tar.gz": tar_of(tmp_path / "2" / "LibriSpeech"),
    }
    recipe = load("mini_librispeech")
    recipe.MIRROR = f"{url}/31"
    handler.break_at = 5000
    with pytest.raises(DataError, match=r"train-clean-5\.tar\.gz: download broke off at 5000 of \d+ bytes; run again"):
        prepare(recipe, None, tmp_path / "out")
    assert not (tmp_path / "out" / "download" / "train-clean-5.tar.gz").exists()
    splits = by_split(prepare(recipe, None, tmp_path / "out"))
    assert handler.asked == [None, "bytes=5000-", None]  # went on where it stopped
    assert sorted(os.listdir(tmp_path / "out" / "download")) == ["dev-clean-2", "train-clean-5"]
    assert ids(splits["train"]) | ids(splits["dev"]) == set(train)
    assert ids(splits["test"]) == set(test)
    assert {utterance.speaker for utterance in splits["dev"]} == {"3947"}
    assert all(Path(utterance.audio_filepath).is_file() for utterance in splits["train"])
    assert_second_run_changes_nothing(lambda: prepare(recipe, None, tmp_path / "out"), capsys)
    assert len(handler.asked) == 3


# spoken_digits


def check_digits(splits: dict[str, Manifest]) -> None:
    assert {split: len(manifest) for split, manifest in splits.items()} == {"train": 40, "dev": 40, "test": 40}
    assert {u.id.split("_")[2] for u in splits["test"]} == {"0", "4"}
    assert {u.id.split("_")[2] for u in splits["train"]} == {"5", "44"}
    assert {u.id.split("_")[2] for u in splits["dev"]} == {"45", "49"}
    seven = next(u for u in splits["train"] if u.id == "7_jackson_44")
    assert (seven.text, seven.speaker) == ("seven", "jackson")
    assert seven.duration == pytest.approx((1600 + 560 + 44) / 8000)


def test_spoken_digits_from_its_own_layout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_digits(tmp_path / "fsdd")
    check_digits(by_split(run_prepare("spoken_digits", tmp_path / "fsdd", tmp_path / "out")))

    def run():
        return run_prepare("spoken_digits", tmp_path / "fsdd", tmp_path / "out")

    assert_second_run_changes_nothing(run, capsys)


def test_spoken_digits_download(tmp_path: Path, server: tuple[str, type[Server]]) -> None:
    make_digits(tmp_path / "free-spoken-digit-dataset-master")
    url, handler = server
    handler.files = {"/heads/master.zip": zip_of(tmp_path / "free-spoken-digit-dataset-master")}
    handler.ranges = False  # as archives made on the fly
    handler.break_at = 3000
    recipe = load("spoken_digits")
    recipe.MIRROR = f"{url}/heads"
    with pytest.raises(DataError, match="broke off at 3000 of"):
        prepare(recipe, None, tmp_path / "out")
    check_digits(by_split(prepare(recipe, None, tmp_path / "out")))
    recipe.MIRROR = f"{url}/nowhere"
    with pytest.raises(DataError, match=r"nowhere/master\.zip: download failed: .*404"):
        prepare(recipe, None, tmp_path / "other")


# custom


def make_pairs(folder: Path, count: int = 6) -> None:
    for number, utterance in enumerate(REAL[:count]):
        place = folder / f"day{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(utterance.audio_filepath, place / f"clip{number}.flac")
        (place / f"clip{number}.txt").write_text(f"\ufeff {utterance.text}\n \n", encoding="utf-8")


def test_custom_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_pairs(tmp_path / "mine")
    (tmp_path / "mine" / "day0" / "notes.txt").write_text("no audio for this")
    (tmp_path / "mine" / "broken.wav").write_bytes(b"RIFF")
    (tmp_path / "mine" / "broken.txt").write_text("WORDS")
    (tmp_path / "mine" / "latin.txt").write_bytes(b"caf\xe9")
    for name in ("latin", "silent", "untold"):
        soundfile.write(tmp_path / "mine" / f"{name}.wav", np.zeros(800), 16000)
    (tmp_path / "mine" / "silent.txt").write_text(" \n")
    splits = by_split(run_prepare("custom", tmp_path / "mine", tmp_path / "out"))
    told = " ".join(capsys.readouterr().err.split())
    assert "5 not used" in told
    for name, why in [
        ("notes.txt", "text without audio"),
        ("broken.wav", ""),
        ("latin.txt", "not UTF-8 text"),
        ("silent.wav", "audio without text"),
        ("untold.wav", "audio without text"),
    ]:
        assert re.search(f"{name}: .*{why}", told), name
    assert len(splits["dev"]) == 1
    found = {u.id: u.text for manifest in splits.values() for u in manifest}
    assert found == {f"day{n % 2}/clip{n}": utterance.text for n, utterance in enumerate(REAL[:6])}

    def run():
        return run_prepare("custom", tmp_path / "mine", tmp_path / "out")

    assert_second_run_changes_nothing(run, capsys)


def test_custom_lists_at_most_five_faults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_pairs(tmp_path / "mine")
    for number in range(8):
        (tmp_path / "mine" / f"note{number}.txt").write_text("x")
    run_prepare("custom", tmp_path / "mine", tmp_path / "out")
    told = capsys.readouterr().err
    assert "8 not used" in told
    assert told.count("text without audio") == 5
    assert "and 3 more" in told


@pytest.mark.parametrize(
    ("name", "header", "delimiter"),
    [
        ("table.csv", ["Path", "Sentence", "Client_ID"], ","),
        ("table.csv", ["FILE", "transcript", "speaker"], ";"),
        ("table.TSV", ["audio", "TEXT", "speaker"], "\t"),
    ],
)
def test_custom_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, header: list[str], delimiter: str
) -> None:
    (tmp_path / "clips").mkdir()
    lines = [delimiter.join(header)]
    for number, utterance in enumerate(REAL[:6]):
        shutil.copy(utterance.audio_filepath, tmp_path / "clips" / f"{number}.flac")
        audio = f"{number}.flac" if number % 2 else f"clips/{number}.flac"  # Common Voice leaves the folder out
        lines.append(delimiter.join([audio, utterance.text, utterance.speaker]))
    lines += [
        delimiter.join(row) for row in (["gone.wav", "X", "s"], ["clips/0.flac", "", "s"], ["../x.wav", "X", "s"])
    ]
    (tmp_path / name).write_text("\n".join(lines), encoding="utf-8-sig")
    (tmp_path / "x.wav").touch()
    splits = by_split(run_prepare("custom", tmp_path / name, tmp_path / "out"))
    told = capsys.readouterr().err
    assert "3 not used" in told
    assert "lies outside" in told
    found = {u.id: (u.text, u.speaker) for manifest in splits.values() for u in manifest}
    assert found == {f"clips/{n}": (u.text, u.speaker) for n, u in enumerate(REAL[:6])}


def test_custom_table_without_the_columns(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("name,words\na.wav,hello\n")
    with pytest.raises(DataError, match=r"t\.csv: the first line must name the columns .*'name,words'"):
        run_prepare("custom", tmp_path, tmp_path / "out")
    (tmp_path / "u.tsv").touch()
    with pytest.raises(DataError, match=r"several tables \(t\.csv, u\.tsv\)"):
        run_prepare("custom", tmp_path, tmp_path / "out")


@pytest.mark.parametrize(
    ("rows", "texts", "faults"),
    [
        (
            ['0.flac,"yes, we can"', "1.flac,yes, we can", "2.flac,no"],
            {"0": "yes, we can", "2": "no"},
            ["line 3: has 3"],
        ),
        (
            ["0.flac|yes", '1.flac|"Come in, he said', "2.flac|no"],
            {"0": "yes", "1": '"Come in, he said', "2": "no"},
            [],
        ),
        (["0.flac|yes|we can", "1.flac|no", "2.flac|no"], {"1": "no", "2": "no"}, ["line 2: has 3 columns, not 2"]),
        (["0.flac,yes", "1.flac,no", '2.flac,"come in', "3.flac,no"], {"0": "yes", "1": "no"}, ["line 5: a quote"]),
    ],
)
def test_custom_table_cuts_no_text_and_makes_no_two_rows_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: list[str], texts: dict[str, str], faults: list[str]
) -> None:
    for number, utterance in enumerate(REAL[:4]):
        shutil.copy(utterance.audio_filepath, tmp_path / f"{number}.flac")
    header = "path|text" if "|" in rows[0] else "path,text"
    (tmp_path / "t.csv").write_text("\n".join([header, *rows]))
    splits = by_split(run_prepare("custom", tmp_path, tmp_path / "out"))
    assert {u.id: u.text for manifest in splits.values() for u in manifest} == texts
    told = capsys.readouterr().err
    assert told.count("t.csv, ") == len(faults)
    assert all(fault in told for fault in faults)


def test_custom_packed_keeps_its_splits(tmp_path: Path) -> None:
    def pack(*splits: str) -> None:
        lines = [
            json.dumps({"id": f"{n}", "audio": f"{n}.wav", "text": "A", "duration": 1.0, "split": split})
            for n, split in enumerate(splits)
        ]
        for number in range(len(splits)):
            (tmp_path / f"{number}.wav").touch()
        (tmp_path / "manifest.jsonl").write_text("\n".join(lines))

    pack("train", "dev", "test", "train")
    splits = by_split(run_prepare("custom", tmp_path, tmp_path / "1"))
    assert {k: ids(m) for k, m in splits.items()} == {"train": {"0", "3"}, "dev": {"1"}, "test": {"2"}}
    pack(*["train"] * 40, "test")
    splits = by_split(run_prepare("custom", tmp_path, tmp_path / "2"))
    assert ids(splits["test"]) == {"40"}
    assert 1 <= len(splits["dev"]) <= 8
    assert len(splits["train"]) + len(splits["dev"]) == 40
    pack("train", "../dev")
    with pytest.raises(DataError, match=r"splits must be train, dev or test, not \.\./dev"):
        run_prepare("custom", tmp_path, tmp_path / "3")


def test_packed_lines_that_cannot_be_used_are_left_out_or_too_many(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [{"audio": f"{n}.wav", "text": "A", "duration": 1.0} for n in range(6)]
    lines[1]["text"] = " "
    del lines[2]["text"]
    for number in range(5):
        (tmp_path / f"{number}.wav").touch()
    (tmp_path / "manifest.jsonl").write_text("\n".join(map(json.dumps, lines)))
    splits = by_split(run_prepare("custom", tmp_path, tmp_path / "1"))
    assert set.union(*map(ids, splits.values())) == {"0", "3", "4"}
    told = capsys.readouterr().err
    assert "3 not used" in told
    assert "1.wav: audio without text" in told
    assert "5.wav: text without audio" in told
    with pytest.raises(DataError, match=r"3 of 6 audio files cannot be used, the first: .*1\.wav: audio without text"):
        run_prepare("an4", tmp_path, tmp_path / "2")


def test_custom_holds_out_whole_speakers() -> None:
    utterances = [Utterance(f"u{n}", f"u{n}.wav", 1.0, "A", speaker=f"s{n % 200}") for n in range(4000)]
    train, dev = hold_out(utterances)
    assert 0.02 < len(dev) / len(utterances) < 0.08
    assert not {u.speaker for u in train} & {u.speaker for u in dev}
    assert hold_out(list(reversed(utterances)))[1] == dev[::-1]
    more = utterances + [Utterance(f"v{n}", f"v{n}.wav", 1.0, "A", speaker=f"t{n}") for n in range(1000)]
    assert set(dev) <= set(hold_out(more)[1])  # recordings added later move nobody


@pytest.mark.parametrize(
    ("count", "speakers"), [(2, 0), (2, 1), (2, 2), (3, 2), (20, 1), (20, 0), (1000, 3), (1000, 0)]
)
def test_custom_holds_something_out_of_any_corpus(count: int, speakers: int) -> None:
    for seed in range(20):
        utterances = [
            Utterance(f"{seed}-{n}", "a.wav", 1.0, "A", speaker=f"{seed}s{n % speakers}" if speakers else "")
            for n in range(count)
        ]
        train, dev = hold_out(utterances)
        assert 1 <= len(dev) <= max(1, 0.2 * count)
        assert sorted(u.id for u in train + dev) == sorted(u.id for u in utterances)


# Downloading and unpacking


def test_download_without_a_server_names_the_address(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"http://127\.0\.0\.1:9/x: download failed: .*--source"):
        download("http://127.0.0.1:9/x", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_download_starts_again_when_the_rest_does_not_fit(tmp_path: Path, server: tuple[str, type[Server]]) -> None:
    url, handler = server
    handler.files = {"/f": b"0123456789"}
    (tmp_path / "f.part").write_bytes(b"something longer than that")
    with pytest.raises(DataError, match="416"):
        download(f"{url}/f", tmp_path / "f")
    assert download(f"{url}/f", tmp_path / "f").read_bytes() == b"0123456789"


def test_a_part_that_is_whole_is_not_fetched_again(tmp_path: Path, server: tuple[str, type[Server]]) -> None:
    url, handler = server
    handler.files = {"/f": b"0123456789"}
    (tmp_path / "f.part").write_bytes(b"0123456789")
    assert download(f"{url}/f", tmp_path / "f").read_bytes() == b"0123456789"


@pytest.mark.parametrize("damage", ["cut", "checksum", "nonsense"])
@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_damaged_archive_is_deleted_and_fetched_anew(tmp_path: Path, kind: str, damage: str) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "noise.bin").write_bytes(np.random.default_rng(0).bytes(300_000))
    good = (tar_of if kind == "tar.gz" else zip_of)(tmp_path / "corpus")
    flip = bytes([good[150_000] ^ 1])
    bad = {"cut": good[:100_000], "checksum": good[:150_000] + flip + good[150_001:], "nonsense": b"<html>" * 99}[
        damage
    ]
    archive = tmp_path / f"a.{kind}"
    archive.write_bytes(bad)
    with pytest.raises(DataError, match=r"damaged, now deleted.*run again"):
        unpack(archive, tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["corpus"]
    archive.write_bytes(good)
    unpack(archive, tmp_path / "out")
    assert (tmp_path / "out" / "corpus" / "noise.bin").stat().st_size == 300_000


def evil_tar(kind: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo("link" if kind == "link" else "a/../../evil")
        if kind == "link":
            member.type, member.linkname = tarfile.SYMTYPE, "../.."
        member.size = 0 if kind == "link" else 4
        tar.addfile(member, io.BytesIO(b"evil"))
        if kind == "link":
            inner = tarfile.TarInfo("link/evil")
            inner.size = 4
            tar.addfile(inner, io.BytesIO(b"evil"))
    return gzip.compress(buffer.getvalue())


@pytest.mark.parametrize("kind", ["dots", "link"])
def test_tar_that_leaves_its_folder_is_refused(tmp_path: Path, kind: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.tar.gz").write_bytes(evil_tar(kind))
    with pytest.raises(DataError, match=r"a\.tar\.gz: refused: .*outside"):
        unpack(tmp_path / "in" / "a.tar.gz", tmp_path / "in" / "out")
    assert [path.name for path in tmp_path.rglob("*")] == ["in", "a.tar.gz"]


@pytest.mark.parametrize("name", ["../evil", "a/../../evil"])
def test_zip_that_leaves_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("good.txt", "good")
        file.writestr(name, "evil")
    with pytest.raises(DataError, match=r"a\.zip: refused: .*outside"):
        unpack(tmp_path / "a.zip", tmp_path / "out")
    assert os.listdir(tmp_path) == ["a.zip"]


def test_custom_table_that_is_not_utf_8_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("path,text\na.wav,S\u00e4ge\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"t\.csv: cannot be read as UTF-8 text") as caught:
        run_prepare("custom", tmp_path, tmp_path / "out")
    assert "\n" not in str(caught.value)
