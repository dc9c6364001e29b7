"""Shards: what is read from them equals what is read from the files, and plans over them keep their promises."""

from __future__ import annotations

import io
import os
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from examples import DATA

from asr import shards
from asr.audio import MEMBER, duration, load_mono, stream
from asr.datamodule import DataConfig, SpeechDataModule
from asr.errors import AudioError, DataError
from asr.manifest import Manifest, Utterance, write_manifest
from asr.samples import Audio
from asr.shards import write_shards

FLAC = DATA / "1737-146161-0009.flac"
SECONDS_PER_SHARD = 10 / 3600


@pytest.fixture
def corpus(tmp_path) -> Manifest:
    """Real speech in every kind of container and rate, whole files and stretches of them."""
    speech, rate = soundfile.read(FLAC, dtype="float32")
    stereo = np.stack((speech, speech[::-1]), 1)
    soundfile.write(tmp_path / "float.wav", stereo * 3, 44100, subtype="FLOAT")  # beyond full scale
    soundfile.write(tmp_path / "24.wav", stereo, 8000, subtype="PCM_24")
    soundfile.write(tmp_path / "x.ogg", speech, rate)
    soundfile.write(tmp_path / "x.mp3", speech, rate)
    rows = [replace(utterance, language="en") for utterance in Manifest.load(DATA / "manifest.jsonl")]
    for name in ("float.wav", "24.wav", "x.ogg", "x.mp3", str(FLAC)):
        path = str(tmp_path / name)
        rows.append(Utterance(f"whole/{name}", path, duration(path), "WHOLE", speaker="s"))
        rows.append(Utterance(f"part/{name}", path, 0.41237, "PART", 0.20011, "s"))
    rows.append(Utterance("most", str(FLAC), 2.0, "KNIT TWO", 0.1))  # most of its file: copied with it
    write_manifest(tmp_path / "corpus.jsonl", rows)
    return Manifest.load(tmp_path / "corpus.jsonl")


@pytest.fixture
def sharded(corpus, tmp_path) -> Manifest:
    path, faults = write_shards(corpus, tmp_path / "shards", "train", SECONDS_PER_SHARD)
    assert faults == []
    return Manifest.load(path)


def test_every_utterance_is_the_same_sample_for_sample(corpus, sharded):
    files = {utterance.id: utterance for utterance in corpus}
    assert len(sharded) == len(files)
    for utterance in sharded:
        original = files.pop(utterance.id)
        expected = load_mono(original.audio_filepath, original.offset, original.duration)
        actual = load_mono(utterance.audio_filepath, utterance.offset, utterance.duration)
        np.testing.assert_array_equal(actual, expected, err_msg=utterance.id)
        assert replace(utterance, audio_filepath="", offset=0) == replace(original, audio_filepath="", offset=0)
        whole = np.concatenate(list(stream(utterance.audio_filepath, 1.0)))
        np.testing.assert_array_equal(whole, load_mono(utterance.audio_filepath))
    assert not files


def test_whole_files_are_copied_bit_for_bit_and_parts_cut_out(corpus, sharded):
    sources = {utterance.id: Path(utterance.audio_filepath) for utterance in corpus}
    stored = {}
    for utterance in sharded:
        member = MEMBER.fullmatch(utterance.audio_filepath)
        assert member
        start = int(member["start"])
        stored[utterance.id] = Path(member["shard"]).read_bytes()[start : start + int(member["size"])]
    for name in ("1737-146161-0010", "whole/x.mp3", "whole/float.wav", "most"):
        assert stored[name] == sources[name].read_bytes()
    for name, start in {"part/24.wav": b"fLaC", f"part/{FLAC}": b"fLaC", "part/float.wav": b"RIFF"}.items():
        assert stored[name].startswith(start)
        assert len(stored[name]) < sources[name].stat().st_size


def test_shards_are_plain_tar_files_of_about_the_size_asked_for(sharded, tmp_path):
    paths = sorted((tmp_path / "shards").glob("*.tar"))
    assert len(paths) > 5
    names = []
    for path in paths:
        part = Manifest.load(path.with_suffix(".jsonl"))  # each has a manifest of its own
        assert part.durations[1:].sum() < 10
        with tarfile.open(path) as tar:
            members = tar.getmembers()
            assert [f"{path}:{m.offset_data}:{m.size}" for m in members] == [u.audio_filepath for u in part]
        assert all("/" not in member.name for member in members)
        names += [utterance.id for utterance in part]
    assert names == [utterance.id for utterance in sharded]
    assert names != sorted(names)  # shuffled, so that each shard is a sample of the corpus


