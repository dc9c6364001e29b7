"""Each recipe on a miniature of its corpus's published layout, made of real speech in the corpus's own format."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from examples import DATA

from asr.audio import load_mono
from asr.download import fetch
from asr.errors import DataError
from asr.manifest import Manifest, Utterance
from asr.recipes import load, prepare, run_prepare

REAL = list(Manifest.load(DATA / "manifest.jsonl"))
Row = tuple[str, str, str, str]  # split, id, text, speaker


def speech(number: int, rate: int = 16000, seconds: float = 1.5) -> np.ndarray:
    """The beginning of a shipped utterance, at some sampling rate."""
    samples, original = soundfile.read(REAL[number % len(REAL)].audio_filepath, dtype="float32")
    return soxr.resample(samples[: int(seconds * original)], original, rate)


def put(path: Path, number: int, rate: int = 16000, seconds: float = 1.5, **form: str) -> None:
    """Write the beginning of a shipped utterance as a corpus would hold it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, speech(number, rate, seconds), rate, **form)


def write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def prepared(corpus: str, source: Path, tmp_path: Path) -> dict[str, Manifest]:
    paths = run_prepare(corpus, source, tmp_path / "out")
    for path in paths:  # what a manifest promises can be read
        for utterance in Manifest.load(path):
            samples = load_mono(utterance.audio_filepath, utterance.offset, utterance.duration)
            assert abs(len(samples) / 16000 - utterance.duration) < 0.01
            assert np.abs(samples).max() > 0.001
    return {path.stem: Manifest.load(path) for path in paths}


def rows(splits: dict[str, Manifest]) -> set[Row]:
    return {(split, u.id, u.text, u.speaker) for split, manifest in splits.items() for u in manifest}


def only(splits: dict[str, Manifest], name: str) -> Utterance:
    found = [u for manifest in splits.values() for u in manifest if u.id == name]
    assert len(found) == 1
    return found[0]


# LibriSpeech


def make_librispeech(root: Path, parts: dict[str, str], start: int = 0) -> set[Row]:
    """One speaker of two chapters of one utterance in each part; expects each under the split given."""
    expected = set()
    for number, (part, split) in enumerate(parts.items(), start):
        speaker = str(100 + number)
        for chapter in ("7", "8"):
            name = f"{speaker}-{chapter}-0000"
            put(root / part / speaker / chapter / f"{name}.flac", number, subtype="PCM_16")
            text = f"WORDS OF {chapter} IN {number}"
            write(root / part / speaker / chapter / f"{speaker}-{chapter}.trans.txt", f"{name} {text}")
            expected.add((split, name, text, speaker))
    return expected


EVALUATION = {"dev-clean": "dev", "dev-other": "dev", "test-clean": "test-clean", "test-other": "test-other"}
HUNDRED = EVALUATION | {"train-clean-100": "train"}
ALL = HUNDRED | {"train-clean-360": "train", "train-other-500": "train"}


@pytest.mark.parametrize(("corpus", "used"), [("librispeech", ALL), ("librispeech_100", HUNDRED)])
@pytest.mark.parametrize("inside", ["", "LibriSpeech"])
def test_librispeech(tmp_path: Path, corpus: str, used: dict[str, str], inside: str) -> None:
    expected = make_librispeech(tmp_path / "disk" / "LibriSpeech", ALL)
    splits = prepared(corpus, tmp_path / "disk" / inside, tmp_path)
    chosen = {f"{100 + number}" for number, part in enumerate(ALL) if part in used}
    assert rows(splits) == {row for row in expected if row[3] in chosen}
    assert list(splits) == ["train", "dev", "test-clean", "test-other"]


def test_librispeech_without_its_dev_sets_holds_training_speech_out(tmp_path: Path) -> None:
    make_librispeech(tmp_path / "LibriSpeech", {"train-clean-100": "train", "train-clean-360": "train"})
    splits = prepared("librispeech", tmp_path / "LibriSpeech", tmp_path)
    assert {split: len(manifest) for split, manifest in splits.items()} == {"train": 3, "dev": 1}


