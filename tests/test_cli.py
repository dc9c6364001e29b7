from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from asr.cli import main
from asr.cli.terminal import console
from asr.inputs import find_recordings
from asr.model import checkpoint
from asr.normalize import get_normalizer
from asr.tokenizer import BLANK
from asr.transcriber import WINDOW_SECONDS, Transcriber
from asr.writers import folded


@pytest.fixture
def trained(model, tmp_path) -> Path:
    """A checkpoint that writes something, whatever it hears."""
    model.ctc_head.bias.data[BLANK] = -1.0
    checkpoint.save(tmp_path / "model.safetensors", model, {"metrics": {"wer": 0.9, "cer": 0.8}})
    return tmp_path / "model.safetensors"


@pytest.fixture
def asr(monkeypatch, capsys):
    """Runs the program in this process, as the console script does, from any folder."""

    def run(*arguments: object, cwd: Path | None = None) -> SimpleNamespace:
        monkeypatch.setattr(sys, "argv", ["asr", *map(str, arguments)])
        if cwd:
            monkeypatch.chdir(cwd)
        with pytest.raises(SystemExit) as ended:
            main()
        return SimpleNamespace(
            returncode=ended.value.code or 0, stdout=(output := capsys.readouterr()).out, stderr=output.err
        )

    return run


def test_help_needs_no_torch_and_names_every_verb(asr):
    code = "import sys; from asr.cli import main; sys.argv = ['asr', '--help']\ntry: main()\nexcept SystemExit: pass\n"
    code += "assert not {'torch', 'lightning', 'numpy', 'hydra', 'librosa'} & set(sys.modules), 'heavy imports'"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    for verb in ("transcribe", "prepare", "train", "evaluate", "info"):
        assert verb in result.stdout
        assert asr(verb, "--help").returncode == 0


def test_text_goes_to_standard_output_and_nothing_else_does(asr, trained, data):
    result = asr("transcribe", data / "1737-146161-0009.flac", "--model", trained)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("\n") == 1
    assert len(result.stdout.strip()) > 0


def test_bad_files_are_named_and_the_others_still_done(asr, trained, data, tmp_path):
    good = data / "1737-146161-0009.flac"
    speech, _ = soundfile.read(good)
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("this is not audio")
    (tmp_path / "cut.flac").write_bytes(good.read_bytes()[:20_000])
    soundfile.write(tmp_path / "short.wav", np.tile(speech, 3), 16000)
    (tmp_path / "short.wav").write_bytes((tmp_path / "short.wav").read_bytes()[:150_000])
    soundfile.write(tmp_path / "nothing.wav", np.zeros(0), 16000)
    soundfile.write(tmp_path / "nan.wav", np.full(1600, np.nan), 16000, subtype="FLOAT")
    soundfile.write(tmp_path / "stereo44.wav", np.stack((speech, speech), 1), 44100, subtype="PCM_24")
    (tmp_path / "none").mkdir()
    damaged = ["cut.flac", "short.wav", "nothing.wav", "nan.wav"]
    bad = ["missing.wav", "empty.wav", "text.wav", "none", "*.nothing", *damaged]
    result = asr("transcribe", *bad, good, "stereo44.wav", "--model", trained, "--output-dir", "out", cwd=tmp_path)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    for name in bad:
        lines = [line for line in result.stderr.splitlines() if line.startswith(f"error: {name}: ")]
        assert len(lines) == 1, (name, result.stderr)
    made = ["1737-146161-0009.txt", "short.txt", "stereo44.txt"]  # what there is of a truncated file is not lost
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == made
    assert len((tmp_path / "out" / "short.txt").read_text()) > len((tmp_path / "out" / made[0]).read_text())


def test_json_holds_the_text_and_the_account_of_every_second(asr, trained, data, tmp_path):
    result = asr("transcribe", data / "1737-146161-0009.flac", "--model", trained, "--format", "json")
    content = json.loads(result.stdout)
    assert content["text"]
    assert content["spans"][-1]["end"] == content["duration"] == 2.175


