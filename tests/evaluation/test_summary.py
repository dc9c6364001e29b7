from __future__ import annotations

import json
import random
from itertools import product

import jiwer
import numpy as np
import pytest
import soundfile
from examples import DATA

from asr.decoding import DecodingOptions
from asr.errors import AudioError, ConfigError, DataError
from asr.evaluation.evaluate import WHOLE_SECONDS, decoding_label, evaluate
from asr.evaluation.slices import estimate_snr, group, manifest_values
from asr.evaluation.summary import summarise
from asr.manifest import Manifest
from asr.normalize import get_normalizer
from asr.transcriber import Transcriber

BASIC = get_normalizer("basic")
ROWS = [
    {"id": "a-1", "reference": "One two three.", "hypothesis": "one too three", "speaker": "a", "duration": 1.5},
    {"id": "a-2", "reference": "four", "hypothesis": "four", "speaker": "a", "duration": 2.0},
    {"id": "b-1", "reference": "five six", "hypothesis": "", "speaker": "b", "duration": 31.0},
    {"id": "b-2", "reference": "...", "hypothesis": "thank you", "speaker": "b", "duration": 3.0},
    {"id": "c-1", "reference": "two two", "hypothesis": "too too two", "speaker": "", "duration": 4.0},
]


def test_a_summary_counts_what_can_be_counted_by_hand():
    result = summarise(ROWS, BASIC)
    assert (result["substitutions"], result["deletions"], result["insertions"], result["words"]) == (2, 2, 1, 8)
    assert (result["utterances"], result["empty_references"], result["words_on_empty_references"]) == (4, 1, 2)
    assert result["confusions"]["substitutions"] == [["two", "too", 2]]
    assert result["confusions"]["deletions"] == [["five", 1], ["six", 1]]
    assert result["confusions"]["insertions"] == [["too", 1]]
    assert result["worst"] == ["b-1", "c-1", "a-1"]
    silent = [{"id": f"n-{row}", "reference": "", "hypothesis": "x " * 10} for row in range(25)]
    assert summarise([*ROWS, *silent], BASIC)["worst"] == ["b-1", "c-1", "a-1"]
    speakers = {row["value"]: (row["errors"], row["words"]) for row in result["slices"]["speaker"]}
    assert speakers == {"a": (1, 4), "b": (2, 2), "(unknown)": (2, 2)}
    drawn = [(row["blocks"], row["unit"]) for row in result["slices"]["speaker"]]
    assert drawn == [(2, "utterance"), (1, "utterance"), (1, "utterance")]
    durations = [(row["value"], row["utterances"]) for row in result["slices"]["duration"]]
    assert durations == [("under 2 s", 1), ("2 to 5 s", 2), ("30 and over s", 1)]
    assert "snr" not in result["slices"]
    assert all(row["low"] <= row["wer"] <= row["high"] for rows in result["slices"].values() for row in rows)


def test_who_is_asked_to_say_nothing_is_no_slice():
    silent = {"id": "d-1", "reference": "...", "hypothesis": "hm", "speaker": "d", "duration": 1.0}
    result = summarise([*ROWS, silent], BASIC)
    assert [row["value"] for row in result["slices"]["speaker"]] == ["a", "b", "(unknown)"]
    assert (result["empty_references"], result["words_on_empty_references"]) == (2, 3)


def test_an_empty_manifest_is_refused_before_anything_is_decoded(manifest):
    with pytest.raises(DataError, match="no utterance"):
        evaluate(None, manifest.select(np.zeros(len(manifest), dtype=bool)))  # type: ignore[arg-type] (never used)