def test_training_hears_the_same_from_shards_and_from_files(corpus, sharded, tokenizer):
    def batches(manifest: Manifest) -> dict[str, torch.Tensor]:
        config = DataConfig(
            train=[manifest.origin], valid=[manifest.origin], workers=0, batch_seconds=40.0, speeds=[1.0, 1.1]
        )
        module = SpeechDataModule(config, tokenizer, seed=3)
        return {
            name: waveform[:length]
            for batch in module.train_dataloader()
            for name, waveform, length in zip(batch.ids, batch.waveform, batch.lengths, strict=True)
        }

    files, tars = batches(corpus), batches(sharded)
    assert files.keys() == tars.keys() == {utterance.id for utterance in corpus}
    for name, waveform in files.items():
        assert torch.equal(waveform, tars[name])


def test_moved_shards_still_work_and_may_be_sharded_again(corpus, sharded, tmp_path):
    (tmp_path / "shards").rename(tmp_path / "elsewhere")
    moved = Manifest.load(tmp_path / "elsewhere" / "train.jsonl")
    again = Manifest.load(write_shards(moved, tmp_path / "again", "x", 1.0)[0])
    lengths = {u.id: len(load_mono(u.audio_filepath, u.offset, u.duration)) for u in corpus}
    assert lengths == {u.id: len(load_mono(u.audio_filepath, u.offset, u.duration)) for u in again}


def test_float_samples_give_the_same_bytes_at_any_time():
    loud = np.random.default_rng(0).standard_normal((2, 1600)).astype(np.float32) * 3
    content, ending = shards._encode(Audio(loud, 16_000))
    assert ending == ".wav"
    assert content[content.index(b"PEAK") + 12 :][:4] == bytes(4)
    assert np.array_equal(soundfile.read(io.BytesIO(content), dtype="float32")[0].T, loud)


def test_shards_take_the_place_of_no_audio_that_is_read_and_of_no_other_tar(corpus, tmp_path):
    first, _ = write_shards(corpus, tmp_path / "shards", "train", SECONDS_PER_SHARD)
    (tmp_path / "merged").mkdir()
    merged = tmp_path / "merged" / "train.jsonl"
    write_manifest(merged, list(Manifest.load(first)))
    before = {path: path.read_bytes() for path in (tmp_path / "shards").iterdir()}
    with pytest.raises(DataError, match=r"train-000000\.tar: holds audio that is read"):
        write_shards(Manifest.load(merged), tmp_path / "shards", "train", 2 * SECONDS_PER_SHARD)
    assert {path: path.read_bytes() for path in (tmp_path / "shards").iterdir()} == before
    (tmp_path / "web").mkdir()
    with tarfile.open(tmp_path / "web" / "train-000000.tar", "w") as tar:
        tar.add(DATA / "manifest.jsonl", "sample.json")
    with pytest.raises(DataError, match=r"train-000000\.tar: is there, and no shard of ours"):
        write_shards(corpus, tmp_path / "web", "train", SECONDS_PER_SHARD)


def test_interrupted_writing_goes_on(corpus, tmp_path, monkeypatch):
    real, calls = shards._write_shard, []

    def breaks(path, wanted):
        calls.append(path.name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(path, wanted)

    monkeypatch.setattr(shards, "_write_shard", breaks)
    with pytest.raises(KeyboardInterrupt):
        write_shards(corpus, tmp_path / "shards", "train", SECONDS_PER_SHARD)
    assert not (tmp_path / "shards" / "train.jsonl").exists()
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "shards").glob("*.tar")}
    assert len(done) >= 2
    path, _ = write_shards(corpus, tmp_path / "shards", "train", SECONDS_PER_SHARD)
    assert all(path.stat().st_mtime_ns == time for path, time in done.items())
    assert len(calls) == len(set(calls)) + 1  # only the one that broke is tried twice
    straight, _ = write_shards(corpus, tmp_path / "straight", "train", SECONDS_PER_SHARD)
    for shard in sorted((tmp_path / "straight").iterdir()):
        assert shard.read_bytes() == (tmp_path / "shards" / shard.name).read_bytes()
    assert path.read_bytes() == straight.read_bytes()


def test_bad_files_are_left_out_and_named(tmp_path):
    (tmp_path / "bad.wav").write_text("no audio")
    rows = [Utterance(n, str(p), 1.0) for n, p in (("bad", tmp_path / "bad.wav"), ("gone", "/gone.wav"), ("a", FLAC))]
    write_manifest(tmp_path / "m.jsonl", rows)
    path, faults = write_shards(Manifest.load(tmp_path / "m.jsonl"), tmp_path / "s", "m", 1.0)
    assert [utterance.id for utterance in Manifest.load(path)] == ["a"]
    assert sorted(fault.split(":")[0] for fault in faults) == ["bad", "gone"]
    _, again = write_shards(Manifest.load(tmp_path / "m.jsonl"), tmp_path / "s", "m", 1.0)
    assert [fault.split(":")[0] for fault in again] == ["bad", "gone"]
    write_manifest(tmp_path / "m.jsonl", rows[:2])
    with pytest.raises(DataError, match="none of its audio can be read, the first: "):
        write_shards(Manifest.load(tmp_path / "m.jsonl"), tmp_path / "t", "m", 1.0)


