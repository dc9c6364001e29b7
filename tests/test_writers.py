"""Transcripts become files: whole or not at all, inside their folder, none over another."""

from __future__ import annotations

import io
import json
import re
from itertools import pairwise
from pathlib import Path

import jsonschema
import pysrt
import pytest
import webvtt
from hypothesis import given, settings
from hypothesis import strategies as st
from praatio import textgrid

from asr import writers
from asr.errors import AsrError, ConfigError
from asr.evaluation.text_files import read_texts
from asr.transcriber import Transcriber
from asr.transcript import Segment, Span, Transcript, Word
from asr.writers import subtitles
from asr.writers.subtitles import SHORTEST_CUE, SubtitleOptions, make_cues

WORDS = (
    Word("grüße", 0.1, 0.45678, 0.98765),
    Word("an", 0.45678, 0.45678, 0.0),  # as a word without a sound is
    Word("alle", 0.6, 1.23456, 0.5),
)
TRANSCRIPT = Transcript(
    source="talks/grüße.wav",
    duration=3.00004,
    segments=(
        Segment("grüße an alle", 0.0, 1.23456, (4, 8, 15), -3.14159, None, WORDS),
        Segment("", 1.23456, 2.0, (), -0.5),
        Segment("日本", 2.0, 3.00004, (16,), float("-inf"), "ctc", (Word("日本", 2.1, 2.9, 0.25),), True),
    ),
    spans=(Span(0.0, 1.23456, "decoded"), Span(1.23456, 2.0, "non_speech"), Span(2.0, 3.00004, "decoded")),
    model="tiny",
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
        },
        {
          "text": "an",
          "start": 0.457,
          "end": 0.457,
          "confidence": 0.0
        },
        {
          "text": "alle",
          "start": 0.6,
          "end": 1.235,
          "confidence": 0.5
        }
      ],
      "spread": false
    },
    {
      "text": "",
      "start": 1.235,
      "end": 2.0,
      "tokens": [],
      "score": -0.5,
      "fallback": null,
      "words": [],
      "spread": false
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
      "words": [
        {
          "text": "日本",
          "start": 2.1,
          "end": 2.9,
          "confidence": 0.25
        }
      ],
      "spread": true
    }
  ],
  "spans": [
    {
      "start": 0.0,
      "end": 1.235,
      "kind": "decoded",
      "reason": null
    },
    {
      "start": 1.235,
      "end": 2.0,
      "kind": "non_speech",
      "reason": null
    },
    {
      "start": 2.0,
      "end": 3.0,
      "kind": "decoded",
      "reason": null
    }
  ],
  "model": "tiny",
  "channel": null,
  "coverage": {
    "decoded": 2.235,
    "non_speech": 0.765,
    "failed": 0
  }
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
    with pytest.raises(ConfigError, match=r"txt, json, .*, textgrid, got 'doc'"):
        writers.render(TRANSCRIPT, "doc")
    with pytest.raises(ConfigError, match="txt, json"):
        writers.write(TRANSCRIPT, tmp_path, "doc", "a")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", sorted(writers.FORMATS))
def test_write_makes_the_folder_and_replaces(tmp_path: Path, format: str) -> None:
    path = tmp_path / "new" / "folder" / f"talk.v1.{writers.ENDINGS[format]}"
    for _ in range(2):
        assert writers.write(TRANSCRIPT, tmp_path / "new" / "folder", format, "talk.v1") == path
        assert path.read_bytes() == writers.render(TRANSCRIPT, format).encode()
        assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = writers.write(TRANSCRIPT, tmp_path, "txt", "talk")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
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
    path = writers.write(odd, tmp_path, "json", writers.unique_stems([Path(odd.source).stem])[0])
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
    wanted = ["talk", "talk", "TALK", "talk-2", "solo.v1", "talk", "\u00e9", "e\u0301"]
    numbered = ["talk", "talk-2", "TALK-3", "talk-2-2", "solo.v1", "talk-4", "\u00e9", "e\u0301-2"]
    assert writers.unique_stems(wanted) == numbered


@settings(deadline=None)
@given(st.lists(NAMES, max_size=12))
def test_unique_stems_never_share_a_file(sources: list[str]) -> None:
    stems = writers.unique_stems(sources)
    assert stems == writers.unique_stems(sources)
    assert len({stem.casefold() for stem in stems}) == len(sources)
    # What `write` makes of a stem is the stem itself, so different stems are different files.
    assert [writers._name(stem) for stem in stems] == stems