def test_the_characters_have_an_interval_of_their_own():
    rows = [
        {"id": f"{speaker}-{number}", "reference": "one two three", "hypothesis": said, "speaker": speaker}
        for speaker, texts in {"a": ("one two three", "on two"), "b": ("won", "one too three"), "c": ("x", "")}.items()
        for number, said in enumerate(texts)
    ]
    result = summarise(rows, BASIC)
    sums = {speaker: [0, 0] for speaker in "abc"}
    for row in rows:
        found = jiwer.process_characters(row["reference"], row["hypothesis"])
        sums[row["speaker"]][0] += found.substitutions + found.deletions + found.insertions
        sums[row["speaker"]][1] += len(row["reference"])
    rates = [sum(sums[s][0] for s in draw) / sum(sums[s][1] for s in draw) for draw in product("abc", repeat=3)]
    interval = result["cer_interval"]
    assert interval["low"] == pytest.approx(min(rates))  # one draw in 27 each: more than 2.5 %
    assert interval["high"] == pytest.approx(max(rates))
    assert interval["deviation"] == pytest.approx(np.std(rates), rel=0.04)
    assert (interval["blocks"], interval["unit"]) == (3, "speaker")
    assert interval != result["interval"]


def test_order_changes_neither_figures_nor_hash():
    shuffled = ROWS[:]
    random.Random(1).shuffle(shuffled)
    first, second = summarise(ROWS, BASIC), summarise(shuffled, BASIC)
    assert {k: v for k, v in first.items() if k != "results"} == {k: v for k, v in second.items() if k != "results"}


def test_the_data_hash_is_that_of_ids_and_references_alone():
    base = summarise(ROWS, BASIC)["data"]["hash"]
    heard = [row | {"hypothesis": "x", "speaker": "z"} for row in ROWS]
    assert summarise(heard, BASIC)["data"]["hash"] == base
    for change in ({"id": "a-9"}, {"reference": "One two three"}):
        assert summarise([ROWS[0] | change, *ROWS[1:]], BASIC)["data"]["hash"] != base


def test_a_key_that_nothing_has_is_refused():
    with pytest.raises(DataError, match="no utterance has 'gender'"):
        summarise(ROWS, BASIC, ["gender"])


def test_bands_of_large_numbers_have_names_of_their_own():
    names = [name for name, _ in group("at", [1_700_000_000 + 60 * place for place in range(50)])]
    assert len(set(names)) == len(names) == 5


def test_numbers_with_many_values_become_bands():
    names = [name for name, _ in group("pitch", list(range(100)))]
    assert len(names) == 5
    assert names[0].startswith("under")
    assert [name for name, _ in group("age", [3, 1, 2, None])] == ["1", "2", "3", "(unknown)"]
    members = np.concatenate([rows for _, rows in group("pitch", list(range(100)))])
    assert sorted(members.tolist()) == list(range(100))


@pytest.mark.parametrize("decibels", [0, 10, 20])
def test_the_snr_estimate_finds_noise_that_was_mixed_in(decibels):
    draw = np.random.default_rng(0)
    for name in ("3947-13262-0005", "6848-252323-0001", "1737-146161-0014"):
        speech, _ = soundfile.read(DATA / f"{name}.flac", dtype="float32")
        noise = draw.standard_normal(len(speech)).astype(np.float32)
        noise *= np.sqrt(np.mean(speech**2) / np.mean(noise**2) / 10 ** (decibels / 10))
        assert estimate_snr(speech + noise) == pytest.approx(decibels, abs=3)


def test_the_snr_of_odd_audio_is_a_number():
    for waveform in (np.zeros(0), np.zeros(10), np.zeros(16000), np.ones(16000), np.eye(1, 16000)[0]):
        assert -10 <= estimate_snr(waveform.astype(np.float32)) <= 60


