"""`asr align`, and what `asr transcribe` writes of words and subtitles, as a user meets them."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pysrt
import pytest
from praatio import textgrid
from typer.testing import CliRunner

from asr import writers
from asr.cli import app
from asr.cli.align import _read
from asr.errors import AsrError, ConfigError, DataError

TEXT = "Knit seven, make one; knit two together!"
RUNNER = CliRunner()


def run(*arguments: object) -> str:
    result = RUNNER.invoke(app, [str(argument) for argument in arguments])
    if isinstance(result.exception, AsrError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_text_as_an_argument_or_a_file_gives_the_same_ctm(data: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(f"\ufeffKnit seven, make one;\n{TEXT[22:]}\n", encoding="utf-8")
    audio = data / "1737-146161-0013.flac"
    ctm = run("align", audio, TEXT)
    assert run("align", audio, tmp_path / "text.txt") == ctm
    rows = [line.split() for line in ctm.splitlines()]
    assert [row[4] for row in rows] == TEXT.split()
    assert {row[0] for row in rows} == {"1737-146161-0013"}
    assert all(float(row[3]) > 0 for row in rows)


def test_formats_go_into_a_folder(data: Path, tmp_path: Path) -> None:
    audio = data / "1737-146161-0013.flac"
    run("align", audio, TEXT, "--format", "textgrid,json,srt", "--output_dir", tmp_path, "--max_line_width", 20)
    grid = textgrid.openTextgrid(str(tmp_path / "1737-146161-0013.TextGrid"), includeEmptyIntervals=False)
    assert [entry.label for entry in grid.getTier("words").entries] == TEXT.split()
    words = json.loads((tmp_path / "1737-146161-0013.json").read_text(encoding="utf-8"))["segments"][0]["words"]
    assert [word["text"] for word in words] == TEXT.split()
    cues = pysrt.open(str(tmp_path / "1737-146161-0013.srt"))
    assert all(len(line) <= 20 for cue in cues for line in cue.text.splitlines())
    assert len(list(tmp_path.iterdir())) == 3


def test_the_text_itself_is_not_replaced(data: Path, tmp_path: Path) -> None:
    text = tmp_path / "1737-146161-0013.txt"
    text.write_text(TEXT)
    with pytest.raises(ConfigError, match="is the text itself"):
        run("align", data / "1737-146161-0013.flac", text, "--format", "all", "--output-dir", tmp_path)
    assert text.read_text() == TEXT


def test_wrong_commands_are_one_line(data: Path, tmp_path: Path) -> None:
    audio = data / "1737-146161-0013.flac"
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    for text, match in (
        ("missing.txt", "no such text file"),
        ("folder/missing.lab", "no such text file"),
        ("Interview 3.TXT", "no such text file"),
        ("my folder/missing.srt", "no such text file"),
        (tmp_path / "latin.txt", "not UTF-8"),
        ("日本", "no word"),
    ):
        with pytest.raises(DataError, match=match):
            run("align", audio, text)
    with pytest.raises(ConfigError, match="--format must be all"):
        run("align", audio, TEXT, "--format", "doc")
    with pytest.raises(ConfigError, match="max_line_width"):
        run("align", audio, TEXT, "--max-line-width", 0)


def test_a_text_that_may_not_be_read_is_not_taken_for_what_is_said(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")  # the superuser, whom tests may run as, can read everything

    (tmp_path / "what he said").write_text(TEXT)
    monkeypatch.setattr(Path, "read_text", denied)
    with pytest.raises(DataError, match="what he said: cannot be read: Permission denied"):
        run("align", data / "1737-146161-0013.flac", tmp_path / "what he said")
    assert len(_read("word " * 2000)) == 10_000  # too long for a file's name


def test_confidences_are_those_of_a_transcript(data: Path) -> None:
    """The embedded model recommends a power for them."""
    audio = data / "1737-146161-0013.flac"
    heard = json.loads(run("transcribe", audio, "--no-vad", "--format", "json", "--word-timestamps"))
    aligned = json.loads(run("align", audio, heard["text"], "--format", "json"))
    pairs = zip(heard["segments"][0]["words"], aligned["segments"][0]["words"], strict=True)
    assert all(word["confidence"] == pytest.approx(again["confidence"], abs=2e-3) for word, again in pairs)


def test_transcribe_writes_every_format_and_words_on_demand(data: Path, tmp_path: Path) -> None:
    audio = data / "6848-252323-0006.flac"
    plain = json.loads(run("transcribe", audio, "--format", "json"))
    timed = json.loads(run("transcribe", audio, "--format", "json", "--word-timestamps"))
    assert not any(segment["words"] for segment in plain["segments"])
    words = [word for segment in timed["segments"] for word in segment["words"]]
    assert [word["text"] for word in words] == timed["text"].split() == plain["text"].split()
    run("transcribe", audio, "--format", "all", "--output-dir", tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {f".{ending}" for ending in writers.ENDINGS.values()}
    cues = pysrt.open(str(tmp_path / f"{audio.stem}.srt"))
    assert " ".join(cue.text.replace("\n", " ") for cue in cues) == timed["text"]
    assert cues[0].start.ordinal == round(1000 * words[0]["start"])  # by word times, not by letters


def test_subtitle_options_change_the_subtitles(data: Path) -> None:
    audio = data / "6848-252323-0006.flac"
    usual = pysrt.from_string(run("transcribe", audio, "--format", "srt"))
    narrow = pysrt.from_string(run("transcribe", audio, "--format", "srt", "--max_line_width", 20))
    single = pysrt.from_string(run("transcribe", audio, "--format", "srt", "--max_line_count", 1))
    short = pysrt.from_string(run("transcribe", audio, "--format", "srt", "--max-cue-seconds", 2))
    apart = pysrt.from_string(run("transcribe", audio, "--format", "srt", "--min-gap", 0.5))
    assert max(len(line) for cue in usual for line in cue.text.splitlines()) > 20
    assert max(len(line) for cue in narrow for line in cue.text.splitlines()) <= 20
    assert max(len(cue.text.splitlines()) for cue in usual) == 2
    assert max(len(cue.text.splitlines()) for cue in single) == 1
    assert max(cue.duration.ordinal for cue in usual) > 2000 >= max(cue.duration.ordinal for cue in short)
    assert all(later.start.ordinal - cue.end.ordinal >= 500 for cue, later in pairwise(apart))