SCHEMA = json.loads((Path(__file__).parents[1] / "docs" / "transcript.schema.json").read_text(encoding="utf-8"))
ODD = ("<b>", "R&D", "-->", "--->", '"quoted"', "naïve", "日本語", "\t", "a\tb", "—", "1,000", "don't")
SPOKEN = (
    "It was the best of times, it was the worst of times, it was the age of wisdom. It was the age of foolishness, it "
    "was the epoch of belief, it was the epoch of incredulity; it was the season of light and it was the season of "
    "darkness."
)


def speech(text: str, seconds: float = 0.3, pause_after: str = "", pause: float = 0.0) -> Transcript:
    """A transcript of one segment whose words follow one another without a gap, but for one pause."""
    words, moment = [], 0.5
    for word in text.split():
        words.append(Word(word, moment, moment + seconds, 0.5))
        moment += seconds + (pause if word == pause_after else 0.0)
    segment = Segment(text, 0.0, moment + 0.5, (), 0.0, words=tuple(words))
    return Transcript("talk.wav", moment + 0.5, (segment,), (Span(0.0, moment + 0.5, "decoded"),), "tiny")


@st.composite
def transcripts(draw: st.DrawFn) -> Transcript:
    """Words of any length and spelling, at times that never go back."""
    words: list[Word] = []
    moment = 0.0
    for text in draw(st.lists(st.sampled_from(ODD) | st.text("abc", min_size=1, max_size=60), max_size=40)):
        start = moment + draw(st.sampled_from((0.0, 0.0, 0.05, 0.3, 2.0)))
        moment = start + draw(st.sampled_from((0.0, 0.001, 0.2, 0.5, 9.0)))
        words.append(Word(text, start, moment, 0.5))
    cut = draw(st.integers(0, len(words)))
    parts = [tuple(words[:cut]), tuple(words[cut:])]
    segments = [
        Segment(" ".join(word.text for word in part), part[0].start, part[-1].end, (), 0.0, words=part)
        for part in parts
        if part
    ]
    return Transcript("talk.wav", moment + 0.1, tuple(segments), (Span(0.0, moment + 0.1, "decoded"),), "tiny")


OPTIONS = st.builds(
    SubtitleOptions,
    st.integers(1, 60),
    st.integers(1, 3),
    st.sampled_from((0.5, 3.0, 7.0)),
    st.sampled_from((0.0, 0.1, 1.0)),
)