def test_librispeech_downloaded_parts_lie_side_by_side(tmp_path: Path) -> None:
    for number, (part, split) in enumerate(HUNDRED.items()):
        make_librispeech(tmp_path / "download" / part / "LibriSpeech", {part: split}, number)
    splits = prepared("librispeech_100", tmp_path / "download", tmp_path)
    assert {split: len(manifest) for split, manifest in splits.items()} == {
        "train": 2,
        "dev": 4,
        "test-clean": 2,
        "test-other": 2,
    }


# Common Voice

TSV = "client_id\tpath\tsentence\tup_votes\tdown_votes\tage\tgender\taccents\tvariant\tlocale\tsegment"


def clip(name: int, speaker: str, sentence: str) -> str:
    return f"{speaker}\tcommon_voice_en_{name}.mp3\t{sentence}\t2\t0\ttwenties\t\t\t\ten\t"


def test_commonvoice(tmp_path: Path) -> None:
    home = tmp_path / "cv-corpus-21.0-2025-03-14" / "en"
    for number in range(1, 6):
        put(home / "clips" / f"common_voice_en_{number}.mp3", number, 32000, format="MP3")
    write(home / "train.tsv", TSV, clip(1, "ada", 'Plain "words" here.'), clip(2, "ada", '"""Quoted,"" he said."'))
    write(home / "dev.tsv", TSV, clip(3, "ben", "Ça  va?"))
    write(home / "test.tsv", TSV, clip(4, "cy", "Good-bye!"))
    write(home / "validated.tsv", TSV, clip(5, "dan", "Not in any of the three."))
    splits = prepared("commonvoice", home, tmp_path)
    assert rows(splits) == {
        ("train", "common_voice_en_1", 'Plain "words" here.', "ada"),
        ("train", "common_voice_en_2", '"Quoted," he said.', "ada"),
        ("dev", "common_voice_en_3", "Ça va?", "ben"),
        ("test", "common_voice_en_4", "Good-bye!", "cy"),
    }
    assert only(splits, "common_voice_en_1").language == "en"
    assert only(splits, "common_voice_en_1").duration == pytest.approx(1.5, abs=0.1)


def test_commonvoice_delta_release_and_listed_durations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(40):
        put(tmp_path / "cy" / "clips" / f"common_voice_en_{number}.mp3", number, seconds=0.5, format="MP3")
    write(tmp_path / "cy" / "validated.tsv", TSV, *(clip(n, f"s{n // 2}", "Bore da") for n in range(40)))
    write(tmp_path / "cy" / "clip_durations.tsv", "clip\tduration[ms]", "common_voice_en_7.mp3\t498")
    splits = {p.stem: Manifest.load(p) for p in run_prepare("commonvoice", tmp_path / "cy", tmp_path / "out")}
    assert sum(map(len, splits.values())) == 40
    assert not {u.speaker for u in splits["train"]} & {u.speaker for u in splits["dev"]}
    assert only(splits, "common_voice_en_7").duration == 0.498
    assert only(splits, "common_voice_en_8").duration != 0.498


def test_commonvoice_without_its_clips(tmp_path: Path) -> None:
    put(tmp_path / "clips" / "common_voice_en_1.mp3", 0, format="MP3")
    write(tmp_path / "train.tsv", TSV, clip(1, "ada", "Here."), clip(2, "ada", "Gone."))
    with pytest.raises(DataError, match=r"1 of 2 .*train\.tsv: common_voice_en_2\.mp3 is not in clips"):
        run_prepare("commonvoice", tmp_path, tmp_path / "out")


# TED-LIUM 3