def test_any_key_of_the_manifest_can_be_sliced_by(model, tmp_path):
    lines = [json.loads(line) for line in (DATA / "manifest.jsonl").read_text().splitlines()]
    path = tmp_path / "m.jsonl"
    rows = [
        line | {"audio_filepath": str(DATA / line["audio_filepath"]), "gender": "fm"[number % 2]}
        for number, line in enumerate(lines)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = evaluate(Transcriber(model), Manifest.load(path), slice_by=["gender", "snr"])
    assert {row["value"]: row["utterances"] for row in result["slices"]["gender"]} == {"f": 6, "m": 6}
    assert list(result["slices"]) == ["gender", "snr"]
    assert result["parameters"] == sum(p.numel() for p in model.parameters())
    assert result["data"]["name"] == f"{tmp_path.name}/m.jsonl"
    with pytest.raises(DataError, match=r"no utterance has 'accent'.*there is: .*gender"):
        manifest_values(Manifest.load(path), "accent")
    with pytest.raises(ConfigError, match="no normaliser"):
        evaluate(Transcriber(model), Manifest.load(path), "basik")


def test_audio_that_cannot_be_read_counts_as_not_heard(model, tmp_path):
    lines = [json.loads(line) for line in (DATA / "manifest.jsonl").read_text().splitlines()][:3]
    names = [str(DATA / line["audio_filepath"]) for line in lines]
    names[1] = str(tmp_path / "gone.flac")
    path = tmp_path / "m.jsonl"
    path.write_text(
        "".join(json.dumps(line | {"audio_filepath": name}) + "\n" for line, name in zip(lines, names, strict=True))
    )
    result = evaluate(Transcriber(model), Manifest.load(path))
    assert result["unreadable"] == 1
    assert "gone.flac" in result["results"][1]["error"]
    assert result["results"][1]["deletions"] == result["results"][1]["words"] > 0
    path.write_text(json.dumps(lines[0] | {"audio_filepath": names[1]}) + "\n")
    with pytest.raises(AudioError, match=r"gone\.flac"):
        evaluate(Transcriber(model), Manifest.load(path))


def test_an_utterance_that_cannot_be_decoded_costs_no_other(model, monkeypatch):
    encode = model.encode

    def fail_on_the_second(padded, lengths):
        if bad in lengths.tolist():
            raise RuntimeError("out of memory")
        return encode(padded, lengths)

    manifest = Manifest.load(DATA / "manifest.jsonl")
    whole = evaluate(Transcriber(model), manifest)
    bad = round(manifest[1].duration * 16000)
    monkeypatch.setattr(model, "encode", fail_on_the_second)
    result = evaluate(Transcriber(model), manifest)
    assert result["unreadable"] == 1
    assert result["results"][1]["error"] == "RuntimeError: out of memory"
    assert [row["hypothesis"] for row in result["results"][2:]] == [row["hypothesis"] for row in whole["results"][2:]]


def test_what_is_too_long_to_decode_whole_is_cut_as_for_transcripts(tmp_path):
    english = Transcriber.load(device="cpu")
    files = sorted(DATA.glob("*.flac"))
    talk = np.concatenate([soundfile.read(file, dtype="float32")[0] for file in files])
    soundfile.write(tmp_path / "talk.wav", talk, 16000)
    rows = [
        {"id": "long", "audio_filepath": str(tmp_path / "talk.wav"), "duration": len(talk) / 16000, "text": "knit"},
        {"id": "short", "audio_filepath": str(tmp_path / "talk.wav"), "duration": 36.0, "text": "knit"},
    ]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert len(talk) / 16000 > WHOLE_SECONDS
    long, short = evaluate(english, Manifest.load(tmp_path / "m.jsonl"))["results"]
    transcript = english.transcribe(tmp_path / "talk.wav")
    assert len(transcript.segments) > 3
    assert long["hypothesis"] == transcript.text
    assert [word for word, _ in long["word_confidences"]] == transcript.text.split()
    whole = english.decode_waveforms([talk[: 36 * 16000]])[0]
    assert short["hypothesis"] == english.model.tokenizer.decode(whole.tokens)  # whatever is decoded with it


def test_the_manifest_cannot_replace_what_was_heard(model, tmp_path):
    line = json.loads((DATA / "manifest.jsonl").read_text().splitlines()[0])
    row = line | {"audio_filepath": str(DATA / line["audio_filepath"]), "hypothesis": line["text"]}
    (tmp_path / "m.jsonl").write_text(json.dumps(row) + "\n")
    result = evaluate(Transcriber(model), Manifest.load(tmp_path / "m.jsonl"), slice_by=["hypothesis"])
    assert result["wer"] > 0
    assert list(result["slices"]) == ["hypothesis"]


def test_a_decoding_is_named_by_what_is_not_default():
    assert decoding_label(DecodingOptions()) == "ctc"
    options = DecodingOptions(mode="attention", beam_size=4, language_model="/home/someone/words.arpa")
    assert decoding_label(options) == "attention, beam_size 4, language_model words.arpa"
