"""Other toolkits' manifests: what is written comes back, real layouts are read, and what cannot be used is named."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from examples import DATA
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lhotse import CutSet, MonoCut, MultiCut, Recording, SupervisionSegment, SupervisionSet
from lhotse.audio import RecordingSet
from lhotse.kaldi import export_to_kaldi, load_kaldi_data_dir
from lhotse.serialization import load_manifest

from asr import exchange
from asr.audio import load_mono
from asr.errors import DataError
from asr.manifest import Manifest, Utterance

TARGETS = {"kaldi": "data", "lhotse": "cuts.jsonl.gz", "nemo": "m.jsonl", "csv": "m.csv", "commonvoice": "train.tsv"}
FILES = sorted(DATA.glob("*.flac"))


def ordered(utterances):
    return sorted(utterances, key=lambda utterance: utterance.id)


@pytest.fixture(scope="session")
def shipped() -> list[Utterance]:
    """The shipped utterances, whole and, of the first file, two stretches; every field is filled."""
    whole = [replace(utterance, language="en") for utterance in Manifest.load(DATA / "manifest.jsonl")]
    part = replace(whole[0], id="part-1", offset=0.3, duration=0.7, text="KNIT TWO")
    return [*whole, part, replace(part, id="part-2", offset=1.1, duration=1 / 3, text="TOGETHER “née”")]


@pytest.mark.parametrize("kind", ["kaldi", "lhotse", "nemo"])
def test_real_utterances_come_back_whole(tmp_path, shipped, kind):
    written = exchange.write(tmp_path / TARGETS[kind], shipped)
    assert written == exchange.not_carried(tmp_path / TARGETS[kind], shipped) == []
    back = exchange.read(tmp_path / TARGETS[kind])  # the format is guessed both times
    assert ordered(back.utterances) == ordered(shipped)
    assert back.faults == []


@pytest.mark.parametrize("kind", ["csv", "commonvoice"])
def test_tables_of_whole_files_carry_what_they_can_and_refuse_the_rest(tmp_path, shipped, kind):
    path = tmp_path / TARGETS[kind]
    with pytest.raises(DataError, match=f"part-1: begins within its file, which {kind} cannot say"):
        exchange.write(path, shipped)
    with pytest.raises(DataError, match=f"begins: ends after 1.00 of the .* s of its file, which {kind} cannot say"):
        exchange.write(path, [replace(shipped[0], id="begins", duration=1.0)])
    assert not path.exists()
    whole = [utterance for utterance in shipped if not utterance.offset]
    exchange.write(path, whole)
    assert exchange.not_carried(path, whole) == (["language"] if kind == "csv" else [])
    renamed = [replace(whole[0], id="renamed"), *whole[1:]]
    assert exchange.not_carried(path, renamed) == (["language"] if kind == "csv" else ["id"])
    expected = [replace(u, language="") if kind == "csv" else replace(u, id=Path(u.audio_filepath).stem) for u in whole]
    back = exchange.read(path).utterances
    assert [replace(u, duration=0.0) for u in back] == [replace(u, duration=0.0) for u in expected]
    tolerance = 1e-3 if kind == "commonvoice" else 0  # Common Voice's durations are read from the audio again
    np.testing.assert_allclose([u.duration for u in back], [u.duration for u in whole], atol=tolerance)


token = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=8)
seconds = st.floats(0.001, 1e5)
texts = st.lists(token, max_size=6).map(" ".join)


def utterances_of(texts, name=token, durations=seconds, offsets=seconds):
    row = st.builds(Utterance, name, st.sampled_from(list(map(str, FILES))), durations, texts, offsets, token, token)
    return st.lists(row, min_size=1, max_size=6, unique_by=lambda utterance: utterance.id)


def round_trip(folder, rows, kind) -> list[Utterance]:
    path = folder / TARGETS[kind]
    exchange.write(path, rows, kind)
    back = exchange.read(path, kind).utterances
    for file in path.iterdir() if path.is_dir() else [path]:
        file.unlink()
    return back


quick = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(rows=utterances_of(texts))
def test_any_utterance_survives_kaldi(tmp_path, rows):
    rows = [replace(row, speaker="" if row.speaker == row.id else row.speaker) for row in rows]
    assert round_trip(tmp_path, rows, "kaldi") == ordered(rows)


@quick
@given(rows=utterances_of(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8"), min_size=1)))
def test_any_utterance_survives_lhotse(tmp_path, rows):
    assert round_trip(tmp_path, rows, "lhotse") == rows


any_text = st.text(st.characters(codec="utf-8", exclude_characters="\0$"))


@quick
@given(rows=utterances_of(any_text, durations=st.floats(60, 1e5), offsets=st.just(0.0)))  # the whole of each file
def test_any_utterance_survives_csv(tmp_path, rows):
    rows = [replace(row, text=row.text.replace("\r", " ").lstrip(" "), language="") for row in rows]
    assert round_trip(tmp_path, rows, "csv") == rows


@quick
@given(data=st.data())
def test_any_text_survives_common_voice(tmp_path, data):
    chosen = data.draw(st.lists(st.sampled_from(FILES), min_size=1, max_size=4, unique=True))
    rows = [
        Utterance(p.stem, str(p), soundfile.info(p).duration, data.draw(texts), 0.0, data.draw(token), data.draw(token))
        for p in chosen
    ]
    assert round_trip(tmp_path, rows, "commonvoice") == rows


# Kaldi


def corpus_of(utterances) -> tuple[RecordingSet, SupervisionSet]:
    recordings = {u.audio_filepath: Recording.from_file(u.audio_filepath) for u in utterances}
    segments = [
        SupervisionSegment(
            u.id, recordings[u.audio_filepath].id, u.offset, u.duration, 0, u.text, u.language, u.speaker
        )
        for u in utterances
    ]
    return RecordingSet.from_recordings(recordings.values()), SupervisionSet.from_segments(segments)


def test_reads_what_lhotse_exports_to_kaldi(tmp_path, shipped):
    export_to_kaldi(*corpus_of(shipped), tmp_path / "pipes")
    with pytest.raises(DataError, match=r"wav\.scp: .* is a pipe \(ffmpeg .*\|\); no program is run"):
        exchange.read(tmp_path / "pipes")
    for path in {utterance.audio_filepath for utterance in shipped}:  # only of WAV does lhotse name the file itself
        soundfile.write(tmp_path / f"{Path(path).stem}.wav", *soundfile.read(path, dtype="int16"))
    shipped = [replace(u, audio_filepath=str(tmp_path / f"{Path(u.audio_filepath).stem}.wav")) for u in shipped]
    export_to_kaldi(*corpus_of(shipped), tmp_path / "data")
    back = ordered(exchange.read(tmp_path / "data").utterances)
    assert [replace(u, duration=0.0) for u in back] == [replace(u, duration=0.0) for u in ordered(shipped)]
    np.testing.assert_allclose([u.duration for u in back], [u.duration for u in ordered(shipped)], atol=1e-9)


def test_lhotse_reads_what_is_written_for_kaldi(tmp_path, shipped):
    exchange.write(tmp_path / "data", shipped)
    recordings, supervisions, _ = load_kaldi_data_dir(tmp_path / "data", sampling_rate=16000)
    assert supervisions is not None
    for utterance in shipped:
        segment = next(segment for segment in supervisions if segment.id == utterance.id)
        assert recordings[segment.recording_id].sources[0].source == utterance.audio_filepath
        assert (segment.text, segment.speaker, segment.language) == (utterance.text, utterance.speaker, "en")
        assert (segment.start, segment.duration) == pytest.approx((utterance.offset, utterance.duration), abs=1e-4)


def test_speechbrain_gets_no_text_that_it_would_stop_at(tmp_path):
    rows = [
        Utterance("a", str(DATA / "a.wav"), 1.0, "it costs $20 now"),
        Utterance("b", str(DATA / "b.wav"), 1.0, "two $ three"),
    ]
    assert exchange.write(tmp_path / "t.csv", rows) == [
        "a: SpeechBrain would take 'it costs $20 now' for a variable's name"
    ]
    assert exchange.read(tmp_path / "t.csv").utterances[0].id == "b"


def test_supervisions_of_one_channel_of_several_are_left_out(tmp_path):
    soundfile.write(tmp_path / "call.wav", np.zeros((16_000, 2)), 16_000)
    recording = Recording.from_file(tmp_path / "call.wav")
    said = [
        SupervisionSegment(name, recording.id, start, 0.5, channel=channel, text=name)
        for name, start, channel in (("left", 0.0, 0), ("both", 0.0, [0, 1]), ("early", -0.25, [0, 1]))
    ]
    cut = MultiCut("call", 0.0, 1.0, [0, 1], supervisions=said, recording=recording)
    CutSet.from_cuts([cut]).to_file(tmp_path / "cuts.jsonl.gz")
    found = exchange.read(tmp_path / "cuts.jsonl.gz")
    assert [utterance.id for utterance in found.utterances] == ["both"]
    assert found.faults == [
        "left: is of channels [0] of [0, 1]: save them to a file first",
        "early: begins before its recording",
    ]


def test_kaldi_files_are_sorted_and_complete(tmp_path):
    rows = [
        Utterance(name, str(FILES[0]), 1.0, "x", speaker=s)
        for name, s in (("b", "t"), ("B", "s"), ("é", ""), ("a", "s"))
    ]
    exchange.write(tmp_path / "data", rows)
    assert (tmp_path / "data" / "utt2spk").read_text() == "B s\na s\nb t\né é\n"
    assert (tmp_path / "data" / "spk2utt").read_text() == "s B a\nt b\né é\n"
    assert not (tmp_path / "data" / "utt2lang").exists()
    rows = [replace(row, language="en" if row.id == "b" else "", text="caf\u00e9\u00a0noir") for row in rows]
    exchange.write(tmp_path / "more", rows)
    assert (tmp_path / "more" / "utt2lang").read_text() == "B und\na und\nb en\né und\n"
    assert (tmp_path / "more" / "text").read_text().splitlines()[
        1
    ] == "a café noir"  # validate_text.pl wants ASCII blanks
    assert ordered(exchange.read(tmp_path / "more").utterances)[0].language == ""
    with pytest.raises(DataError, match="is there already"):
        exchange.write(tmp_path / "data", rows)


def kaldi(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name.replace("wav_scp", "wav.scp")).write_text(content, encoding="utf-8")
    return folder


def test_speechocean_layout_with_tabs_and_paths_from_the_corpus_root(tmp_path):
    (tmp_path / "WAVE" / "SPEAKER0003").mkdir(parents=True)
    soundfile.write(tmp_path / "WAVE" / "SPEAKER0003" / "000030012.WAV", np.ones(24000) / 2, 16000)
    folder = kaldi(
        tmp_path / "test",
        wav_scp="000030012\tWAVE/SPEAKER0003/000030012.WAV\n",
        text="000030012\tMARK IS GOING TO SEE ELEPHANT\n",
        utt2spk="000030012 0003\n",
        spk2gender="0003\tm\n",
    )
    audio = str(tmp_path / "WAVE" / "SPEAKER0003" / "000030012.WAV")
    assert exchange.read(folder).utterances == [
        Utterance("000030012", audio, 1.5, "MARK IS GOING TO SEE ELEPHANT", speaker="0003")
    ]


def test_kaldi_segment_to_the_end_of_the_file_and_missing_text(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.ones(32000) / 2, 16000)
    folder = kaldi(
        tmp_path / "data",
        wav_scp=f"rec {tmp_path}/a.wav\ngone {tmp_path}/gone.wav\n",
        segments="u1 rec 0.1 0.3\nu2 rec 1.25 -1\nu3 rec 0 1\nu4 gone 0 -1\nu5 rec 7 -1\n",
        text="u1 ONE\nu2\nu4 FOUR\nu5 FIVE\n",
    )
    result = exchange.read(folder)
    assert [(u.id, u.offset, u.duration, u.text) for u in result.utterances] == [
        ("u1", 0.1, 0.2, "ONE"),
        ("u2", 1.25, 0.75, ""),
    ]
    assert [any(name in fault for fault in result.faults) for name in ("u3", "gone.wav", "u5")] == [True] * 3


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"wav_scp": "a sph2pipe -f wav a.sph |\n"}, r"wav\.scp: a is a pipe \(sph2pipe -f wav a\.sph \|\)"),
        ({"wav_scp": "a data.ark:123\n"}, r"wav\.scp: a is not an audio file"),
        ({"wav_scp": "a -\n"}, r"a is not an audio file"),
        ({"wav_scp": "a 1.wav\na 2.wav\n"}, r"wav\.scp, line 2: 'a' is there a second time"),
        ({"wav_scp": "a 1.wav\n", "segments": "u b 0 1\n"}, r"u is cut from 'b', which is not in wav\.scp"),
        ({"wav_scp": "a 1.wav\n", "segments": "u a 0\n"}, r"segments: u should have a recording, a start and an end"),
        ({"wav_scp": "a 1.wav\n", "segments": "u a 0 x\n"}, r"segments: u does not have two numbers"),
        ({"wav_scp": "a 1.wav\n", "segments": "u a 2 1\n"}, r"segments: u does not end after its start"),
        ({"wav_scp": "a 1.wav\n", "segments": "u a 0 nan\n"}, r"segments: u does not"),
        ({"wav_scp": "a 1.wav\n", "utt2dur": "a soon\n"}, r"duration of a is not a number"),
        ({"wav_scp": "a /gone/1.wav\n"}, r"no utterance that can be used, the first: /gone/1\.wav"),
        ({"text": "a b\n"}, r"is a folder without wav\.scp"),
    ],
)
def test_wrong_kaldi_directory_is_one_line(tmp_path, files, message):
    with pytest.raises(DataError, match=message) as caught:
        exchange.read(kaldi(tmp_path / "data", **files))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change", [{"id": "a b"}, {"speaker": "x\ty"}, {"audio_filepath": "/a/cmd |"}, {"audio_filepath": "/x.ark:12"}]
)
def test_what_kaldi_would_misread_is_refused(tmp_path, change):
    with pytest.raises(DataError, match=r"Kaldi (does not allow|would not read)"):
        exchange.write(tmp_path / "data", [replace(Utterance("a", "/a.wav", 1.0), **change)])
    assert list(tmp_path.iterdir()) == []


# lhotse


def test_cuts_are_lhotses_own_and_sound_the_same(tmp_path, shipped):
    exchange.write(tmp_path / "cuts.jsonl.gz", shipped)
    cuts = load_manifest(tmp_path / "cuts.jsonl.gz")
    assert isinstance(cuts, CutSet)
    assert len(cuts) == len(shipped)
    for cut, utterance in zip(cuts, shipped, strict=True):
        ours = load_mono(utterance.audio_filepath, utterance.offset, utterance.duration)
        theirs = cut.load_audio()[0]
        assert abs(len(ours) - len(theirs)) <= 1  # lhotse rounds half samples up
        np.testing.assert_array_equal(ours[: len(theirs)], theirs[: len(ours)])


def test_reads_lhotses_cuts_with_several_supervisions_and_names_what_it_cannot(tmp_path, shipped):
    recordings, supervisions = corpus_of(shipped)
    cuts = list(CutSet.from_manifests(recordings=recordings, supervisions=supervisions))
    stereo = tmp_path / "stereo.wav"
    soundfile.write(stereo, np.ones((16000, 2)) / 2, 16000)
    two = Recording.from_file(stereo)
    odd = [
        cuts[1].perturb_speed(1.1),
        cuts[0].mix(cuts[1]),
        MonoCut("left", 0, 1, 0, recording=two),
        two.to_cut(),
        cuts[2].drop_supervisions().truncate(offset=0.25, duration=0.5),
    ]
    CutSet.from_cuts([*cuts, *odd]).to_file(tmp_path / "cuts.jsonl")
    result = exchange.read(tmp_path / "cuts.jsonl")
    known = {utterance.id: utterance for utterance in result.utterances}
    for utterance in shipped:
        assert known.pop(utterance.id) == utterance
    assert {(u.offset, u.duration) for u in known.values()} == {(0.0, 1.0), (0.25, 0.5)}
    assert len(result.faults) == 3
    for fault, reason in zip(
        result.faults, ("changed on the fly", "no stretch of one", "channel 0 of a file with 2"), strict=True
    ):
        assert reason in fault


def test_stereo_cut_keeps_both_channels(tmp_path):
    soundfile.write(tmp_path / "stereo.wav", np.ones((16000, 2)) / 2, 16000)
    rows = [Utterance("s", str(tmp_path / "stereo.wav"), 0.5, "hi", 0.25)]
    exchange.write(tmp_path / "cuts.jsonl.gz", rows)
    assert load_manifest(tmp_path / "cuts.jsonl.gz")[0].channel == [0, 1]
    assert exchange.read(tmp_path / "cuts.jsonl.gz").utterances == rows


def test_unreadable_audio_does_not_stop_the_other_cuts(tmp_path, shipped):
    bad = Utterance("bad", str(tmp_path / "gone.wav"), 1.0)
    faults = exchange.write(tmp_path / "cuts.jsonl.gz", [bad, shipped[0]])
    assert len(faults) == 1
    assert faults[0].startswith("bad: ")
    assert exchange.read(tmp_path / "cuts.jsonl.gz").utterances == [shipped[0]]


# Tables


def test_speechbrain_csv_with_a_placeholder_and_more_columns(tmp_path):
    (tmp_path / "x.csv").write_text(
        'ID, duration, wav, wav_format, spk_id, wrd\n1, 2.5, $data_root/a/1.flac, flac, s, "HE SAID ""NO"", TWICE"\n'
    )
    assert exchange.read(tmp_path / "x.csv").utterances == [
        Utterance("1", str(tmp_path / "a/1.flac"), 2.5, 'HE SAID "NO", TWICE', speaker="s")
    ]


def test_common_voice_release_with_quotes_and_clip_durations(tmp_path):
    columns = (
        "client_id path sentence_id sentence sentence_domain up_votes down_votes age gender accents variant locale"
    )
    header = "\t".join([*columns.split(), "segment"])
    rows = [
        'a1\tcommon_voice_en_1.mp3\tx\t"Merdeka" he said "no.\t\t2\t0\t\t\t\t\ten\t',
        "a2\tcommon_voice_en_2.mp3\ty\tOù ça\t\t2\t1\ttwenties\t\t\t\ten\t",
    ]
    (tmp_path / "validated.tsv").write_text("\n".join([header, *rows, ""]), encoding="utf-8")
    (tmp_path / "clip_durations.tsv").write_text(
        "clip\tduration[ms]\ncommon_voice_en_2.mp3\t4284\ncommon_voice_en_1.mp3\t3500\n"
    )
    assert exchange.read(tmp_path / "validated.tsv").utterances == [
        Utterance(
            "common_voice_en_1",
            str(tmp_path / "clips/common_voice_en_1.mp3"),
            3.5,
            '"Merdeka" he said "no.',
            speaker="a1",
            language="en",
        ),
        Utterance(
            "common_voice_en_2",
            str(tmp_path / "clips/common_voice_en_2.mp3"),
            4.284,
            "Où ça",
            speaker="a2",
            language="en",
        ),
    ]


def test_common_voice_clips_beside_the_table_are_written_by_name(tmp_path):
    (tmp_path / "clips").mkdir()
    soundfile.write(tmp_path / "clips" / "c.mp3", np.random.default_rng(0).normal(0, 0.1, 16000), 16000)
    exchange.write(tmp_path / "x.tsv", [Utterance("c", str(tmp_path / "clips" / "c.mp3"), 1.0, "a\tb\nc", speaker="s")])
    assert (tmp_path / "x.tsv").read_text().splitlines()[1].split("\t")[:3] == ["s", "c.mp3", "a b c"]
    assert exchange.read(tmp_path / "x.tsv").utterances[0].audio_filepath == str(tmp_path / "clips" / "c.mp3")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.csv", "ID,duration,wav,wrd\na,long,a.wav,x\n", "line 2: duration must be over 0 seconds, not 'long'"),
        ("m.csv", "ID,duration,wav,wrd\na,nan,a.wav,x\n", "line 2: duration must be over 0 seconds"),
        ("m.csv", "ID,wav,wrd\na,a.wav,x\n", "has no column duration"),
        ("m.csv", "ID,duration,wav,words\na,1,a.wav,x\n", "has no column wrd"),
        ("m.csv", "ID,duration,wav,wrd\na,1,a.wav,x,y\n", "line 2: has 5 columns, not 4"),
        ("m.csv", "ID,duration,wav,wrd\n,1,a.wav,x\n", "line 2: ID or wav is empty"),
        ("m.csv", "ID,duration,wav,wrd\na,1,a.wav,x\na,1,b.wav,x\n", "id 'a' is there 2 times"),
        ("m.csv", "ID,duration,start,wav,wrd\na,1,16000,a.wav,x\n", "line 2: begins within its file, at sample 16000"),
        ("m.csv", "file;words\n", "is none of nemo, kaldi, lhotse, csv, commonvoice; .*asr prepare custom"),
        ("m.tsv", "client_id\tpath\nx\ty.mp3\n", "has no column sentence"),
        ("m.jsonl", "{no\n", "line 1: not JSON"),
        ("m.jsonl", '{"id": 1, "sources": []}\n', "lhotse cut simple"),
        ("m.jsonl", '{"x": 1}\n', "say which with --from"),
        ("m.jsonl.gz", "not gzip", "cannot be read"),
    ],
)
def test_wrong_file_is_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        exchange.read(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize(
    "line", ['{"start": 0, "duration": 1}', '{"id": "x", "start": 0, "duration": 1, "type": "Odd"}', "[]"]
)
def test_damaged_cuts_are_one_line(tmp_path, line):
    with gzip.open(tmp_path / "c.jsonl.gz", "wt") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=r"c\.jsonl\.gz: not lhotse cuts"):
        exchange.read(tmp_path / "c.jsonl.gz", "lhotse")


def test_nemo_without_ids_is_read(tmp_path):
    line = {"audio_filepath": "a.wav", "duration": 1.0, "text": "hi", "lang": "en", "pnc": "no"}
    (tmp_path / "nemo.json").write_text(json.dumps(line) + "\n")
    assert exchange.read(tmp_path / "nemo.json").utterances == [
        Utterance("a", str(tmp_path / "a.wav"), 1.0, "hi", others='{"lang": "en", "pnc": "no"}')
    ]


@pytest.mark.parametrize("kind", ["kaldi", "lhotse", "csv", "commonvoice"])
def test_shards_cannot_leave_our_format(tmp_path, kind):
    with pytest.raises(DataError, match=f"a: lies in a tar shard, which {kind} cannot name"):
        exchange.write(tmp_path / TARGETS[kind], [Utterance("a", "/x/0.tar:512:100", 1.0)])


def test_unknown_ending_asks_for_a_format(tmp_path):
    with pytest.raises(DataError, match=r"its ending says nothing .* add --to"):
        exchange.write(tmp_path / "x.parquet", [Utterance("a", "/x/0.wav", 1.0)])
    assert set(exchange.FORMATS) == set(TARGETS)


def test_byte_order_marks_of_kaldi_files_are_no_part_of_the_ids(tmp_path):
    for name, line in (("wav.scp", f"u1 {FILES[0]}"), ("text", "u1 HELLO"), ("utt2spk", "u1 ann")):
        (tmp_path / name).write_text(f"\ufeff{line}\n", encoding="utf-8")
    (utterance,) = exchange.read(tmp_path).utterances
    assert (utterance.id, utterance.text, utterance.speaker) == ("u1", "HELLO", "ann")
    (tmp_path / "segments").write_text("u1 u1 0 1e400\n")
    with pytest.raises(DataError, match="u1 is longer than any recording"):
        exchange.read(tmp_path)


def test_rows_that_end_before_the_text_are_refused(tmp_path):
    (tmp_path / "m.csv").write_text(f"ID,duration,wav,spk_id,wrd\na,1.0,{FILES[0]},ann\n")
    with pytest.raises(DataError, match="line 2: has 4 columns only and ends before ID, duration, wav, wrd"):
        exchange.read(tmp_path / "m.csv")


def test_other_keys_are_carried_by_nemo_and_named_where_they_are_lost(tmp_path):
    line = {"id": "a", "audio_filepath": str(FILES[0]), "duration": 1.0, "text": "x", "accent": "scottish"}
    (tmp_path / "m.jsonl").write_text(json.dumps(line) + "\n")
    known = exchange.read(tmp_path / "m.jsonl").utterances
    exchange.write(tmp_path / "n.jsonl", known)
    assert json.loads((tmp_path / "n.jsonl").read_text()) == line
    assert exchange.not_carried(tmp_path / "n.jsonl", known) == []
    assert exchange.not_carried(tmp_path / "kaldi", known) == ["accent"]