def test_tedlium3(tmp_path: Path) -> None:
    home = tmp_path / "TEDLIUM_release-3"
    for number, (split, talk) in enumerate([("train", "AlGore_2009"), ("dev", "BillGates_2010"), ("test", "Cy_2012")]):
        put(home / "legacy" / split / "sph" / f"{talk}.sph", number, seconds=3.0, format="NIST", subtype="PCM_16")
        write(
            home / "legacy" / split / "stm" / f"{talk}.stm",
            f"{talk} 1 inter_segment_gap 0.00 0.50 <o,f0,unknown> ignore_time_segment_in_scoring",
            f"{talk} 1 {talk} 0.50 1.75 <o,f0,male> it 's <unk> what <unk> 's we 've {{NOISE}} got",
            f"{talk} 1 {talk} 1.75 2.90 <o,f0,male> number {number}",
        )
    splits = prepared("tedlium3", home, tmp_path)
    assert rows(splits) == {
        ("train", "AlGore_2009-1", "it's what we've got", "AlGore_2009"),
        ("train", "AlGore_2009-2", "number 0", "AlGore_2009"),
        ("dev", "BillGates_2010-1", "it's what we've got", "BillGates_2010"),
        ("dev", "BillGates_2010-2", "number 1", "BillGates_2010"),
        ("test", "Cy_2012-1", "it's what we've got", "Cy_2012"),
        ("test", "Cy_2012-2", "number 2", "Cy_2012"),
    }
    first = only(splits, "AlGore_2009-1")
    assert (first.offset, first.duration) == (0.5, 1.25)
    heard = load_mono(first.audio_filepath, first.offset, first.duration)
    np.testing.assert_allclose(heard, speech(0, seconds=3.0)[8000:28000], atol=1e-4)


def test_tedlium3_with_a_talk_missing(tmp_path: Path) -> None:
    put(tmp_path / "legacy" / "train" / "sph" / "A.sph", 0, format="NIST", subtype="PCM_16")
    for talk in "AB":
        write(tmp_path / "legacy" / "train" / "stm" / f"{talk}.stm", f"{talk} 1 {talk} 0.0 1.0 <o> words")
    with pytest.raises(DataError, match="found 1 sphere files and 2 STM files"):
        run_prepare("tedlium3", tmp_path, tmp_path / "out")


# GigaSpeech


def segment(sid: str, begin: float, text: str, *subsets: str) -> dict[str, object]:
    return {
        "sid": sid,
        "speaker": "N/A",
        "begin_time": begin,
        "end_time": begin + 1.0,
        "text_tn": text,
        "subsets": list(subsets),
    }