@pytest.fixture
def archive(data, tmp_path) -> Path:
    """A folder of recordings, some below others, two of one stem, and what is no recording."""
    folder = tmp_path / "archive"
    (folder / "2024" / "may").mkdir(parents=True)
    speech, rate = soundfile.read(data / "1737-146161-0009.flac")
    for name in ("a.flac", "2024/a.flac", "2024/a.wav", "2024/may/b.OGG"):
        soundfile.write(folder / name, speech, rate)
    (folder / "notes.txt").write_text("no audio")
    (folder / ".hidden.wav").write_bytes(b"")
    return folder


def outputs(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_folders_are_searched_and_keep_their_shape(asr, trained, archive, tmp_path):
    result = asr("transcribe", archive, "--model", trained, "--output-dir", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    found = outputs(tmp_path / "out")
    assert sorted(found) == ["2024/a.flac.txt", "2024/a.wav.txt", "2024/may/b.txt", "a.txt"]
    assert found["a.txt"] == found["2024/a.wav.txt"] != b"\n"
    asr("transcribe", archive, "--model", trained, "--output-dir", tmp_path / "jobs", "--jobs", 3)
    assert outputs(tmp_path / "jobs") == found
    result = asr("transcribe", "archive/**/*.flac", "--model", trained, "--output-dir", "some", cwd=tmp_path)
    assert sorted(outputs(tmp_path / "some")) == ["2024/a.txt", "a.txt"]


def test_no_two_outputs_are_one_file_where_case_or_encoding_of_letters_do_not_count(tmp_path):
    for name in ("one/Talks/x.wav", "two/talks/x.wav", "one/\u00e9.wav", "two/e\u0301.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    recordings, errors = find_recordings([str(tmp_path / "one"), str(tmp_path / "two")])
    assert not errors
    assert len({folded(str(each.folder / each.stem)) for each in recordings}) == len(recordings) == 4


def test_jobs_print_the_same_in_the_same_order(asr, trained, data):
    files = [*sorted(data.glob("*.flac"))[:4], data / "missing.wav"]
    one, three = (asr("transcribe", *files, "--model", trained, "--format", "json", "--jobs", jobs) for jobs in (1, 3))
    assert one.stdout == three.stdout
    assert one.returncode == three.returncode == 1


@pytest.mark.parametrize("window, kept", [(WINDOW_SECONDS, True), (1.0, False)])
def test_an_interrupt_prints_what_is_finished(asr, trained, data, monkeypatch, window, kept):
    files = sorted(data.glob("*.flac"))[:2]
    alone = asr("transcribe", files[1], "--model", trained).stdout
    begun, whole = threading.Event(), Transcriber.transcribe

    def transcribe(self: Transcriber, source: Path, **how):
        if source == files[0]:
            assert begun.wait(10)
            raise KeyboardInterrupt
        begun.set()
        assert how["progress"].__self__.stop.wait(10)
        return whole(self, source, **how)

    monkeypatch.setattr(Transcriber, "transcribe", transcribe)
    monkeypatch.setattr("asr.transcriber.WINDOW_SECONDS", window)
    ended = asr("transcribe", *files, "--model", trained, "--jobs", 2)
    assert ended.returncode == 130
    assert ended.stdout == (alone if kept else "")  # a long recording ends at the next window


def test_resume_does_only_what_is_missing(asr, trained, archive, tmp_path):
    command = ("transcribe", archive, "--model", trained, "--output-dir", tmp_path / "out", "--resume")
    assert asr(*command).returncode == 0
    whole = outputs(tmp_path / "out")
    (tmp_path / "out" / "2024" / "may" / "b.txt").unlink()
    (tmp_path / "out" / "a.txt").write_text("kept")
    assert asr(*command).returncode == 0
    assert outputs(tmp_path / "out") == whole | {"a.txt": b"kept"}
    assert "4 outputs were there already" in asr(*command).stderr
    twins = asr("transcribe", archive / "a.flac", archive / "2024" / "a.flac", *command[2:])
    assert twins.returncode == 2
    assert "--resume cannot tell inputs of one name apart" in twins.stderr


def test_what_lies_beside_its_recording_is_not_replaced(asr, trained, archive, tmp_path):
    (archive / "2024" / "may" / "b.txt").write_text("what a person heard")
    refused = asr("transcribe", archive, "--model", trained, "--output-dir", archive)
    assert refused.returncode == 2
    assert "b.txt: is there beside its recording, and may be its true transcript" in refused.stderr
    assert asr("transcribe", archive, "--model", trained, "--output-dir", tmp_path / "out").returncode == 0
    assert asr("transcribe", archive, "--model", trained, "--output-dir", archive, "--resume").returncode == 0
    assert (archive / "2024" / "may" / "b.txt").read_text() == "what a person heard"
    assert (archive / "a.txt").is_file()
    recorded = (archive / "2024" / "may" / "b.OGG").stat().st_mtime
    os.utime(
        archive / "2024" / "may" / "b.txt", (recorded - 60, recorded - 60)
    )  # `cp` and `git` keep no order of times
    refused = asr("transcribe", archive, "--model", trained, "--output-dir", archive, "--resume")
    assert "b.txt: is there beside its recording" in refused.stderr
    (archive / "a.channel-1.txt").write_text("what a person heard")
    split = ("transcribe", archive / "a.flac", "--model", trained, "--output-dir", archive, "--channels", "split")
    assert "a.channel-1.txt: is there beside its recording" in asr(*split).stderr
    (archive / "a.channel-1.txt").unlink()
    assert asr(*split).returncode == 0
    (archive / "a.html").write_text("a page")
    pages = asr("transcribe", archive / "a.flac", "--model", trained, "--attention", archive)
    assert "a.html: is there beside its recording" in pages.stderr


def test_several_transcripts_as_json_are_one_on_each_line(asr, trained, archive):
    both = asr(
        "transcribe", archive / "a.flac", archive / "2024" / "may" / "b.OGG", "--model", trained, "--format", "json"
    )
    sources = [json.loads(line)["source"] for line in both.stdout.splitlines()]
    assert [Path(source).name for source in sources] == ["a.flac", "b.OGG"]


def test_resume_looks_at_every_format(asr, trained, data, tmp_path):
    soundfile.write(tmp_path / "a.wav", *soundfile.read(data / "1737-146161-0009.flac"))
    out = tmp_path / "out"
    command = ("transcribe", tmp_path / "a.wav", "--model", trained, "--output-dir", out, "--format", "srt,json")
    assert asr(*command).returncode == 0
    (out / "a.json").unlink()
    assert "already" not in asr(*command, "--resume").stderr
    assert (out / "a.json").is_file()
    os.utime(out / "a.json", (1, 1))
    assert "already" not in asr(*command, "--resume").stderr
    assert "1 outputs were there already" in asr(*command, "--resume").stderr


def test_a_rate_with_unreadable_files_is_no_success(asr, trained, data, tmp_path):
    rows = [json.loads(line) for line in (data / "manifest.jsonl").read_text().splitlines()[:2]]
    rows[0]["audio_filepath"] = str(data / rows[0]["audio_filepath"])
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))  # the second is not there
    result = asr("evaluate", "--manifest", tmp_path / "m.jsonl", "--model", trained)
    assert result.returncode == 1
    assert "1 utterances cannot be read or decoded" in result.stderr
    assert "raw WER" in result.stdout
    assert f"normalizer basic {get_normalizer('basic').hash}" in result.stdout.replace("normaliser", "normalizer")


def test_resume_does_anew_what_is_older_than_its_recording_or_has_no_page(asr, trained, data, tmp_path):
    speech, rate = soundfile.read(data / "1737-146161-0009.flac")
    soundfile.write(tmp_path / "a.wav", speech, rate)
    command = ("transcribe", tmp_path / "a.wav", "--model", trained, "--output-dir", tmp_path / "out", "--resume")
    for _ in range(2):
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / "a.txt").write_text("of another recording")
        os.utime(tmp_path / "out" / "a.txt", (1, 1))
        assert "already" not in asr(*command).stderr
        assert (tmp_path / "out" / "a.txt").read_text() != "of another recording"
    (tmp_path / "out" / "a.txt").write_text("kept")
    pages = ("--attention", tmp_path / "pages")
    assert asr(*command, *pages).returncode == 0
    assert outputs(tmp_path / "pages").keys() == {"a.html"}
    (tmp_path / "out" / "a.txt").write_text("kept")
    assert "1 outputs were there already" in asr(*command, *pages).stderr
    assert (tmp_path / "out" / "a.txt").read_text() == "kept"