def test_shards_of_something_else_are_not_taken_for_these(corpus, sharded, tmp_path):
    write_manifest(tmp_path / "new.jsonl", [replace(utterance, text="CORRECTED") for utterance in corpus])
    with pytest.raises(DataError, match=r"train-000000\.tar: holds other utterances"):
        write_shards(Manifest.load(tmp_path / "new.jsonl"), tmp_path / "shards", "train", SECONDS_PER_SHARD)
    with pytest.raises(DataError, match=r"train-000001\.tar: belongs to other shards"):
        write_shards(corpus, tmp_path / "shards", "train", 1.0)


@pytest.mark.parametrize("where", ["{0}:0:99999999", "{0}:99999999:10", "{0}:512:0"])
def test_member_beyond_the_shard_is_one_line(sharded, tmp_path, where):
    with pytest.raises(AudioError, match=r"000000\.tar:\d+:\d+: the shard ends before this"):
        load_mono(where.format(tmp_path / "shards" / "train-000000.tar"))


def test_missing_shard_and_damaged_member_are_one_line(sharded, tmp_path):
    with pytest.raises(AudioError, match=r"gone\.tar: cannot be opened"):
        load_mono(tmp_path / "gone.tar:0:10")
    member = MEMBER.fullmatch(next(u for u in sharded if u.id == "1737-146161-0010").audio_filepath)
    assert member
    with pytest.raises(AudioError, match="damaged or truncated"):
        load_mono(f"{member['shard']}:{member['start']}:{int(member['size']) // 2}")


def test_a_shard_that_is_written_anew_forgets_its_old_manifest(tmp_path):
    audio, out = tmp_path / "a.flac", tmp_path / "s"
    audio.write_bytes(FLAC.read_bytes())
    write_manifest(tmp_path / "m.jsonl", [Utterance("a", str(audio), duration(audio))])
    rows = Manifest.load(tmp_path / "m.jsonl")
    write_shards(rows, out, "m", 1.0)
    (out / "m-000000.tar").unlink()
    audio.rename(tmp_path / "away")
    with pytest.raises(DataError, match="none of its audio can be read"):
        write_shards(rows, out, "m", 1.0)
    (tmp_path / "away").rename(audio)
    member = Manifest.load(write_shards(rows, out, "m", 1.0)[0])[0].audio_filepath
    np.testing.assert_array_equal(load_mono(member), load_mono(audio))


def test_shards_of_a_longer_name_are_no_strangers(corpus, tmp_path):
    write_shards(corpus, tmp_path / "s", "train-clean", 1.0)
    path, faults = write_shards(corpus, tmp_path / "s", "train", 1.0)
    assert (len(Manifest.load(path)), faults) == (len(corpus), [])


def test_the_manifest_that_is_read_is_not_replaced(corpus, tmp_path):
    write_manifest(tmp_path / "train.jsonl", corpus)
    before = (tmp_path / "train.jsonl").read_bytes()
    with pytest.raises(DataError, match=r"train\.jsonl: is the manifest that is read"):
        write_shards(Manifest.load(tmp_path / "train.jsonl"), tmp_path, "train", 1.0)
    assert (tmp_path / "train.jsonl").read_bytes() == before
    assert not list(tmp_path.glob("*.tar"))


def test_audio_that_changed_since_is_copied_again(tmp_path):
    speech, rate = soundfile.read(FLAC, dtype="float32")
    soundfile.write(tmp_path / "a.wav", speech, rate)
    write_manifest(tmp_path / "m.jsonl", [Utterance("a", str(tmp_path / "a.wav"), len(speech) / rate, "A")])
    for softer in (1.0, 0.5):
        soundfile.write(tmp_path / "a.wav", softer * speech, rate, subtype="FLOAT")
        later = (tmp_path / "out" / "m-000000.tar").stat().st_mtime + 1 if softer < 1 else 1.0
        os.utime(tmp_path / "a.wav", (later, later))
        path, faults = write_shards(Manifest.load(tmp_path / "m.jsonl"), tmp_path / "out", "m", 1.0)
        assert not faults
        np.testing.assert_array_equal(load_mono(Manifest.load(path)[0].audio_filepath), softer * speech)