def test_gigaspeech(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = tmp_path / "GigaSpeech"
    recordings = []
    for aid, kind, subsets in [
        ("POD0000000001", "podcast/P0001", ["{XL}", "{L}"]),
        ("YOU0000000002", "youtube/P0002", ["{DEV}"]),
        ("AUD0000000003", "audiobook/P0003", ["{TEST}"]),
        ("POD0000000004", "podcast/P0001", ["{XL}"]),
    ]:
        path = f"audio/{kind}/{aid}.opus"
        recordings.append(
            {
                "aid": aid,
                "path": path,
                "sample_rate": 16000,
                "channels": 1,
                "duration": 3.0,
                "format": "opus",
                "subsets": subsets,
                "segments": [
                    segment(f"{aid}_S0000001", 0.25, "WELL <COMMA> HELLO <PERIOD>", *subsets),
                    segment(f"{aid}_S0000002", 1.25, "<MUSIC>", *subsets),
                    segment(f"{aid}_S0000003", 1.5, "NOT CHOSEN", "{S}"),
                ],
            }
        )
        if aid != "POD0000000004":
            put(home / path, 3, seconds=3.0, format="OGG", subtype="OPUS")
    write(home / "GigaSpeech.json", json.dumps({"dataset": "GigaSpeech", "audios": recordings}))
    splits = prepared("gigaspeech", home, tmp_path)
    assert rows(splits) == {
        ("train", "POD0000000001_S0000001", "WELL HELLO", ""),
        ("dev", "YOU0000000002_S0000001", "WELL HELLO", ""),
        ("test", "AUD0000000003_S0000001", "WELL HELLO", ""),
    }
    first = only(splits, "POD0000000001_S0000001")
    assert (first.offset, first.duration) == (0.25, 1.0)
    assert "1 of 4 recordings" in capsys.readouterr().err


def test_gigaspeech_segments_after_the_end_are_named(tmp_path: Path) -> None:
    audio = {"aid": "POD1", "path": "audio/POD1.opus", "sample_rate": 16000, "channels": 1, "duration": 3.0}
    audio["subsets"], audio["format"] = ["{XL}"], "opus"
    audio["segments"] = [segment(f"POD1_S{begin}", begin, "WELL", "{XL}") for begin in (0.0, 3.0, 4.5)]
    put(tmp_path / audio["path"], 3, seconds=3.0, format="OGG", subtype="OPUS")
    write(tmp_path / "GigaSpeech.json", json.dumps({"audios": [audio]}))
    with pytest.raises(DataError, match=r"2 of 3 .* cannot be used, the first: .*POD1\.opus: holds nothing of POD1_S3"):
        run_prepare("gigaspeech", tmp_path, tmp_path / "out")


# AISHELL

MANDARIN = ("而 对 楼市 成交 抑制 作用 最 大 的 限 购", "也 成为 地方 政府 的 眼中 钉", "自 六月 底")


def make_aishell(home: Path) -> None:
    lines = []
    for number, (split, speaker) in enumerate([("train", "S0002"), ("dev", "S0724"), ("test", "S0764")]):
        for index in range(2):
            name = f"BAC009{speaker}W012{index}"
            put(home / "data_aishell" / "wav" / split / speaker / f"{name}.wav", number, subtype="PCM_16")
            lines.append(f"{name} {MANDARIN[number]}")
    write(home / "data_aishell" / "transcript" / "aishell_transcript_v0.8.txt", *lines)


def check_aishell(splits: dict[str, Manifest]) -> None:
    assert rows(splits) == {
        (split, f"BAC009{speaker}W012{index}", MANDARIN[number].replace(" ", ""), speaker)
        for number, (split, speaker) in enumerate([("train", "S0002"), ("dev", "S0724"), ("test", "S0764")])
        for index in range(2)
    }
    assert splits["train"][0].language == "zh"


def test_aishell(tmp_path: Path) -> None:
    make_aishell(tmp_path / "aishell")
    check_aishell(prepared("aishell", tmp_path / "aishell", tmp_path))


def tar(path: Path, folder: Path, names: dict[str, Path]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:bz2" if path.suffix == ".bz2" else "w:gz") as file:
        for name, place in names.items():
            file.add(folder / place, arcname=name)


def test_aishell_texts_without_audio_are_named(tmp_path: Path) -> None:
    make_aishell(tmp_path / "aishell")
    next(tmp_path.rglob("BAC009S0724W0120.wav")).unlink()
    with pytest.raises(DataError, match=r"1 of 6 .* cannot be used, the first: BAC009S0724W0120: text without audio"):
        run_prepare("aishell", tmp_path / "aishell", tmp_path / "out")


@pytest.mark.parametrize("whole", [True, False])
def test_aishell_download_unpacks_the_archive_of_each_speaker(tmp_path: Path, whole: bool) -> None:
    home = tmp_path / "made"
    make_aishell(home)
    wav = home / "data_aishell" / "wav"
    for place in sorted(wav.glob("*/*")):
        tar(home / "packed" / f"{place.name}.tar.gz", wav, {f"./{place.relative_to(wav)}": place.relative_to(wav)})
    outer = {"data_aishell/transcript": Path("data_aishell/transcript"), "data_aishell/wav": Path("packed")}
    tar(tmp_path / "server" / "33" / "data_aishell.tgz", home, outer)
    write(home / "lexicon.txt", "SIL sil")
    lexicon = {"resource_aishell/lexicon.txt": Path("lexicon.txt")}
    tar(tmp_path / "server" / "33" / "resource_aishell.tgz", home, lexicon)
    recipe = load("aishell")
    recipe.MIRROR = f"file://{tmp_path}/server"
    if not whole:
        fetched = fetch(f"{recipe.MIRROR}/33/data_aishell.tgz", tmp_path / "out" / "download" / "aishell")
        archive = fetched / "data_aishell" / "wav" / "S0724.tar.gz"
        archive.write_bytes(archive.read_bytes()[:5000])
        with pytest.raises(DataError, match=r"S0724\.tar\.gz: damaged, now deleted.*run again"):
            prepare(recipe, None, tmp_path / "out")
    check_aishell({path.stem: Manifest.load(path) for path in prepare(recipe, None, tmp_path / "out")})


def test_aishell_download_cannot_leave_its_folder(tmp_path: Path) -> None:
    (tmp_path / "33").mkdir()
    with tarfile.open(tmp_path / "33" / "data_aishell.tgz", "w:gz") as file:
        link = tarfile.TarInfo("data_aishell/wav")
        link.type, link.linkname = tarfile.SYMTYPE, "/tmp"
        file.addfile(link)
    recipe = load("aishell")
    recipe.MIRROR = f"file://{tmp_path}"
    with pytest.raises(DataError, match="absolute path"):
        prepare(recipe, None, tmp_path / "out")


# AN4


def test_an4(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = tmp_path / "an4"
    for number, speaker in enumerate(["fash", "mblw"] * 2):
        put(
            home / "wav" / "an4_clstk" / speaker / f"an{number}-{speaker}-b.sph",
            number,
            format="NIST",
            subtype="PCM_16",
        )
    put(home / "wav" / "an4test_clstk" / "fcaw" / "an406-fcaw-b.wav", 5)  # some copies hold WAV
    names = [f"an{number}-{speaker}-b" for number, speaker in enumerate(["fash", "mblw"] * 2)]
    write(home / "etc" / "an4_train.fileids", *(f"an4_clstk/{name.split('-')[1]}/{name}" for name in names))
    write(home / "etc" / "an4_train.transcription", *(f"<s> RUBOUT G M EF {name[2]} </s> ({name})" for name in names))
    write(home / "etc" / "an4_test.fileids", "an4test_clstk/fcaw/an406-fcaw-b")
    write(home / "etc" / "an4_test.transcription", "ENTER FOUR FIVE ONE (an406-fcaw-b)")
    splits = prepared("an4", tmp_path, tmp_path)
    assert {row[1:] for row in rows(splits) if row[0] != "test"} == {
        (name, f"RUBOUT G M EF {name[2]}", name.split("-")[1]) for name in names
    }
    assert [row for row in rows(splits) if row[0] == "test"] == [
        ("test", "an406-fcaw-b", "ENTER FOUR FIVE ONE", "fcaw")
    ]
    sphere = only(splits, "an0-fash-b")
    np.testing.assert_allclose(load_mono(sphere.audio_filepath), speech(0), atol=1e-4)


# VoxForge


def test_voxforge(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = tmp_path / "voxforge"
    for number in range(40):
        folder = home / (f"Ann{number}-2008-abc" if number < 38 else f"anonymous-2009-x{number}")
        kind = "flac" if number % 2 else "wav"
        put(folder / kind / f"a{number:04}.{kind}", number, 48000, seconds=0.5)
        put(folder / kind / f"b{number:04}.{kind}", number, 48000, seconds=0.5)
        write(
            folder / "etc" / "PROMPTS",
            f"{folder.name}/mfc/a{number:04} HELLO  WORLD {number}",
            f"*/mfc/b{number:04} IT'S ME",
        )
    splits = prepared("voxforge", home, tmp_path)
    found = {row[1:] for row in rows(splits)}
    assert len(found) == 80
    assert ("Ann7-2008-abc_a0007", "HELLO WORLD 7", "ann7") in found
    assert ("Ann7-2008-abc_b0007", "IT'S ME", "ann7") in found
    assert ("anonymous-2009-x39_a0039", "HELLO WORLD 39", "anonymous-2009-x39") in found
    speakers = [{u.speaker for u in splits[split]} for split in ("train", "dev", "test")]
    assert all(speakers)
    assert len(set.union(*speakers)) == sum(map(len, speakers)) == 40


# LJSpeech


def make_ljspeech(home: Path) -> set[Row]:
    lines, expected = [], set()
    for chapter, split in (("001", "train"), ("048", "train"), ("049", "dev"), ("050", "test")):
        name = f"LJ{chapter}-0001"
        put(home / "wavs" / f"{name}.wav", int(chapter), 22050, subtype="PCM_16")
        lines.append(f"{name}|In 18{chapter[1:]}, “so” he said|In eighteen {chapter}, “so” he said")
        expected.add((split, name, f"In eighteen {chapter}, “so” he said", ""))
    write(home / "metadata.csv", *lines)
    return expected


@pytest.mark.parametrize("inside", ["", "LJSpeech-1.1"])
def test_ljspeech(tmp_path: Path, inside: str) -> None:
    expected = make_ljspeech(tmp_path / "disk" / "LJSpeech-1.1")
    assert rows(prepared("ljspeech", tmp_path / "disk" / inside, tmp_path)) == expected


@pytest.mark.parametrize("whole", [True, False])
def test_ljspeech_download(tmp_path: Path, whole: bool) -> None:
    expected = make_ljspeech(tmp_path / "made")
    archive = tmp_path / "server" / "LJSpeech-1.1.tar.bz2"
    tar(archive, tmp_path, {"LJSpeech-1.1": Path("made")})
    recipe = load("ljspeech")
    recipe.MIRROR = f"file://{tmp_path}/server"
    if whole:
        assert rows({p.stem: Manifest.load(p) for p in prepare(recipe, None, tmp_path / "out")}) == expected
    else:
        content = archive.read_bytes()
        archive.write_bytes(content[:5000] + bytes(100) + content[5100:])
        with pytest.raises(DataError, match=r"bz2: damaged, now deleted"):
            prepare(recipe, None, tmp_path / "out")
        assert not list((tmp_path / "out" / "download").iterdir())


# speechocean762


def test_speechocean762(tmp_path: Path) -> None:
    home = tmp_path / "speechocean762"
    for split, speakers in (("train", ("0001", "0003", "0005")), ("test", ("1003",))):
        names = {f"{speaker}0{index}": speaker for speaker in speakers for index in range(2)}
        for number, (name, speaker) in enumerate(names.items()):
            put(home / "WAVE" / f"SPEAKER{speaker}" / f"{name}.WAV", number, format="WAV", subtype="PCM_16")
        write(home / split / "wav.scp", *(f"{name}\tWAVE/SPEAKER{s}/{name}.WAV" for name, s in names.items()))
        write(home / split / "text", *(f"{name}\tWE CALL IT {name}" for name in names))
        write(home / split / "utt2spk", *(f"{name} {speaker}" for name, speaker in names.items()))
    splits = prepared("speechocean762", home, tmp_path)
    assert {row[1:] for row in rows(splits)} == {
        (f"{s}0{i}", f"WE CALL IT {s}0{i}", s) for s in ("0001", "0003", "0005", "1003") for i in range(2)
    }
    assert {u.speaker for u in splits["test"]} == {"1003"}
    assert len(splits["train"]) + len(splits["dev"]) == 6


# VoxPopuli

COLUMNS = (
    "session_id|id_|original_text|normed_text|speaker_id|split|gender|is_gold_transcript|accent|start_time|end_time|vad"
)


@pytest.mark.parametrize("name", ["original", "en"])
def test_voxpopuli(tmp_path: Path, name: str) -> None:
    home = tmp_path / "voxpopuli"
    for number, session in enumerate(["20090112-0900-PLENARY-1", "20100112-0900-PLENARY-2"]):
        place = home / "raw_audios" / name / session[:4] / f"{session}_{name}.ogg"
        put(place, number, seconds=3.0, format="OGG", subtype="VORBIS")
    lines = [
        "20090112-0900-PLENARY-1|a|Mr President, |mr president|124737|train|male|True|None|0.25|1.5|[(0.25, 1.5)]",
        "20090112-0900-PLENARY-1|b|Thank you.|thank you|4556|train|female|True|None|1.5|2.5|[(1.5, 2.5)]",
        "20100112-0900-PLENARY-2|c|No!|no|33|dev|male|True|None|0.0|1.0|[(0.0, 1.0)]",
        "20100112-0900-PLENARY-2|d|Yes|yes|34|test|male|True|None|1.0|2.0|[(1.0, 2.0)]",
        "20100112-0900-PLENARY-2|e|Nothing|nothing|34|invalid|male|True|None|2.0|3.0|[(2.0, 3.0)]",
    ]
    with gzip.open(home / "asr_en.tsv.gz", "wt") as file:
        file.write("\n".join([COLUMNS, *lines]) + "\n")
    before = sorted(home.rglob("*"))
    splits = prepared("voxpopuli", home, tmp_path)
    assert rows(splits) == {
        ("train", "20090112-0900-PLENARY-1-1", "mr president", "124737"),
        ("train", "20090112-0900-PLENARY-1-2", "thank you", "4556"),
        ("dev", "20100112-0900-PLENARY-2-1", "no", "33"),
        ("test", "20100112-0900-PLENARY-2-2", "yes", "34"),
    }
    first = splits["train"][0]
    assert (first.offset, first.duration) == (0.25, 1.25)
    assert Path(first.audio_filepath).is_relative_to(home)
    assert sorted(home.rglob("*")) == before


def test_voxpopuli_is_obtained_with_a_whole_command(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"download_audios --root FOLDER --subset asr`.*give FOLDER as --source"):
        run_prepare("voxpopuli", None, tmp_path / "out")


# yesno


def make_yesno(home: Path) -> list[str]:
    names = ["_".join(format(number * 4 + 1, "08b")) for number in range(60)]
    for number, name in enumerate(names):
        put(home / f"{name}.wav", number, 8000, seconds=0.5, subtype="PCM_16")
    return names


@pytest.mark.parametrize("inside", ["", "waves_yesno"])
def test_yesno(tmp_path: Path, inside: str) -> None:
    names = make_yesno(tmp_path / "disk" / "waves_yesno")
    splits = prepared("yesno", tmp_path / "disk" / inside, tmp_path)
    words = {"0": "NO", "1": "YES"}
    expected = {
        ("test" if n % 2 else "dev" if n < 10 else "train", name, " ".join(words[w] for w in name.split("_")), "")
        for n, name in enumerate(names)
    }
    assert rows(splits) == expected
    assert splits["train"][0].language == "he"


def test_yesno_that_is_not_whole(tmp_path: Path) -> None:
    names = make_yesno(tmp_path / "waves_yesno")
    (tmp_path / "waves_yesno" / f"{names[0]}.wav").unlink()
    with pytest.raises(DataError, match="not laid out as published, or not whole"):
        run_prepare("yesno", tmp_path, tmp_path / "out")
    buffer = io.BytesIO()
    soundfile.write(buffer, speech(0), 16000, format="WAV")
    (tmp_path / "waves_yesno" / f"{names[0]}.wav").write_bytes(buffer.getvalue()[:20])
    with pytest.raises(DataError, match=rf"{names[0]}\.wav"):
        run_prepare("yesno", tmp_path, tmp_path / "out")


def test_custom_takes_every_ending_that_transcribe_knows_and_names_what_is_not_utf8(tmp_path, capsys):
    for name, form in (("one.wav", "WAV"), ("two.aif", "AIFF"), ("three.wav", "WAV"), ("caf\udce9.wav", "WAV")):
        put(tmp_path / "new", 0, format=form)
        (tmp_path / "mine").mkdir(exist_ok=True)
        (tmp_path / "new").rename(tmp_path / "mine" / name)
        write((tmp_path / "mine" / name).with_suffix(".txt"), "WORDS")
    paths = run_prepare("custom", tmp_path / "mine", tmp_path / "out")
    assert {utterance.id for path in paths for utterance in Manifest.load(path)} == {"one", "two", "three"}
    assert "is not UTF-8" in capsys.readouterr().err