def test_resume_mends_what_could_not_be_decoded(asr, trained, data, tmp_path, monkeypatch):
    speech, rate = soundfile.read(data / "1737-146161-0009.flac")
    soundfile.write(tmp_path / "a.wav", speech, rate)
    command = ("transcribe", tmp_path / "a.wav", "--model", trained, "--output-dir", tmp_path / "out", "--resume")
    with monkeypatch.context() as broken:
        broken.setattr("asr.model.recognizer.Recognizer.encode", lambda *_: 1 / 0)
        assert asr(*command).returncode == 1
    assert (tmp_path / "out" / "a.txt").read_text() == "\n"
    assert asr(*command).returncode == 0
    assert (tmp_path / "out" / "a.txt").read_text() != "\n"
    assert "1 outputs were there already" in asr(*command).stderr


def test_scoring_formats_tell_recordings_of_one_name_apart_or_are_refused(asr, trained, archive, tmp_path):
    twins = [archive / "2024" / "a.flac", archive / "2024" / "a.wav"]
    for format in ("ctm", "stm"):
        printed = asr("transcribe", *twins, "--model", trained, "--format", format)
        assert {line.split()[0] for line in printed.stdout.splitlines()} == {"a.flac", "a.wav"}
        (archive / "b.flac").write_bytes((archive / "a.flac").read_bytes())  # as 2024/may/b.OGG
        refused = asr("transcribe", archive, "--model", trained, "--format", format)
        assert refused.returncode == 2
        assert f"error: {format} cannot tell recordings of one name apart" in refused.stderr
    written = ("--format", "ctm", "--output-dir", tmp_path / "out")
    assert asr("transcribe", *twins, "--model", trained, *written).returncode == 0
    assert (tmp_path / "out" / "a.wav.ctm").read_text().startswith("a.wav 1 ")


