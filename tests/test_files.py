"""Whole files or none, whatever happens while they are written."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save_file

from asr import files
from asr.errors import AudioError, WriteError
from asr.files import replacing, write_file


def test_the_file_is_there_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file.jsonl.gz"
    with replacing(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.name.endswith("file.jsonl.gz")
        temporary.write_text("first")
        assert not path.exists()
    assert path.read_text() == "first"
    with replacing(str(path)) as temporary:
        temporary.write_text("second")
        assert path.read_text() == "first"
    assert path.read_text() == "second"
    assert os.listdir(path.parent) == [path.name]


def test_others_may_read_it_as_they_may_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    with replacing(tmp_path / "weights") as temporary:
        save_file({"weight": np.zeros(3)}, temporary)
    assert stat.S_IMODE((tmp_path / "weights").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_what_is_replaced_keeps_its_permissions(tmp_path: Path) -> None:
    (tmp_path / "private").write_text("old")
    (tmp_path / "private").chmod(0o600)
    write_file(tmp_path / "private", "new")
    assert stat.S_IMODE((tmp_path / "private").stat().st_mode) == 0o600


def test_a_folder_is_there_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder"
    for name in ("one", "other"):
        with replacing(path, folder=True) as temporary:
            (temporary / name).write_text("text")
            assert not path.exists() or not os.listdir(path)
        assert os.listdir(path.parent) == ["folder"]
        assert os.listdir(path) == [name]
        (path / name).unlink()  # an empty folder may be replaced, a full one may not
    (tmp_path / "plain").mkdir()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    (path / "old").write_text("old")
    with pytest.raises(WriteError, match="folder: cannot be written"), replacing(path, folder=True) as temporary:
        (temporary / "new").write_text("new")
    assert os.listdir(path) == ["old"]
    assert os.listdir(path.parent) == ["folder"]


def test_text_and_bytes_are_written_as_they_are(tmp_path: Path) -> None:
    write_file(tmp_path / "text", "grüße\n日本\r\n caf\udce9")
    assert (tmp_path / "text").read_bytes() == "grüße\n日本\r\n caf?".encode()
    write_file(str(tmp_path / "bytes"), b"\xff\r\n")
    assert (tmp_path / "bytes").read_bytes() == b"\xff\r\n"


def test_a_link_stays_and_leads_to_the_new_file(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "file").write_text("old")
    (tmp_path / "link").symlink_to("far/file")
    write_file(tmp_path / "link", "new")
    assert os.readlink(tmp_path / "link") == "far/file"
    assert (tmp_path / "far" / "file").read_text() == "new"
    assert sorted(os.listdir(tmp_path)) == ["far", "link"]
    assert os.listdir(tmp_path / "far") == ["file"]


def test_pipes_are_written_to_and_never_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_file(tmp_path / "pipe", "grüße")
    assert os.read(reader, 100) == "grüße".encode()
    os.close(reader)
    with pytest.raises(WriteError, match="pipe: is a pipe or device: name a file"), replacing(tmp_path / "pipe"):
        pass
    assert (tmp_path / "pipe").is_fifo()
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(WriteError, match="full: cannot be written: No space left"):
        write_file(tmp_path / "full", "text")


def test_an_open_file_of_the_program_is_added_to_and_not_replaced(tmp_path: Path) -> None:
    code = "from asr.files import write_file; print('table', flush=True); write_file('/dev/stdout', 'figures')"
    (tmp_path / "log").write_text("earlier\n")
    with open(tmp_path / "log", "a") as log:
        subprocess.run([sys.executable, "-c", code], stdout=log, check=True)
    assert (tmp_path / "log").read_text() == "earlier\ntable\nfigures"


def test_a_full_disk_is_one_line_and_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("old")
    monkeypatch.setattr(files, "uuid4", lambda: SimpleNamespace(hex="a"))
    (tmp_path / ".a-file").symlink_to("/dev/full")  # it refuses every byte
    with pytest.raises(WriteError, match=r"^[^\n]*file: cannot be written: No space left on device: [^\n]*$"):
        write_file(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(WriteError, match="file: cannot be written: Permission denied"):
        write_file(tmp_path / "file", "new")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("error", [ValueError, WriteError, AudioError, KeyboardInterrupt])
def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_two_writers_never_share_a_file_and_long_names_fit(tmp_path: Path) -> None:
    path = tmp_path / ("ß" * 120 + ".txt")
    with replacing(path) as one, replacing(path) as other:
        assert one != other
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one"  # the outer block ends last
    assert os.listdir(tmp_path) == [path.name]


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="below: cannot be written: "), replacing(tmp_path / "file" / "below"):
        pass


def test_a_folder_in_the_way_stays(tmp_path: Path) -> None:
    (tmp_path / "taken" / "inside").mkdir(parents=True)
    with pytest.raises(WriteError, match="taken: cannot be written: Is a directory"), replacing(tmp_path / "taken"):
        pass
    assert os.listdir(tmp_path) == ["taken"]


@pytest.mark.parametrize("name", [".", "/"])
def test_a_path_without_a_name_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WriteError, match="cannot be written"):
        write_file(name, "text")
    assert os.listdir(tmp_path) == []
