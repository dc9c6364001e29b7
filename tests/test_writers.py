"""Transcripts become files: whole or not at all, inside their folder, none over another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr import writers
from asr.errors import AsrError, ConfigError
from asr.transcript import Segment, Span, Transcript, Word

WORD = Word("grüße", 0.1, 0.45678, 0.98765)
TRANSCRIPT = Transcript(
    source="talks/grüße.wav",
    duration=3.00004,
    segments=(
        Segment("grüße an alle", 0.0, 1.23456, (4, 8, 15), -3.14159, None, (WORD,)),
        Segment("", 1.23456, 2.0, (), -0.5),
        Segment("日本", 2.0, 3.00004, (16,), float("-inf"), "ctc"),
    ),
    spans=(Span(0.0, 1.23456, "decoded"), Span(1.23456, 2.0, "non_speech"), Span(2.0, 3.00004, "decoded")),
    model="tiny",
    language="de",
)
EXPECTED = """{
  "text": "grüße an alle 日本",
  "source": "talks/grüße.wav",
  "duration": 3.0,
  "segments": [
    {
      "text": "grüße an alle",
      "start": 0.0,
      "end": 1.235,
      "tokens": [
        4,
        8,
        15
      ],
      "score": -3.142,
      "fallback": null,
      "words": [
        {
          "text": "grüße",
          "start": 0.1,
          "end": 0.457,
          "confidence": 0.988
        }
      ]
    },
    {
      "text": "",
      "start": 1.235,
      "end": 2.0,
      "tokens": [],
      "score": -0.5,
      "fallback": null,
      "words": []
    },
    {
      "text": "日本",
      "start": 2.0,
      "end": 3.0,
      "tokens": [
        16
      ],
      "score": null,
      "fallback": "ctc",
      "words": []
    }
  ],
  "spans": [
    {
      "start": 0.0,
      "end": 1.235,
      "kind": "decoded"
    },
    {
      "start": 1.235,
      "end": 2.0,
      "kind": "non_speech"
    },
    {
      "start": 2.0,
      "end": 3.0,
      "kind": "decoded"
    }
  ],
  "model": "tiny",
  "language": "de"
}
"""
NAMES = st.text(st.sampled_from("aA.-2/\\ \n\0é\ud800"), max_size=8)


def test_text_joins_what_was_said() -> None:
    assert TRANSCRIPT.text == "grüße an alle 日本"
    assert Transcript("silence.wav", 1.0, (), (Span(0.0, 1.0, "non_speech"),), "tiny").text == ""


def test_json_is_stable_and_keeps_letters() -> None:
    assert writers.render(TRANSCRIPT, "json") == EXPECTED
    assert json.loads(EXPECTED) == TRANSCRIPT.to_dict()


def test_txt_is_one_line() -> None:
    assert writers.render(TRANSCRIPT, "txt") == "grüße an alle 日本\n"


def test_unknown_format_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="txt, json, got 'doc'"):
        writers.render(TRANSCRIPT, "doc")
    with pytest.raises(ConfigError, match="txt, json"):
        writers.write(TRANSCRIPT, tmp_path, "doc", "a")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", sorted(writers.FORMATS))
def test_write_makes_the_folder_and_replaces(tmp_path: Path, format: str) -> None:
    path = tmp_path / "new" / "folder" / f"talk.v1.{format}"
    for _ in range(2):
        assert writers.write(TRANSCRIPT, tmp_path / "new" / "folder", format, "talk.v1") == path
        assert path.read_bytes() == writers.render(TRANSCRIPT, format).encode()
        assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = writers.write(TRANSCRIPT, tmp_path, "txt", "talk")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writers.os, "replace", full)
    with pytest.raises(AsrError, match=r"talk\.txt: cannot be written: No space left"):
        writers.write(Transcript("b", 1.0, (), (), "tiny"), tmp_path, "txt", "talk")
    assert path.read_text(encoding="utf-8") == "grüße an alle 日本\n"
    assert list(tmp_path.iterdir()) == [path]


def test_folder_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(AsrError, match="cannot be written"):
        writers.write(TRANSCRIPT, tmp_path / "taken", "txt", "talk")


def test_source_that_is_not_utf8_can_be_written(tmp_path: Path) -> None:
    odd = Transcript("caf\udce9.wav", 1.0, (), (), "tiny")  # a Latin-1 name, as Linux hands it over
    path = writers.write(odd, tmp_path, "json", writers.unique_stems([odd.source])[0])
    assert json.loads(path.read_text(encoding="utf-8"))["source"] == "caf?.wav"


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("../../etc/passwd", "passwd.txt"),
        ("/etc/passwd", "passwd.txt"),
        ("..\\..\\boot", "boot.txt"),
        ("..", "audio.txt"),
        ("", "audio.txt"),
        (".hidden", "hidden.txt"),
        ("a\nb\0c", "a_b_c.txt"),
    ],
)
def test_no_stem_leads_out_of_the_folder(tmp_path: Path, stem: str, name: str) -> None:
    folder = tmp_path / "out"
    assert writers.write(TRANSCRIPT, folder, "txt", stem) == folder / name
    assert [path.name for path in tmp_path.rglob("*")] == ["out", name]


def test_unique_stems_number_what_collides() -> None:
    sources = ["a/talk.wav", "b/talk.mp3", "c/TALK.flac", "talk-2.wav", "solo.v1.wav", "talk.wav"]
    assert writers.unique_stems(sources) == ["talk", "talk-2", "TALK-3", "talk-2-2", "solo.v1", "talk-4"]


@given(st.lists(NAMES, max_size=12))
def test_unique_stems_never_share_a_file(sources: list[str]) -> None:
    stems = writers.unique_stems(sources)
    assert stems == writers.unique_stems(sources)
    assert len({stem.casefold() for stem in stems}) == len(sources)
    # What `write` makes of a stem is the stem itself, so different stems are different files.
    assert [writers._name(stem) for stem in stems] == stems