def test_patterns_follow_no_links_in_circles_and_see_nothing_hidden(asr, trained, archive, tmp_path):
    (archive / "here").symlink_to(".")
    result = asr("transcribe", "archive/**/a*", "--model", trained, "--output-dir", "out", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert sorted(outputs(tmp_path / "out")) == ["2024/a.flac.txt", "2024/a.wav.txt", "a.txt"]
    assert "error: archive/*.wav: no file fits this pattern" in asr("transcribe", "archive/*.wav", cwd=tmp_path).stderr


@pytest.mark.parametrize(
    "pattern, expected",
    [
        ("*", ["[2024]/c.wav", "a.wav", "sub/b.wav", "sub/deep/d.wav"]),
        ("s*", ["sub/b.wav", "sub/deep/d.wav"]),
        ("**", ["[2024]/c.wav", "a.wav", "sub/b.wav", "sub/deep/d.wav"]),
        ("sub/**", ["sub/b.wav", "sub/deep/d.wav"]),
        ("[2024]/*.wav", ["[2024]/c.wav"]),
        ("[2024]/c.wav", ["[2024]/c.wav"]),
        ("[a-b].wav", ["a.wav"]),
        ("*/.h*", ["sub/.hidden.wav"]),
    ],
)
def test_patterns_fit_folders_and_names_with_brackets(tmp_path, monkeypatch, pattern, expected):
    for name in (
        "a.wav",
        "sub/b.wav",
        "sub/notes.txt",
        "sub/.hidden.wav",
        "sub/deep/d.wav",
        "[2024]/c.wav",
        ".x/e.wav",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    recordings, errors = find_recordings([pattern])
    assert ([str(recording.path) for recording in recordings], errors) == (expected, [])


def test_files_and_pipes_get_utf_8_whatever_the_machine_speaks(trained, data, tmp_path):
    name = tmp_path / "Łódź.flac"
    name.write_bytes((data / "1737-146161-0009.flac").read_bytes())
    windows = "import sys; sys.stdout.reconfigure(encoding='cp1252'); from asr.cli import main; main()"
    program = [sys.executable, "-c", windows, "transcribe", str(name), "--model", str(trained), "--format", "ctm"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONIOENCODING"}
    shown = subprocess.run(program, capture_output=True, env=environment, check=False)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.decode("utf-8").startswith("Łódź 1 ")


@pytest.mark.parametrize("format", ["srt", "vtt", "tsv", "textgrid"])
def test_several_transcripts_are_not_made_one_malformed_file(asr, trained, data, tmp_path, format):
    files = sorted(data.glob("*.flac"))[:2]
    refused = asr("transcribe", *files, "--model", trained, "--format", format)
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"error: several transcripts as {format} make no valid file: name --output-dir")
    assert asr("transcribe", files[0], "--model", trained, "--format", format).returncode == 0
    split = asr("transcribe", files[0], "--model", trained, "--format", format, "--channels", "split")
    assert split.returncode == 2
    assert asr("transcribe", *files, "--model", trained, "--format", format, "--output-dir", tmp_path).returncode == 0


def test_file_names_that_are_no_text_and_a_closed_output_are_no_traceback(trained, data, tmp_path):
    name = os.fsencode(tmp_path) + b"/caf\xe9.flac"
    with open(name, "wb") as file:
        file.write((data / "1737-146161-0009.flac").read_bytes())
    program = [sys.executable, "-m", "asr.cli", "transcribe", name, "--model", str(trained), "--format", "ctm"]
    strict = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    shown = subprocess.run(program, capture_output=True, env=strict, check=False)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith(b"caf")
    closed = subprocess.run(["sh", "-c", 'exec "$0" "$@" >&-', *program], capture_output=True, check=False)
    assert closed.returncode == 2
    assert closed.stderr.strip() == b"error: standard output: is closed: name --output-dir"


def test_files_are_written_though_standard_output_is_closed(asr, trained, data, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)  # as Python finds it closed
    files = sorted(data.glob("*.flac"))[:2]
    assert asr("transcribe", *files, "--model", trained, "--output-dir", tmp_path / "out").returncode == 0
    assert len(outputs(tmp_path / "out")) == 2


def test_a_closed_screen_takes_no_result_with_it(tmp_path):
    (tmp_path / "ref.txt").write_text("a one two\n")
    (tmp_path / "hyp.txt").write_text("a one too\n")
    code = "import sys; from asr.cli import main; sys.argv[0] = 'asr'; main()"
    words = ["score", "--ref", "ref.txt", "--hyp", "hyp.txt", "--json", "r.json", "--csv", "r.csv"]
    with open("/dev/full", "w") as full:
        subprocess.run([sys.executable, "-c", code, *words], stdout=full, cwd=tmp_path, check=False)
    assert json.loads((tmp_path / "r.json").read_text())["wer"] == 0.5
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 2


def test_one_output_that_fails_takes_no_other_with_it(asr, tmp_path):
    (tmp_path / "ref.txt").write_text("a one two\n")
    (tmp_path / "r.csv").write_text("another table\n")
    words = ("--ref", "ref.txt", "--hyp", "ref.txt", "--json", "/dev/null/r.json", "--csv", "r.csv", "--report", "page")
    refused = asr("score", *words, cwd=tmp_path)
    assert refused.returncode == 2
    assert "r.csv: has other columns" in refused.stderr
    assert "/dev/null/r.json: cannot be written" in refused.stderr
    assert (tmp_path / "page" / "report.html").is_file()


def test_stars_in_a_row_are_one(asr, trained, data, tmp_path):
    (tmp_path / "talk1.flac").symlink_to(data / "1737-146161-0009.flac")
    done = asr("transcribe", str(tmp_path / "talk***.flac"), "--model", trained)
    assert (done.returncode, done.stdout.count("\n")) == (0, 1), done.stderr


def test_results_are_shown_though_their_file_cannot_be_written(asr, trained, data, tmp_path):
    result = asr("evaluate", "--manifest", data / "manifest.jsonl", "--model", trained, "--json", tmp_path / "r.json")
    assert result.returncode == 0
    for verb, shown in (
        (("compare", tmp_path / "r.json", tmp_path / "r.json"), "WER"),
        (("manifest", "stats", data / "manifest.jsonl"), "utterances"),
        (("check", data / "manifest.jsonl", "--jobs", 1), "0 of 12 with errors"),
        (("evaluate", "--model", trained, "--non-speech", data / "manifest.jsonl"), "words/hour"),
    ):
        refused = asr(*verb, "--json", "/dev/null/r.json")
        assert refused.returncode == 2, verb
        assert "cannot be written" in refused.stderr
        assert shown in refused.stdout + refused.stderr, verb


def test_channels_are_split_and_labelled(asr, trained, data, tmp_path):
    left, right = (
        soundfile.read(data / f"{name}.flac")[0][:30_000] for name in ("1737-146161-0009", "6848-252323-0001")
    )
    soundfile.write(tmp_path / "call.wav", np.stack((left, right), axis=1), 16_000)
    soundfile.write(tmp_path / "right.wav", right, 16_000)
    split = asr("transcribe", tmp_path / "call.wav", "--model", trained, "--channels", "split")
    alone = asr("transcribe", tmp_path / "right.wav", "--model", trained)
    assert [line.split(":")[0] for line in split.stdout.splitlines()] == ["channel 1", "channel 2"]
    assert split.stdout.splitlines()[1] == f"channel 2: {alone.stdout.strip()}"
    command = ("--model", trained, "--channels", "split", "--format", "json", "--output-dir", tmp_path / "out")
    assert asr("transcribe", tmp_path / "call.wav", *command).returncode == 0
    labels = {name: json.loads(content)["channel"] for name, content in outputs(tmp_path / "out").items()}
    assert labels == {"call.channel-1.json": 1, "call.channel-2.json": 2}
    mixed = asr("transcribe", tmp_path / "call.wav", "--model", trained, "--format", "json")
    assert json.loads(mixed.stdout)["channel"] is None


def test_standard_input_is_read(asr, trained, data, tmp_path, monkeypatch):
    file = data / "1737-146161-0009.flac"
    expected = json.loads(asr("transcribe", file, "--model", trained, "--format", "json").stdout)
    for content, code in ((file.read_bytes(), 0), (b"no audio", 1), (b"", 1)):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        result = asr("transcribe", "-", "--model", trained, "--format", "json")
        assert result.returncode == code
        assert "asr-" not in result.stderr  # the temporary folder's name
        if code:
            assert "error: standard input: is " in result.stderr
        else:
            assert json.loads(result.stdout) == expected | {"source": "-"}


def test_without_the_voice_detector_noise_becomes_words(asr, trained, tmp_path):
    noise = np.random.default_rng(0).standard_normal(48_000) * 0.1
    soundfile.write(tmp_path / "noise.wav", noise, 16_000)
    assert asr("transcribe", tmp_path / "noise.wav", "--model", trained).stdout == "\n"
    assert asr("transcribe", tmp_path / "noise.wav", "--model", trained, "--no-vad").stdout.strip()


def test_a_stretch_that_fails_is_reported_and_the_rest_written(asr, trained, data, monkeypatch):
    from asr.transcriber import Transcriber

    monkeypatch.setattr(Transcriber, "decode_waveforms", lambda *_: 1 / 0)
    result = asr("transcribe", data / "1737-146161-0009.flac", "--model", trained)
    assert result.returncode == 1
    assert "2.2 s could not be decoded, the rest is there: ZeroDivisionError" in result.stderr
    assert result.stdout == "\n"


def test_words_on_noise_are_counted(asr, trained, tmp_path):
    soundfile.write(tmp_path / "rain.wav", np.random.default_rng(0).standard_normal(32_000) * 0.1, 16_000)
    (tmp_path / "noise.jsonl").write_text('{"audio_filepath": "rain.wav", "duration": 2.0}\n')
    result = asr(
        "evaluate", "--non-speech", tmp_path / "noise.jsonl", "--model", trained, "--json", tmp_path / "n.json"
    )
    assert result.returncode == 0, result.stderr
    assert "0.0 words/hour on recordings (0 in 0.00 h)" in result.stdout
    assert json.loads((tmp_path / "n.json").read_text())["synthetic"]["words_per_hour"] == 0
    with open(tmp_path / "noise.jsonl", "a") as file:
        file.write('{"audio_filepath": "gone.wav", "duration": 2.0}\n')
    partly = asr("evaluate", "--non-speech", tmp_path / "noise.jsonl", "--model", trained)
    assert (partly.returncode, partly.stdout) == (1, result.stdout)
    assert f"error: {tmp_path / 'gone.wav'}: " in partly.stderr
    assert asr("evaluate", "--model", trained).returncode == 2


def test_decoding_and_device_are_heard(asr, trained, data):
    file = data / "1737-146161-0009.flac"
    for option, message in [
        (("--decoding", "magic"), "decoding.mode must be one of ctc, ctc_beam, attention"),
        (("--device", "tpu"), "device must be auto, cpu or cuda"),
        (("--format", "doc"), "--format must be all, or some of txt, json"),
        (("--model", "gone.safetensors"), "gone.safetensors: no such checkpoint"),
        (("--channels", "left"), "--channels must be one of mix, split"),
        (("--resume",), "--resume looks for finished outputs in --output-dir"),
        (("--format", "txt,json"), "name --output-dir"),
        (("--output-dir", file), "cannot be made"),
    ]:
        result = asr("transcribe", file, "--model", trained, *option)
        assert result.returncode == 2
        assert message in result.stderr
        assert "Traceback" not in result.stderr
    ctc, attention = (asr("transcribe", file, "--model", trained, "--decoding", mode) for mode in ("ctc", "attention"))
    assert ctc.returncode == attention.returncode == 0
    assert asr("transcribe", file, "--model", trained, "--device", "cpu").stdout == ctc.stdout


def test_evaluate_prints_what_jiwer_says(asr, trained, data, tmp_path):
    import jiwer

    result = asr("evaluate", "--manifest", data / "manifest.jsonl", "--model", trained, "--json", tmp_path / "r.json")
    assert result.returncode == 0, result.stderr
    content = json.loads((tmp_path / "r.json").read_text())
    references = [row["reference"].lower() for row in content["results"]]
    hypotheses = [row["hypothesis"] for row in content["results"]]
    assert content["wer"] == pytest.approx(jiwer.wer(references, hypotheses))
    assert content["cer"] == pytest.approx(jiwer.cer(references, hypotheses))
    assert content["utterances"] == 12
    assert f"WER {100 * content['wer']:.2f} %" in result.stdout
    assert content["substitutions"] + content["deletions"] + content["insertions"] == round(
        content["wer"] * content["words"]
    )


def test_prepare_runs_a_recipe_and_evaluate_reads_its_manifest(asr, trained, data, tmp_path):
    source = tmp_path / "recordings"
    source.mkdir()
    for line in (data / "manifest.jsonl").read_text().splitlines():
        row = json.loads(line)
        (source / row["audio_filepath"]).write_bytes((data / row["audio_filepath"]).read_bytes())
        (source / f"{row['id']}.txt").write_text(row["text"])
    result = asr("prepare", "custom", "--source", source, "--output", tmp_path / "manifests")
    assert result.returncode == 0, result.stderr
    assert "train.jsonl: 11 utterances" in result.stderr
    result = asr("evaluate", "--manifest", tmp_path / "manifests" / "dev.jsonl", "--model", trained)
    assert "1 utterances" in result.stdout
    result = asr("prepare", "custm", "--source", source, "--output", tmp_path / "manifests")
    assert result.returncode == 2
    assert "did you mean 'custom'" in result.stderr


def test_info_shows_what_is_in_a_checkpoint(asr, trained):
    content = json.loads(asr("info", trained).stdout)
    assert content["about"]["metrics"]["wer"] == 0.9
    assert content["config"]["encoder"]["kind"] == "conformer"


def test_train_refuses_an_unknown_key_in_one_line(asr):
    result = asr("train", "--config", "mini_librispeech", "model.encoder.layer=3")
    assert result.returncode == 2
    assert "did you mean 'model.encoder.layers'" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "override, message",
    [
        ("model.encoder.layers=3", "does nothing with --init-from, whose architecture stays"),
        ("model=conformer_s", "does nothing with --init-from, whose architecture stays"),
        ("tokenizer.normalizer=none", "whose vocabulary stays: add finetune.tokenizer=new"),
    ],
)
def test_what_a_model_to_begin_with_decides_cannot_be_changed(asr, trained, override, message):
    result = asr("train", "--config", "mini_librispeech", "--init-from", trained, override)
    assert result.returncode == 2
    assert message in result.stderr


def test_what_a_run_keeps_cannot_be_changed_where_it_goes_on(asr, tmp_path):
    (tmp_path / "config.yaml").write_text("{model: {loss: {ctc_weight: 0.3}, layers: 2}}")
    for config, change in (("mini_librispeech", "model.loss.ctc_weight=0.125"), ("lm/books", "model.layers=9")):
        result = asr("train", "--config", config, "--resume", f"run={tmp_path}", change)
        assert result.returncode == 2
        assert f"{change}: a run keeps what it began with" in result.stderr


def test_going_on_and_beginning_anew_exclude_each_other(asr, trained):
    result = asr("train", "--config", "mini_librispeech", "--resume", "--init-from", trained)
    assert result.returncode == 2
    assert "choose one of them" in result.stderr


def test_a_progress_bar_takes_nothing_from_standard_output(trained, data):
    """With standard error a terminal and standard output a pipe, text goes to the pipe alone."""
    terminal, theirs = pty.openpty()
    code = "import sys; from asr.cli import main; main()"
    words = ["transcribe", data / "1737-146161-0009.flac", "--model", trained]
    with subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)], stdout=subprocess.PIPE, stderr=theirs, text=True
    ) as process:
        os.close(theirs)
        text = process.communicate()[0]
    os.close(terminal)
    assert process.returncode == 0
    assert text.count("\n") == 1
    assert text.strip()