@settings(deadline=None)
@given(transcripts(), OPTIONS)
def test_cues_keep_every_word_and_every_rule(transcript: Transcript, options: SubtitleOptions) -> None:
    cues = make_cues(transcript, options)
    shown = "".join("".join(cue.lines) for cue in cues)
    said = "".join(word.text for segment in transcript.segments for word in segment.words)
    assert "".join(shown.split()) == "".join(said.split())
    for cue in cues:
        assert 0 < cue.end - cue.start <= 1000 * options.max_cue_seconds
        assert all(0 < len(line) <= options.max_line_width for line in cue.lines)
        if any(" " in line for line in cue.lines):  # more than a single long word
            assert len(cue.lines) <= options.max_line_count
    for before, after in pairwise(cues):
        room = after.start - before.start
        assert after.start - before.end >= min(1000 * options.min_gap, room // 4)
        assert before.end - before.start >= min(0.75 * room, 1000 * SHORTEST_CUE, 1000 * options.max_cue_seconds)
    assert all(cue.end <= max(round(1000 * transcript.duration), cue.start + 1) for cue in cues)


@settings(deadline=None)
@given(transcripts())
def test_subtitles_read_back(transcript: Transcript) -> None:
    cues = make_cues(transcript, SubtitleOptions())
    srt = pysrt.from_string(writers.render(transcript, "srt"))
    assert [(each.start.ordinal, each.end.ordinal) for each in srt] == [(cue.start, cue.end) for cue in cues]
    assert [each.text for each in srt] == [re.sub("--+>", "->", "\n".join(cue.lines)) for cue in cues]
    vtt = webvtt.from_buffer(io.StringIO(writers.render(transcript, "vtt")))
    assert [each.start_in_seconds for each in vtt] == [cue.start // 1000 for cue in cues]
    unescaped = [each.raw_text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&") for each in vtt]
    assert unescaped == ["\n".join(cue.lines) for cue in cues]


def test_a_long_segment_becomes_even_cues_that_end_with_sentences_and_phrases() -> None:
    cues = make_cues(speech(SPOKEN), SubtitleOptions())
    assert [cue.lines for cue in cues] == [
        ("It was the best of times, it was the", "worst of times, it was the age of wisdom."),
        ("It was the age of foolishness,", "it was the epoch of belief,"),
        ("it was the epoch of incredulity;",),
        ("it was the season of light and", "it was the season of darkness."),
    ]
    assert (cues[0].start, cues[0].end) == (500, 5900 - 80)


def test_a_cue_ends_at_a_pause() -> None:
    lines = [
        cue.lines for cue in make_cues(speech("one two three four", pause_after="one", pause=1.5), SubtitleOptions())
    ]
    assert lines == [("one",), ("two three four",)]


def test_a_short_cue_stays_for_a_second_if_there_is_time() -> None:
    last = make_cues(speech("yes", 0.1), SubtitleOptions())[0]
    assert (last.start, last.end) == (500, 1100)  # the audio ends there
    first = make_cues(speech("yes no", 0.1, pause_after="yes", pause=3.0), SubtitleOptions())[0]
    assert (first.start, first.end) == (500, 1500)


def test_a_gap_takes_no_more_than_a_quarter_of_the_time() -> None:
    words = Word("a", 1.0, 1.06, 0.5), Word("beautiful", 1.06, 1.6, 0.5)
    transcript = Transcript("a", 1.6, (Segment("a beautiful", 1.0, 1.6, (), 0.0, words=words),), (), "tiny")
    cues = make_cues(transcript, SubtitleOptions(max_line_width=10, max_line_count=1))
    assert [(cue.start, cue.end) for cue in cues] == [(1000, 1045), (1060, 1600)]
    cues = make_cues(speech(SPOKEN), SubtitleOptions(max_cue_seconds=1.0, min_gap=1.0))
    assert min(cue.end - cue.start for cue in cues) >= 225  # of a word that lasts 300


def test_subtitles_without_word_times_share_the_segment_by_letters() -> None:
    segment = Segment("aaa bbb ccc ddd", 2.0, 10.0, (), 0.0)
    transcript = Transcript("a", 10.0, (segment,), (Span(0.0, 10.0, "decoded"),), "tiny")
    cues = make_cues(transcript, SubtitleOptions(max_line_width=7, max_line_count=1, min_gap=0.0))
    assert [(cue.start, cue.end, cue.lines) for cue in cues] == [
        (2000, 6000, ("aaa bbb",)),
        (6000, 10000, ("ccc ddd",)),
    ]


@pytest.mark.parametrize(
    "wrong", [{"max_line_width": 0}, {"max_line_count": 0}, {"min_gap": -1}, {"max_cue_seconds": 0}]
)
def test_impossible_subtitles_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        SubtitleOptions(**wrong)  # type: ignore[arg-type]


@settings(deadline=None)
@given(transcripts())
def test_a_textgrid_reads_back_in_praatio(tmp_path_factory: pytest.TempPathFactory, transcript: Transcript) -> None:
    path = writers.write(transcript, tmp_path_factory.mktemp("grid"), "textgrid", "talk")
    grid = textgrid.openTextgrid(str(path), includeEmptyIntervals=True)
    assert grid.tierNames == ("words", "segments")
    entries = grid.getTier("words").entries
    assert (entries[0].start, entries[-1].end) == (0.0, round(transcript.duration, 3))
    assert all(before.end == after.start for before, after in pairwise(entries))
    words = [word for segment in transcript.segments for word in segment.words]
    said = " ".join(" ".join(entry.label for entry in entries).replace('""', '"').split())
    assert said == " ".join(" ".join(word.text for word in words).split())
    known = {(entry.start, entry.end) for entry in entries}
    assert all((round(word.start, 3), round(word.end, 3)) in known for word in words if word.end > word.start)


def test_a_textgrid_has_a_dash_where_it_stands() -> None:
    times = (("-", 1.0, 1.0), ("yes", 1.0, 1.5), ("\u2014", 1.5, 1.5), ("-", 2.0, 2.0), ("no", 2.0, 2.5))
    words = tuple(Word(text, start, end, 0.5) for text, start, end in times)
    transcript = Transcript("a", 3.0, (Segment("- yes \u2014 - no", 1.0, 2.5, (), 0.0, words=words),), (), "tiny")
    labels = re.findall('text = "(.+)"', writers.render(transcript, "textgrid"))
    assert labels == ["- yes \u2014", "- no", "- yes \u2014 - no"]


def test_ctm_and_stm_read_back(tmp_path: Path) -> None:
    ctm = writers.write(TRANSCRIPT, tmp_path, "ctm", "talk").read_text(encoding="utf-8").splitlines()
    assert ctm[0] == "grüße 1 0.100 0.357 grüße 0.988"
    assert ctm[1] == "grüße 1 0.457 0.000 an 0.000"
    assert len(ctm) == 4
    assert read_texts(tmp_path / "talk.ctm")["grüße 1"]["text"] == TRANSCRIPT.text
    rows = read_texts(writers.write(TRANSCRIPT, tmp_path, "stm", "talk")).values()
    assert [(row["text"], row["start"], row["duration"]) for row in rows] == [
        ("grüße an alle", 0.0, 1.235),
        ("日本", 2.0, 1.0),
    ]


def test_ctm_has_no_blank_in_a_column() -> None:
    word = Word("a\u00a0b", 0.0, 1.0, 0.5)
    transcript = Transcript(
        "my talk.wav", 1.0, (Segment("a b", 0.0, 1.0, (), 0.0, words=(word,)),), (), "tiny", channel=2
    )
    assert writers.render(transcript, "ctm") == "my_talk 2 0.000 1.000 a_b 0.500\n"


@pytest.mark.parametrize("format", ["ctm", "textgrid"])
def test_formats_of_words_need_word_times(format: str) -> None:
    transcript = Transcript("a", 1.0, (Segment("one two", 0.0, 1.0, (), 0.0),), (), "tiny")
    with pytest.raises(ConfigError, match=f"{format} needs word times"):
        writers.render(transcript, format)


def test_tsv_has_three_columns_whatever_is_said() -> None:
    segments = (Segment("a\tb\nc", 0.5, 1.25, (), 0.0), Segment("d", 2.0, 3.0, (), 0.0))
    transcript = Transcript("a", 3.0, segments, (), "tiny")
    assert writers.render(transcript, "tsv") == "start\tend\ttext\n500\t1250\ta b c\n2000\t3000\td\n"


@pytest.mark.parametrize("format", sorted(writers.FORMATS))
def test_nothing_said_is_a_file_all_the_same(format: str) -> None:
    silence = Transcript("silence.wav", 1.0, (), (Span(0.0, 1.0, "non_speech"),), "tiny")
    text = writers.render(silence, format)
    assert text.endswith("\n") or not text
    assert not {"-->", "None"} & set(text.split())


def test_formats_are_read_from_a_list() -> None:
    somewhere = Path("out")
    assert writers.parse_formats("srt, VTT,srt", somewhere) == ("srt", "vtt")
    assert writers.parse_formats("all", somewhere) == tuple(writers.FORMATS)
    assert writers.parse_formats("srt", None) == ("srt",)
    for wrong in ("", "srt,", "srt,all", "doc"):
        with pytest.raises(ConfigError, match="all, or some of txt"):
            writers.parse_formats(wrong, somewhere)
    for several in ("all", "srt,txt"):
        with pytest.raises(ConfigError, match="name --output-dir"):
            writers.parse_formats(several, None)


def test_json_of_real_speech_fits_the_schema(data: Path) -> None:
    validator = jsonschema.Draft202012Validator(SCHEMA)
    validator.check_schema(SCHEMA)
    model = Transcriber.load(vad=False)
    real = model.transcribe(data / "1737-146161-0013.flac", word_timestamps=True)
    aligned = model.align(data / "1737-146161-0013.flac", "Knit seven — make 1, knit two together!")
    silence = Transcript("silence.wav", 1.0, (), (Span(0.0, 1.0, "failed", "why"),), "tiny", channel=1)
    for transcript in (real, aligned, silence, TRANSCRIPT):
        validator.validate(json.loads(writers.render(transcript, "json")))
    assert len(real.segments[0].words) > 3
    for broken in ({"text": "a"}, json.loads(EXPECTED) | {"extra": 1}, json.loads(EXPECTED) | {"duration": -1}):
        assert not validator.is_valid(broken)


def test_a_width_beyond_all_texts_is_no_more_work(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    wrap = subtitles.textwrap.wrap
    monkeypatch.setattr(subtitles.textwrap, "wrap", lambda *a, **k: calls.append(a) or wrap(*a, **k))
    assert subtitles._lines(["one", "two"], SubtitleOptions(max_line_width=10**8)) == ["one two"]
    assert len(calls) < 10