def test_paths_are_printed_as_they_are(capsys):
    console.print("runs/[live]/a:x:.wav")
    assert capsys.readouterr().err == "runs/[live]/a:x:.wav\n"


def test_a_file_called_none_keeps_its_name(asr, trained):
    assert "error: None.wav: " in asr("transcribe", "None.wav", "--model", trained).stderr


def test_a_result_is_printed_though_its_table_is_refused(asr, trained, data, tmp_path):
    (tmp_path / "t.csv").write_text("other\n")
    done = asr("evaluate", "--manifest", data / "manifest.jsonl", "--model", trained, "--csv", tmp_path / "t.csv")
    assert done.returncode == 2
    assert "WER" in done.stdout
    assert "has other columns" in done.stderr


@pytest.mark.parametrize("words", [("--tune", "--json", "r.json"), ("--tune", "--report", "r")])
def test_what_an_option_would_ignore_is_refused(asr, data, words):
    done = asr("evaluate", "--manifest", data / "manifest.jsonl", *words)
    assert done.returncode == 2
    assert f"{words[1]} does nothing with --tune" in done.stderr


def test_the_package_model_and_a_runs_model_have_names(asr, model, data, tmp_path):
    checkpoint.save(tmp_path / "mine" / "model.safetensors", model, {})
    audio = data / "1737-146161-0009.flac"
    for wanted, name in (("embedded", "english"), (tmp_path / "mine" / "model.safetensors", "mine")):
        done = asr("transcribe", audio, "--format", "json", "--model", wanted, "--decoding", "ctc")
        assert json.loads(done.stdout)["model"] == name
    assert json.loads(asr("info", "embedded").stdout)["about"]["metrics"]


def test_whispers_word_timestamps_true_is_refused_at_once(asr, data):
    assert asr("transcribe", data / "1737-146161-0009.flac", "--word_timestamps", "True").returncode == 2
